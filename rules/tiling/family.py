"""The tiling rules of this package."""

from __future__ import annotations

from importlib import import_module

from tilewright.rules.tiling.ruleset import TilingRule, tiling


def tiling_rules() -> tuple[TilingRule, ...]:
    """Return every tiling rule of this package, in order."""
    import_module("tilewright.rules.tiling.rules")
    tiling.close()
    return tiling.rules
