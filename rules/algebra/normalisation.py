"""Softmax and norms in parts, and their denominators moved past the next product.

A norm before a product x W keeps the product waiting for a statistic of whole rows, which needs a
collective where the mesh splits the rows. These rules bring the statistic to the far side of the
product: gains, shifts and means go into the constant weight, and what is left is one division a row,
after the product.
"""

from __future__ import annotations

from egglog import String, i64

from tilewright.rules.algebra.ruleset import algebra
from tilewright.rules.facts import is_float, is_full_float, last_axis, scales
from tilewright.rules.registry import Numerics, Rewrite
from tilewright.rules.row_facts import (
    affine_layernorm_steps,
    flattened_layernorm_steps,
    layernorm_steps,
    mean_from_sum,
    root_mean_square,
    root_of_mean,
    row_scalar,
    row_scale,
)
from tilewright.rules.terms import (
    Tensor,
    constant_of_type,
    has_type,
    is_constant,
    layernorm,
    map1,
    map2,
    matmul,
    reduce,
    reshape,
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


@algebra.rule(numerics=Numerics.EXACT, source="definition of softmax")
def softmax_from_parts(x: Tensor, d: String, t: i64, last: String) -> Rewrite:
    """e / sum(e) with e = exp(x - max(x)) = softmax(x): one kernel for what an exporter took apart."""
    e = map2(x, reduce(x, "max", last, d), "sub|exp", d)
    return Rewrite(
        map2(e, reduce(e, "sum", last, d), "div", d),
        to=softmax(x, d),
        when=(has_type(x, t), last_axis(t, last), is_full_float(d)),
    )


@algebra.rule(numerics=Numerics.REASSOCIATES, source="definition of RMSNorm")
def rmsnorm_in_parts(
    x: Tensor, epsilon: String, d: String, t: i64, last: String, steps: String
) -> Rewrite:
    """rmsnorm(x) = x / sqrt(mean(x^2) + epsilon), the root taken once a row."""
    squares = reduce(map1(x, "square", d), "sum", last, d)
    return Rewrite(
        rmsnorm(x, epsilon, d),
        to=map2(x, map1(squares, steps, d), "div", d),
        when=(
            *(has_type(x, t), last_axis(t, last), root_of_mean(t, epsilon, steps)),
            is_full_float(d),
        ),
    )


@algebra.rule(numerics=Numerics.REASSOCIATES, source="definition of LayerNorm")
def layernorm_in_parts(
    x: Tensor, epsilon: String, d: String, t: i64, last: String, mean: String, steps: String
) -> Rewrite:
    """layernorm(x) = (x - mean(x)) / sqrt(mean((x - mean(x))^2) + epsilon)."""
    centred = map2(x, map1(reduce(x, "sum", last, d), mean, d), "sub", d)
    return Rewrite(
        layernorm(x, epsilon, d),
        to=map2(centred, map1(_squares(x, last, mean, d), steps, d), "div", d),
        when=(
            *(has_type(x, t), last_axis(t, last), mean_from_sum(t, mean)),
            *(root_of_mean(t, epsilon, steps), is_full_float(d)),
        ),
    )


@algebra.rule(numerics=Numerics.REASSOCIATES, source="arXiv 2502.17728")
def denominator_past_product(
    x: Tensor, y: Tensor, w: Tensor, axes: String, d: String, t: i64
) -> Rewrite:
    """(X / s) W = (X W) / s for a sum s of each row: its collective hides behind the product."""
    s = reduce(y, "sum", axes, d)
    return Rewrite(
        matmul(map2(x, s, "div", d), w, d),
        to=map2(matmul(x, w, d), s, "div", d),
        when=(has_type(s, t), row_scalar(t), is_float(d)),
    )


@algebra.rule(numerics=Numerics.REASSOCIATES, source="arXiv 2502.17728")
def rmsnorm_past_product(
    x: Tensor, w: Tensor, epsilon: String, d: String, t: i64, last: String, fn: String
) -> Rewrite:
    """rmsnorm(x) W = (x W) / sqrt(mean(x^2) + epsilon): the statistic goes raw to the far side."""
    squares = reduce(map1(x, "square", d), "sum", last, d)
    return Rewrite(
        matmul(rmsnorm(x, epsilon, d), w, d),
        to=map2(matmul(x, w, d), squares, fn, d),
        when=(
            *(has_type(x, t), last_axis(t, last), root_mean_square(t, epsilon, fn)),
            is_full_float(d),
        ),
    )


@algebra.rule(numerics=Numerics.REASSOCIATES, source="gains of norms, folded as in SmoothQuant")
def gain_into_weight(
    x: Tensor,
    g: Tensor,
    w: Tensor,
    fn: String,
    d: String,
    t: i64,
    i: i64,
    j: i64,
    column: String,
) -> Rewrite:
    """(x g) W = x (g W) for constants g [1, k] and W [k, n], g as a column; also division."""
    scaled = map2(x, g, fn, d)
    return Rewrite(
        matmul(scaled, w, d),
        to=matmul(x, map2(w, reshape(g, column, d), fn, d), d),
        when=(
            *(has_type(x, t), has_type(scaled, t), scales(fn, d)),
            *(constant_of_type(g, i), constant_of_type(w, j), row_scale(i, j, column)),
        ),
    )


@algebra.rule(numerics=Numerics.REASSOCIATES, source="arXiv 2502.17728")
def layernorm_past_product(
    x: Tensor,
    w: Tensor,
    epsilon: String,
    d: String,
    t: i64,
    last: String,
    rows: String,
    mean: String,
    fn: String,
) -> Rewrite:
    """layernorm(x) W = x (W - column means of W) / deviation(x) for constant W.

    The deviation is that of x - mean(x), since mean(x^2) - mean(x)^2 would cancel.
    """
    return Rewrite(
        matmul(layernorm(x, epsilon, d), w, d),
        to=map2(matmul(x, _less_mean(w, rows, mean, d), d), _squares(x, last, mean, d), fn, d),
        when=(
            *(is_constant(w), has_type(x, t), layernorm_steps(t, epsilon, last, rows, mean, fn)),
            is_full_float(d),
        ),
    )


@algebra.rule(numerics=Numerics.REASSOCIATES, source="arXiv 2502.17728")
def affine_layernorm_past_product(
    x: Tensor,
    g: Tensor,
    b: Tensor,
    w: Tensor,
    epsilon: String,
    d: String,
    t: i64,
    i: i64,
    last: String,
    rows: String,
    mean: String,
    fn: String,
    column: String,
) -> Rewrite:
    """(layernorm(x) g + b) W = x (g W - column means of g W) / deviation(x) + b W for constants."""
    weight = map2(w, reshape(g, column, d), "mul", d)
    product = matmul(x, _less_mean(weight, rows, mean, d), d)
    return Rewrite(
        matmul(map2(map2(layernorm(x, epsilon, d), g, "mul", d), b, "add", d), w, d),
        to=map2(map2(product, _squares(x, last, mean, d), fn, d), matmul(b, w, d), "add", d),
        when=(
            *(constant_of_type(g, i), constant_of_type(b, i), is_constant(w), is_full_float(d)),
            *(has_type(x, t), affine_layernorm_steps(t, i, epsilon, last, rows, mean, fn, column)),
        ),
    )


@algebra.rule(numerics=Numerics.REASSOCIATES, source="arXiv 2502.17728")
def flattened_layernorm_past_product(
    x: Tensor,
    g: Tensor,
    b: Tensor,
    w: Tensor,
    epsilon: String,
    s: String,
    d: String,
    t: i64,
    i: i64,
    last: String,
    rows: String,
    mean: String,
    fn: String,
    column: String,
    row: String,
    single: String,
) -> Rewrite:
    """reshape(layernorm(x) g + b) W = reshape(x) (g W - column means) / deviation(x) + b W.

    For constants, when the reshape keeps the rows, as exporters flatten a batch in front of a product.
    """
    weight = map2(w, reshape(g, column, d), "mul", d)
    product = matmul(reshape(x, s, d), _less_mean(weight, rows, mean, d), d)
    squares = reshape(_squares(x, last, mean, d), single, d)
    affine = map2(map2(layernorm(x, epsilon, d), g, "mul", d), b, "add", d)
    return Rewrite(
        matmul(reshape(affine, s, d), w, d),
        to=map2(map2(product, squares, fn, d), matmul(reshape(b, row, d), w, d), "add", d),
        when=(
            *(constant_of_type(g, i), constant_of_type(b, i), is_constant(w), is_full_float(d)),
            has_type(x, t),
            flattened_layernorm_steps(t, i, epsilon, s, last, rows, mean, fn, column, row, single),
        ),
    )


def _less_mean(w: Tensor, rows: String, mean: String, d: String) -> Tensor:
    """Return a weight minus the mean of each column."""
    return map2(w, map1(reduce(w, "sum", rows, d), mean, d), "sub", d)


def _squares(x: Tensor, last: String, mean: String, d: String) -> Tensor:
    """Return the sum of (x - mean(x))^2 over each row."""
    centred = map2(x, map1(reduce(x, "sum", last, d), mean, d), "sub", d)
    return reduce(map1(centred, "square", d), "sum", last, d)
