"""Two products as one kernel that makes and uses what is between them in slices.

A slice is a box of rows and of the dimension that the second product contracts: its sums grow while slices
come and go, so that what is between the products never lies whole in the scratchpad, nor in DRAM. To look
at every pair of products would take time for nothing: the rules offer it where what is between is not small.

Nothing, a pipeline, or one with an operand of its own (say a bias) may be between the products, and behind
the second one.
"""

from __future__ import annotations

from egglog import String, i64

from tilewright.rules.fusion.ruleset import fusion
from tilewright.rules.registry import Numerics, Rewrite
from tilewright.rules.size_facts import worth_slicing
from tilewright.rules.terms import (
    NO_ATTRIBUTES,
    Tensor,
    chain,
    chain_binary,
    chain_unary,
    chain_with,
    chain_with_binary,
    chain_with_unary,
    has_type,
    matmul,
    matmul_binary,
    matmul_unary,
)

_SOURCE = "Chimera (HPCA 2023): chains of compute-intensive operators"


def _where_large(between: Tensor, t: i64, products: Tensor, sliced: Tensor) -> Rewrite:
    """Offer a chain for two products where what is between them is of a type t that is large."""
    return Rewrite(products, to=sliced, bounds=(has_type(between, t), worth_slicing(t)))


@fusion.rule(numerics=Numerics.EXACT, source=_SOURCE)
def chain_of_products(a: Tensor, b: Tensor, c: Tensor, p: String, d: String, t: i64) -> Rewrite:
    """chain(A, B, C) = (A B) C."""
    between = matmul(a, b, p)
    return _where_large(between, t, matmul(between, c, d), chain(a, b, c, "identity", p, d))


@fusion.rule(numerics=Numerics.EXACT, source=_SOURCE)
def chain_of_products_and_map(
    a: Tensor, b: Tensor, c: Tensor, g: String, r: String, p: String, d: String, t: i64
) -> Rewrite:
    """chain(A, B, C) = g((A B) C)."""
    between = matmul(a, b, p)
    return _where_large(
        between,
        t,
        matmul_unary(between, c, NO_ATTRIBUTES, g, r, d),
        chain_unary(a, b, c, "identity", p, g, r, d),
    )


@fusion.rule(numerics=Numerics.EXACT, source=_SOURCE)
def chain_of_products_and_bias(
    a: Tensor,
    b: Tensor,
    c: Tensor,
    y: Tensor,
    g: String,
    r: String,
    p: String,
    d: String,
    t: i64,
) -> Rewrite:
    """chain(A, B, C, Y) = g((A B) C, Y)."""
    between = matmul(a, b, p)
    return _where_large(
        between,
        t,
        matmul_binary(between, c, y, NO_ATTRIBUTES, g, r, d),
        chain_binary(a, b, c, y, "identity", p, g, r, d),
    )


@fusion.rule(numerics=Numerics.EXACT, source=_SOURCE)
def chain_of_mapped_product(
    a: Tensor, b: Tensor, c: Tensor, f: String, p: String, q: String, d: String, t: i64
) -> Rewrite:
    """chain(A, B, C) = f(A B) C."""
    between = matmul_unary(a, b, NO_ATTRIBUTES, f, p, q)
    return _where_large(between, t, matmul(between, c, d), chain(a, b, c, f, p, d))


@fusion.rule(numerics=Numerics.EXACT, source=_SOURCE)
def chain_of_mapped_product_and_map(
    a: Tensor,
    b: Tensor,
    c: Tensor,
    f: String,
    g: String,
    r: String,
    p: String,
    q: String,
    d: String,
    t: i64,
) -> Rewrite:
    """chain(A, B, C) = g(f(A B) C)."""
    between = matmul_unary(a, b, NO_ATTRIBUTES, f, p, q)
    return _where_large(
        between,
        t,
        matmul_unary(between, c, NO_ATTRIBUTES, g, r, d),
        chain_unary(a, b, c, f, p, g, r, d),
    )


@fusion.rule(numerics=Numerics.EXACT, source=_SOURCE)
def chain_of_mapped_product_and_bias(
    a: Tensor,
    b: Tensor,
    c: Tensor,
    f: String,
    y: Tensor,
    g: String,
    r: String,
    p: String,
    q: String,
    d: String,
    t: i64,
) -> Rewrite:
    """chain(A, B, C, Y) = g(f(A B) C, Y)."""
    between = matmul_unary(a, b, NO_ATTRIBUTES, f, p, q)
    return _where_large(
        between,
        t,
        matmul_binary(between, c, y, NO_ATTRIBUTES, g, r, d),
        chain_binary(a, b, c, y, f, p, g, r, d),
    )


@fusion.rule(numerics=Numerics.EXACT, source=_SOURCE)
def chain_of_biased_product(
    a: Tensor, b: Tensor, c: Tensor, x: Tensor, f: String, p: String, q: String, d: String, t: i64
) -> Rewrite:
    """chain(A, B, C, X) = f(A B, X) C."""
    between = matmul_binary(a, b, x, NO_ATTRIBUTES, f, p, q)
    return _where_large(between, t, matmul(between, c, d), chain_with(a, b, c, x, f, p, d))


@fusion.rule(numerics=Numerics.EXACT, source=_SOURCE)
def chain_of_biased_product_and_map(
    a: Tensor,
    b: Tensor,
    c: Tensor,
    x: Tensor,
    f: String,
    g: String,
    r: String,
    p: String,
    q: String,
    d: String,
    t: i64,
) -> Rewrite:
    """chain(A, B, C, X) = g(f(A B, X) C)."""
    between = matmul_binary(a, b, x, NO_ATTRIBUTES, f, p, q)
    return _where_large(
        between,
        t,
        matmul_unary(between, c, NO_ATTRIBUTES, g, r, d),
        chain_with_unary(a, b, c, x, f, p, g, r, d),
    )


@fusion.rule(numerics=Numerics.EXACT, source=_SOURCE)
def chain_of_biased_product_and_bias(
    a: Tensor,
    b: Tensor,
    c: Tensor,
    x: Tensor,
    f: String,
    y: Tensor,
    g: String,
    r: String,
    p: String,
    q: String,
    d: String,
    t: i64,
) -> Rewrite:
    """chain(A, B, C, X, Y) = g(f(A B, X) C, Y)."""
    between = matmul_binary(a, b, x, NO_ATTRIBUTES, f, p, q)
    return _where_large(
        between,
        t,
        matmul_binary(between, c, y, NO_ATTRIBUTES, g, r, d),
        chain_with_binary(a, b, c, x, y, f, p, g, r, d),
    )
