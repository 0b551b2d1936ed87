"""Metrics of users: what they are asked, what plans are worth by them, and what is refused."""

from __future__ import annotations

from math import inf, nan

import pytest
from extract_cases import tiny

import tilewright
from tilewright.api import Occupancy, UserMetric
from tilewright.errors import CompileError
from tilewright.extract.amounts import amounts
from tilewright.extract.front_planner import check_metrics
from tilewright.extract.objective import Metric, Objective, references, single
from tilewright.extract.reshard import move_units
from tilewright.extract.validate import validate_plan
from tilewright.hwmodel.cost import KernelCost
from tilewright.hwmodel.family import mesh_target

TARGET = mesh_target(2, 2)
SLOWEST = UserMetric("slowest part", lambda o: max(o.core_cycles, o.dram_cycles, o.link_cycles))
TRAFFIC = UserMetric("traffic", lambda o: o.dram_bytes, unit="bytes")


def test_a_kernel_is_charged_for_what_all_tiles_occupy() -> None:
    cost = KernelCost(
        matrix_cycles=70, vector_cycles=20, sram_cycles=80, dma_in_cycles=500, startup_cycles=30
    )
    busy = KernelCost(dram_bytes=600, link_cycles=90)
    assert single(SLOWEST).kernel_units(cost, TARGET) == 80, "neither engines of moves nor start-up"
    assert single(TRAFFIC).kernel_units(busy, TARGET) == 600 * TARGET.tiles
    expected = max(90, 600 * TARGET.tiles / TARGET.dram_bytes_per_cycle)
    assert single(SLOWEST).kernel_units(busy, TARGET) == expected


def test_a_mix_weighs_it_in_parts_of_the_roofline() -> None:
    graph = tiny("matmul_chain").graph
    mix = Objective(((SLOWEST, 3.0), (Metric.ENERGY, 1.0))).on(graph, TARGET)
    known = references(graph, TARGET, mix.metrics)
    assert known[SLOWEST] > 0
    assert mix.rate(SLOWEST) * known[SLOWEST] == pytest.approx(0.75 * known[Metric.LATENCY])
    assert mix.unit == "weighted cycles"
    assert str(mix) == "slowest part:3,energy:1"
    assert single(TRAFFIC).unit == "bytes"


@pytest.mark.parametrize("metric", [SLOWEST, TRAFFIC], ids=str)
def test_a_plan_costs_the_sum_over_kernels_and_moves(metric: UserMetric) -> None:
    case = tiny("matmul_chain")
    plan = case.extract(single(metric))
    validate_plan(plan, case.target)
    total = sum(metric.price(planned.cost.occupancy(case.target)) for planned in plan.ops)
    brought = {d.tensor: d for d in plan.output_deliveries}.values()
    for delivery in (*(d for planned in plan.ops for d in planned.deliveries), *brought):
        assert delivery.hidden_cycles == 0, "nothing runs beside a product for nothing"
        total += sum(metric.price(move.occupancy) for move in delivery.moves)
    assert plan.cost == pytest.approx(total)
    found = amounts(plan, case.target)
    assert found[metric] == pytest.approx(total)
    other = case.extract(Objective.LATENCY)
    assert total <= amounts(other, case.target, (metric,))[metric] * (1 + 1e-9)


def test_a_move_is_charged_for_what_it_occupies() -> None:
    moves = [
        move
        for planned in tiny("matmul_chain").extract().ops
        for delivery in planned.deliveries
        for move in delivery.moves
    ]
    assert moves, "the model moves something"
    for move in moves:
        assert move_units(move, single(SLOWEST)) == SLOWEST.price(move.occupancy)
        assert SLOWEST.price(move.occupancy) > 0


@pytest.mark.parametrize("answer", [-1.0, nan, inf, "much", None])
def test_an_answer_that_is_no_amount_is_refused(answer: object) -> None:
    broken = UserMetric("broken", lambda o: answer)  # type: ignore[arg-type, return-value]
    with pytest.raises(CompileError, match=r"metric 'broken': its function returned .* expected"):
        broken.amount(Occupancy())


@pytest.mark.parametrize("name", ["", " ", "a,b", "a:b"])
def test_a_name_that_lists_could_not_tell_apart_is_refused(name: str) -> None:
    with pytest.raises(CompileError, match="choose another one"):
        UserMetric(name, lambda o: o.core_cycles)


def test_two_metrics_of_one_name_are_refused() -> None:
    twice = UserMetric("slowest part", lambda o: o.core_cycles)
    with pytest.raises(CompileError, match="two metrics of one name"):
        Objective(((SLOWEST, 1.0), (twice, 1.0)))
    with pytest.raises(CompileError, match="two metrics of one name"):
        single(UserMetric("latency", lambda o: o.core_cycles))
    with pytest.raises(CompileError, match="objectives 'slowest part,slowest part'"):
        check_metrics((SLOWEST, twice))


def test_the_verbs_take_a_metric() -> None:
    graph = tiny("matmul_chain").graph
    done = tilewright.compile(graph, "mesh_2x2", objective=SLOWEST)
    assert done.plan is not None
    assert done.plan.objective == single(SLOWEST)
    session = tilewright.explore(graph, "mesh_2x2", objective=SLOWEST)
    assert session.base.plan.cost == pytest.approx(done.plan.cost)
    found = tilewright.front(graph, "mesh_2x2", (SLOWEST, "sram"), points=3)
    assert found.points[0].amounts[SLOWEST] == pytest.approx(done.plan.cost)
    assert found.points[-1].amounts[Metric.SRAM] <= found.points[0].amounts[Metric.SRAM]
