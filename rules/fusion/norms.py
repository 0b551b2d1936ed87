"""Residual sums that a norm adds up itself."""

from __future__ import annotations

from egglog import String, i64

from tilewright.rules.facts import is_full_float
from tilewright.rules.fusion.ruleset import fusion
from tilewright.rules.registry import Numerics, Rewrite
from tilewright.rules.terms import (
    Tensor,
    has_type,
    layernorm,
    layernorm_of_sum,
    map2,
    rmsnorm,
    rmsnorm_of_sum,
)


@fusion.rule(numerics=Numerics.EXACT, source="definition of LayerNorm; residual networks")
def layernorm_of_residual(x: Tensor, y: Tensor, epsilon: String, d: String, t: i64) -> Rewrite:
    """layernorm(x + y) = one kernel of x and y of one type."""
    return Rewrite(
        layernorm(map2(x, y, "add", d), epsilon, d),
        to=layernorm_of_sum(x, y, epsilon, d),
        when=(has_type(x, t), has_type(y, t), is_full_float(d)),
    )


@fusion.rule(numerics=Numerics.EXACT, source="definition of RMSNorm; residual networks")
def rmsnorm_of_residual(x: Tensor, y: Tensor, epsilon: String, d: String, t: i64) -> Rewrite:
    """rmsnorm(x + y) = one kernel of x and y of one type."""
    return Rewrite(
        rmsnorm(map2(x, y, "add", d), epsilon, d),
        to=rmsnorm_of_sum(x, y, epsilon, d),
        when=(has_type(x, t), has_type(y, t), is_full_float(d)),
    )
