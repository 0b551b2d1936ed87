"""What a plan is chosen from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from tilewright.extract.filling import Replaced
from tilewright.extract.mixing import Choice
from tilewright.extract.model_tables import ModelTables
from tilewright.extract.plan import Move
from tilewright.extract.plan_writer import PlanWriter, Use
from tilewright.extract.pricing import Pricing
from tilewright.graph import Graph
from tilewright.rules.alternatives import Alternatives
from tilewright.rules.roll import Rolled

_NONE: Mapping[Any, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What a plan is chosen from: the model, its alternatives without beaten ones, and the priced tables."""

    graph: Graph
    rolled: Rolled
    alternatives: tuple[Alternatives, ...]
    pricing: Pricing
    tables: ModelTables

    def writer(
        self,
        choice: Choice,
        replaced: Replaced = _NONE,
        others: Mapping[int, Choice] = _NONE,
        ways: Mapping[Use, tuple[Move, ...]] = _NONE,
    ) -> PlanWriter:
        """Return what writes out a choice; the other arguments are those of `PlanWriter`."""
        parts = (self.graph, self.rolled, self.alternatives, self.tables, choice, self.pricing)
        return PlanWriter(*parts, replaced, others, ways)


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
