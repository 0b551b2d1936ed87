"""Attention: softmax between two products as one kernel that holds a box of the scores at a time.

Masks and scales are operands and attributes of the fused operator; where a model applies them, rules move
them: a scale of the scores goes onto the queries (`algebra.number_into_left_operand`) and from there into
the attribute, a mask is first the third operand of the product (`fusion.third_operand_of_matmul`).
"""

from __future__ import annotations

from egglog import String

from tilewright.rules.facts import is_float, scaled_by
from tilewright.rules.fusion.ruleset import fusion
from tilewright.rules.registry import Numerics, Rewrite
from tilewright.rules.terms import (
    NO_ATTRIBUTES,
    Tensor,
    attention,
    attention_masked,
    map1,
    matmul,
    matmul_binary,
    softmax,
)


@fusion.rule(numerics=Numerics.REASSOCIATES, source="FlashAttention (NeurIPS 2022)")
def attention_of_products(q: Tensor, k: Tensor, v: Tensor, d: String) -> Rewrite:
    """softmax(Q K) V = attention(Q, K, V) for floats."""
    return Rewrite(
        matmul(softmax(matmul(q, k, d), d), v, d),
        to=attention(q, k, v, "1.0", d),
        when=(is_float(d),),
    )


@fusion.rule(numerics=Numerics.REASSOCIATES, source="FlashAttention (NeurIPS 2022)")
def masked_attention_of_products(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor, d: String
) -> Rewrite:
    """softmax(Q K + M) V = attention(Q, K, V, M) for floats, M being a third operand of Q K."""
    return Rewrite(
        matmul(softmax(matmul_binary(q, k, mask, NO_ATTRIBUTES, "add", d, d), d), v, d),
        to=attention_masked(q, k, v, mask, "1.0", d),
        when=(is_float(d),),
    )


@fusion.rule(numerics=Numerics.REASSOCIATES, source="linearity")
def scale_of_queries(
    q: Tensor, k: Tensor, v: Tensor, fn: String, s: String, t: String, d: String
) -> Rewrite:
    """attention(c Q, K, V) with scale s = attention(Q, K, V) with scale t = s c for a number c."""
    return Rewrite(
        attention(map1(q, fn, d), k, v, s, d),
        to=attention(q, k, v, t, d),
        when=(scaled_by(s, fn, t), is_float(d)),
    )


@fusion.rule(numerics=Numerics.REASSOCIATES, source="linearity")
def scale_of_keys(
    q: Tensor, k: Tensor, v: Tensor, fn: String, s: String, t: String, d: String
) -> Rewrite:
    """attention(Q, c K, V) with scale s = attention(Q, K, V) with scale t = s c for a number c."""
    return Rewrite(
        attention(q, map1(k, fn, d), v, s, d),
        to=attention(q, k, v, t, d),
        when=(scaled_by(s, fn, t), is_float(d)),
    )


@fusion.rule(numerics=Numerics.REASSOCIATES, source="linearity")
def masked_scale_of_queries(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor, fn: String, s: String, t: String, d: String
) -> Rewrite:
    """attention(c Q, K, V, M) with scale s = attention(Q, K, V, M) with scale t = s c."""
    return Rewrite(
        attention_masked(map1(q, fn, d), k, v, mask, s, d),
        to=attention_masked(q, k, v, mask, t, d),
        when=(scaled_by(s, fn, t), is_float(d)),
    )


@fusion.rule(numerics=Numerics.REASSOCIATES, source="linearity")
def masked_scale_of_keys(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor, fn: String, s: String, t: String, d: String
) -> Rewrite:
    """attention(Q, c K, V, M) with scale s = attention(Q, K, V, M) with scale t = s c."""
    return Rewrite(
        attention_masked(q, map1(k, fn, d), v, mask, s, d),
        to=attention_masked(q, k, v, mask, t, d),
        when=(scaled_by(s, fn, t), is_float(d)),
    )
