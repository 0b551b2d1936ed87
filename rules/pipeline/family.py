"""The rules of pipeline legality of this package."""

from __future__ import annotations

from importlib import import_module

from tilewright.rules.pipeline.ruleset import PipelineRule, pipeline


def pipeline_rules() -> tuple[PipelineRule, ...]:
    """Return every rule of pipeline legality of this package, in order."""
    import_module("tilewright.rules.pipeline.rules")
    pipeline.close()
    return pipeline.rules
