"""Chains of data movement and of casts: transposes, reshapes, slices, joints."""

from __future__ import annotations

from egglog import String, i64

from tilewright.rules.algebra.ruleset import algebra
from tilewright.rules.facts import (
    composes,
    identity_perm,
    is_cast,
    is_float,
    keeps_values,
    lossless_cast,
)
from tilewright.rules.layout_facts import swaps_last
from tilewright.rules.part_facts import (
    adjacent,
    behind_first,
    composes_slices,
    takes_all,
    within_first,
    within_pad,
)
from tilewright.rules.registry import Numerics, Rewrite
from tilewright.rules.terms import (
    Tensor,
    concat2,
    concat3,
    has_type,
    map1,
    matmul,
    pad,
    reshape,
    slice_,
    transpose,
)


@algebra.rule(numerics=Numerics.EXACT, source="TASO (SOSP 2019)")
def transpose_of_transpose(x: Tensor, p: String, q: String, r: String, d: String) -> Rewrite:
    """transpose(transpose(x, p), q) = transpose(x, p o q)."""
    return Rewrite(
        transpose(transpose(x, p, d), q, d),
        to=transpose(x, r, d),
        when=(composes(p, q, r),),
    )


@algebra.rule(numerics=Numerics.EXACT, source="TASO (SOSP 2019)")
def transpose_by_identity(x: Tensor, p: String, d: String) -> Rewrite:
    """transpose(x, identity) = x."""
    return Rewrite(transpose(x, p, d), to=x, when=(identity_perm(p),))


@algebra.rule(numerics=Numerics.EXACT, source="definition of reshape")
def reshape_of_reshape(x: Tensor, s: String, t: String, d: String) -> Rewrite:
    """reshape(reshape(x, s), t) = reshape(x, t)."""
    return Rewrite(reshape(reshape(x, s, d), t, d), to=reshape(x, t, d))


@algebra.rule(numerics=Numerics.EXACT, source="definition of reshape")
def reshape_to_own_shape(root: Tensor, x: Tensor, s: String, d: String, t: i64) -> Rewrite:
    """reshape(x, shape of x) = x."""
    return Rewrite(reshape(x, s, d), to=x, when=(has_type(root, t), has_type(x, t)))


@algebra.rule(numerics=Numerics.EXACT, source="definition of map")
def map_that_keeps_values(x: Tensor, fn: String, d: String, t: i64) -> Rewrite:
    """identity(x) = x and cast(x, type of x) = x."""
    return Rewrite(map1(x, fn, d), to=x, when=(has_type(x, t), keeps_values(t, fn)))


@algebra.rule(numerics=Numerics.EXACT, source="value sets of the element types")
def cast_of_lossless_cast(
    x: Tensor, wide: String, fn: String, w: String, d: String, t: i64
) -> Rewrite:
    """cast(cast(x, wide), d) = cast(x, d) when wide holds every value of x."""
    return Rewrite(
        map1(map1(x, wide, w), fn, d),
        to=map1(x, fn, d),
        when=(is_cast(fn), has_type(x, t), lossless_cast(t, wide)),
    )


@algebra.rule(numerics=Numerics.EXACT, source="TASO (SOSP 2019)")
def transpose_of_product(a: Tensor, b: Tensor, p: String, d: String) -> Rewrite:
    """transpose(A B) = transpose(B) transpose(A), so that transposes meet and cancel."""
    return Rewrite(
        transpose(matmul(a, b, d), p, d),
        to=matmul(transpose(b, p, d), transpose(a, p, d), d),
        when=(swaps_last(p), is_float(d)),
    )


@algebra.rule(numerics=Numerics.EXACT, source="definition of slice")
def slice_of_slice(x: Tensor, r: String, s: String, both: String, d: String) -> Rewrite:
    """slice(slice(x, r), s) = slice(x, s of r)."""
    return Rewrite(
        slice_(slice_(x, r, d), s, d), to=slice_(x, both, d), when=(composes_slices(r, s, both),)
    )


@algebra.rule(numerics=Numerics.EXACT, source="definition of slice")
def slice_of_everything(x: Tensor, r: String, d: String, t: i64) -> Rewrite:
    """slice(x, all of x) = x."""
    return Rewrite(slice_(x, r, d), to=x, when=(has_type(x, t), takes_all(t, r)))


@algebra.rule(numerics=Numerics.EXACT, source="TASO (SOSP 2019)")
def slice_of_first_part(
    x: Tensor, y: Tensor, axis: String, r: String, d: String, t: i64
) -> Rewrite:
    """slice(concat(x, y), r) = slice(x, r) when r takes nothing of y."""
    return Rewrite(
        slice_(concat2(x, y, axis, d), r, d),
        to=slice_(x, r, d),
        when=(has_type(x, t), within_first(r, axis, t)),
    )


@algebra.rule(numerics=Numerics.EXACT, source="TASO (SOSP 2019)")
def slice_of_second_part(
    x: Tensor, y: Tensor, axis: String, r: String, s: String, d: String, t: i64
) -> Rewrite:
    """slice(concat(x, y), r) = slice(y, r - size of x) when r takes nothing of x."""
    return Rewrite(
        slice_(concat2(x, y, axis, d), r, d),
        to=slice_(y, s, d),
        when=(has_type(x, t), behind_first(r, axis, t, s)),
    )


@algebra.rule(numerics=Numerics.EXACT, source="TASO (SOSP 2019)")
def slice_of_first_of_three(
    x: Tensor, y: Tensor, z: Tensor, axis: String, r: String, d: String, t: i64
) -> Rewrite:
    """slice(concat(x, y, z), r) = slice(x, r) when r takes nothing of y and z."""
    return Rewrite(
        slice_(concat3(x, y, z, axis, d), r, d),
        to=slice_(x, r, d),
        when=(has_type(x, t), within_first(r, axis, t)),
    )


@algebra.rule(numerics=Numerics.EXACT, source="TASO (SOSP 2019)")
def slice_of_last_of_three(
    x: Tensor, y: Tensor, z: Tensor, axis: String, r: String, s: String, d: String, t: i64
) -> Rewrite:
    """slice(concat(x, y, z), r) = slice(concat(y, z), r - size of x) when r takes nothing of x."""
    return Rewrite(
        slice_(concat3(x, y, z, axis, d), r, d),
        to=slice_(concat2(y, z, axis, d), s, d),
        when=(has_type(x, t), behind_first(r, axis, t, s)),
    )


@algebra.rule(numerics=Numerics.EXACT, source="TASO (SOSP 2019)")
def concat_of_adjacent_slices(
    x: Tensor, r: String, s: String, axis: String, both: String, d: String
) -> Rewrite:
    """concat(slice(x, r), slice(x, s)) = slice(x, r and s) when s begins where r ends."""
    return Rewrite(
        concat2(slice_(x, r, d), slice_(x, s, d), axis, d),
        to=slice_(x, both, d),
        when=(adjacent(r, s, axis, both),),
    )


@algebra.rule(numerics=Numerics.EXACT, source="definition of slice and pad")
def slice_of_pad(x: Tensor, p: String, r: String, own: String, d: String, t: i64) -> Rewrite:
    """slice(pad(x), r) = slice(x, r - what was added before) when r takes nothing of the padding."""
    return Rewrite(
        slice_(pad(x, p, d), r, d),
        to=slice_(x, own, d),
        when=(has_type(x, t), within_pad(t, p, r, own)),
    )
