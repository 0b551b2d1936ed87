"""Numbers in which repeats differ become constants, so that the repeats are one block.

The layers of a quantised model differ in the scales by which their products are multiplied, and scales are
numbers in the operators (`mul_const(0.0127)`), not tensors. Blocks are equal up to the values of their
constants (`roll`); so where such numbers alone keep repeats apart, they become constants of one element.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from tilewright.constants import Constants, absent, known
from tilewright.graph import Graph, Op, TensorType, unused_name
from tilewright.rules.roll import Rolled, roll, run_time_ops

_BINARY = MappingProxyType({"mul_const": "mul", "add_const": "add"})
"""What does with a constant what a function does with its number."""

_LEAST_SAVING = 64
"""Fewer operators in blocks are not worth it: rules know more of numbers than of constants."""


def lift_numbers(graph: Graph, rolled: Rolled) -> Graph:
    """Return the graph with the numbers that keep large repeats apart as constants.

    Args:
        graph: A valid graph.
        rolled: Its blocks.

    Returns:
        An equal graph, the same one if little would be saved.
    """
    ops = run_time_ops(graph)
    masked = {
        op.name: _with_fn(op, f"{parts.function}(1.0){parts.rest}")
        for op in ops
        if (parts := _first_number(graph, op)) is not None
    }
    if not masked:
        return graph
    alike = roll(_with_ops(graph, masked))
    if _ops_in_blocks(rolled) - _ops_in_blocks(alike) < _LEAST_SAVING:
        return graph
    return _lifted(graph, tuple(_different(ops, alike)))


@dataclass(frozen=True, slots=True)
class _Parts:
    """A function of a pipeline's first step, its number, and what follows."""

    function: str
    number: float
    rest: str


def _first_number(graph: Graph, op: Op) -> _Parts | None:
    """Return the parts of a map that begins with a number which may be a constant of floats."""
    if op.kind != "map" or len(op.inputs) != 1 or not graph.types[op.inputs[0]].dtype.is_float:
        return None
    head, _, rest = op.text("fn").partition(")")
    function, _, number = head.partition("(")
    return _Parts(function, float(number), rest) if function in _BINARY else None


def _with_fn(op: Op, fn: str) -> Op:
    return replace(op, attrs={**op.attrs, "fn": fn})


def _with_ops(graph: Graph, changed: Mapping[str, Op]) -> Graph:
    return replace(graph, ops=tuple(changed.get(op.name, op) for op in graph.ops))


def _ops_in_blocks(rolled: Rolled) -> int:
    return sum(len(block.graph.ops) for block in rolled.blocks)


def _different(ops: Sequence[Op], rolled: Rolled) -> Iterator[Op]:
    """Yield the operators that differ from those at the same place of other instances of their block."""
    alike: dict[tuple[int, int], list[Op]] = {}
    for instance in rolled.instances:
        for place, op in enumerate(ops[instance.start : instance.stop]):
            alike.setdefault((instance.block, place), []).append(op)
    for group in alike.values():
        if any(op.attrs != group[0].attrs for op in group):
            yield from group


def _lifted(graph: Graph, ops: Sequence[Op]) -> Graph:
    """Return the graph in which operators begin with a constant instead of a number."""
    types, values, changed = dict(graph.types), dict(known(graph.constants)), {}
    for op in ops:
        parts = _first_number(graph, op)
        assert parts is not None, "operators of a block differ in their first numbers only"
        (source,) = op.inputs
        name = unused_name(f"{op.outputs[0]}.number", types)
        kind = TensorType((1,) * types[source].rank, types[source].dtype)
        types[name] = kind
        values[name] = np.full(kind.shape, parts.number, kind.dtype.numpy)
        changed[op.name] = replace(
            _with_fn(op, _BINARY[parts.function] + parts.rest), inputs=(source, name)
        )
    constants = Constants(values, absent(graph.constants))
    return replace(_with_ops(graph, changed), types=MappingProxyType(types), constants=constants)
