"""The stages of a planned model: what they would be under demands, and why they are cut where they are."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from tilewright.errors import DemandError, InfeasibleError
from tilewright.extract.exploration.demand import Aspect, Demand, check_value
from tilewright.extract.exploration.stage_limits import StageLimits
from tilewright.extract.exploration.stage_prices import DemandedPrices, WarmPrices
from tilewright.extract.exploration.stage_values import (
    check_demands,
    part_of,
    places_needed,
    stages_needed,
)
from tilewright.extract.extraction import ExtractOptions
from tilewright.extract.objective import Objective
from tilewright.extract.pipeline.items import Places, cut_into_items
from tilewright.extract.pipeline.plan import PipelinePlan
from tilewright.extract.pipeline.planner import (
    StageOptions,
    check_divisible,
    check_objective,
    goal_of,
    no_division,
    parts_of,
    search,
    written,
)
from tilewright.extract.pipeline.prices import Price, Saturate
from tilewright.extract.pipeline.table import Parts, StageTable
from tilewright.extract.plan import Plan
from tilewright.graph import Graph
from tilewright.hwmodel.network import logical_mesh
from tilewright.hwmodel.submesh import Submesh, submeshes
from tilewright.hwmodel.target import Target
from tilewright.rules.pipeline.legality import Legality
from tilewright.rules.roll import Rolled

_MOST = 24
"""Kinds of stages priced for an answer while no division is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineAnswer:
    """Stages under demands; cost, bound and gap are the pipeline's.

    `delta` is its cost above that of the pipeline without demands, in cycles.
    """

    demands: tuple[Demand, ...]
    pipeline: PipelinePlan
    delta: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CutReason:
    """Why stages are cut behind a tensor, or not: the pipeline without demands against one that differs.

    `other` is None if there is no other; `why` says so.
    """

    tensor: str
    is_cut: bool
    chosen: PipelinePlan
    other: PipelineAnswer | None
    why: str


