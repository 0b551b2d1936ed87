"""Values for readers far behind: kept, or computed again.

Where products run between the readers of a value, it takes room in the scratchpad meanwhile, or a way to
DRAM and back. If a rule lets the operator that makes it run again, readers behind get a class of their own
for it. Its nodes are one that keeps the value, and runs nothing, and the operator once more. So extraction
prices both, and readers behind may also have it in another layout than readers in front.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

from tilewright.graph import Op
from tilewright.rules.alternatives import (
    KEEP,
    Alternatives,
    Implementation,
    LogicalNode,
    RuleStats,
    TensorClass,
)
from tilewright.rules.pipeline.legality import Legality
from tilewright.rules.running_order import computed_classes

_PRODUCTS = ("matmul", "conv")

_MOST_GROUPS = 3
"""Of readers of one value; those of the widest gaps."""

_LONGEST_CHAIN = 2
"""Of operators that run again for one value."""

_FEWER_BYTES = 0.5
"""Of a value: what computing it again may keep in its place, of values that nobody else reads by then."""


def with_values_again(
    alternatives: Alternatives, legality: Legality, least_bytes: float
) -> Alternatives:
    """Return a block in which readers far behind may have values computed again.

    Args:
        alternatives: What rules found.
        legality: Which operators may run again.
        least_bytes: Smaller values are always kept.
    """
    block = _Block(alternatives, legality)
    found = block.values_again(least_bytes)
    return _rewritten(alternatives, found) if found else alternatives


def keeping_all(alternatives: Alternatives) -> Alternatives:
    """Return a block in which nothing is computed again: what `with_values_again` was given."""
    values = [c.number if c.again_of is None else c.again_of for c in alternatives.classes]
    if values == [*range(len(values))]:
        return alternatives
    own = [node for node in alternatives.nodes if node.kind != KEEP and not node.again]
    number_of = {node.number: place for place, node in enumerate(own)}
    return replace(
        alternatives,
        classes=tuple(c for c in alternatives.classes if c.again_of is None),
        nodes=tuple(
            replace(node, number=place, args=tuple(values[argument] for argument in node.args))
            for place, node in enumerate(own)
        ),
        implementations=tuple(
            replace(way, node=number_of[way.node])
            for way in alternatives.implementations
            if way.node in number_of
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Again:
    """A value for readers behind a gap, with its makers that may run again and their rules.

    `position` is where the first of these readers runs. A value that only such makers read, further along
    the chain, has no readers of its own.
    """

    value: int
    readers: tuple[int, ...]
    position: int
    makers: tuple[tuple[LogicalNode, str], ...]


class _Block:
    """Who makes and reads what, and when."""

    def __init__(self, alternatives: Alternatives, legality: Legality) -> None:
        self._classes, self._legality = alternatives.classes, legality
        self._position = {c: n for n, c in enumerate(computed_classes(alternatives))}
        self._makers: dict[int, list[LogicalNode]] = {}
        self._readers: dict[int, set[int]] = {}
        self._last_read: dict[int, int] = {}
        """Where the last operator of the model runs that reads a class."""
        for node in alternatives.nodes:
            for result in node.results or (node.result,):
                self._makers.setdefault(result, []).append(node)
                if result in self._position:
                    for argument in node.args:
                        self._readers.setdefault(argument, set()).add(result)
                        if node.op_name:
                            last = self._last_read.get(argument, -1)
                            self._last_read[argument] = max(last, self._position[result])
        self._held: dict[tuple[int, int, int], int] = {}
        self._products = sorted(
            self._position[node.result]
            for node in alternatives.nodes
            if node.kind in _PRODUCTS and node.op_name and node.result in self._position
        )

    def values_again(self, least_bytes: float) -> tuple[_Again, ...]:
        """Return what is offered, each value at each position once."""
        found: dict[tuple[int, int], _Again] = {}
        for value in self._position:
            if self._classes[value].type.size_bytes >= least_bytes:
                for group in self._groups(value):
                    found[value, group.position] = group
        for group in tuple(found.values()):
            for one in self._chain(group.makers, group.position, _LONGEST_CHAIN):
                found.setdefault((one.value, one.position), one)
        return tuple(found[key] for key in sorted(found))

    def _groups(self, value: int) -> Iterator[_Again]:
        """Yield the groups of a value's readers behind gaps, for which it may be computed again."""
        readers = sorted(self._readers.get(value, ()), key=self._position.__getitem__)
        gaps = [
            (self._position[before] - self._position[after], place)
            for place, (before, after) in enumerate(pairwise(readers), start=1)
            if self._runs_product(before, after)
        ]
        starts = sorted(place for _, place in sorted(gaps)[: _MOST_GROUPS - 1])
        most_bytes = _FEWER_BYTES * self._classes[value].type.size_bytes
        for first, last in pairwise((*starts, len(readers))):
            group = tuple(readers[first:last])
            position = self._position[group[0]]
            makers = tuple(
                (node, rule)
                for node, rule in self._makers_again(value, position)
                if self._read_bytes(node, position, _LONGEST_CHAIN) <= most_bytes
            )
            if makers and not all(self._does_without(reader, value, makers) for reader in group):
                yield _Again(value=value, readers=group, position=position, makers=makers)

    def _chain(
        self, makers: tuple[tuple[LogicalNode, str], ...], position: int, length: int
    ) -> Iterator[_Again]:
        """Yield what makers read that takes less room if it is computed again, too."""
        for argument in dict.fromkeys(a for node, _ in makers for a in node.args):
            size_bytes = self._classes[argument].type.size_bytes
            if length == 0 or self._is_there(argument, position):
                continue
            if self._held_bytes(argument, position, length - 1) < size_bytes:
                further = tuple(
                    (node, rule)
                    for node, rule in self._makers_again(argument, position)
                    if self._read_bytes(node, position, length - 1) < size_bytes
                )
                yield _Again(value=argument, readers=(), position=position, makers=further)
                yield from self._chain(further, position, length - 1)

    def _runs_product(self, before: int, after: int) -> bool:
        """Whether a product of the model runs between two classes."""
        low, high = self._position[before], self._position[after]
        return any(low < position < high for position in self._products)

    def _makers_again(self, value: int, position: int) -> Iterator[tuple[LogicalNode, str]]:
        """Yield the nodes that may make a value again at a position, with the rules that say so."""
        for node in self._makers.get(value, ()):
            is_there = all(self._is_there(argument, position) for argument in node.args)
            if len(node.results) > 1 or (node.kind == "reshape" and is_there):
                continue  # a view of what is there takes no room anyway
            rule = self._rule(node)
            if rule:
                yield node, rule

    def _read_bytes(self, node: LogicalNode, position: int, length: int) -> int:
        """Return what has to be held until a position so that a node may run there."""
        return sum(self._held_bytes(argument, position, length - 1) for argument in {*node.args})

    def _held_bytes(self, value: int, position: int, length: int) -> int:
        """Return what has to be held for a value: it, or less if a chain of operators makes it again."""
        if self._is_there(value, position):
            return 0
        key = (value, position, length)
        if key not in self._held:
            ways = self._makers_again(value, position) if length > 0 else ()
            self._held[key] = min(
                (self._read_bytes(node, position, length) for node, _ in ways),
                default=self._classes[value].type.size_bytes,
            )
            self._held[key] = min(self._held[key], self._classes[value].type.size_bytes)
        return self._held[key]

    def _is_there(self, argument: int, position: int) -> bool:
        """Whether an operand is constant, or the model reads it at or behind a position anyway."""
        return self._classes[argument].is_constant or self._last_read.get(argument, -1) >= position

    def _rule(self, node: LogicalNode) -> str:
        """Return the rule that lets a node run again, "" if none does."""
        names = tuple(str(argument) for argument in node.args)
        types = {str(c): self._classes[c].type for c in (*node.args, node.result)}
        result = str(node.result)
        op = Op(name=result, kind=node.kind, inputs=names, outputs=(result,), attrs=node.attrs)
        return self._legality.rule_of_again(op, types)

    def _does_without(
        self, reader: int, value: int, makers: tuple[tuple[LogicalNode, str], ...]
    ) -> bool:
        """Whether a map that fuses a maker of a value makes what the reader makes of it."""
        sources = [set(maker.args) for maker, _ in makers]
        return any(
            node.kind == "map" and value not in node.args and source <= set(node.args)
            for node in self._makers[reader]
            for source in sources
        )


