"""Plan one model for many objectives: options are priced once, sums and chains of moves for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tilewright.extract.amounts import amounts
from tilewright.extract.behind import plans_behind
from tilewright.extract.extraction import ExtractOptions, plan_setting, prepare
from tilewright.extract.model_tables import build_tables
from tilewright.extract.objective import AnyMetric, Metric, Objective
from tilewright.extract.option import Option
from tilewright.extract.origins import Variable
from tilewright.extract.overlap import LateOperand
from tilewright.extract.plan import Plan
from tilewright.extract.setting import Setting, narrowed
from tilewright.graph import Graph
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.hwmodel.target import Target
from tilewright.rules.alternatives import Alternatives
from tilewright.rules.roll import Rolled


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A plan with its amount of every metric.

    The plan's cost, bound and proof are of its objective, among plans within `limit_bytes` of scratchpad, and
    within `most` of another metric if there is such a limit.
    """

    plan: Plan
    amounts: Mapping[AnyMetric, float]
    limit_bytes: int
    most: tuple[AnyMetric, float] | None = None


class Reweigher:
    """Keeps every option than which none is better under all of the given objectives."""

    def __init__(
        self,
        graph: Graph,
        rolled: Rolled,
        alternatives: tuple[Alternatives, ...],
        target: Target,
        mesh: LogicalMesh,
        objectives: tuple[Objective, ...],
        options: ExtractOptions,
    ) -> None:
        """Price the options; the other arguments are those of `extract`.

        Args:
            graph: The model.
            rolled: Its blocks.
            alternatives: Of each block.
            target: The machine.
            mesh: The logical mesh.
            objectives: What plans will weigh, each alone or all together.
            options: How hard to try, and the rules that run; the objective counts nothing.

        Raises:
            InfeasibleError: Some tensor cannot be computed within the scratchpad.
        """
        spares = any(Metric.SRAM in objective.metrics for objective in objectives)
        self._metrics = tuple(metric for one in objectives for metric in one.metrics)
        self._options = replace(
            options,
            objective=Objective.LATENCY,
            beside=tuple(o.additive for o in objectives if o != Objective.SRAM),
            spares_scratchpad=spares,
        )
        self._setting = prepare(graph, rolled, alternatives, target, mesh, self._options)
        self._weighed: dict[Objective, Setting] = {}

    @property
    def target(self) -> Target:
        """The machine."""
        return self._setting.pricing.target

    @property
    def capacity_bytes(self) -> int:
        """The scratchpad of a tile."""
        return self._setting.pricing.limit_bytes

    def plan(self, objective: Objective, limit_bytes: int | None = None) -> Point:
        """Return the best plan for an objective within a limit of scratchpad.

        Raises:
            InfeasibleError: None was found.
        """
        limit = min(limit_bytes or self.capacity_bytes, self.capacity_bytes)
        setting = self.setting_of(objective.additive)
        options = replace(self._options, objective=objective, sram_limit_bytes=limit)
        plan = plan_setting(setting, options)
        found = amounts(plan, setting.pricing.target, self._metrics)
        return Point(plan=plan, amounts=found, limit_bytes=limit)

    def behind(
        self,
        objective: Objective,
        metrics: tuple[AnyMetric, AnyMetric],
        ends: tuple[Point, Point],
        limit_bytes: int,
    ) -> tuple[tuple[Point, ...], bool]:
        """Return plans between two that cost the same, and whether there are no others; see `behind`.

        Their objective, bound and proof are those of the objective, and none.
        """
        setting = narrowed(self.setting_of(objective), limit_bytes)
        first, last = ((end.amounts[metrics[0]], end.amounts[metrics[1]]) for end in ends)
        found = plans_behind(setting, metrics, (first, last))
        target = setting.pricing.target
        points = (
            Point(plan=p, amounts=amounts(p, target, self._metrics), limit_bytes=limit_bytes)
            for p in found.plans
        )
        return tuple(points), found.is_complete

    def setting_of(self, objective: Objective) -> Setting:
        """Return what plans for an objective that adds up are chosen from, within all of the scratchpad."""
        known = self._weighed.get(objective)
        if known is not None:
            return known
        base = self._setting
        target = base.pricing.target
        options = {
            variable: tuple(
                replace(one, units=objective.kernel_units(one.cost, target)) for one in own
            )
            for variable, own in zip(base.tables.variables, base.tables.options, strict=True)
        }

        def priced(
            variable: Variable, needed: bool, late: Mapping[int, LateOperand]
        ) -> tuple[Option, ...]:
            return options[variable]

        pricing = replace(base.pricing, objective=objective, reshards={})
        tables = build_tables(base.graph, base.rolled, base.alternatives, pricing, priced)
        setting = replace(base, pricing=pricing, tables=tables)
        self._weighed[objective] = setting
        return setting
