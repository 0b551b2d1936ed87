"""Products that become one: joined weights, joined sums, grouped convolutions; and their parts.

Sums keep their order, but a matrix unit or library may add the columns of a wider product otherwise.
"""

from __future__ import annotations

from egglog import String, eq, i64

from tilewright.rules.algebra.ruleset import algebra
from tilewright.rules.facts import is_float
from tilewright.rules.joint_facts import (
    channels_behind,
    columns_behind,
    joins_columns,
    joins_kernels,
    joins_rows,
    neighbours,
)
from tilewright.rules.layout_facts import two_groups, without_groups
from tilewright.rules.part_facts import part_of_columns, takes_all
from tilewright.rules.registry import Numerics, Rewrite
from tilewright.rules.terms import (
    Tensor,
    concat2,
    constant_of_type,
    conv,
    has_type,
    map2,
    matmul,
    slice_,
)


@algebra.rule(numerics=Numerics.REASSOCIATES, source="TASO (SOSP 2019); TENSAT (MLSys 2021)")
def sum_of_products_as_one(
    a: Tensor,
    b: Tensor,
    x: Tensor,
    y: Tensor,
    d: String,
    i: i64,
    j: i64,
    k: i64,
    m: i64,
    last: String,
    rows: String,
) -> Rewrite:
    """Let A B + X Y = [A X] [B; Y] with B and Y constant: one product with a longer sum."""
    return Rewrite(
        map2(matmul(a, b, d), matmul(x, y, d), "add", d),
        to=matmul(concat2(a, x, last, d), concat2(b, y, rows, d), d),
        when=(
            *(has_type(a, i), has_type(x, j), joins_columns(i, j, last)),
            *(constant_of_type(b, k), constant_of_type(y, m), joins_rows(k, m, rows)),
            is_float(d),
        ),
    )


@algebra.rule(numerics=Numerics.REASSOCIATES, source="TASO (SOSP 2019)")
def joined_products(
    a: Tensor, b: Tensor, c: Tensor, axis: String, d: String, i: i64, j: i64
) -> Rewrite:
    """concat(A B, A C) = A [B C] with B and C constant, joined by the compiler."""
    return Rewrite(
        concat2(matmul(a, b, d), matmul(a, c, d), axis, d),
        to=matmul(a, concat2(b, c, axis, d), d),
        when=(
            *(constant_of_type(b, i), constant_of_type(c, j), joins_columns(i, j, axis)),
            is_float(d),
        ),
    )


@algebra.rule(numerics=Numerics.REASSOCIATES, source="TASO (SOSP 2019); TENSAT (MLSys 2021)")
def first_of_two_products(
    root: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    other: Tensor,
    d: String,
    i: i64,
    j: i64,
    n: i64,
    m: i64,
    t: i64,
    axis: String,
    r: String,
) -> Rewrite:
    """Let A B = slice(A [B C]) beside A C, with constant weights (query and key; gate and up)."""
    return Rewrite(
        matmul(a, b, d),
        to=slice_(matmul(a, concat2(b, c, axis, d), d), r, d),
        when=(
            *(eq(other).to(matmul(a, c, d)), has_type(root, t), takes_all(t, r)),
            *(constant_of_type(b, n), constant_of_type(c, m), joins_columns(n, m, axis)),
            is_float(d),
        ),
        bounds=(eq(b).to(Tensor.node(i)), neighbours(i, j), eq(c).to(Tensor.node(j))),
    )


@algebra.rule(numerics=Numerics.REASSOCIATES, source="TASO (SOSP 2019); TENSAT (MLSys 2021)")
def second_of_two_products(
    root: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    other: Tensor,
    d: String,
    i: i64,
    j: i64,
    n: i64,
    m: i64,
    t: i64,
    u: i64,
    axis: String,
    r: String,
) -> Rewrite:
    """Let A C = slice(A [B C]) beside A B, with constant weights (query and key; gate and up)."""
    return Rewrite(
        matmul(a, c, d),
        to=slice_(matmul(a, concat2(b, c, axis, d), d), r, d),
        when=(
            *(eq(other).to(matmul(a, b, d)), has_type(other, t), has_type(root, u)),
            *(columns_behind(t, u, r), is_float(d)),
            *(constant_of_type(b, n), constant_of_type(c, m), joins_columns(n, m, axis)),
        ),
        bounds=(eq(c).to(Tensor.node(j)), neighbours(i, j), eq(b).to(Tensor.node(i))),
    )


