"""Branches of small models on parts of their own, against pricing every stage of every division."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import combinations, pairwise, product

import numpy as np
import pytest
from extract_cases import Builder
from test_pipeline_paths import Costs, end_of
from test_pipeline_plans import LEGALITY, TARGET, alternatives, computed_by_stages
from test_pipeline_search import fits

from tilewright.extract.extraction import ExtractOptions
from tilewright.extract.objective import Objective
from tilewright.extract.pipeline.items import cut_into_items, with_branches
from tilewright.extract.pipeline.plan import PipelinePlan
from tilewright.extract.pipeline.planner import StageOptions, plan_pipeline, some_cuts
from tilewright.extract.pipeline.prices import Prices
from tilewright.extract.pipeline.search import Room
from tilewright.extract.pipeline.segments import Segments
from tilewright.graph import Graph
from tilewright.hwmodel.network import network_of
from tilewright.hwmodel.submesh import fits_at, submeshes
from tilewright.rules.roll import roll, roll_at

CHOSEN = StageOptions(most=3, items=3, evaluations=1000)


def layer(b: Builder, x: str) -> str:
    """A layer that is too small for three tiles."""
    return b.map("relu", b.matmul(x, b.weight(17, 17)))


@cache
def towers() -> Graph:
    """Two towers layer by layer in turn, and their product."""
    b = Builder("towers")
    x, y = b.input(3, 17), b.input(3, 17)
    for _ in range(3):
        x, y = layer(b, x), layer(b, y)
    return b.graph(b.map("mul", x, y))


@cache
def fork() -> Graph:
    """One layer that two others read."""
    b = Builder("fork")
    x = layer(b, b.input(3, 17))
    return b.graph(b.map("mul", layer(b, layer(b, x)), layer(b, layer(b, x))))


@cache
def apart() -> Graph:
    """Two models in one, of different length."""
    b = Builder("apart")
    x, y = b.input(3, 17), b.input(3, 17)
    return b.graph(layer(b, x), layer(b, layer(b, y)))


@cache
def planned(name: str) -> PipelinePlan:
    graph = MODELS[name]()
    return plan_pipeline(graph, roll(graph), TARGET, alternatives, ExtractOptions(), CHOSEN)


MODELS = {"towers": towers, "fork": fork, "apart": apart}


@pytest.mark.parametrize(
    "name", ["towers", *(pytest.param(n, marks=pytest.mark.slow) for n in ("fork", "apart"))]
)
def test_best_of_all_divisions(name: str) -> None:
    graph, branches = with_branches(MODELS[name](), LEGALITY, CHOSEN.items)
    items = cut_into_items(graph, roll(graph), LEGALITY, CHOSEN.items, branches)
    segments = Segments(graph, items, LEGALITY)
    prices = Prices(TARGET, alternatives, ExtractOptions(), CHOSEN.reserved_semaphores)
    shapes, count, reads = submeshes(TARGET, 1 / 3), len(items.instances), segments.reads
    far = network_of(TARGET).route(0, 2).latency_cycles
    barrier = 2 * far + 8 * TARGET.tile.control.issue_cycles
    costs: Costs = {}
    for first, last in combinations(range(count + 1), 2):
        assert segments.is_legal(first, last, may_pass=True)
        is_read = any(first <= made < last for found in reads[last:] for made in found)
        exchange = 0.0 if last - first == count else far if is_read else barrier
        for number, shape in enumerate(shapes):
            price = prices.stage(segments.segment(first, last), shape)
            assert sum(price.items) == pytest.approx(price.cost)
            costs[first, last, number] = [*price.items, exchange]
            for cost, instance in zip(price.items, items.instances[first:last], strict=True):
                block = items.blocks[instance.block]
                assert cost >= prices.alone(instance.block, block, shape).bound * (1 - 1e-9)
    room = Room(
        tiles=3,
        sizes=tuple(int(np.prod(s)) for s in shapes),
        fits_at=lambda shape, tile: fits_at(TARGET, shapes[shape], tile),
    )
    best = min(
        end_of((0, *cuts, count), chosen, costs, reads)
        for stages in range(1, 4)
        for cuts in combinations(range(1, count), stages - 1)
        for chosen in product(range(len(shapes)), repeat=stages)
        if fits(room, chosen)
    )
    plan = planned(name)
    assert plan.cost == pytest.approx(best)
    assert 0 < plan.bound <= best * (1 + 1e-9)


@pytest.mark.parametrize("name", MODELS)
def test_stages_are_valid_and_compute_the_model(name: str) -> None:
    graph, plan = MODELS[name](), planned(name)
    values, expected = computed_by_stages(graph, plan)
    for output, array in expected.items():
        np.testing.assert_allclose(values[output], array, rtol=1e-6)


@pytest.mark.parametrize("name", ["towers", "apart"])
def test_branches_run_side_by_side(name: str) -> None:
    plan = planned(name)
    assert len(plan.stages) > 1
    assert all(wait.left_cycles < plan.stages[1].cycles for wait in plan.stages[1].waits)
    total = sum(stage.cycles for stage in plan.stages)
    assert plan.cost == max(plan.ends()) < 0.9 * total
    whole = plan_pipeline(
        MODELS[name](),
        roll(MODELS[name]()),
        TARGET,
        alternatives,
        ExtractOptions(),
        replace(CHOSEN, stages=1, most=1),
    )
    assert plan.cost < whole.cost


def test_in_a_stream_nothing_passes_by() -> None:
    """A stage ends an inference when all it wrote is read; so throughput divides a row of stages."""
    graph = towers()
    for options in (
        ExtractOptions(objective=Objective.THROUGHPUT),
        ExtractOptions(),
    ):
        chosen = replace(CHOSEN, micro_batches=1 if options.objective != "latency" else 2)
        plan = plan_pipeline(graph, roll(graph), TARGET, alternatives, options, chosen)
        for before, stage in pairwise(plan.stages):
            assert [wait.stage for wait in stage.waits] == [plan.stages.index(before)]


def test_without_its_rule_no_branch_is_cut_out() -> None:
    graph = towers()
    kept = tuple(r for r in CHOSEN.rules if r.name != "pipeline.cut_between_branches")
    plan = plan_pipeline(
        graph, roll(graph), TARGET, alternatives, None, replace(CHOSEN, rules=kept)
    )
    assert len(plan.stages) == 1
    assert planned("towers").cost < plan.cost


def test_long_branches_are_cut_at_their_edges_and_at_some_places() -> None:
    """Two towers of 30 layers, each an item; where they begin and end is among the places."""
    b = Builder("long")
    x, y = b.input(3, 17), b.input(3, 17)
    for _ in range(30):
        x, y = layer(b, x), layer(b, y)
    graph, branches = with_branches(b.graph(b.map("mul", x, y)), LEGALITY, 12)
    assert branches == {0, 60, 120}
    items = roll_at(graph, (*range(0, 121, 2), 121))
    cuts = some_cuts(items, branches)
    assert len(items.instances) == 61
    assert {0, 30, 60, 61} <= cuts
    assert len(cuts) < 30
