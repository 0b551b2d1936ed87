"""The collective rules of this package."""

from __future__ import annotations

from importlib import import_module

from tilewright.rules.collectives.ruleset import CollectiveRule, collective


def collective_rules() -> tuple[CollectiveRule, ...]:
    """Return every collective rule of this package, in order."""
    import_module("tilewright.rules.collectives.fused")
    collective.close()
    return collective.rules
