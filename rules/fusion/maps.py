"""Maps that follow maps."""

from __future__ import annotations

from egglog import String, join

from tilewright.rules.fusion.ruleset import fusion
from tilewright.rules.registry import Numerics, Rewrite
from tilewright.rules.terms import Tensor, map1, map2, map3


@fusion.rule(numerics=Numerics.EXACT, source="definition of map")
def map_after_map(x: Tensor, f: String, g: String, c: String, d: String) -> Rewrite:
    """g(f(x)) = (f|g)(x)."""
    return Rewrite(map1(map1(x, f, c), g, d), to=map1(x, join(f, "|", g), d))


@fusion.rule(numerics=Numerics.EXACT, source="definition of map")
def map_after_binary(x: Tensor, y: Tensor, f: String, g: String, c: String, d: String) -> Rewrite:
    """g(f(x, y)) = (f|g)(x, y)."""
    return Rewrite(map1(map2(x, y, f, c), g, d), to=map2(x, y, join(f, "|", g), d))


@fusion.rule(numerics=Numerics.EXACT, source="definition of map")
def map_after_ternary(
    x: Tensor, y: Tensor, z: Tensor, f: String, g: String, c: String, d: String
) -> Rewrite:
    """g(f(x, y, z)) = (f|g)(x, y, z)."""
    return Rewrite(map1(map3(x, y, z, f, c), g, d), to=map3(x, y, z, join(f, "|", g), d))
