"""Data movement past element-wise functions: nearer to a product that absorbs it, or to less work."""

from __future__ import annotations

from egglog import String, i64

from tilewright.rules.algebra.ruleset import algebra
from tilewright.rules.facts import keeps_pad_value
from tilewright.rules.layout_facts import dtype_of
from tilewright.rules.part_facts import flat_along, part_of_operand
from tilewright.rules.registry import Numerics, Rewrite
from tilewright.rules.terms import (
    Tensor,
    concat2,
    constant_of_type,
    has_type,
    map1,
    map2,
    pad,
    reshape,
    slice_,
    transpose,
)


@algebra.rule(numerics=Numerics.EXACT, source="TASO (SOSP 2019)")
def transpose_before_map(x: Tensor, f: String, p: String, c: String, d: String, t: i64) -> Rewrite:
    """transpose(f(x), p) = f(transpose(x, p)): what makes x may write it transposed."""
    return Rewrite(
        transpose(map1(x, f, d), p, d),
        to=map1(transpose(x, p, c), f, d),
        when=(has_type(x, t), dtype_of(t, c)),
    )


@algebra.rule(numerics=Numerics.EXACT, source="TASO (SOSP 2019)")
def transpose_after_map(x: Tensor, f: String, p: String, c: String, d: String) -> Rewrite:
    """f(transpose(x, p)) = transpose(f(x), p): what reads the result may read it transposed."""
    return Rewrite(map1(transpose(x, p, c), f, d), to=transpose(map1(x, f, d), p, d))


@algebra.rule(numerics=Numerics.EXACT, source="TASO (SOSP 2019)")
def transpose_before_binary(
    x: Tensor, c: Tensor, f: String, p: String, d: String, i: i64, j: i64
) -> Rewrite:
    """transpose(f(x, c), p) = f(transpose(x, p), transpose(c, p)) for constant c."""
    return Rewrite(
        transpose(map2(x, c, f, d), p, d),
        to=map2(transpose(x, p, d), transpose(c, p, d), f, d),
        when=(has_type(x, i), constant_of_type(c, j), dtype_of(i, d), dtype_of(j, d)),
    )


@algebra.rule(numerics=Numerics.EXACT, source="TASO (SOSP 2019)")
def reshape_after_map(x: Tensor, f: String, s: String, c: String, d: String) -> Rewrite:
    """f(reshape(x, s)) = reshape(f(x), s), so that f may fuse with what makes x."""
    return Rewrite(map1(reshape(x, s, c), f, d), to=reshape(map1(x, f, d), s, d))


@algebra.rule(numerics=Numerics.EXACT, source="TASO (SOSP 2019)")
def pad_after_map(x: Tensor, f: String, r: String, c: String, d: String) -> Rewrite:
    """f(pad(x, v)) = pad(f(x), v) when f(v) = v, so that f works on fewer elements."""
    return Rewrite(
        map1(pad(x, r, c), f, d), to=pad(map1(x, f, d), r, d), when=(keeps_pad_value(r, f, c),)
    )


@algebra.rule(numerics=Numerics.EXACT, source="TASO (SOSP 2019)")
def slice_before_binary(
    x: Tensor,
    y: Tensor,
    f: String,
    r: String,
    d: String,
    i: i64,
    j: i64,
    q: String,
    s: String,
) -> Rewrite:
    """slice(f(x, c), r) = f(slice(x, r), slice(c, r)) for constant c; broadcast dimensions stay."""
    return Rewrite(
        slice_(map2(x, y, f, d), r, d),
        to=map2(slice_(x, q, d), slice_(y, s, d), f, d),
        when=(
            *(has_type(x, i), constant_of_type(y, j)),
            *(part_of_operand(i, r, q, d), part_of_operand(j, r, s, d)),
        ),
    )


@algebra.rule(numerics=Numerics.EXACT, source="TASO (SOSP 2019)")
def map_into_parts(x: Tensor, y: Tensor, f: String, axis: String, c: String, d: String) -> Rewrite:
    """f(concat(x, y)) = concat(f(x), f(y)), so that f may fuse with what makes the parts."""
    return Rewrite(
        map1(concat2(x, y, axis, c), f, d),
        to=concat2(map1(x, f, d), map1(y, f, d), axis, d),
    )


@algebra.rule(numerics=Numerics.EXACT, source="TASO (SOSP 2019)")
def binary_into_parts(
    x: Tensor, y: Tensor, c: Tensor, f: String, axis: String, d: String, i: i64
) -> Rewrite:
    """f(concat(x, y), c) = concat(f(x, c), f(y, c)) for constant c of size 1 along the axis."""
    return Rewrite(
        map2(concat2(x, y, axis, d), c, f, d),
        to=concat2(map2(x, c, f, d), map2(y, c, f, d), axis, d),
        when=(constant_of_type(c, i), flat_along(i, axis)),
    )
