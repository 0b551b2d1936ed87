"""Grouped heads: many heads of queries that share keys and values, which need not be repeated for them."""

from __future__ import annotations

from egglog import String, i64

from tilewright.rules.algebra.ruleset import algebra
from tilewright.rules.head_facts import shared_heads, shared_transposed_heads
from tilewright.rules.registry import Numerics, Rewrite
from tilewright.rules.terms import Tensor, expand, has_type, matmul, reshape, transpose


@algebra.rule(
    numerics=Numerics.REASSOCIATES, source="Ainslie et al., GQA (EMNLP 2023), section 2.2"
)
def product_with_shared_heads(
    root: Tensor,
    a: Tensor,
    b: Tensor,
    repeated: String,
    merged: String,
    rows: String,
    once: String,
    result: String,
    d: String,
    r: i64,
    t: i64,
    u: i64,
) -> Rewrite:
    """Let A repeat(B) = (rows of heads that share B, as one matrix) B, which is read once for them."""
    return Rewrite(
        matmul(a, reshape(expand(b, repeated, d), merged, d), d),
        to=reshape(matmul(reshape(a, rows, d), reshape(b, once, d), d), result, d),
        when=(
            has_type(root, r),
            has_type(a, t),
            has_type(b, u),
            shared_heads(r, t, u, repeated, merged, rows, once, result),
        ),
    )


@algebra.rule(
    numerics=Numerics.REASSOCIATES, source="Ainslie et al., GQA (EMNLP 2023), section 2.2"
)
def product_with_shared_transposed_heads(
    root: Tensor,
    a: Tensor,
    b: Tensor,
    repeated: String,
    merged: String,
    p: String,
    rows: String,
    once: String,
    result: String,
    d: String,
    r: i64,
    t: i64,
    u: i64,
) -> Rewrite:
    """Let A transpose(repeat(B)) = (rows of heads that share B, as one matrix) transpose(B)."""
    return Rewrite(
        matmul(a, transpose(reshape(expand(b, repeated, d), merged, d), p, d), d),
        to=reshape(matmul(reshape(a, rows, d), transpose(reshape(b, once, d), p, d), d), result, d),
        when=(
            has_type(root, r),
            has_type(a, t),
            has_type(b, u),
            shared_transposed_heads(r, t, u, repeated, merged, p, rows, once, result),
        ),
    )
