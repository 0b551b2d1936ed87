"""Maps that follow convolutions: epilogues."""

from __future__ import annotations

from egglog import String, i64

from tilewright.rules.facts import commutes
from tilewright.rules.fusion.ruleset import fusion, of_one_shape
from tilewright.rules.registry import Numerics, Rewrite
from tilewright.rules.terms import Tensor, conv, conv_binary, conv_unary, map1, map2


@fusion.rule(numerics=Numerics.EXACT, source="Unity (OSDI 2022)")
def map_after_conv(x: Tensor, w: Tensor, rest: String, f: String, p: String, d: String) -> Rewrite:
    """f(conv(x, w)) = conv with epilogue f."""
    return Rewrite(map1(conv(x, w, rest, p), f, d), to=conv_unary(x, w, rest, f, p, d))


@fusion.rule(numerics=Numerics.EXACT, source="TASO (SOSP 2019)")
def third_operand_of_conv(
    root: Tensor,
    x: Tensor,
    w: Tensor,
    rest: String,
    third: Tensor,
    f: String,
    p: String,
    d: String,
    i: i64,
    j: i64,
) -> Rewrite:
    """f(conv(x, w), t) = conv with third operand t, which must not enlarge the product."""
    return Rewrite(
        map2(conv(x, w, rest, p), third, f, d),
        to=conv_binary(x, w, third, rest, f, p, d),
        when=of_one_shape(conv(x, w, rest, p), root, i, j),
    )


@fusion.rule(numerics=Numerics.EXACT, source="TASO (SOSP 2019)")
def third_operand_before_conv(
    root: Tensor,
    x: Tensor,
    w: Tensor,
    rest: String,
    third: Tensor,
    f: String,
    p: String,
    d: String,
    i: i64,
    j: i64,
) -> Rewrite:
    """f(t, conv(x, w)) = conv with third operand t when f commutes."""
    return Rewrite(
        map2(third, conv(x, w, rest, p), f, d),
        to=conv_binary(x, w, third, rest, f, p, d),
        when=(commutes(f), *of_one_shape(conv(x, w, rest, p), root, i, j)),
    )
