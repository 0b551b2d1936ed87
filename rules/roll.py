"""Repeated blocks: each unique part of a graph is saturated once.

The list of operators is cut into consecutive segments so that repeats (transformer layers, stages of
a CNN) become instances of one block. Weights are roles: only their types matter. Operators over
constants alone (dequantised weights) cost nothing at run time; they go wherever their results are
used, into several instances if need be, so that no value known at compile time crosses a cut.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from tilewright.constants import Constants, absent, known
from tilewright.graph import Graph, Op, Port

_NEXT_OCCURRENCES = 8
"""Periods are distances from an operator to one of so many next operators that look the same."""

_LEAST_SAVING = 8
_LEAST_PERIOD = 5
"""Repeats that save fewer operators, or are shorter, are not worth the cuts: rules cannot see across."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A unique part of a graph.

    Tensors and ops are named as in the first instance, whose constants `graph.constants` holds; other
    instances have other constants of the same types. Inputs of `graph` are values from elsewhere.
    """

    name: str
    graph: Graph

    @property
    def outputs(self) -> tuple[str, ...]:
        """Tensors that some instance's surroundings use."""
        return tuple(port.tensor for port in self.graph.outputs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """Run-time operators `start <= i < stop` of the graph, as a use of a block.

    `tensors` maps every tensor of the block, constants included, to the graph's name for it.
    """

    block: int
    start: int
    stop: int
    tensors: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rolled:
    """A graph as a sequence of instances; instance order is operator order."""

    blocks: tuple[Block, ...]
    instances: tuple[Instance, ...]


@dataclass(frozen=True, slots=True)
class _Parts:
    """A graph as run-time operators, and operators over constants alone."""

    graph: Graph
    run_time: tuple[Op, ...]
    folded: Mapping[str, int]
    """Place in the graph of the operator that makes each value known at compile time."""

    def is_constant(self, name: str) -> bool:
        """Whether a tensor is known at compile time."""
        return name in self.graph.constants or name in self.folded

    def needed(self, ops: Iterable[Op]) -> tuple[Op, ...]:
        """Return the operators over constants that others need, in the graph's order."""
        found: set[int] = set()
        todo = [name for op in ops for name in op.inputs if name in self.folded]
        while todo:
            place = self.folded[todo.pop()]
            if place not in found:
                found.add(place)
                todo += [n for n in self.graph.ops[place].inputs if n in self.folded]
        return tuple(self.graph.ops[place] for place in sorted(found))


@dataclass(frozen=True, slots=True)
class _Segment:
    """A run of operators with its shape: equal keys mean equal up to names."""

    start: int
    stop: int
    ops: tuple[Op, ...]
    """What it needs of operators over constants, then its run-time operators."""
    key: tuple[object, ...]
    tensors: tuple[str, ...]
    """External tensors in order of first use, then the results."""


def _parts(graph: Graph) -> _Parts:
    folded: dict[str, int] = {}
    run_time = []
    for place, op in enumerate(graph.ops):
        known = all(name in graph.constants or name in folded for name in op.inputs)
        if known and op.kind != "host":
            folded.update(dict.fromkeys(op.outputs, place))
        else:
            run_time.append(op)
    return _Parts(graph, tuple(run_time), folded)


def _attributes(op: Op) -> tuple[tuple[str, str], ...]:
    return tuple((key, repr(value)) for key, value in sorted(op.attrs.items()))


def _looks(parts: _Parts) -> NDArray[np.int64]:
    """Return a number for each operator: equal for equal kind, attributes, types and constness."""
    numbers: dict[tuple[object, ...], int] = {}
    looks = np.empty(len(parts.run_time), np.int64)
    for i, op in enumerate(parts.run_time):
        look = (
            op.kind,
            _attributes(op),
            tuple((parts.graph.types[name], parts.is_constant(name)) for name in op.inputs),
            tuple(parts.graph.types[name] for name in op.outputs),
        )
        looks[i] = numbers.setdefault(look, len(numbers))
    return looks


def _periods(looks: NDArray[np.int64]) -> list[int]:
    """Return the distances between near operators that look the same."""
    places: defaultdict[int, list[int]] = defaultdict(list)
    for i, look in enumerate(looks.tolist()):
        places[look].append(i)
    periods = set()
    for found in places.values():
        at = np.array(found)
        for step in range(1, min(_NEXT_OCCURRENCES, len(found) - 1) + 1):
            periods.update((at[step:] - at[:-step]).tolist())
    return sorted(periods)


def _runs(looks: NDArray[np.int64]) -> Iterable[tuple[int, int, int]]:
    """Yield maximal runs (start, stop, period) that repeat themselves at least once."""
    for period in _periods(looks):
        same = np.concatenate(([False], looks[period:] == looks[:-period], [False]))
        edges = np.flatnonzero(same[1:] != same[:-1])
        for start, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            if end - start >= period >= _LEAST_PERIOD:
                yield start, end + period, period


def _saving(start: int, stop: int, period: int) -> int:
    """Return how many operators need no saturation of their own."""
    return ((stop - start) // period - 1) * period


def _free_part(start: int, stop: int, taken: NDArray[np.bool_]) -> tuple[int, int]:
    """Return the longest part of a run that no other run has taken."""
    free = np.concatenate(([False], ~taken[start:stop], [False]))
    edges = np.flatnonzero(free[1:] != free[:-1])
    parts = list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
    if not parts:
        return start, start
    low, high = max(parts, key=lambda part: part[1] - part[0])
    return start + low, start + high


def _crossing_bytes(parts: _Parts) -> NDArray[np.int64]:
    """Return the bytes of values that cross each cut; cut i lies before operator i."""
    count = len(parts.run_time)
    last_use = {name: i for i, op in enumerate(parts.run_time) for name in op.inputs}
    change = np.zeros(count + 2, np.int64)
    for i, op in enumerate(parts.run_time):
        for name in op.outputs:
            size = parts.graph.types[name].size_bytes
            change[i + 1] += size
            change[last_use.get(name, i) + 1] -= size
    return np.cumsum(change)[: count + 1]


def _cuts(parts: _Parts) -> list[int]:
    """Return the boundaries of segments, 0 and the number of operators included.

    Runs are taken by how many operators they save; the phase of a run is the one whose cuts are
    crossed by the fewest bytes.
    """
    count = len(parts.run_time)
    cuts = {0, count}
    if count < 2:
        return sorted(cuts)
    crossing = _crossing_bytes(parts)
    taken = np.zeros(count, np.bool_)
    heap = [(-_saving(*run), run[2], run[0], run[1]) for run in _runs(_looks(parts))]
    heapq.heapify(heap)
    while heap:
        _, period, start, stop = heapq.heappop(heap)
        low, high = _free_part(start, stop, taken)
        if high - low < 2 * period or _saving(low, high, period) < _LEAST_SAVING:
            continue
        if (low, high) != (start, stop):
            heapq.heappush(heap, (-_saving(low, high, period), period, low, high))
            continue
        repeats = (high - low) // period
        slack = high - low - repeats * period
        steps = np.arange(repeats + 1) * period
        costs = [int(crossing[low + phase + steps].sum()) for phase in range(slack + 1)]
        first = low + costs.index(min(costs))
        cuts.update((first + steps).tolist())
        taken[first : first + repeats * period] = True
    return sorted(cuts)


def _segment(parts: _Parts, start: int, stop: int) -> _Segment:
    """Return the shape of a run: results are local, other tensors are numbered."""
    own = parts.run_time[start:stop]
    ops = (*parts.needed(own), *own)
    local: dict[str, int] = {}
    external: dict[str, int] = {}
    key: list[object] = []
    for op in ops:
        inputs: list[object] = []
        for name in op.inputs:
            if name in local:
                inputs.append(("local", local[name]))
            else:
                number = external.setdefault(name, len(external))
                inputs.append((number, parts.graph.types[name], name in parts.graph.constants))
        for name in op.outputs:
            local[name] = len(local)
        types = tuple(parts.graph.types[name] for name in op.outputs)
        key.append((op.kind, _attributes(op), tuple(inputs), types))
    return _Segment(start, stop, ops, tuple(key), (*external, *local))


def _exported(parts: _Parts, segment: _Segment, last_use: Mapping[str, int]) -> Iterable[int]:
    """Yield the places in `segment.tensors` of values that are used elsewhere."""
    results = {name for op in segment.ops for name in op.outputs}
    outputs = {port.tensor for port in parts.graph.outputs}
    for place, name in enumerate(segment.tensors):
        is_used_later = last_use.get(name, -1) >= segment.stop and name not in parts.folded
        if name in results and (name in outputs or is_used_later):
            yield place


def _block(graph: Graph, number: int, first: _Segment, exported: set[int]) -> Block:
    """Return the block of a segment; `exported` are places in `tensors` that instances export."""
    results = {name for op in first.ops for name in op.outputs}
    outside = [name for name in first.tensors if name not in results]
    regions = [op.text("region") for op in first.ops if op.kind == "host"]
    values, places = known(graph.constants), absent(graph.constants)

    def port(name: str) -> Port:
        kind = graph.types[name]
        return Port(name=name, tensor=name, shape=kind.shape, dtype=kind.dtype)

    part = Graph(
        name=f"{graph.name}.block{number}",
        inputs=tuple(port(name) for name in outside if name not in graph.constants),
        outputs=tuple(port(first.tensors[i]) for i in sorted(exported)),
        types=MappingProxyType({name: graph.types[name] for name in first.tensors}),
        constants=Constants(
            {name: values[name] for name in outside if name in values},
            {name: places[name] for name in outside if name in places},
        ),
        ops=first.ops,
        host_models=MappingProxyType({region: graph.host_models[region] for region in regions}),
    )
    return Block(name=f"block{number}", graph=part)


def roll(graph: Graph) -> Rolled:
    """Cut a graph into instances of blocks.

    Each run-time operator is in exactly one instance, in order. A block's outputs are what the
    surroundings of any of its instances use.
    """
    return roll_at(graph, _cuts(_parts(graph)))


def run_time_ops(graph: Graph) -> tuple[Op, ...]:
    """Return the operators that instances count: those over something that is not constant."""
    return _parts(graph).run_time


def roll_at(graph: Graph, cuts: Sequence[int]) -> Rolled:
    """Cut a graph at given places into instances of blocks.

    Args:
        graph: The model.
        cuts: Places between run-time operators, ascending, from 0 to their number.
    """
    parts = _parts(graph)
    segments = [_segment(parts, start, stop) for start, stop in pairwise(cuts) if start < stop]
    last_use = {name: i for i, op in enumerate(parts.run_time) for name in op.inputs}
    firsts: dict[tuple[object, ...], int] = {}
    exported: defaultdict[int, set[int]] = defaultdict(set)
    numbers = []
    for index, segment in enumerate(segments):
        number = firsts.setdefault(segment.key, index)
        numbers.append(number)
        exported[number].update(_exported(parts, segment, last_use))
    order = {number: block for block, number in enumerate(firsts.values())}
    blocks = tuple(
        _block(graph, order[number], segments[number], exported[number])
        for number in firsts.values()
    )
    instances = tuple(
        Instance(
            block=order[number],
            start=segment.start,
            stop=segment.stop,
            tensors=MappingProxyType(
                dict(zip(segments[number].tensors, segment.tensors, strict=True))
            ),
        )
        for number, segment in zip(numbers, segments, strict=True)
    )
    return Rolled(blocks=blocks, instances=instances)


def unroll(rolled: Rolled, graph: Graph) -> Graph:
    """Return a graph with the operators of all instances, for checks.

    Operators over constants come before their first use, those without use last.

    Args:
        rolled: The instances.
        graph: Gives everything else: ports, types, constants, host models.
    """
    ops = []
    defined: set[str] = set()
    for instance in rolled.instances:
        for op in rolled.blocks[instance.block].graph.ops:
            outputs = tuple(instance.tensors[name] for name in op.outputs)
            if defined.isdisjoint(outputs):
                defined.update(outputs)
                inputs = tuple(instance.tensors[name] for name in op.inputs)
                name = f"{op.name}.{instance.start}"
                ops.append(replace(op, name=name, inputs=inputs, outputs=outputs))
    ops += [op for op in graph.ops if defined.isdisjoint(op.outputs)]
    return replace(graph, ops=tuple(ops))