def _rewritten(alternatives: Alternatives, found: tuple[_Again, ...]) -> Alternatives:
    """Return a block with a class for each group of readers; they read it in place of the value."""
    known = alternatives.classes
    numbered = [(len(known) + place, group) for place, group in enumerate(found)]
    groups: dict[int, list[tuple[int, _Again]]] = {}
    for number, group in numbered:
        groups.setdefault(group.value, []).append((number, group))
    reads = {(r, group.value): number for number, group in numbered for r in group.readers}
    last = {node.result: place for place, node in enumerate(alternatives.nodes)}
    nodes: list[tuple[LogicalNode, int]] = []
    """With the number of the node whose implementations they have, -1 for none."""
    for place, node in enumerate(alternatives.nodes):
        args = tuple(reads.get((node.result, argument), argument) for argument in node.args)
        nodes.append((replace(node, args=args), node.number))
        if last[node.result] == place:
            for number, group in groups.get(node.result, ()):
                nodes += _nodes_of(number, group, groups)
    ways: dict[int, list[Implementation]] = {}
    for way in alternatives.implementations:
        ways.setdefault(way.node, []).append(way)
    return replace(
        alternatives,
        classes=(*known, *(_class_of(number, known[group.value]) for number, group in numbered)),
        nodes=tuple(replace(node, number=number) for number, (node, _) in enumerate(nodes)),
        implementations=tuple(
            replace(way, node=number)
            for number, (_, source) in enumerate(nodes)
            for way in ways.get(source, ())
        ),
        rule_stats=(*alternatives.rule_stats, *_stats(found)),
    )


def _class_of(number: int, value: TensorClass) -> TensorClass:
    return TensorClass(
        number=number,
        type=value.type,
        names=(),
        is_input=False,
        is_constant=False,
        again_of=value.number,
    )


def _nodes_of(
    number: int, group: _Again, groups: Mapping[int, list[tuple[int, _Again]]]
) -> Iterator[tuple[LogicalNode, int]]:
    """Yield the nodes of a group's class, with the number of the node whose implementations they have.

    What they read may be computed again itself, for readers there or before.
    """
    keep = LogicalNode(
        number=-1, kind=KEEP, args=(group.value,), result=number, results=(number,), nest=None
    )
    yield keep, -1
    for maker, rule in group.makers:
        args = []
        for argument in maker.args:
            behind = [n for n, g in groups.get(argument, ()) if g.position <= group.position]
            args.append(behind[-1] if behind else argument)
        again = replace(maker, args=tuple(args), result=number, results=(number,), again=rule)
        yield replace(again, op_name=""), maker.number


def _stats(found: tuple[_Again, ...]) -> Iterator[RuleStats]:
    rules = [rule for group in found for _, rule in group.makers]
    for rule in sorted(set(rules)):
        count = rules.count(rule)
        yield RuleStats(rule=rule, ruleset="pipeline", matches=count, e_nodes=count, seconds=0.0)
