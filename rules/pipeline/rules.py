"""Cuts between stages, micro-batches, values computed again behind a cut."""

from __future__ import annotations

from tilewright.rules.loopnest import Role
from tilewright.rules.pipeline.ruleset import Batch, Carried, Cut, Value, pipeline

_MOVEMENT = frozenset(("reshape", "transpose", "expand", "slice", "pad", "concat", "gather"))
_WINDOWED = frozenset(("conv", "pool"))
_ROWWISE = frozenset(("softmax", "layernorm", "rmsnorm"))
_SHORT_SUM = 8
"""Terms of a sum up to which a product is about as cheap as a map."""


@pipeline.cuts(source="PipeDream (SOSP 2019); Piper (NeurIPS 2021)")
def cut_at_one_value(cut: Cut) -> Carried:
    """g(f(x)) = send f(x), then g of what arrived: a single value crosses."""
    return cut.read if len(cut.read) == 1 else None


@pipeline.cuts(source="Alpa (OSDI 2022); Shardy MPMD")
def cut_between_blocks(cut: Cut) -> Carried:
    """g(f(x), h(x)) = send f(x) and h(x), then g of what arrived: between blocks any values cross."""
    return cut.read if cut.is_block_boundary else None


@pipeline.cuts(source="GraphPipe (ASPLOS 2025, arXiv:2406.17145): stages that form a graph")
def cut_between_branches(cut: Cut) -> Carried:
    """h(f(x), g(y)) = send f(x) and g(y), then h of what arrived: f and g depend on nothing of each other."""
    return cut.read if cut.is_branch_boundary else None


@pipeline.splits_batch(source="GPipe (NeurIPS 2019); Alpa (OSDI 2022)")
def micro_batch(batch: Batch) -> int | None:
    """f(x) = concat(f(x_1), f(x_2), ...) over pieces of the batch: no result depends on two samples."""
    nest, loops = batch.nest, set[int]()
    if batch.op.kind in _WINDOWED and batch.dims[0] != 0:
        return None  # channels and groups, rows and columns are counted in attributes
    for operand, dim in zip(nest.operands, batch.dims, strict=True):
        if dim < 0:
            continue
        loop = nest.major_dim(operand[dim])
        if (
            loop is None
            or nest.cut_dim(operand, loop) != dim
            or nest.dims[loop].extent % batch.size
        ):
            return None
        loops.add(loop)
    if len(loops) != 1:
        return None
    (loop,) = loops
    lacking = (o for o, dim in zip(nest.operands, batch.dims, strict=True) if dim < 0)
    if nest.dims[loop].role is not Role.PARALLEL or any(
        nest.cut_dim(o, loop) != -1 for o in lacking
    ):
        return None
    made = nest.cut_dim(nest.result, loop)
    return made if made is not None and made >= 0 else None


@pipeline.recomputes(source="Chen et al., 2016 (arXiv:1604.06174); Shardy MPMD")
def map_again(value: Value) -> Carried:
    """use(keep f(x)) = use(f(x) again): element-wise functions of what is there anyway."""
    return value.op.inputs if value.op.kind == "map" else None


@pipeline.recomputes(source="Chen et al., 2016 (arXiv:1604.06174); Shardy MPMD")
def movement_again(value: Value) -> Carried:
    """use(keep move(x)) = use(move(x) again): data movement of what is there anyway."""
    return value.op.inputs if value.op.kind in _MOVEMENT else None


@pipeline.recomputes(source="Korthikanti et al., 2022 (arXiv:2205.05198): norms and softmax again")
def norm_again(value: Value) -> Carried:
    """use(keep norm(x)) = use(norm(x) again), where it may be kept as well: a few passes over each row."""
    is_norm = value.op.kind in _ROWWISE
    return value.op.inputs if is_norm and value.is_optional else None


@pipeline.recomputes(source="Su et al., 2021 (arXiv:2104.09864): angles, positions by frequencies")
def short_product_again(value: Value) -> Carried:
    """use(keep x y) = use(x y again), where it may be kept as well and its sums are short."""
    if value.op.kind != "matmul" or not value.is_optional:
        return None
    terms = value.op.permuted("perm_a", value.types[value.op.inputs[0]].shape)[-1]
    return value.op.inputs if terms <= _SHORT_SUM else None
