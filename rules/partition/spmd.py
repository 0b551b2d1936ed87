"""An SPMD interpreter: what every tile of a mesh holds and computes, in plain numpy.

It is the independent meaning of shardings and of partition rules: global values are distributed,
each tile runs its share of the loop nest element by element, and the pieces are assembled again. Nothing
here is shared with cost model, extraction or lowering.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

import numpy as np

from tilewright.dtypes import DType
from tilewright.graph import Op, TensorType, third_operands
from tilewright.hwmodel.mesh import (
    PARTIAL_MAX,
    PARTIAL_SUM,
    LogicalMesh,
    Sharding,
    local_shape,
    offset_coefficients,
)
from tilewright.reference import AnyArray as Array
from tilewright.reference import evaluate_op
from tilewright.rules.evaluation import evaluate_product
from tilewright.rules.loopnest import LoopNest, OperandMap, Role

Coordinates = tuple[int, ...]
Pieces = Mapping[Coordinates, Array]
"""What each tile holds of one tensor."""

_SEPARATE = ("softmax", "layernorm", "rmsnorm", "attention", "chain", "gather")
"""Kinds whose nest says what an iteration touches, not what it computes."""

_COMBINE = {"sum": np.add, "max": np.maximum, "prod": np.multiply, "min": np.minimum}
_NEUTRAL = {"sum": 0.0, "max": -np.inf, "min": np.inf, "prod": 1.0}


class CopiesDifferError(Exception):
    """Tiles that should hold the same value hold different ones."""


def tiles_of(mesh: LogicalMesh) -> list[Coordinates]:
    """Return the coordinates of all tiles in order."""
    return list(product(*map(range, mesh.sizes)))


def piece(mesh: LogicalMesh, sharding: Sharding, array: Array, tile: Coordinates) -> Array:
    """Return what a tile holds of an array that is not partial; a view."""
    sizes = local_shape(mesh, sharding, array.shape)
    rows = offset_coefficients(mesh, sharding, array.shape)
    starts = [sum(c * k for c, k in zip(tile, row, strict=True)) for row in rows]
    return array[tuple(slice(s, s + n) for s, n in zip(starts, sizes, strict=True))]


def distribute(
    mesh: LogicalMesh, sharding: Sharding, array: Array, seed: int
) -> dict[Coordinates, Array]:
    """Return each tile's piece; partial sums are random small addends that add up to the array."""
    random = np.random.default_rng(seed)
    axes = [a for a, state in enumerate(sharding) if state == PARTIAL_SUM]
    tiles = tiles_of(mesh)
    keys = sorted({tuple(c[a] for a in axes) for c in tiles})
    parts: dict[Coordinates, Array] = {}
    rest = array.copy()
    for key in keys[:-1]:
        parts[key] = random.integers(-3, 4, array.shape).astype(array.dtype)
        rest = rest - parts[key]
    parts[keys[-1]] = rest
    return {c: piece(mesh, sharding, parts[tuple(c[a] for a in axes)], c) for c in tiles}


def assemble(
    mesh: LogicalMesh, sharding: Sharding, pieces: Pieces, shape: tuple[int, ...]
) -> Array:
    """Return the global value that pieces stand for.

    Raises:
        CopiesDifferError: Replicated copies are not equal.
    """
    is_max = PARTIAL_MAX in sharding
    total = np.full(shape, -np.inf if is_max else 0.0)
    seen: dict[Coordinates, Array] = {}
    for tile in sorted(pieces):
        key = tuple(c for c, state in zip(tile, sharding, strict=True) if state != -1)
        if key in seen:
            if not np.array_equal(seen[key], pieces[tile], equal_nan=True):
                raise CopiesDifferError(f"tile {tile} holds another value than an earlier copy")
            continue
        seen[key] = pieces[tile]
        view = piece(mesh, sharding, total, tile)
        view[...] = np.maximum(view, pieces[tile]) if is_max else view + pieces[tile]
    return total


def reference_value(op: Op, arrays: list[Array], result: TensorType) -> Array:
    """Evaluate an operator, fused or not, with the reference semantics."""
    if "epilogue" in op.attrs:
        return evaluate_product(op, arrays, result.dtype)
    return evaluate_op(op, arrays, {op.outputs[0]: result})[0]


def is_interpretable(op: Op, nest: LoopNest) -> bool:
    """Whether the nest says everything about the operator's values."""
    return op.kind not in _SEPARATE and all(d.role is not Role.WHOLE for d in nest.dims)


def run_tile(op: Op, nest: LoopNest, arrays: list[Array]) -> Array:
    """Run an operator's nest on one tile's data."""
    if is_interpretable(op, nest):
        return interpret(nest, op, arrays)
    shape = tuple(d.size for d in nest.result)
    attrs = dict(op.attrs) | ({"shape": shape} if "shape" in op.attrs else {})
    local = Op(name="", kind=op.kind, inputs=(), outputs=("y",), attrs=attrs)
    return reference_value(local, arrays, TensorType(shape, DType.F64))


def interpret(nest: LoopNest, op: Op, arrays: list[Array]) -> Array:
    """Run a nest element by element; only for kinds that a nest describes completely."""
    loops = np.indices([d.extent for d in nest.dims]).reshape(len(nest.dims), -1)
    neutral = _NEUTRAL[nest.combine]
    third: tuple[Array, ...] = ()
    operands = list(zip(nest.operands, arrays, strict=True))
    if op.kind in ("matmul", "conv"):  # the scale of quantised weights is one more factor
        third = third_operands(op.attrs, arrays)
        del operands[2 : 2 + len(third)]
    values = []
    for operand, array in operands:
        index, inside = _places(operand, loops)
        known = array[tuple(index)] if array.size else np.zeros(loops.shape[1])
        values.append(np.where(inside, known, op.attrs.get("value", neutral)))
    if op.kind == "map":
        elements = _mapped(op.text("fn"), values)
    elif op.kind == "concat":
        elements = np.sum(values, axis=0)
    else:
        elements = np.prod(values, axis=0)
    result = np.full([d.size for d in nest.result], neutral)
    index, _ = _places(nest.result, loops)
    _COMBINE[nest.combine].at(result, tuple(index), elements)
    if "epilogue" in op.attrs:
        return _mapped(op.text("epilogue"), [result, *third])
    return result


def _places(operand: OperandMap, loops: Array) -> tuple[list[Array], Array]:
    """Return the index of each iteration in a tensor, and whether it lies inside."""
    index, inside = [], np.ones(loops.shape[1], bool)
    for dim in operand:
        at = np.full(loops.shape[1], dim.offset)
        for term in dim.terms:
            at = at + term.stride * loops[term.dim]
        inside &= (at >= 0) & (at < dim.size)
        index.append(np.clip(at, 0, dim.size - 1))
    return index, inside


def _mapped(fn: str, values: list[Array]) -> Array:
    op = Op(name="", kind="map", inputs=(), outputs=("y",), attrs={"fn": fn})
    return evaluate_op(op, values, {"y": TensorType(values[0].shape, DType.F64)})[0]
