"""Repeats of a block that take different choices: some a fast one, and the others one that fits beside it.

A choice is for all instances of a block. Where a fast way to lay out its weights does not fit the scratchpads
for all layers of a model, it may fit for some of them. Two choices, one after the other along the model, come
near what a mixture of them costs that the relaxation is free to take: it has one row for what all instances
keep, so that an optimum of it splits few blocks among more than one choice.

Sources:
    Dantzig, "Discrete-variable extremum problems", Operations Research 5 (1957) (the greedy order).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations

Choice = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """What a choice costs and keeps in each instance, and what its fullest row takes, residents apart.

    `units` and `resident_bytes` are by number of the instance.
    """

    choice: Choice
    units: tuple[float, ...]
    resident_bytes: tuple[int, ...]
    row_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixture:
    """A choice, the instances that take another one, and an estimate of what all cost together.

    The estimate leaves out what values are moved for that pass from one choice to the other.
    """

    choice: Choice
    others: Mapping[int, Choice]
    units: float


def mixtures(
    uses: Sequence[Use], blocks: Sequence[int], capacity_bytes: int
) -> tuple[Mixture, ...]:
    """Return mixtures of two choices that fit, the cheapest first.

    Args:
        uses: Of each choice.
        blocks: The block of each instance.
        capacity_bytes: The scratchpad of a tile.
    """
    found = [
        mixture
        for lean, fast in permutations(uses, 2)
        if (mixture := _mixed(lean, fast, blocks, capacity_bytes)) is not None
    ]
    return tuple(sorted(found, key=lambda mixture: mixture.units))


def _mixed(lean: Use, fast: Use, blocks: Sequence[int], capacity_bytes: int) -> Mixture | None:
    """Let as many instances as there is room for take the faster choice, the best use of room first."""
    row_bytes = max(lean.row_bytes, fast.row_bytes)
    room = capacity_bytes - row_bytes - sum(lean.resident_bytes)
    if room < 0:
        return None
    saved = [slow - quick for slow, quick in zip(lean.units, fast.units, strict=True)]
    needed = [
        more - less for less, more in zip(lean.resident_bytes, fast.resident_bytes, strict=True)
    ]
    members: dict[int, list[int]] = {}
    for instance, block in enumerate(blocks):
        members.setdefault(block, []).append(instance)

    def rate(block: int) -> float:
        gain = sum(saved[i] for i in members[block])
        size = sum(needed[i] for i in members[block])
        return gain / size if size > 0 else float("inf")

    taken: list[int] = []
    for block in sorted(members, key=lambda block: (-rate(block), block)):
        for instance in members[block]:
            if saved[instance] > 0 and needed[instance] <= room:
                room -= needed[instance]
                taken.append(instance)
    if not taken or len(taken) == len(blocks):
        return None
    units = sum(lean.units) - sum(saved[instance] for instance in taken)
    return Mixture(
        choice=lean.choice,
        others={instance: fast.choice for instance in sorted(taken)},
        units=units,
    )
