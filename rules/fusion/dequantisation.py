"""Quantised weights that stay integers until a product reads them: prologues.

The compiler works constants out, so that dequantised weights would lie in memory as floats, four times as
large. Here the product itself casts and scales each box of weights that it loads. There is one rule for each
form of a product; scales are per tensor, per axis or anything else that broadcasts.
"""

from __future__ import annotations

from egglog import String, Unit, i64

from tilewright.rules.facts import is_cast, is_float
from tilewright.rules.fusion.ruleset import fusion
from tilewright.rules.quant_facts import scales_integers
from tilewright.rules.registry import Numerics, Rewrite
from tilewright.rules.terms import (
    Tensor,
    constant_of_type,
    conv,
    conv_binary,
    conv_quantised,
    conv_quantised_binary,
    conv_quantised_unary,
    conv_unary,
    map1,
    map2,
    matmul_binary,
    matmul_quantised,
    matmul_quantised_binary,
    matmul_quantised_unary,
    matmul_unary,
    permuted_matmul,
)

_SOURCE = "weight-only quantisation: LLM.int8() (NeurIPS 2022); AWQ (MLSys 2024)"


def _as_floats(q: Tensor, s: Tensor, c: String, d: String) -> Tensor:
    """Return cast(Q) s: what the model multiplies with."""
    return map2(map1(q, c, d), s, "mul", d)


def _are_quantised(q: Tensor, s: Tensor, c: String, i: i64, j: i64) -> tuple[Unit, ...]:
    """Return the facts that Q is a constant of small integers, s a constant scale of it, c a cast."""
    return (constant_of_type(q, i), constant_of_type(s, j), scales_integers(j, i), is_cast(c))


@fusion.rule(numerics=Numerics.EXACT, source=_SOURCE)
def dequantised_weight(
    a: Tensor, q: Tensor, s: Tensor, c: String, r: String, d: String, i: i64, j: i64
) -> Rewrite:
    """Let A (cast(Q) s) = matmul that dequantises constant Q with scale s on its way in."""
    return Rewrite(
        permuted_matmul(a, _as_floats(q, s, c, d), r, d),
        to=matmul_quantised(a, q, s, r, d),
        when=_are_quantised(q, s, c, i, j),
        bounds=(is_float(d),),
    )


@fusion.rule(numerics=Numerics.EXACT, source=_SOURCE)
def dequantised_weight_unary(
    a: Tensor,
    q: Tensor,
    s: Tensor,
    c: String,
    r: String,
    f: String,
    p: String,
    d: String,
    i: i64,
    j: i64,
) -> Rewrite:
    """f(A (cast(Q) s)) = matmul with epilogue f that dequantises constant Q on its way in."""
    return Rewrite(
        matmul_unary(a, _as_floats(q, s, c, p), r, f, p, d),
        to=matmul_quantised_unary(a, q, s, r, f, p, d),
        when=_are_quantised(q, s, c, i, j),
        bounds=(is_float(p),),
    )


@fusion.rule(numerics=Numerics.EXACT, source=_SOURCE)
def dequantised_weight_binary(
    a: Tensor,
    q: Tensor,
    s: Tensor,
    third: Tensor,
    c: String,
    r: String,
    f: String,
    p: String,
    d: String,
    i: i64,
    j: i64,
) -> Rewrite:
    """f(A (cast(Q) s), t) = matmul with third operand t that dequantises constant Q on its way in."""
    return Rewrite(
        matmul_binary(a, _as_floats(q, s, c, p), third, r, f, p, d),
        to=matmul_quantised_binary(a, q, third, s, r, f, p, d),
        when=_are_quantised(q, s, c, i, j),
        bounds=(is_float(p),),
    )


@fusion.rule(numerics=Numerics.EXACT, source=_SOURCE)
def dequantised_kernel(
    x: Tensor, q: Tensor, s: Tensor, c: String, r: String, d: String, i: i64, j: i64
) -> Rewrite:
    """conv(x, cast(Q) s) = conv that dequantises constant Q with scale s on its way in."""
    return Rewrite(
        conv(x, _as_floats(q, s, c, d), r, d),
        to=conv_quantised(x, q, s, r, d),
        when=_are_quantised(q, s, c, i, j),
        bounds=(is_float(d),),
    )


@fusion.rule(numerics=Numerics.EXACT, source=_SOURCE)
def dequantised_kernel_unary(
    x: Tensor,
    q: Tensor,
    s: Tensor,
    c: String,
    r: String,
    f: String,
    p: String,
    d: String,
    i: i64,
    j: i64,
) -> Rewrite:
    """f(conv(x, cast(Q) s)) = conv with epilogue f that dequantises constant Q on its way in."""
    return Rewrite(
        conv_unary(x, _as_floats(q, s, c, p), r, f, p, d),
        to=conv_quantised_unary(x, q, s, r, f, p, d),
        when=_are_quantised(q, s, c, i, j),
        bounds=(is_float(p),),
    )


@fusion.rule(numerics=Numerics.EXACT, source=_SOURCE)
def dequantised_kernel_binary(
    x: Tensor,
    q: Tensor,
    s: Tensor,
    third: Tensor,
    c: String,
    r: String,
    f: String,
    p: String,
    d: String,
    i: i64,
    j: i64,
) -> Rewrite:
    """f(conv(x, cast(Q) s), t) = conv with third operand t that dequantises constant Q on its way in."""
    return Rewrite(
        conv_binary(x, _as_floats(q, s, c, p), third, r, f, p, d),
        to=conv_quantised_binary(x, q, third, s, r, f, p, d),
        when=_are_quantised(q, s, c, i, j),
        bounds=(is_float(p),),
    )
