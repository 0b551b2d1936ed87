"""What mesh axes may do to a loop nest: the only source of partition strategies.

An axis of the mesh splits one loop dimension of a nest or none. From the index maps it follows how
operands must lie on the mesh, how the result comes out, and what nest is left for one tile.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from math import prod

from tilewright.graph import Op
from tilewright.hwmodel.mesh import PARTIAL_MAX, PARTIAL_SUM, REPLICATED, LogicalMesh, Sharding
from tilewright.rules.loopnest import DimMap, LoopNest, OperandMap, Role

NOT_SPLIT = -1
"""Entry of `split_dims` of an axis that splits no loop dimension."""

PASS_PARTIAL = -2
"""Internal choice of an axis: all operands and the result stay partial sums over it."""

_PARTIAL = {"sum": PARTIAL_SUM, "max": PARTIAL_MAX}
_LINEAR_KINDS = ("reshape", "transpose", "slice")
_LINEAR_MAPS = ("add", "sub", "identity", "neg")


@dataclass(frozen=True, slots=True)
class Strategy:
    """A legal way to run an operator on the mesh; the fields are those of `Implementation`."""

    split_dims: tuple[int, ...]
    operands: tuple[Sharding, ...]
    result: Sharding


def _split_tensor_dim(nest: LoopNest, tensor: OperandMap, dim: int) -> int | None:
    """Return the tensor dimension that a loop split cuts: REPLICATED if none, None if illegal."""
    touched = [i for i, m in enumerate(tensor) if any(t.dim == dim for t in m.terms)]
    if not touched:
        return REPLICATED
    if len(touched) > 1 or nest.major_dim(tensor[touched[0]]) != dim:
        return None
    return touched[0]


def _axis_state(nest: LoopNest, tensor: OperandMap, dim: int, is_result: bool) -> int | None:
    """Return the sharding state that an axis which splits loop `dim` needs; None if illegal."""
    if dim == NOT_SPLIT:
        return REPLICATED
    if nest.dims[dim].role is Role.WHOLE:
        return None
    state = _split_tensor_dim(nest, tensor, dim)
    if not is_result or state != REPLICATED:
        return state
    return _PARTIAL.get(nest.combine) if nest.dims[dim].role is Role.REDUCTION else None


def split_sharding(
    nest: LoopNest, split_dims: tuple[int, ...], operand: int | None
) -> Sharding | None:
    """Return how a tensor lies on the mesh when axis a splits loop dimension `split_dims[a]`.

    Divisibility is not checked here, see `strategies`.

    Args:
        nest: The annotation.
        split_dims: A loop dimension, or NOT_SPLIT, for each mesh axis.
        operand: Number of the operand; None for the result.

    Returns:
        The sharding, or None when a split is impossible: the loop is whole, does not cut the tensor
        into contiguous equal pieces, or is a reduction whose partial results cannot be kept.
    """
    tensor = nest.result if operand is None else nest.operands[operand]
    states = []
    for dim in split_dims:
        state = _axis_state(nest, tensor, dim, operand is None)
        if state is None:
            return None
        states.append(state)
    return tuple(states)


def _split_factors(
    nest: LoopNest, mesh: LogicalMesh, split_dims: tuple[int, ...]
) -> tuple[int, ...]:
    """Return into how many pieces each loop dimension is cut."""
    return tuple(
        prod(size for size, dim in zip(mesh.sizes, split_dims, strict=True) if dim == number)
        for number in range(len(nest.dims))
    )


def localise(nest: LoopNest, mesh: LogicalMesh, split_dims: tuple[int, ...]) -> LoopNest:
    """Return the nest of one tile: loop extents and tensor sizes are divided by the splits.

    Args:
        nest: The nest in the global view.
        mesh: Gives the axis sizes.
        split_dims: A legal split: a loop dimension, or NOT_SPLIT, for each mesh axis.
    """
    factors = _split_factors(nest, mesh, split_dims)

    def cut(dim_map: DimMap) -> DimMap:
        major = nest.major_dim(dim_map)
        factor = 1 if major is None else factors[major]
        if factor == 1:
            return dim_map
        assert dim_map.size % factor == 0, "the split does not divide a tensor dimension"
        return replace(dim_map, size=dim_map.size // factor)

    dims = []
    for loop, factor in zip(nest.dims, factors, strict=True):
        assert loop.extent % factor == 0, f"loop {loop.name} of {loop.extent} is cut into {factor}"
        dims.append(loop if factor == 1 else replace(loop, extent=loop.extent // factor))
    return replace(
        nest,
        dims=tuple(dims),
        operands=tuple(tuple(cut(m) for m in operand) for operand in nest.operands),
        result=tuple(cut(m) for m in nest.result),
    )


def passes_partial_sums(op: Op) -> bool:
    """Whether the operator is linear in all operands together, so that partial sums may pass."""
    return op.kind in _LINEAR_KINDS or (op.kind == "map" and op.text("fn") in _LINEAR_MAPS)


def _splittable(op: Op, nest: LoopNest) -> tuple[int, ...]:
    """Return the loops that some axis may split, were it to divide them.

    An epilogue is not linear, or adds a third operand that must not be added once per tile: fused
    products keep their reductions whole.
    """
    is_fused = "epilogue" in op.attrs
    numbers = []
    for number, loop in enumerate(nest.dims):
        if loop.extent < 2 or (is_fused and loop.role is Role.REDUCTION):
            continue
        tensors = [*range(len(nest.operands)), None]
        if all(split_sharding(nest, (number,), tensor) is not None for tensor in tensors):
            numbers.append(number)
    return tuple(numbers)


def strategies(op: Op, nest: LoopNest, mesh: LogicalMesh) -> tuple[Strategy, ...]:
    """Return every legal way to run an operator on the mesh, the fully replicated one first.

    Loop extents are divisible by the product of the axes that split them; axes of size 1 split
    nothing.
    """
    dims = _splittable(op, nest)
    passing = (PASS_PARTIAL,) if passes_partial_sums(op) else ()
    choices = [
        (NOT_SPLIT, *(d for d in dims if nest.dims[d].extent % size == 0), *passing)
        if size > 1
        else (NOT_SPLIT,)
        for size in mesh.sizes
    ]
    found = []
    for choice in product(*choices):
        split_dims = tuple(max(dim, NOT_SPLIT) for dim in choice)
        factors = _split_factors(nest, mesh, split_dims)
        if any(loop.extent % factor for loop, factor in zip(nest.dims, factors, strict=True)):
            continue
        operands = tuple(_sharding(nest, choice, i) for i in range(len(nest.operands)))
        found.append(Strategy(split_dims, operands, _sharding(nest, choice, None)))
    return tuple(found)


def _sharding(nest: LoopNest, choice: tuple[int, ...], operand: int | None) -> Sharding:
    """Return the sharding of a tensor for choices that are legal one by one."""
    base = split_sharding(nest, tuple(max(dim, NOT_SPLIT) for dim in choice), operand)
    assert base is not None, "splittable loops are legal on their own"
    return tuple(
        PARTIAL_SUM if dim == PASS_PARTIAL else state
        for dim, state in zip(choice, base, strict=True)
    )
