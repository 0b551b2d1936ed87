"""Products with constants: association and distribution."""

from __future__ import annotations

from egglog import String

from tilewright.rules.algebra.ruleset import algebra
from tilewright.rules.facts import is_float, scales_by_number
from tilewright.rules.registry import Numerics, Rewrite
from tilewright.rules.terms import Tensor, is_constant, map1, map2, matmul


@algebra.rule(numerics=Numerics.REASSOCIATES, source="TASO (SOSP 2019); TENSAT (MLSys 2021)")
def product_of_two_weights(a: Tensor, b: Tensor, c: Tensor, d: String) -> Rewrite:
    """Let (A B) C = A (B C) with B and C constant: the compiler multiplies them."""
    return Rewrite(
        matmul(matmul(a, b, d), c, d),
        to=matmul(a, matmul(b, c, d), d),
        bounds=(is_constant(b), is_constant(c), is_float(d)),
    )


@algebra.rule(numerics=Numerics.REASSOCIATES, source="TASO (SOSP 2019); TENSAT (MLSys 2021)")
def product_after_two_weights(a: Tensor, b: Tensor, c: Tensor, d: String) -> Rewrite:
    """Let A (B C) = (A B) C with A and B constant: the compiler multiplies them."""
    return Rewrite(
        matmul(a, matmul(b, c, d), d),
        to=matmul(matmul(a, b, d), c, d),
        bounds=(is_constant(a), is_constant(b), is_float(d)),
    )


@algebra.rule(numerics=Numerics.REASSOCIATES, source="TASO (SOSP 2019); TENSAT (MLSys 2021)")
def sum_of_products(a: Tensor, b: Tensor, c: Tensor, d: String) -> Rewrite:
    """Let A B + A C = A (B + C): one product, and the compiler adds what is constant."""
    return Rewrite(
        map2(matmul(a, b, d), matmul(a, c, d), "add", d),
        to=matmul(a, map2(b, c, "add", d), d),
        when=(is_float(d),),
    )


@algebra.rule(numerics=Numerics.REASSOCIATES, source="TASO (SOSP 2019); TENSAT (MLSys 2021)")
def product_with_sum(a: Tensor, b: Tensor, c: Tensor, d: String) -> Rewrite:
    """Let A C + B C = (A + B) C: one product instead of two."""
    return Rewrite(
        map2(matmul(a, c, d), matmul(b, c, d), "add", d),
        to=matmul(map2(a, b, "add", d), c, d),
        when=(is_float(d),),
    )


@algebra.rule(numerics=Numerics.REASSOCIATES, source="linearity")
def number_into_left_operand(a: Tensor, b: Tensor, fn: String, d: String) -> Rewrite:
    """s (A B) = (s A) B for a number s."""
    return Rewrite(
        map1(matmul(a, b, d), fn, d),
        to=matmul(map1(a, fn, d), b, d),
        when=(scales_by_number(fn), is_float(d)),
    )


@algebra.rule(numerics=Numerics.REASSOCIATES, source="linearity")
def number_into_weight(a: Tensor, b: Tensor, fn: String, d: String) -> Rewrite:
    """s (A B) = A (s B) for a number s and constant B: the compiler scales B."""
    return Rewrite(
        map1(matmul(a, b, d), fn, d),
        to=matmul(a, map1(b, fn, d), d),
        when=(is_constant(b), scales_by_number(fn), is_float(d)),
    )


@algebra.rule(numerics=Numerics.REASSOCIATES, source="linearity")
def number_out_of_left_operand(a: Tensor, b: Tensor, fn: String, d: String) -> Rewrite:
    """(s A) B = s (A B) for a number s, which then may fuse into the epilogue."""
    return Rewrite(
        matmul(map1(a, fn, d), b, d),
        to=map1(matmul(a, b, d), fn, d),
        when=(scales_by_number(fn),),
        bounds=(is_float(d),),
    )
