"""What mesh axes may do to a loop nest: the only source of partition strategies.

An axis of the mesh splits one loop dimension of a nest or none. From the index maps it follows how
operands must lie on the mesh, how the result comes out, and what nest is left for one tile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product

from tilewright.graph import Op
from tilewright.hwmodel.mesh import (
    PARTIAL_MAX,
    PARTIAL_SUM,
    REPLICATED,
    LogicalMesh,
    Sharding,
    is_legal,
)
from tilewright.rules.gathered import is_sound_gather
from tilewright.rules.halo import are_halos_alone, halo_dims, with_halo
from tilewright.rules.loopnest import DimMap, LoopDim, LoopNest, OperandMap, Role
from tilewright.rules.partition.family import partition_rules
from tilewright.rules.partition.ruleset import (
    NOT_SPLIT,
    AxisUse,
    Form,
    PartitionRule,
)
from tilewright.rules.scattered import is_sound_scatter
from tilewright.rules.vocabulary import VOCABULARY, with_table_rows

_PARTIAL = {"sum": PARTIAL_SUM, "max": PARTIAL_MAX}


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategy:
    """A legal way to run an operator on the mesh; the fields are those of `Implementation`."""

    split_dims: tuple[int, ...]
    operands: tuple[Sharding, ...]
    result: Sharding
    rules: tuple[str, ...]
    macros: tuple[str, ...]


def _axis_state(nest: LoopNest, tensor: OperandMap, dim: int, is_result: bool) -> int | None:
    """Return the sharding state that an axis which splits loop `dim` needs; None if illegal."""
    if dim == NOT_SPLIT:
        return REPLICATED
    if nest.dims[dim].role is Role.WHOLE:
        return None
    state = nest.cut_dim(tensor, dim)
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
    pieces = [1] * len(nest.dims)
    for size, dim in zip(mesh.sizes, split_dims, strict=True):
        if dim != NOT_SPLIT:
            pieces[dim] *= size
    return tuple(pieces)


def localise(
    nest: LoopNest, mesh: LogicalMesh, split_dims: tuple[int, ...], macros: tuple[str, ...] = ()
) -> LoopNest:
    """Return the nest of one tile: loop extents and tensor sizes are divided by the splits.

    Args:
        nest: The nest in the global view.
        mesh: Gives the axis sizes.
        split_dims: A legal split: a loop dimension, or NOT_SPLIT, for each mesh axis.
        macros: The macro of each axis; operands are then those that the tile has after it.
    """
    return _localised(nest, mesh, split_dims, macros)


@lru_cache(maxsize=1 << 14)  # tilings and prices are of the same nests
def _localised(
    nest: LoopNest, mesh: LogicalMesh, split_dims: tuple[int, ...], macros: tuple[str, ...]
) -> LoopNest:
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
    local = replace(
        nest,
        dims=tuple(dims),
        operands=tuple(tuple(cut(m) for m in operand) for operand in nest.operands),
        result=tuple(cut(m) for m in nest.result),
    )
    if VOCABULARY in macros:
        local = with_table_rows(local, mesh, macros)
    halo = halo_dims(nest, mesh, split_dims, macros)
    return with_halo(local, halo) if halo else local


def _splittable(op: Op, nest: LoopNest) -> tuple[int, ...]:
    """Return the loops that some axis could split, were it to divide them and a rule to allow it.

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


def _axis_states(nest: LoopNest, loop: int) -> tuple[tuple[int, ...], int]:
    """Return the states of operands and result on an axis that splits a splittable loop, or none."""
    states: list[int] = []
    for tensor in (*range(len(nest.operands)), None):
        sharding = split_sharding(nest, (loop,), tensor)
        assert sharding is not None, "splittable loops are legal on their own"
        states += sharding
    return tuple(states[:-1]), states[-1]


