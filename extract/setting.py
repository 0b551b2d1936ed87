"""What a plan is chosen from."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tilewright.extract.model_tables import ModelTables
from tilewright.extract.options import Pricing
from tilewright.graph import Graph
from tilewright.rules.alternatives import Alternatives
from tilewright.rules.roll import Rolled


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What a plan is chosen from: the model, its alternatives without beaten ones, and the priced tables."""

    graph: Graph
    rolled: Rolled
    alternatives: tuple[Alternatives, ...]
    pricing: Pricing
    tables: ModelTables


def narrowed(setting: Setting, limit_bytes: int) -> Setting:
    """Return the setting with less scratchpad; options keep their prices."""
    tables, limit = setting.tables, float(limit_bytes)
    return replace(
        setting,
        pricing=replace(setting.pricing, limit_bytes=limit_bytes),
        tables=replace(
            tables,
            problem=replace(tables.problem, limit=limit),
            relaxed=replace(tables.relaxed, limit=limit),
        ),
    )
