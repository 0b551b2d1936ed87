"""Pipelines of small models, against pricing every stage."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from extract_cases import Builder
from numpy.typing import NDArray
from test_pipeline_search import every_value

from tilewright.errors import CompileError, InfeasibleError
from tilewright.extract.extraction import ExtractOptions
from tilewright.extract.objective import Objective
from tilewright.extract.pipeline.items import cut_into_items
from tilewright.extract.pipeline.plan import PipelinePlan
from tilewright.extract.pipeline.planner import StageOptions, plan_pipeline
from tilewright.extract.pipeline.prices import Prices
from tilewright.extract.pipeline.search import Goal, Room
from tilewright.extract.pipeline.segments import Segments
from tilewright.extract.validate import validate_plan
from tilewright.graph import Graph
from tilewright.hwmodel.family import mesh_target
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.hwmodel.network import network_of
from tilewright.hwmodel.submesh import fits_at, submeshes
from tilewright.reference import evaluate
from tilewright.rules.alternatives import Alternatives
from tilewright.rules.engine import saturate
from tilewright.rules.pipeline.family import pipeline_rules
from tilewright.rules.pipeline.legality import Legality
from tilewright.rules.roll import roll

LEGALITY = Legality(rules=pipeline_rules())
TARGET = mesh_target(1, 3, name="row_of_three", sram_kib=24)

Values = dict[str, NDArray[np.generic]]


@cache
def layers() -> Graph:
    """Four layers of sizes that the machine's three columns divide badly."""
    b = Builder("layers")
    x = b.input(7, 34)
    for _ in range(4):
        x = b.map("relu", b.matmul(x, b.weight(34, 34)))
    return b.graph(x)


def narrowing() -> Graph:
    """Layers of which no two are alike, so that they are one block."""
    b = Builder("narrowing")
    x = b.input(7, 40)
    for inputs, outputs in pairwise((40, 36, 32, 28)):
        x = b.map("relu", b.matmul(x, b.weight(inputs, outputs)))
    return b.graph(x)


def two_streams() -> Graph:
    """Layers that hand two values to the next one."""
    b = Builder("two_streams")
    x, y = b.input(7, 34), b.input(7, 34)
    for _ in range(4):
        x, y = (
            b.map("relu", b.matmul(x, b.weight(34, 34))),
            b.map("mul", b.matmul(y, b.weight(34, 34)), x),
        )
    return b.graph(b.map("add", x, y))


def masked(*, turned: bool = False) -> Graph:
    """Layers that all read one function of an input, or the input transposed."""
    b = Builder("masked")
    x, mask = b.input(8, 24), b.input(*((24, 8) if turned else (8, 24)))
    far = b.op("transpose", (mask,), (8, 24), perm=(1, 0)) if turned else b.map("exp", mask)
    for _ in range(3):
        x = b.map("mul", b.matmul(x, b.weight(24, 24)), far)
    return b.graph(x)


FOUND: dict[tuple[str, LogicalMesh], Alternatives] = {}


def alternatives(graph: Graph, mesh: LogicalMesh) -> Alternatives:
    key = (repr((graph.ops, graph.outputs, dict(graph.types))), mesh)
    if key not in FOUND:
        FOUND[key] = saturate(graph, mesh)
    return FOUND[key]


def exchange_cycles(has_before: bool, has_behind: bool) -> float:
    """What a stage pays for its neighbours: two signals to the next one and its read, one to the last."""
    if not (has_before or has_behind):
        return 0.0
    far = network_of(TARGET).route(0, 2).latency_cycles
    read = TARGET.tile.dma.startup_cycles + TARGET.dram.latency_cycles
    total = 2 * far + 8 * TARGET.tile.control.issue_cycles
    return total + (far if has_before else 0.0) + (2 * far + read if has_behind else 0.0)


@pytest.mark.parametrize(
    ("objective", "count"),
    [
        (Objective.THROUGHPUT, 1),
        pytest.param(Objective.LATENCY, 1, marks=pytest.mark.slow),
        pytest.param(Objective.LATENCY, 4, marks=pytest.mark.slow),
    ],
)
def test_best_of_all_stages(objective: Objective, count: int) -> None:
    graph, options = layers(), ExtractOptions(objective=objective)
    chosen = StageOptions(most=3, items=3, micro_batches=count, evaluations=1000)
    plan = plan_pipeline(graph, roll(graph), TARGET, alternatives, options, chosen)
    items = cut_into_items(graph, roll(graph), LEGALITY, chosen.items)
    segments = Segments(graph, items, LEGALITY)
    prices = Prices(TARGET, alternatives, ExtractOptions(), chosen.reserved_semaphores)
    shapes, n = submeshes(TARGET, 1 / 3), len(items.instances)
    table = np.full((n, n + 1, len(shapes)), np.inf)
    for first in range(n):
        for last in range(first + 1, n + 1):
            if segments.is_legal(first, last):
                exchange = exchange_cycles(first > 0, last < n)
                for number, shape in enumerate(shapes):
                    price = prices.stage(segments.segment(first, last), shape)
                    table[first, last, number] = price.cost + exchange
    room = Room(
        tiles=3,
        sizes=tuple(int(np.prod(s)) for s in shapes),
        fits_at=lambda shape, tile: fits_at(TARGET, shapes[shape], tile),
    )
    is_throughput = objective is Objective.THROUGHPUT
    goal = Goal(
        sum_weight=0.0 if is_throughput else 1.0,
        slowest_weight=count if is_throughput else count - 1,
        counts=(1, 2, 3),
    )
    best = min(every_value(table, room, goal))
    assert plan.cost == pytest.approx(best)
    assert plan.bound <= best * (1 + 1e-9)
    assert n == 3
    assert len(plan.stages) == (2 if is_throughput else 1)


