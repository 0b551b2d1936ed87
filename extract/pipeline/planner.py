"""The pipeline of a model: cuts, sub-rectangles, plans of the stages, and a bound.

Pricing a stage is an extraction, so only those are priced that could matter. Until then a stage counts with
the sum of its blocks' bounds where the division bounds, and with the sum of its blocks' prices where it
guesses what to price next. Each division into stages that comes out with stages not priced yet has
them priced, until the division by guesses is priced throughout, and then until the one by bounds is.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import gcd, inf
from types import MappingProxyType

import numpy as np

from tilewright.errors import CompileError, InfeasibleDemandError, InfeasibleError
from tilewright.extract.extraction import ExtractOptions
from tilewright.extract.objective import Objective
from tilewright.extract.pipeline.items import cut_into_items
from tilewright.extract.pipeline.plan import PipelinePlan, PlannedStage
from tilewright.extract.pipeline.prices import Price, Prices, Saturate
from tilewright.extract.pipeline.search import Division, Goal, Room, Stage, divide
from tilewright.extract.pipeline.search import Prices as Table
from tilewright.extract.pipeline.segments import Segments
from tilewright.extract.plan import Plan, Proof
from tilewright.graph import Graph
from tilewright.hwmodel.network import network_of
from tilewright.hwmodel.submesh import Submesh, fits_at, submeshes, tiles_of, whole_machine
from tilewright.hwmodel.target import Target
from tilewright.rules.pipeline.family import pipeline_rules
from tilewright.rules.pipeline.legality import Legality
from tilewright.rules.pipeline.ruleset import PipelineRule
from tilewright.rules.roll import Rolled


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
    _check(graph, options, stages)
    # A stage begins an inference when it has completed the one before: what counts is how long it takes.
    timed = replace(options, objective=Objective.LATENCY)
    legality = Legality(rules=stages.rules)
    rolled = cut_into_items(graph, rolled, legality, stages.items)
    prices = Prices(target, saturate, timed, stages.reserved_semaphores)
    search = _Search(graph, rolled, target, legality, prices, stages, options.objective)
    return search.run(whole)


def _check(graph: Graph, options: ExtractOptions, stages: StageOptions) -> None:
    if not options.objective.is_time:
        raise CompileError(
            f"objective '{options.objective}' has no stages, which are divided to save time; "
            "choose latency or throughput"
        )
    if stages.stages > 1 and graph.host_models:
        raise CompileError(
            f"model '{graph.name}' has {len(graph.host_models)} host regions, which stages cannot run; "
            "compile it with one stage"
        )
    if stages.stages > 1 and not _is_divisible(graph):
        raise CompileError(
            f"model '{graph.name}' has an output that nothing computes; compile it with one stage"
        )


def _is_divisible(graph: Graph) -> bool:
    """Whether stages can run a model: nothing is for the host, and every output is computed."""
    made = {name for op in graph.ops for name in op.outputs}
    return not graph.host_models and all(port.tensor in made for port in graph.outputs)


class _Search:
    """State of one search: what every stage costs, as far as it is known."""

    def __init__(
        self,
        graph: Graph,
        rolled: Rolled,
        target: Target,
        legality: Legality,
        prices: Prices,
        options: StageOptions,
        objective: Objective,
    ) -> None:
        self._graph, self._rolled, self._target = graph, rolled, target
        self._prices, self._options, self._objective = prices, options, objective
        self._segments = Segments(graph, rolled, legality)
        self._shapes = submeshes(target, 1 / max(options.stages, options.most))
        self._items = len(rolled.instances)
        self._goal = self._make_goal()
        self._room = self._make_room()
        size = (self._items, self._items + 1, len(self._shapes))
        self._lower: Table = np.full(size, inf)
        self._guess: Table = np.full(size, inf)
        self._known: Table = np.full(size, inf)
        self._is_priced = np.zeros(size, dtype=np.bool_)

    def run(self, whole: Plan | None) -> PipelinePlan:
        """Price stages until the best division is known, or the budget is spent."""
        self._fill()
        if whole is not None:
            self._set((0, self._items, 0), Price(cost=whole.cost, bound=whole.bound))
        best = self._improve()
        best = self._close(best)
        if best is None:
            wanted = self._options.stages
            self._check_limit()
            raise InfeasibleError(
                f"model '{self._graph.name}' on '{self._target.name}': found no division of its "
                f"{self._items} parts into {wanted or 'any number of'} stages that fits; "
                "ask for another number of stages or use more tiles"
            )
        bounded = divide(self._lower, self._room, self._goal)
        bound = best.value if bounded is None else min(best.value, bounded.value)
        return self._written(best, bound, whole)

    def _check_limit(self) -> None:
        """Raise an error if it is the limit of latency that no division keeps."""
        goal = replace(self._goal, sum_weight=1.0, slowest_weight=self._goal.waits)
        fastest = divide(self._known, self._room, replace(goal, latency_limit=inf))
        if fastest is not None:
            raise InfeasibleDemandError(
                f"model '{self._graph.name}' on '{self._target.name}': no division into stages that was "
                "found is within the latency limit",
                demand=fastest.value,
                limit=goal.latency_limit,
                unit="cycles",
                changes=(f"--max-latency {fastest.value:.0f}",),
                levers="use more tiles, a faster target, a smaller batch or fewer stages",
            )

    def _make_goal(self) -> Goal:
        options, count = self._options, self._options.micro_batches
        if self._objective == Objective.THROUGHPUT:
            weights = (0.0, float(count))
        else:
            weights = (1.0, float(count - 1))
        return Goal(
            sum_weight=weights[0],
            slowest_weight=weights[1],
            stages=options.stages,
            most=options.most,
            latency_limit=options.max_latency_cycles,
            waits=float(count - 1),
        )

    def _make_room(self) -> Room:
        """Return the tiles in the largest units in which all sub-rectangles are whole."""
        sizes = [self._prices.target_of(shape).tiles for shape in self._shapes]
        unit = gcd(*sizes, self._target.tiles)
        return Room(
            tiles=self._target.tiles // unit,
            sizes=tuple(size // unit for size in sizes),
            fits_at=lambda shape, tile: fits_at(self._target, self._shapes[shape], tile * unit),
        )

    def _fill(self) -> None:
        """Enter the sums of the blocks' prices for all legal stages."""
        rolled, is_divisible = self._rolled, _is_divisible(self._graph)
        for number, shape in enumerate(self._shapes):
            alone = [
                self._prices.alone(i.block, rolled.blocks[i.block], shape) for i in rolled.instances
            ]
            bounds = np.cumsum([0.0, *(price.bound for price in alone)])
            costs = np.cumsum([0.0, *(price.cost for price in alone)])
            for first in range(self._items):
                for last in range(first + 1, self._items + 1):
                    is_all = last - first == self._items
                    if is_all and number == 0:
                        is_possible = True
                    else:
                        is_possible = is_divisible and self._segments.is_legal(first, last)
                    if is_possible:
                        extra = self._exchange_cycles(first, last)
                        self._lower[first, last, number] = bounds[last] - bounds[first] + extra
                        self._guess[first, last, number] = costs[last] - costs[first] + extra
        np.nan_to_num(self._lower, copy=False, nan=inf, posinf=inf)
        np.nan_to_num(self._guess, copy=False, nan=inf, posinf=inf)

    def _exchange_cycles(self, first: int, last: int) -> float:
        """Return what a stage adds to the plan of its part: signals to its neighbours, a barrier at its end.

        With the next stage it waits until that one has read what it wrote.
        """
        if last - first == self._items:
            return 0.0
        tile = self._target.tile
        far = network_of(self._target).route(0, self._target.tiles - 1).latency_cycles
        read = tile.dma.startup_cycles + self._target.dram.latency_cycles
        neighbours = (first > 0) + (last < self._items)
        barrier = 2 * far + 8 * tile.control.issue_cycles
        return neighbours * far + (last < self._items) * (far + read) + barrier

    def _set(self, place: tuple[int, int, int], price: Price) -> None:
        extra = self._exchange_cycles(place[0], place[1])
        self._known[place] = price.cost + extra
        self._lower[place] = max(self._lower[place], price.bound + extra)
        self._is_priced[place] = True

    def _price(self, stages: tuple[Stage, ...]) -> bool:
        """Price the stages that are not priced yet; whether there were any and the budget allowed them."""
        todo = [s for s in stages if not self._is_priced[s.first, s.last, s.shape]]
        for stage in todo:
            if self._prices.evaluated >= self._options.evaluations:
                return False
            segment = self._segments.segment(stage.first, stage.last)
            price = self._prices.stage(segment, self._shapes[stage.shape])
            self._set((stage.first, stage.last, stage.shape), price)
        return bool(todo)

    def _guesses(self) -> Table:
        """Return known prices, and the blocks' sums for the rest, scaled by what they were off so far.

        Longer stages have less scratchpad for each block, so they are off by as much as shorter ones.
        """
        table = self._known.copy()
        for shape in range(len(self._shapes)):
            worst = np.ones(self._items + 1)
            for first, last in np.argwhere(self._is_priced[:, :, shape]):
                known, guess = self._known[first, last, shape], self._guess[first, last, shape]
                if np.isfinite(known) and 0.0 < guess < inf:
                    worst[last - first] = max(worst[last - first], known / guess)
            worst = np.maximum.accumulate(worst)
            for first in range(self._items):
                for last in range(first + 1, self._items + 1):
                    if not self._is_priced[first, last, shape]:
                        guess = self._guess[first, last, shape] * worst[last - first]
                        table[first, last, shape] = max(guess, self._lower[first, last, shape])
        return table

    def _improve(self) -> Division | None:
        """Price the best division by guesses until it is priced throughout."""
        while True:
            division = divide(self._guesses(), self._room, self._goal)
            if division is None or not self._price(division.stages):
                return divide(self._known, self._room, self._goal)

    def _close(self, best: Division | None) -> Division | None:
        """Price the best division by bounds until it proves the best one known."""
        while True:
            division = divide(self._lower, self._room, self._goal)
            if division is None or (best is not None and division.value >= best.value * (1 - 1e-9)):
                return best
            if not self._price(division.stages):
                return best
            best = divide(self._known, self._room, self._goal)

    def _written(self, best: Division, bound: float, whole: Plan | None) -> PipelinePlan:
        planned = []
        for stage in best.stages:
            shape: Submesh = self._shapes[stage.shape]
            target = self._prices.target_of(shape)
            is_whole = stage.last - stage.first == self._items and shape == whole_machine(
                self._target
            )
            segment = self._segments.segment(stage.first, stage.last)
            plan = whole if is_whole and whole is not None else self._prices.plan(segment, shape)
            tile = stage.first_tile * target.tiles // self._room.sizes[stage.shape]
            tiles = tiles_of(self._target, shape, tile)
            planned.append(PlannedStage(plan=plan, target=target, shape=shape, tiles=tiles))
        details = {
            "stages_priced": float(self._prices.evaluated),
            "places_to_cut": float(self._items - 1),
            "sub_rectangles": float(len(self._shapes)),
        }
        return PipelinePlan(
            graph=self._graph,
            target_name=self._target.name,
            objective=self._objective,
            micro_batches=self._options.micro_batches,
            stages=tuple(planned),
            cost=best.value,
            bound=bound,
            proof=Proof(method="division by bounds", details=MappingProxyType(details)),
        )
