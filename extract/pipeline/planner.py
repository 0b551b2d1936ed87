"""The pipeline of a model: cuts, sub-rectangles, plans of the stages, and a bound.

Pricing a stage is an extraction, so only those are priced that could matter. Until then a stage counts with
the sum of its blocks' bounds where the division bounds, and with the sum of its blocks' prices where it
guesses what to price next. Each division into stages that comes out with stages not priced yet has
them priced, until the division by guesses is priced throughout, and then until the one by bounds is.

For the latency of one inference stages are not in a row: branches run side by side, on parts of their own,
and what is read behind them passes by. In a stream that would not do: a stage ends an inference when all that
it wrote is read, and would wait for the longest way to a reader.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from math import inf
from types import MappingProxyType

import numpy as np

from tilewright.errors import CompileError, InfeasibleDemandError, InfeasibleError
from tilewright.extract.extraction import ExtractOptions
from tilewright.extract.objective import Objective
from tilewright.extract.pipeline.items import cut_into_items, with_branches
from tilewright.extract.pipeline.paths import Left, divide_into_paths
from tilewright.extract.pipeline.plan import PipelinePlan, PlannedStage, Wait
from tilewright.extract.pipeline.prices import Price, Prices, Saturate, claim_of
from tilewright.extract.pipeline.search import Division, Goal, Permitted, divide
from tilewright.extract.pipeline.search import Prices as Table
from tilewright.extract.pipeline.segments import Segments
from tilewright.extract.pipeline.table import Parts, StageTable, is_divisible
from tilewright.extract.plan import Plan, Proof
from tilewright.graph import Graph
from tilewright.hwmodel.submesh import Submesh, submeshes, tiles_of, whole_machine
from tilewright.hwmodel.target import Target
from tilewright.rules.pipeline.family import pipeline_rules
from tilewright.rules.pipeline.legality import Legality
from tilewright.rules.pipeline.ruleset import PipelineRule
from tilewright.rules.roll import Rolled, roll


@dataclass(frozen=True, slots=True, kw_only=True)
class StageOptions:
    """What a user chooses of pipelines, and how far the search goes."""

    stages: int = 0
    """The number wanted; 0: whatever is best."""
    most: int = 4
    """Stages at most, unless more are wanted; sub-rectangles have at least such a share of the tiles."""
    micro_batches: int = 1
    """How many of them follow each other through the stages; the graph is that of one."""
    max_latency_cycles: float = inf
    """What an inference, all its micro-batches, may take from its first stage to its last."""
    items: int = 12
    """About how many parts a model is cut into whose blocks do not repeat."""
    evaluations: int = 12
    """Stages priced at most."""
    reserved_semaphores: int = 16
    """Semaphores of each tile that the exchange between stages needs."""
    rules: tuple[PipelineRule, ...] = field(default_factory=pipeline_rules)


def plan_pipeline(
    graph: Graph,
    rolled: Rolled,
    target: Target,
    saturate: Saturate,
    options: ExtractOptions | None = None,
    stages: StageOptions | None = None,
    *,
    whole: Plan | None = None,
) -> PipelinePlan:
    """Divide a model into stages on parts of a machine.

    Args:
        graph: The model; of several micro-batches, one of them.
        rolled: Its blocks.
        target: The machine.
        saturate: Gives the alternatives of a block on a mesh.
        options: Objective and limits of the plans of stages.
        stages: What to choose from.
        whole: The plan of least latency of the whole model on the whole machine, if there is one: the
            pipeline of one stage.

    Returns:
        The best pipeline found; it has one stage if no division is better.

    Raises:
        CompileError: The objective is not a time, there are too few places to cut, or a host region.
        InfeasibleError: No division found fits.
    """
    options, stages = options or ExtractOptions(), stages or StageOptions()
    task = task_of(graph, rolled, target, saturate, options, stages)
    table = StageTable(task.parts, task.prices)
    found = search(table, task.goal, None, stages.evaluations, stages.evaluations, whole)
    if found.division is None:
        raise no_division(table, task.goal, stages)
    return written(table, found.division, found.bound, options.objective, stages, whole)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Task:
    """What is divided, what prices stages, and what a division minimises."""

    parts: Parts
    prices: Prices
    goal: Goal


def task_of(
    graph: Graph,
    rolled: Rolled,
    target: Target,
    saturate: Saturate,
    options: ExtractOptions,
    stages: StageOptions,
) -> Task:
    """Return the task of dividing a model; the arguments are those of `plan_pipeline`.

    Raises:
        CompileError: The objective is not a time, there are too few places to cut, or a host region.
    """
    check_objective(options.objective)
    if stages.stages > 1:
        check_divisible(graph)
    # A stage begins an inference when it has completed the one before: what counts is how long it takes.
    timed = replace(options, objective=Objective.LATENCY)
    legality, branches = Legality(rules=stages.rules), frozenset[int]()
    is_single = options.objective == Objective.LATENCY and stages.micro_batches == 1
    if is_single and is_divisible(graph):
        graph, branches = with_branches(graph, legality, stages.items)
        rolled = roll(graph) if branches else rolled
    items = cut_into_items(graph, rolled, legality, stages.items, branches)
    parts = parts_of(graph, items, target, stages)
    is_row = all(n in reads for n, reads in enumerate(parts.segments.reads[1:]))
    if is_single and not is_row:
        parts = replace(parts, are_beside=True, cuts=some_cuts(items, branches))
    reserved = stages.reserved_semaphores + max(0, stages.stages - _STAGES_THAT_MEET)
    prices = Prices(target, saturate, timed, reserved)
    return Task(parts=parts, prices=prices, goal=goal_of(options.objective, stages))


_STAGES_THAT_MEET = 10
"""Stages that may all read of each other with the semaphores that are reserved: 7 are the barrier's."""
_PLACES = 24
"""Cuts besides those around branches: inside of branches they save no latency, and layers may be many."""


