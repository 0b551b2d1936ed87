"""Numbers in which repeats differ become constants, so that the repeats are one block.

The layers of a quantised model differ in the scales by which their products are multiplied, and scales are
numbers in the operators (`mul_const(0.0127)`), not tensors. Blocks are equal up to the values of their
constants (`roll`); so where such numbers alone keep repeats apart, they become constants of one element.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from tilewright.constants import Constants, absent, known
from tilewright.graph import Graph, Op, TensorType, parse_pipeline
from tilewright.rules.roll import Rolled, roll, run_time_ops

_BINARY = MappingProxyType({"mul_const": "mul", "add_const": "add"})
"""What does with a constant what a function does with its number."""

_LEAST_SAVING = 64
"""Fewer operators in blocks are not worth it: rules know more of numbers than of constants."""


def lift_numbers(graph: Graph) -> Graph:
    """Return the graph with the numbers that keep large repeats apart as constants.

    Args:
        graph: A valid graph.

    Returns:
        An equal graph, the same one if little would be saved.
    """
    ops = run_time_ops(graph)
    masked = {op.name: _masked(op) for op in ops if _begins_with_number(graph, op)}
    if not masked:
        return graph
    rolled = roll(_with_ops(graph, masked))
    if _ops_in_blocks(roll(graph)) - _ops_in_blocks(rolled) < _LEAST_SAVING:
        return graph
    return _lifted(graph, tuple(_different(ops, rolled)))


def _begins_with_number(graph: Graph, op: Op) -> bool:
    if op.kind != "map" or len(op.inputs) != 1 or not graph.types[op.inputs[0]].dtype.is_float:
        return False
    return parse_pipeline(op.text("fn"))[0][0] in _BINARY


def _masked(op: Op) -> Op:
    """Return an operator without its number."""
    head, _, rest = op.text("fn").partition(")")
    return replace(op, attrs={**op.attrs, "fn": f"{head.partition('(')[0]}(1.0){rest}"})


def _with_ops(graph: Graph, changed: Mapping[str, Op]) -> Graph:
    return replace(graph, ops=tuple(changed.get(op.name, op) for op in graph.ops))


def _ops_in_blocks(rolled: Rolled) -> int:
    return sum(len(block.graph.ops) for block in rolled.blocks)


def _different(ops: Sequence[Op], rolled: Rolled) -> Iterator[Op]:
    """Yield the operators that differ from those at the same place of other instances of their block."""
    starts: dict[int, list[int]] = {}
    for instance in rolled.instances:
        starts.setdefault(instance.block, []).append(instance.start)
    for instance in rolled.instances:
        for place in range(instance.stop - instance.start):
            attrs = ops[instance.start + place].attrs
            if any(ops[start + place].attrs != attrs for start in starts[instance.block]):
                yield ops[instance.start + place]


def _lifted(graph: Graph, ops: Sequence[Op]) -> Graph:
    """Return the graph in which operators begin with a constant instead of a number."""
    types, values, changed = dict(graph.types), dict(known(graph.constants)), {}
    for op in ops:
        head, _, rest = op.text("fn").partition(")")
        function, _, number = head.partition("(")
        (source,) = op.inputs
        name = f"{op.outputs[0]}.number"
        while name in types:
            name += "_"
        kind = TensorType((1,) * types[source].rank, types[source].dtype)
        types[name] = kind
        values[name] = np.full(kind.shape, float(number), kind.dtype.numpy)
        attrs = {**op.attrs, "fn": _BINARY[function] + rest}
        changed[op.name] = replace(op, inputs=(source, name), attrs=attrs)
    constants = Constants(values, absent(graph.constants))
    return replace(_with_ops(graph, changed), types=MappingProxyType(types), constants=constants)
