"""Chains of data movement and of casts."""

from __future__ import annotations

from egglog import String, i64

from tilewright.rules.algebra.ruleset import algebra
from tilewright.rules.facts import (
    composes,
    identity_perm,
    is_cast,
    keeps_values,
    lossless_cast,
)
from tilewright.rules.registry import Numerics, Rewrite
from tilewright.rules.terms import Tensor, has_type, map1, reshape, transpose


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