def some_cuts(rolled: Rolled, branches: frozenset[int]) -> frozenset[int]:
    """Return where between items stages side by side may be cut: around branches, and some more."""
    items = len(rolled.instances)
    edges = [n for n, instance in enumerate(rolled.instances) if instance.start in branches]
    return frozenset((*edges, *range(0, items, -(-items // _PLACES)), items))


def check_objective(objective: Objective) -> None:
    """Refuse an objective that stages do not serve.

    Raises:
        CompileError: It is not a time.
    """
    if not objective.is_time:
        raise CompileError(
            f"objective '{objective}' has no stages, which are divided to save time; "
            "choose latency or throughput"
        )


def check_divisible(graph: Graph) -> None:
    """Refuse a model that stages cannot run.

    Raises:
        CompileError: It has host regions, or an output that nothing computes.
    """
    if graph.host_models:
        raise CompileError(
            f"model '{graph.name}' has {len(graph.host_models)} host regions, which stages cannot run; "
            "compile it with one stage"
        )
    if not is_divisible(graph):
        raise CompileError(
            f"model '{graph.name}' has an output that nothing computes; compile it with one stage"
        )


def parts_of(
    graph: Graph,
    items: Rolled,
    target: Target,
    stages: StageOptions,
    also: Iterable[Submesh] = (),
) -> Parts:
    """Return what stages are made of: items, and all sub-rectangles that are large enough, and some more."""
    shapes = submeshes(target, 1 / max(stages.stages, stages.most))
    return Parts(
        graph=graph,
        rolled=items,
        segments=Segments(graph, items, Legality(rules=stages.rules)),
        target=target,
        shapes=tuple(dict.fromkeys((*shapes, *also))),
    )


def goal_of(objective: Objective, stages: StageOptions) -> Goal:
    """Return what a division minimises."""
    count = stages.micro_batches
    is_throughput = objective == Objective.THROUGHPUT
    return Goal(
        sum_weight=0.0 if is_throughput else 1.0,
        slowest_weight=float(count if is_throughput else count - 1),
        counts=(stages.stages,) if stages.stages else tuple(range(1, stages.most + 1)),
        latency_limit=stages.max_latency_cycles,
        waits=float(count - 1),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The best division into stages found, None if none was, and a bound of all that are permitted."""

    division: Division | None
    bound: float


def search(
    table: StageTable,
    goal: Goal,
    permitted: Permitted | None,
    most: int,
    enough: int,
    whole: Plan | None = None,
) -> Found:
    """Price stages until the best division is known, or the budget is spent.

    Args:
        table: What stages cost, as far as it is known; what is found out is entered.
        goal: What to minimise.
        permitted: Which stages may be used; None: all.
        most: Kinds of stages priced at most while no division is known.
        enough: The same once one is known.
        whole: The plan of the whole model on the whole machine, if there is one.
    """
    if whole is not None:
        place = (0, table.parts.items, 0)
        table.set(place, Price(cost=whole.cost, bound=whole.bound, claim=claim_of(whole)))
    asked = _Search(table, goal, permitted, most, enough)
    asked.improve()
    best = asked.close()
    bounded = asked.divided(table.lower, table.left_at_least)
    bound = inf if bounded is None else bounded.value
    return Found(division=best, bound=bound if best is None else min(best.value, bound))


class _Search:
    """Divisions by what a table knows, guesses and bounds, and the stages that are worth pricing for them."""

    def __init__(
        self, table: StageTable, goal: Goal, permitted: Permitted | None, most: int, enough: int
    ) -> None:
        self._table, self._goal, self._permitted = table, goal, permitted
        self._room, self._most, self._enough = table.room, most, enough

    def divided(self, prices: Table, left: Left) -> Division | None:
        """Return the best division for given prices, and what is left of stages from an item on."""
        parts = self._table.parts
        if parts.are_beside:
            assert self._permitted is None, "demands are for stages in a row"
            return divide_into_paths(prices, left, parts.segments.reads, self._room, self._goal)
        return divide(prices, self._room, self._goal, self._permitted)

    def known(self) -> Division | None:
        """Return the best division of stages that are priced."""
        return self.divided(self._table.known, self._table.left)

    def improve(self) -> None:
        """Price the best division by guesses until it is priced throughout."""
        while True:
            division = self.divided(self._table.guesses(), self._table.left_by_guess)
            if division is None or not self._price(division):
                return

    def close(self) -> Division | None:
        """Price the best division by bounds until it proves the best one known, which is returned.

        Side by side, bounds of what is left of a stage would not rise when it is priced; so it counts then
        with what its plan takes.
        """
        table = self._table
        while True:
            best, bounds = self.known(), table.lower
            if table.parts.are_beside:
                bounds = np.where(table.is_priced, table.known, bounds)
            division = self.divided(bounds, table.left_if_known)
            if division is None or (best is not None and division.value >= best.value * (1 - 1e-9)):
                return best
            if not self._price(division):
                return best

    def _price(self, division: Division) -> bool:
        """Price the stages that are not priced yet; whether there were any and the budget allowed them."""
        todo = self._table.unpriced(division.stages)
        for stage in todo:
            if self._table.asked >= self._enough:
                is_known = self.known() is not None
                if is_known or self._table.asked >= self._most:
                    return False
            self._table.price(stage)
        return bool(todo)


def no_division(table: StageTable, goal: Goal, stages: StageOptions) -> InfeasibleError:
    """Return the error of a search that found nothing; the limit of latency may be the reason."""
    parts = table.parts
    unlimited = replace(goal, sum_weight=1.0, slowest_weight=goal.waits, latency_limit=inf)
    fastest = _Search(table, unlimited, None, 0, 0).known()
    name = f"model '{parts.graph.name}' on '{parts.target.name}'"
    if fastest is not None:
        return InfeasibleDemandError(
            f"{name}: no division into stages that was found is within the latency limit",
            demand=fastest.value,
            limit=goal.latency_limit,
            unit="cycles",
            changes=(f"--max-latency {fastest.value:.0f}",),
            levers="use more tiles, a faster target, a smaller batch or fewer stages",
        )
    return InfeasibleError(
        f"{name}: found no division of its {parts.items} parts into "
        f"{stages.stages or 'any number of'} stages that fits; "
        "ask for another number of stages or use more tiles"
    )


def written(
    table: StageTable,
    division: Division,
    bound: float,
    objective: Objective,
    stages: StageOptions,
    whole: Plan | None = None,
) -> PipelinePlan:
    """Return the pipeline of a division; the arguments are those of `search`, and what it found."""
    parts, room, planned = table.parts, table.room, []
    for number, stage in enumerate(division.stages):
        shape: Submesh = parts.shapes[stage.shape]
        target = table.prices.target_of(shape)
        is_whole = parts.is_all(stage.first, stage.last) and shape == whole_machine(parts.target)
        segment = parts.segments.segment(stage.first, stage.last)
        plan = whole if is_whole and whole is not None else table.prices.plan(segment, shape)
        tile = stage.first_tile * target.tiles // room.sizes[stage.shape]
        tiles = tiles_of(parts.target, shape, tile)
        planned.append(
            PlannedStage(
                plan=plan,
                target=target,
                shape=shape,
                tiles=tiles,
                cycles=float(table.known[stage.first, stage.last, stage.shape]),
                waits=_waits(table, division, number),
            )
        )
    details = {
        "stages_priced": float(table.asked),
        "places_to_cut": float(parts.items - 1 if parts.cuts is None else len(parts.cuts) - 2),
        "sub_rectangles": float(len(parts.shapes)),
    }
    return PipelinePlan(
        graph=parts.graph,
        target_name=parts.target.name,
        objective=objective,
        micro_batches=stages.micro_batches,
        stages=tuple(planned),
        cost=division.value,
        bound=bound,
        proof=Proof(
            method="division by bounds",
            details=MappingProxyType(details),
            certificate=table.evidence(),
        ),
    )


def _waits(table: StageTable, division: Division, number: int) -> tuple[Wait, ...]:
    """Return what a stage of a division reads of others."""
    stage, left = division.stages[number], dict[int, float]()
    for item in range(stage.first, stage.last):
        for made in table.parts.segments.reads[item]:
            if made < stage.first:
                other = next(n for n, s in enumerate(division.stages) if s.last > made)
                cycles = table.left(stage.first, stage.last, stage.shape, item)
                left.setdefault(other, cycles)
    return tuple(Wait(stage=n, left_cycles=left[n]) for n in sorted(left))
