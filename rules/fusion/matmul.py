"""Maps that follow matrix products: epilogues."""

from __future__ import annotations

from egglog import String, i64

from tilewright.rules.facts import commutes
from tilewright.rules.fusion.ruleset import fusion, of_one_shape
from tilewright.rules.registry import Numerics, Rewrite
from tilewright.rules.terms import (
    Tensor,
    map1,
    map2,
    matmul_binary,
    matmul_unary,
    permuted_matmul,
)


@fusion.rule(numerics=Numerics.EXACT, source="Unity (OSDI 2022)")
def map_after_matmul(a: Tensor, b: Tensor, r: String, f: String, p: String, d: String) -> Rewrite:
    """f(A B) = matmul with epilogue f."""
    return Rewrite(map1(permuted_matmul(a, b, r, p), f, d), to=matmul_unary(a, b, r, f, p, d))


@fusion.rule(numerics=Numerics.EXACT, source="TASO (SOSP 2019)")
def third_operand_of_matmul(
    root: Tensor,
    a: Tensor,
    b: Tensor,
    third: Tensor,
    r: String,
    f: String,
    p: String,
    d: String,
    i: i64,
    j: i64,
) -> Rewrite:
    """f(A B, t) = matmul with third operand t, which must not enlarge the product."""
    return Rewrite(
        map2(permuted_matmul(a, b, r, p), third, f, d),
        to=matmul_binary(a, b, third, r, f, p, d),
        when=of_one_shape(permuted_matmul(a, b, r, p), root, i, j),
    )


@fusion.rule(numerics=Numerics.EXACT, source="TASO (SOSP 2019)")
def third_operand_before_matmul(
    root: Tensor,
    a: Tensor,
    b: Tensor,
    third: Tensor,
    r: String,
    f: String,
    p: String,
    d: String,
    i: i64,
    j: i64,
) -> Rewrite:
    """f(t, A B) = matmul with third operand t when f commutes."""
    return Rewrite(
        map2(third, permuted_matmul(a, b, r, p), f, d),
        to=matmul_binary(a, b, third, r, f, p, d),
        when=(commutes(f), *of_one_shape(permuted_matmul(a, b, r, p), root, i, j)),
    )