def axis_uses(
    op: Op,
    nest: LoopNest,
    size: int,
    rules: Sequence[PartitionRule],
    claimants: Sequence[PartitionRule],
) -> tuple[AxisUse, ...]:
    """Return what an axis of `size` tiles may do to an operator; nothing comes first.

    Args:
        op: The operator; only kind and attributes matter.
        nest: Its annotation.
        size: Tiles along the axis.
        rules: The rules that run.
        claimants: Rules to which a loop belongs even if they do not run.
    """
    operands, result = _axis_states(nest, NOT_SPLIT)
    found = [AxisUse(rule="", split_dim=NOT_SPLIT, operands=operands, result=result)]
    if size == 1:
        return tuple(found)
    for loop in _splittable(op, nest):
        claim = _claim(op, nest.dims[loop], rules, claimants)
        if claim is not None and nest.dims[loop].extent % size == 0:
            operands, result = _axis_states(nest, loop)
            found.append(AxisUse(rule=claim, split_dim=loop, operands=operands, result=result))
    for rule in rules:
        if rule.form is Form.PASSES and rule.function(op):
            partials = (PARTIAL_SUM,) * len(nest.operands)
            found.append(
                AxisUse(rule=rule.name, split_dim=NOT_SPLIT, operands=partials, result=PARTIAL_SUM)
            )
        elif rule.form is Form.MACRO:
            found += rule.function(op, nest, size)
    return tuple(found)


def _claim(
    op: Op, loop: LoopDim, rules: Sequence[PartitionRule], claimants: Sequence[PartitionRule]
) -> str | None:
    """Return the name of the first rule that claims a loop, if it runs."""
    for rule in (*claimants, *rules):
        if rule.form is Form.SPLITS and rule.function(op, loop):
            return rule.name if rule in rules else None
    return None


def strategies(
    op: Op,
    nest: LoopNest,
    mesh: LogicalMesh,
    rules: Sequence[PartitionRule] | None = None,
    claimants: Sequence[PartitionRule] | None = None,
) -> tuple[Strategy, ...]:
    """Return every legal way to run an operator on the mesh, the fully replicated one first.

    Loop extents are divisible by the product of the axes that split them; axes of size 1 split
    nothing.

    Args:
        op: The operator; only kind and attributes matter.
        nest: Its annotation.
        mesh: The mesh.
        rules: The partition rules that run; all of the package by default.
        claimants: Rules to which a loop belongs even if they do not run; those of the package by
            default.
    """
    return combined(nest, mesh, uses_of_axes(op, nest, mesh, rules, claimants))


def uses_of_axes(
    op: Op,
    nest: LoopNest,
    mesh: LogicalMesh,
    rules: Sequence[PartitionRule] | None = None,
    claimants: Sequence[PartitionRule] | None = None,
) -> tuple[tuple[AxisUse, ...], ...]:
    """Return what each axis of the mesh may do to an operator; the arguments are those of `strategies`."""
    allowed = partition_rules() if rules is None else rules
    first = partition_rules() if claimants is None else claimants
    by_size = {
        size: axis_uses(op, nest, size, allowed, first) for size in dict.fromkeys(mesh.sizes)
    }
    return tuple(by_size[size] for size in mesh.sizes)


def combined(
    nest: LoopNest, mesh: LogicalMesh, uses_of: tuple[tuple[AxisUse, ...], ...]
) -> tuple[Strategy, ...]:
    """Return the strategies that are made of one use of each axis, see `strategies`."""
    found = []
    for uses in product(*uses_of):
        strategy = Strategy(
            split_dims=tuple(use.split_dim for use in uses),
            operands=tuple(
                tuple(use.operands[i] for use in uses) for i in range(len(nest.operands))
            ),
            result=tuple(use.result for use in uses),
            rules=tuple(use.rule for use in uses),
            macros=tuple(use.macro for use in uses),
        )
        if (
            _divides(nest, mesh, strategy)
            and is_sound_gather(nest, mesh, strategy.split_dims, strategy.operands, strategy.macros)
            and is_sound_scatter(nest, mesh, strategy.split_dims, strategy.macros)
            and are_halos_alone(strategy.operands, strategy.macros)
        ):
            found.append(strategy)
    return tuple(found)


def _divides(nest: LoopNest, mesh: LogicalMesh, strategy: Strategy) -> bool:
    """Whether the axes together divide the loops that they split and the tensors that they cut."""
    factors = _split_factors(nest, mesh, strategy.split_dims)
    if any(loop.extent % factor for loop, factor in zip(nest.dims, factors, strict=True)):
        return False
    tensors = zip((*nest.operands, nest.result), (*strategy.operands, strategy.result), strict=True)
    return all(
        is_legal(mesh, sharding, tuple(dim.size for dim in tensor)) for tensor, sharding in tensors
    )
