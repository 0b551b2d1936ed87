"""Which values every extraction must compute."""

from __future__ import annotations

from tilewright.rules.alternatives import Alternatives


def needed_classes(alternatives: Alternatives) -> frozenset[int]:
    """Return the classes that every choice computes: the dominators of the outputs and of host regions.

    A class needs itself and what each of its nodes needs in common; bit c of a set stands for class c.
    """
    roots = set(alternatives.outputs)
    for node in alternatives.nodes:
        if node.kind == "host":
            roots.update(node.results or (node.result,))
    needs: dict[int, int] = {}
    while True:
        # A node may come after a consumer of its class: repeat until nothing is left to take away.
        narrowed = _narrowed(alternatives, needs)
        if narrowed == needs:
            break
        needs = narrowed
    every = 0
    for root in roots:
        every |= needs.get(root, 1 << root)
    return frozenset(c.number for c in alternatives.classes if every >> c.number & 1)


def _narrowed(alternatives: Alternatives, before: dict[int, int]) -> dict[int, int]:
    """Return the needs of each class from those of its nodes' arguments, in one pass."""
    needs: dict[int, int] = {}
    for node in alternatives.nodes:
        through = 0
        for argument in node.args:
            through |= before.get(argument, needs.get(argument, 1 << argument))
        for result in node.results or (node.result,):
            own = 1 << result
            needs[result] = (needs[result] & through) | own if result in needs else through | own
    return needs
