"""Constant scales and shifts around products: folding into weights."""

from __future__ import annotations

from egglog import String, i64

from tilewright.rules.algebra.ruleset import algebra
from tilewright.rules.facts import (
    channel_scale,
    column_scale,
    commutes,
    is_float,
    scales,
    single_element,
)
from tilewright.rules.registry import Numerics, Rewrite
from tilewright.rules.terms import (
    Tensor,
    constant_of_type,
    conv,
    is_constant,
    map2,
    matmul,
    reshape,
)


@algebra.rule(numerics=Numerics.EXACT, source="canonical form")
def constant_second(c: Tensor, x: Tensor, fn: String, d: String) -> Rewrite:
    """fn(c, x) = fn(x, c) for a commutative fn and constant c."""
    return Rewrite(map2(c, x, fn, d), to=map2(x, c, fn, d), when=(is_constant(c), commutes(fn)))


@algebra.rule(numerics=Numerics.REASSOCIATES, source="batch-normalisation folding")
def scale_into_matmul_weight(
    a: Tensor, w: Tensor, s: Tensor, fn: String, d: String, i: i64, j: i64
) -> Rewrite:
    """Let (A W) s = A (W s) for constant W [k, n] and a constant scale s [1, n]; also division."""
    return Rewrite(
        map2(matmul(a, w, d), s, fn, d),
        to=matmul(a, map2(w, s, fn, d), d),
        when=(
            *(constant_of_type(s, i), constant_of_type(w, j), column_scale(i, j)),
            scales(fn, d),
        ),
    )


@algebra.rule(numerics=Numerics.REASSOCIATES, source="batch-normalisation folding")
def scale_into_conv_weight(
    x: Tensor, w: Tensor, s: Tensor, fn: String, rest: String, d: String, i: i64, j: i64, o: String
) -> Rewrite:
    """conv(x, W) s = conv(x, W s) for constant W [o, c, r, s] and a constant scale [1, o, 1, 1]."""
    return Rewrite(
        map2(conv(x, w, rest, d), s, fn, d),
        to=conv(x, map2(w, reshape(s, o, d), fn, d), rest, d),
        when=(
            *(constant_of_type(s, i), constant_of_type(w, j), channel_scale(i, j, o)),
            scales(fn, d),
        ),
    )


@algebra.rule(numerics=Numerics.REASSOCIATES, source="linearity")
def scalar_into_left_operand(
    a: Tensor, b: Tensor, s: Tensor, fn: String, d: String, i: i64
) -> Rewrite:
    """Let (A B) s = (A s) B for a constant s of one element; also division."""
    return Rewrite(
        map2(matmul(a, b, d), s, fn, d),
        to=matmul(map2(a, s, fn, d), b, d),
        when=(constant_of_type(s, i), single_element(i), scales(fn, d)),
    )


@algebra.rule(numerics=Numerics.REASSOCIATES, source="associativity of addition")
def merge_constant_shifts(x: Tensor, b: Tensor, c: Tensor, d: String) -> Rewrite:
    """(x + b) + c = x + (b + c) with b and c constant."""
    return Rewrite(
        map2(map2(x, b, "add", d), c, "add", d),
        to=map2(x, map2(b, c, "add", d), "add", d),
        when=(is_constant(b), is_constant(c)),
    )


@algebra.rule(numerics=Numerics.REASSOCIATES, source="associativity of addition")
def bias_onto_residual(x: Tensor, w: Tensor, b: Tensor, r: Tensor, d: String) -> Rewrite:
    """(X W + b) + r = X W + (r + b) with b constant, so that one third operand holds both."""
    return Rewrite(
        map2(map2(matmul(x, w, d), b, "add", d), r, "add", d),
        to=map2(matmul(x, w, d), map2(r, b, "add", d), "add", d),
        when=(is_constant(b),),
    )


@algebra.rule(numerics=Numerics.REASSOCIATES, source="batch-normalisation folding")
def scale_over_shift(x: Tensor, b: Tensor, s: Tensor, d: String) -> Rewrite:
    """(x + b) s = x s + b s with b and s constant, so that s may fold into a weight before b."""
    return Rewrite(
        map2(map2(x, b, "add", d), s, "mul", d),
        to=map2(map2(x, s, "mul", d), map2(b, s, "mul", d), "add", d),
        bounds=(is_constant(b), is_constant(s), is_float(d)),
    )
