"""Splits of two products that run as one kernel."""

from __future__ import annotations

from tilewright.graph import Op
from tilewright.rules.loopnest import LoopDim
from tilewright.rules.partition.ruleset import partition


@partition.splits(source="data parallelism")
def chain_batch(op: Op, loop: LoopDim) -> bool:
    """f(A[b/p, m, d] B) C = Y[b/p, m, e] on a batch dimension: samples, heads or experts."""
    return op.kind == "chain" and loop.name.startswith("b")


@partition.splits(source="sequence parallelism")
def chain_rows(op: Op, loop: LoopDim) -> bool:
    """f(A[m/p, d] B) C = Y[m/p, e]: each tile has some rows and all of B and C."""
    return op.kind == "chain" and loop.name == "m"


@partition.splits(source="Megatron-LM (arXiv 1909.08053): feed-forward layers")
def chain_features(op: Op, loop: LoopDim) -> bool:
    """f(A B[d, h/p]) C[h/p, e] = a part of the sum Y: what is between the products never moves."""
    return op.kind == "chain" and loop.name == "h"
