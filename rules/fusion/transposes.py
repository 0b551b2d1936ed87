"""Transposes that matrix products absorb: operands and results walked in another order."""

from __future__ import annotations

from egglog import String

from tilewright.rules.fusion.ruleset import fusion
from tilewright.rules.layout_facts import absorbs_left, absorbs_result, absorbs_right
from tilewright.rules.registry import Numerics, Rewrite
from tilewright.rules.terms import Tensor, permuted_matmul, transpose


@fusion.rule(numerics=Numerics.EXACT, source="TASO (SOSP 2019); strides of the operand")
def transposed_left_operand(
    x: Tensor, b: Tensor, p: String, r: String, s: String, c: String, d: String
) -> Rewrite:
    """transpose(x, p) B = matmul that walks x in the order p."""
    return Rewrite(
        permuted_matmul(transpose(x, p, c), b, r, d),
        to=permuted_matmul(x, b, s, d),
        when=(absorbs_left(r, p, s),),
    )


@fusion.rule(numerics=Numerics.EXACT, source="TASO (SOSP 2019); strides of the operand")
def transposed_right_operand(
    a: Tensor, x: Tensor, p: String, r: String, s: String, c: String, d: String
) -> Rewrite:
    """Let A transpose(x, p) = matmul that walks x in the order p."""
    return Rewrite(
        permuted_matmul(a, transpose(x, p, c), r, d),
        to=permuted_matmul(a, x, s, d),
        when=(absorbs_right(r, p, s),),
    )


@fusion.rule(numerics=Numerics.EXACT, source="TASO (SOSP 2019); strides of the result")
def transposed_product(a: Tensor, b: Tensor, p: String, r: String, s: String, d: String) -> Rewrite:
    """transpose(A B, p) = matmul that writes its result in the order p."""
    return Rewrite(
        transpose(permuted_matmul(a, b, r, d), p, d),
        to=permuted_matmul(a, b, s, d),
        when=(absorbs_result(r, p, s),),
    )
