"""Which values of a rolled model are read by what: one link for all uses between the same classes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tilewright.extract.origins import Origin, Variable, leaf_names
from tilewright.graph import Graph
from tilewright.rules.alternatives import Alternatives
from tilewright.rules.roll import Rolled


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """Uses of a value: instances feed class `argument` of `consumer`'s options from `producer`."""

    producer: Variable | None
    """None: the value is a model input, in DRAM."""
    consumer: Variable
    argument: int
    repeated: bool
    """Whether one of the ends is in a block that occurs more than once, and the link joins two instances."""
    ends: tuple[tuple[int, int], ...]
    """The instances at the ends of each use, the producer's first; -1 stands for the model's inputs."""

    @property
    def count(self) -> int:
        """How often the value is used in this way."""
        return len(self.ends)


def find_links(
    rolled: Rolled, alternatives: tuple[Alternatives, ...], origins: Mapping[str, Origin]
) -> Iterable[Link]:
    """Yield the links of a model; the origins say where its tensors come from."""
    ends: dict[tuple[Variable | None, Variable, int], list[tuple[int, int]]] = {}
    crossing = set()
    uses = [_uses(found) for found in alternatives]
    leaves = [leaf_names(*pair) for pair in zip(rolled.blocks, alternatives, strict=True)]
    many = [sum(i.block == b for i in rolled.instances) > 1 for b in range(len(rolled.blocks))]
    for number, instance in enumerate(rolled.instances):
        found = alternatives[instance.block]
        for consumer, argument in uses[instance.block]:
            tensor = found.classes[argument]
            source: Variable | None
            maker, source = number, (instance.block, argument)
            if tensor.is_input:
                name = leaves[instance.block][argument]
                maker, source = origins[instance.tensors[name]].made or (-1, None)
            key = (source, (instance.block, consumer), argument)
            ends.setdefault(key, []).append((maker, number))
            is_many = source is not None and (many[source[0]] or many[instance.block])
            if is_many and maker != number:
                crossing.add(key)
    for key, joined in ends.items():
        source, consumer_variable, argument = key
        yield Link(
            producer=source,
            consumer=consumer_variable,
            argument=argument,
            repeated=key in crossing,
            ends=tuple(joined),
        )


def _uses(alternatives: Alternatives) -> list[tuple[int, int]]:
    """Return the (consumer class, non-constant argument class) pairs of a block."""
    pairs: dict[tuple[int, int], None] = {}
    for node in alternatives.nodes:
        if alternatives.classes[node.result].is_constant:
            continue
        for argument in node.args:
            if not alternatives.classes[argument].is_constant:
                pairs.setdefault((node.result, argument))
    return list(pairs)


def output_uses(graph: Graph, origins: Mapping[str, Origin]) -> dict[Variable, int]:
    """Return how many instances of each variable are model outputs."""
    counts: dict[Variable, int] = {}
    for name in dict.fromkeys(origins[port.tensor].tensor for port in graph.outputs):
        made = origins[name].made
        if made is not None:
            counts[made[1]] = counts.get(made[1], 0) + 1
    return counts
