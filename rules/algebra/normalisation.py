"""Softmax and norms in parts, and their denominators moved past the next product."""

from __future__ import annotations

from egglog import String, i64

from tilewright.rules.algebra.ruleset import algebra
from tilewright.rules.facts import (
    is_float,
    is_full_float,
    last_axis,
    mean_from_sum,
    mean_of_squares,
    row_scalar,
)
from tilewright.rules.registry import Numerics, Rewrite
from tilewright.rules.terms import (
    Tensor,
    has_type,
    layernorm,
    map1,
    map2,
    matmul,
    reduce,
    rmsnorm,
    softmax,
)


@algebra.rule(numerics=Numerics.EXACT, source="definition of softmax")
def softmax_in_parts(x: Tensor, d: String, t: i64, last: String) -> Rewrite:
    """softmax(x) = e / sum(e) with e = exp(x - max(x)): the row may be split over the mesh."""
    e = map2(x, reduce(x, "max", last, d), "sub|exp", d)
    return Rewrite(
        softmax(x, d),
        to=map2(e, reduce(e, "sum", last, d), "div", d),
        when=(has_type(x, t), last_axis(t, last), is_full_float(d)),
    )


@algebra.rule(numerics=Numerics.REASSOCIATES, source="definition of RMSNorm")
def rmsnorm_in_parts(
    x: Tensor, epsilon: String, d: String, t: i64, last: String, fn: String
) -> Rewrite:
    """rmsnorm(x) = x / sqrt(mean(x^2) + epsilon)."""
    squares = reduce(map1(x, "square", d), "sum", last, d)
    return Rewrite(
        rmsnorm(x, epsilon, d),
        to=map2(x, map1(squares, fn, d), "div", d),
        when=(has_type(x, t), last_axis(t, last), mean_of_squares(t, epsilon, fn)),
        bounds=(is_full_float(d),),
    )


@algebra.rule(numerics=Numerics.REASSOCIATES, source="definition of LayerNorm")
def layernorm_in_parts(
    x: Tensor, epsilon: String, d: String, t: i64, last: String, fn: String
) -> Rewrite:
    """layernorm(x) = rmsnorm(x - mean(x))."""
    mean = map1(reduce(x, "sum", last, d), fn, d)
    return Rewrite(
        layernorm(x, epsilon, d),
        to=rmsnorm(map2(x, mean, "sub", d), epsilon, d),
        when=(has_type(x, t), last_axis(t, last), mean_from_sum(t, fn)),
        bounds=(is_full_float(d),),
    )


@algebra.rule(numerics=Numerics.REASSOCIATES, source="arXiv 2502.17728")
def denominator_past_product(x: Tensor, s: Tensor, w: Tensor, d: String, t: i64) -> Rewrite:
    """(X / s) W = (X W) / s for one s a row: its collective hides behind the product."""
    return Rewrite(
        matmul(map2(x, s, "div", d), w, d),
        to=map2(matmul(x, w, d), s, "div", d),
        when=(has_type(s, t), row_scalar(t), is_float(d)),
    )