class StageExplorer:
    """Divides a model into stages once and keeps what that took: prices of stages, bounds of the rest.

    Nothing that is asked changes what a later answer is. An answer prices few stages, so that it may be a
    little dearer than the best; its bound is proven all the same.
    """

    def __init__(
        self,
        graph: Graph,
        rolled: Rolled,
        target: Target,
        saturate: Saturate,
        options: ExtractOptions,
        stages: StageOptions | None = None,
        whole: Plan | None = None,
        *,
        enough: int = 2,
    ) -> None:
        """Divide the model; the other arguments are those of `plan_pipeline`.

        Args:
            graph: The model.
            rolled: Its blocks.
            target: The machine.
            saturate: Gives the alternatives of a block on a mesh.
            options: Objective and limits of the plans of stages.
            stages: What to choose from.
            whole: The plan of least latency of the whole model on the whole machine, if there is one.
            enough: Kinds of stages priced for an answer once a division is known.

        Raises:
            CompileError: The objective is not a time, or stages cannot run the model.
            InfeasibleError: No division found fits.
        """
        check_objective(options.objective)
        check_divisible(graph)
        self._graph, self._rolled, self._target, self._whole = graph, rolled, target, whole
        self._stages, self._objective = stages or StageOptions(), options.objective
        self._enough = enough
        self._goal = goal_of(options.objective, self._stages)
        self._legality = Legality(rules=self._stages.rules)
        self._places = Places(graph, rolled, self._legality)
        items = cut_into_items(graph, rolled, self._legality, self._stages.items)
        self._edges = tuple(i.start for i in items.instances[1:])
        parts = parts_of(graph, items, target, self._stages)
        timed = replace(options, objective=Objective.LATENCY)
        reserved = self._stages.reserved_semaphores
        self._prices = WarmPrices(target, saturate, timed, reserved)
        self._table = StageTable(parts, self._prices)
        self._under: dict[tuple[Demand, ...], DemandedPrices] = {}
        most = self._stages.evaluations
        found = search(self._table, self._goal, None, most, most, whole)
        if found.division is None:
            raise no_division(self._table, self._goal, self._stages)
        self.base: PipelinePlan = written(
            *(self._table, found.division, found.bound), options.objective, self._stages, whole
        )
        """The pipeline without demands."""
        self._prices.is_learning = False

    def answer(self, *demands: Demand) -> PipelineAnswer:
        """Return the best division into stages found that satisfies demands.

        Raises:
            DemandError: A demand cannot be read or met, or some contradict each other.
            InfeasibleError: No division found under the demands fits the scratchpad.
        """
        self._check(demands)
        table, stages = self._table_for(demands)
        regular = frozenset(submeshes(self._target, 1 / stages.most))
        limits = StageLimits(table, self._places, regular, stages.most)
        if not limits.divides(demands):
            raise limits.error(demands)
        goal = replace(self._goal, counts=limits.counts(demands))
        permitted, most = limits.permitted(demands), max(_MOST, self._enough)
        found = search(table, goal, permitted, most, self._enough)
        if found.division is None:
            named = ", ".join(f"'{demand}'" for demand in demands)
            raise InfeasibleError(
                f"demands {named} on model '{self._graph.name}' and '{self._target.name}': of "
                f"{table.asked} kinds of stages tried, too few do what is demanded and fit the scratchpad of "
                "their tiles; drop a demand, or demand larger parts"
            )
        whole = None if self._touches_all(demands) else self._whole
        pipeline = written(*(table, found.division, found.bound), self._objective, stages, whole)
        delta = pipeline.cost - self.base.cost
        return PipelineAnswer(demands=demands, pipeline=pipeline, delta=delta)

    def explain(self, tensor: str) -> CutReason:
        """Return why the stages are cut behind a tensor, or why they are not.

        Raises:
            DemandError: The tensor is unknown.
        """
        cut = Demand(aspect=Aspect.CUT, value="", tensor=tensor, is_forced=False)
        self._check((cut,))
        ends = {stage.plan.graph.ops[-1].outputs[0] for stage in self.base.stages[:-1]}
        last = self._places.ops[self._places.made_by[tensor]].outputs[0]
        is_cut = last in ends
        try:
            other = self.answer(replace(cut, is_forced=not is_cut))
            why = ""
        except (DemandError, InfeasibleError) as error:
            other, why = None, str(error)
        return CutReason(tensor=tensor, is_cut=is_cut, chosen=self.base, other=other, why=why)

    def _check(self, demands: Sequence[Demand]) -> None:
        mesh = logical_mesh(self._target)
        for demand in demands:
            check_value(demand, mesh)
            if demand.aspect is Aspect.RULE and demand.is_forced and demand.tensor is None:
                raise DemandError(
                    f"demand '{demand}': found no tensor, expected one beside demands on stages, each of "
                    f"which is planned on its own; write rule={demand.value}@TENSOR"
                )
        check_demands(demands, self._graph, self._places, self._target)

    def _table_for(self, demands: tuple[Demand, ...]) -> tuple[StageTable, StageOptions]:
        """Return a table to answer from: the known one, cut further or with more parts if demands need it."""
        known = self._table
        places = places_needed(demands, self._places, (0, *self._edges))
        forced = [d for d in demands if d.aspect is Aspect.PART and d.is_forced]
        needed = stages_needed(demands, self._places, self._target)
        stages = replace(self._stages, most=max(self._stages.most, needed))
        parts = known.parts
        items = parts.rolled
        if places:
            every = (*places, *self._edges)
            items = cut_into_items(
                self._graph, self._rolled, self._legality, self._stages.items, every
            )
        also = [part_of(demand, self._target) for demand in forced]
        if places or stages.most > self._stages.most or not set(also) <= set(parts.shapes):
            parts = parts_of(self._graph, items, self._target, stages, also)
            table = StageTable(parts, known.prices, partial(self._alone, parts))
            table.carry(known)
        else:
            table = known.copy()
        on_ops = tuple(demand for demand in demands if not demand.is_on_stages)
        if on_ops:
            adding = [demand for demand in on_ops if demand.adds_ways]
            touched, unbounded = self._touched(table, on_ops), self._touched(table, adding)
            table.price_with(self._prices_under(on_ops), touched, unbounded)
        return table, stages

    def _alone(self, parts: Parts, item: int, shape: Submesh) -> Price:
        """Return the price of an item by itself; of a piece of one that is known, a share, and no bound.

        So a model that is cut further is only saturated where a stage is priced.
        """
        edges, known = parts.edges, self._table.parts
        begin, end = edges[item : item + 2]
        outer = bisect_right(known.edges, begin) - 1
        instance = known.rolled.instances[outer]
        key, block = known.segments.block_key(instance.block), known.rolled.blocks[instance.block]
        price = self._prices.alone(key, block, shape)
        if (instance.start, instance.stop) == (begin, end):
            return price
        work = (0, *self._places.work())
        whole = max(1, work[instance.stop] - work[instance.start])
        return Price(cost=price.cost * (work[end] - work[begin]) / whole, bound=0.0)

    def _prices_under(self, demands: tuple[Demand, ...]) -> DemandedPrices:
        if demands not in self._under:
            self._under[demands] = DemandedPrices(self._prices, demands)
        return self._under[demands]

    def _touched(self, table: StageTable, demands: Sequence[Demand]) -> np.ndarray:
        """Return which stages compute a tensor that a demand is on, [first, last]."""
        parts = table.parts
        found = np.zeros((parts.items, parts.items + 1), dtype=np.bool_)
        for first in range(parts.items):
            for last in range(first + 1, parts.items + 1):
                found[first, last] = any(
                    d.tensor is None or parts.segments.computes(d.tensor, first, last)
                    for d in demands
                )
        return found

    @staticmethod
    def _touches_all(demands: Sequence[Demand]) -> bool:
        """Whether demands are on the plan of the whole model, too."""
        return any(not demand.is_on_stages for demand in demands)