def computed_by_stages(graph: Graph, plan: PipelinePlan) -> tuple[Values, Values]:
    """Return what stages, which must be valid and on tiles of their own, and their model compute."""
    draw = np.random.default_rng(0)
    values = {p.name: draw.normal(size=p.shape).astype(np.float32) for p in graph.inputs}
    expected = evaluate(graph, values)
    tiles = [tile for stage in plan.stages for tile in stage.tiles]
    assert len(set(tiles)) == len(tiles) <= TARGET.tiles
    for stage in plan.stages:
        validate_plan(stage.plan, stage.target)
        values |= evaluate(stage.plan.graph, values)
    return values, expected


def test_plans_of_stages_are_valid_and_compute_the_model() -> None:
    graph = layers()
    options = ExtractOptions(objective=Objective.THROUGHPUT)
    plan = plan_pipeline(
        graph, roll(graph), TARGET, alternatives, options, StageOptions(stages=2, items=3)
    )
    assert len(plan.stages) == 2
    values, expected = computed_by_stages(graph, plan)
    for name, array in expected.items():
        np.testing.assert_array_equal(values[name], array)


def test_bounds_of_blocks_are_below_prices_of_stages() -> None:
    graph, options = layers(), ExtractOptions()
    items = cut_into_items(graph, roll(graph), LEGALITY, 3)
    segments = Segments(graph, items, LEGALITY)
    prices = Prices(TARGET, alternatives, options, 0)
    for first, last in ((0, 2), (1, 4), (0, 4)):
        for shape in submeshes(TARGET, 1 / 2):
            lower = sum(
                prices.alone(i.block, items.blocks[i.block], shape).bound
                for i in items.instances[first:last]
            )
            assert 0 < lower <= prices.stage(segments.segment(first, last), shape).cost


def test_values_computed_again_make_cuts_legal() -> None:
    graph = masked()
    kept = Legality(rules=tuple(r for r in pipeline_rules() if r.form != "value"))
    items = cut_into_items(graph, roll(graph), LEGALITY, 3)
    again, carried = Segments(graph, items, LEGALITY), Segments(graph, items, kept)
    middle = len(items.instances) // 2
    assert again.computed_again == {graph.ops[0].output}
    assert not carried.computed_again
    inside = (middle, middle + 1)
    assert again.is_legal(*inside)
    assert not carried.is_legal(*inside)
    values = {p.name: np.ones(p.shape, np.float32) for p in graph.inputs}
    expected = evaluate(graph, values)
    for first in range(len(items.instances)):
        if again.is_legal(first, first + 1):
            values |= evaluate(again.segment(first, first + 1).graph, values)
    np.testing.assert_array_equal(values[graph.outputs[0].name], expected[graph.outputs[0].name])


def test_demands_that_cannot_be_met() -> None:
    graph = layers()
    with pytest.raises(CompileError, match="energy"):
        plan_pipeline(
            graph, roll(graph), TARGET, alternatives, ExtractOptions(objective=Objective.ENERGY)
        )
    with pytest.raises(InfeasibleError, match="7 stages"):
        plan_pipeline(
            graph, roll(graph), TARGET, alternatives, None, StageOptions(stages=7, items=3)
        )


@pytest.mark.parametrize(
    ("graph", "stages", "rule"),
    [
        (narrowing(), 2, "pipeline.cut_at_one_value"),
        (two_streams(), 2, "pipeline.cut_between_blocks"),
        (masked(), 3, "pipeline.map_again"),
        (masked(turned=True), 3, "pipeline.movement_again"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_rules_make_stages_possible(graph: Graph, stages: int, rule: str) -> None:
    options = ExtractOptions(objective=Objective.THROUGHPUT)
    chosen = StageOptions(stages=stages, items=3, most=3)
    plan = plan_pipeline(graph, roll(graph), TARGET, alternatives, options, chosen)
    assert len(plan.stages) == stages
    without = replace(chosen, rules=tuple(r for r in chosen.rules if r.name != rule))
    with pytest.raises(InfeasibleError, match=f"into {stages} stages"):
        plan_pipeline(graph, roll(graph), TARGET, alternatives, options, without)


def test_a_model_with_an_output_that_nothing_computes_stays_whole() -> None:
    b = Builder("passed")
    x = b.input(7, 34)
    graph = b.graph(b.map("relu", b.matmul(b.map("exp", x), b.weight(34, 34))), x)
    options = ExtractOptions(objective=Objective.THROUGHPUT)
    plan = plan_pipeline(graph, roll(graph), TARGET, alternatives, options, StageOptions(items=3))
    assert not plan.is_divided
    with pytest.raises(CompileError, match="an output that nothing computes"):
        plan_pipeline(graph, roll(graph), TARGET, alternatives, options, StageOptions(stages=2))
