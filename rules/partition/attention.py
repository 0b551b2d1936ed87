"""Splits of fused attention: heads and queries; keys and the features of heads stay together."""

from __future__ import annotations

from tilewright.graph import Op
from tilewright.rules.loopnest import LoopDim
from tilewright.rules.partition.ruleset import partition


@partition.splits(source="Megatron-LM (arXiv 1909.08053)")
def attention_heads(op: Op, loop: LoopDim) -> bool:
    """attention(Q[h/p, m], K[h/p, n], V[h/p, n]) = Y[h/p, m]: each tile has some samples or heads."""
    return op.kind == "attention" and loop.name.startswith("b")


@partition.splits(source="sequence parallelism")
def attention_queries(op: Op, loop: LoopDim) -> bool:
    """attention(Q[h, m/p], K[h, n], V[h, n]) = Y[h, m/p]: each tile has all keys for some queries."""
    return op.kind == "attention" and loop.name == "m"