@algebra.rule(numerics=Numerics.REASSOCIATES, source="inverse of the merge; TASO (SOSP 2019)")
def part_of_product(
    root: Tensor, a: Tensor, w: Tensor, r: String, columns: String, d: String, i: i64, j: i64
) -> Rewrite:
    """slice(A W) = A slice(W) for columns of constant W: no copy of the part (merged query, key, value)."""
    return Rewrite(
        slice_(matmul(a, w, d), r, d),
        to=matmul(a, slice_(w, columns, d), d),
        when=(
            *(has_type(matmul(a, w, d), i), constant_of_type(w, j)),
            *(part_of_columns(i, j, r, columns), is_float(d)),
        ),
    )


@algebra.rule(
    numerics=Numerics.REASSOCIATES, source="TASO (SOSP 2019), where groups = 1 is missing"
)
def joined_convolutions(
    x: Tensor, w: Tensor, v: Tensor, rest: String, d: String, i: i64, j: i64
) -> Rewrite:
    """concat(conv(x, w), conv(x, v)) = conv(x, [w; v]) with one group, w and v constant."""
    return Rewrite(
        concat2(conv(x, w, rest, d), conv(x, v, rest, d), "1", d),
        to=conv(x, concat2(w, v, "0", d), rest, d),
        when=(
            *(constant_of_type(w, i), constant_of_type(v, j), joins_kernels(i, j)),
            *(without_groups(rest), is_float(d)),
        ),
    )


@algebra.rule(
    numerics=Numerics.REASSOCIATES, source="TASO (SOSP 2019), where groups = 1 is missing"
)
def first_of_two_convolutions(
    root: Tensor,
    x: Tensor,
    w: Tensor,
    v: Tensor,
    other: Tensor,
    rest: String,
    d: String,
    i: i64,
    j: i64,
    n: i64,
    m: i64,
    t: i64,
    r: String,
) -> Rewrite:
    """conv(x, w) = slice(conv(x, [w; v])) beside conv(x, v), with one group, w and v constant."""
    return Rewrite(
        conv(x, w, rest, d),
        to=slice_(conv(x, concat2(w, v, "0", d), rest, d), r, d),
        when=(
            *(eq(other).to(conv(x, v, rest, d)), has_type(root, t), takes_all(t, r)),
            *(constant_of_type(w, n), constant_of_type(v, m), joins_kernels(n, m)),
            *(without_groups(rest), is_float(d)),
        ),
        bounds=(eq(w).to(Tensor.node(i)), neighbours(i, j), eq(v).to(Tensor.node(j))),
    )


@algebra.rule(
    numerics=Numerics.REASSOCIATES, source="TASO (SOSP 2019), where groups = 1 is missing"
)
def second_of_two_convolutions(
    root: Tensor,
    x: Tensor,
    w: Tensor,
    v: Tensor,
    other: Tensor,
    rest: String,
    d: String,
    i: i64,
    j: i64,
    n: i64,
    m: i64,
    t: i64,
    u: i64,
    r: String,
) -> Rewrite:
    """conv(x, v) = slice(conv(x, [w; v])) beside conv(x, w), with one group, w and v constant."""
    return Rewrite(
        conv(x, v, rest, d),
        to=slice_(conv(x, concat2(w, v, "0", d), rest, d), r, d),
        when=(
            *(eq(other).to(conv(x, w, rest, d)), has_type(other, t), has_type(root, u)),
            *(channels_behind(t, u, r), without_groups(rest), is_float(d)),
            *(constant_of_type(w, n), constant_of_type(v, m), joins_kernels(n, m)),
        ),
        bounds=(eq(v).to(Tensor.node(j)), neighbours(i, j), eq(w).to(Tensor.node(i))),
    )


@algebra.rule(
    numerics=Numerics.REASSOCIATES, source="TENSAT (MLSys 2021), where equal channels are missing"
)
def grouped_convolution(
    x: Tensor,
    y: Tensor,
    w: Tensor,
    v: Tensor,
    rest: String,
    grouped: String,
    d: String,
    i: i64,
    n: i64,
) -> Rewrite:
    """concat(conv(x, w), conv(y, v)) = conv(concat(x, y), [w; v]) in two groups of equal channels."""
    return Rewrite(
        concat2(conv(x, w, rest, d), conv(y, v, rest, d), "1", d),
        to=conv(concat2(x, y, "1", d), concat2(w, v, "0", d), grouped, d),
        when=(
            *(has_type(x, i), has_type(y, i)),
            *(constant_of_type(w, n), constant_of_type(v, n), two_groups(rest, grouped)),
            is_float(d),
        ),
    )
