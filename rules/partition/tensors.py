"""Splits of operators that treat elements, rows or windows on their own, and of data movement."""

from __future__ import annotations

from tilewright.graph import Op
from tilewright.rules.loopnest import LoopDim, Role
from tilewright.rules.partition.ruleset import partition

_LINEAR_KINDS = ("reshape", "transpose", "slice")
_LINEAR_MAPS = ("add", "sub", "identity", "neg")
_ROW_KINDS = ("softmax", "layernorm", "rmsnorm")
_MOVEMENT_KINDS = ("reshape", "transpose", "slice", "concat", "pad", "expand")


@partition.splits(source="nnScaler (OSDI 2024); Shardy (pass-through factors)")
def elementwise(op: Op, loop: LoopDim) -> bool:
    """f(X[d/p], Y[d/p]) = Z[d/p] on any dimension: batch, sequence or features."""
    return op.kind == "map"


@partition.splits(source="nnScaler (OSDI 2024): sequence parallelism")
def rows_of_norms(op: Op, loop: LoopDim) -> bool:
    """norm(X[t/p, d]) = Y[t/p, d]: softmax and norms keep their rows whole."""
    return op.kind in _ROW_KINDS


@partition.splits(source="Unity (OSDI 2022)")
def kept_axis_of_reduction(op: Op, loop: LoopDim) -> bool:
    """reduce(X[a/p, b], b) = Y[a/p, 1]."""
    return op.kind == "reduce" and loop.role is Role.PARALLEL


@partition.splits(source="Unity (OSDI 2022)")
def reduced_axis(op: Op, loop: LoopDim) -> bool:
    """reduce(X[a, b/p], b) = a part of the sum (or maximum) Y[a, 1], which a collective completes."""
    return op.kind == "reduce" and loop.role is Role.REDUCTION


@partition.splits(source="GSPMD (arXiv 2105.04663)")
def pooled_tensor(op: Op, loop: LoopDim) -> bool:
    """pool(X[n, c/p, h, w]) = Y[n, c/p, h, w]; windows too where they do not overlap."""
    return op.kind == "pool"


@partition.splits(source="Shardy (pass-through factors)")
def moved_data(op: Op, loop: LoopDim) -> bool:
    """move(X[d/p]) = Y[d/p] for dimensions that the movement keeps in contiguous equal pieces."""
    return op.kind in _MOVEMENT_KINDS


@partition.splits(source="Megatron-LM (arXiv 1909.08053)")
def gathered_rows(op: Op, loop: LoopDim) -> bool:
    """gather(T[v, d/p], I) = Y[i, d/p] and gather(T, I[i/p]) = Y[i/p, d]: the table keeps its axis."""
    return op.kind == "gather"


@partition.passes(source="nncase; Shardy")
def partial_sums_through_linear(op: Op) -> bool:
    """f(sum of parts) = sum of f(parts) when f is linear in all operands together."""
    return op.kind in _LINEAR_KINDS or (op.kind == "map" and op.attrs["fn"] in _LINEAR_MAPS)
