"""The choice of a padding: the cheapest of all planned, whatever was looked at, and what is said of it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from tilewright import api
from tilewright.compiler import Compilation
from tilewright.errors import InfeasibleError
from tilewright.extract.objective import Objective, parse_objective
from tilewright.graph import Graph
from tilewright.hwmodel.load import load_target
from tilewright.hwmodel.network import logical_mesh
from tilewright.padding_choice import Known, PaddingCost, Ways, choose_padding
from tilewright.rule_stats import losses
from tilewright.rules.checks.zoo import GraphBuilder, transformer
from tilewright.rules.padding import Padding, paddings


@dataclass(frozen=True)
class Costs:
    """What a padding costs, which the choice may ask for: bound, first choice, plan; inf does not fit."""

    bound: float
    cost: float
    plan: float
    work: int


@st.composite
def costs(draw: st.DrawFn) -> Costs:
    plan = draw(st.sampled_from([3.0, 4.0, 5.0, 6.0, inf]))
    bound = draw(st.floats(0, min(plan, 6.0)))
    return Costs(bound, draw(st.sampled_from([plan, inf])), plan, draw(st.integers(1, 3_000)))


def ways(given: list[Costs], asked: list[tuple[str, int]], *, adds_up: bool) -> Any:
    """How models are planned of which everything is known; notes what is asked for, with the work."""

    def plan(model: Costs, draft: Costs) -> Any:
        asked.append(("plan", given.index(model)))
        if model.plan == inf:
            raise InfeasibleError("it does not fit")
        return type("Plan", (), {"cost": model.plan})

    def draft(model: Costs) -> Costs:
        asked.append(("draft", given.index(model)))
        if model.plan == inf and model.bound > 1:
            raise InfeasibleError("a tensor does not fit")
        return model

    return Ways(
        saturate=lambda padding: given[int(padding.graph.name)],
        draft=cast(Any, draft),
        estimate=lambda draft: draft.cost,
        plan=cast(Any, plan),
        work=lambda model: model.work,
        is_late=lambda: False,
        adds_up=adds_up,
    )


@given(st.lists(costs(), min_size=2, max_size=4, unique=True), st.booleans())
def test_the_cheapest_is_taken_and_what_a_bound_ends_is_not_planned(
    given: list[Costs], adds_up: bool
) -> None:
    asked: list[tuple[str, int]] = []
    offered = [Padding(graph=GraphBuilder(str(n)).graph()) for n in range(len(given))]
    best, *others = choose_padding(offered, ways(given, asked, adds_up=adds_up))
    numbers = [int(trial.padding.graph.name) for trial in (best, *others)]
    assert sorted(numbers) == list(range(len(given)))
    assert [int(trial.padding.graph.name) for trial in others] == sorted(numbers[1:])
    looked_at = {number for what, number in asked if what == "draft"}
    assert len(looked_at) >= 2
    assert looked_at == set(range(len(given))) or sum(given[n].work for n in looked_at) > 12_000
    least = min(given[number].plan for number in looked_at)
    assert given[numbers[0]].plan == least
    if least < inf:
        assert numbers[0] == min(n for n in looked_at if given[n].plan == least)
        assert all(adds_up <= (given[n].bound <= least) for what, n in asked if what == "plan")
    if max(given[n].work for n in looked_at) <= 2_000 and least < inf:
        assert best.known is Known.PLAN
    for trial in (best, *others):
        own = given[int(trial.padding.graph.name)]
        expected = {
            Known.NOTHING: inf,
            Known.INFEASIBLE: inf,
            Known.BOUND: own.bound if adds_up else 0.0,
            Known.DRAFT: own.cost,
            Known.PLAN: own.plan,
        }[trial.known]
        assert trial.cost == expected
        assert (trial.known is Known.INFEASIBLE) <= (own.plan == inf)


def test_without_time_one_padding_is_looked_at() -> None:
    known = [Costs(1.0, 2.0, 2.0, 1), Costs(3.0, 4.0, 4.0, 1)]
    offered = [Padding(graph=GraphBuilder(str(n)).graph()) for n in range(2)]
    asked: list[tuple[str, int]] = []
    late = ways(known, asked, adds_up=True)
    late = Ways(
        **{name: getattr(late, name) for name in late.__slots__} | {"is_late": lambda: True}
    )
    best, other = choose_padding(offered, late)
    assert (best.cost, other.known) == (4.0, Known.NOTHING)


COLUMNS = "partition.matmul_columns"


def mlp(rows: int) -> Graph:
    """Four layers of 12 features."""
    b = GraphBuilder()
    x = b.input("x", rows, 12)
    for number in range(4):
        x = b.op("map", b.linear(x, f"fc{number}", 12), fn="relu")
    return b.graph(x)


@pytest.mark.parametrize(
    ("graph", "target", "objective", "max_latency"),
    [
        (mlp(7), "mesh_2x2", "latency", None),
        (mlp(9), "mesh_1x4", "latency", None),
        (mlp(9), "mesh_1x4", "energy", None),
        (mlp(9), "mesh_1x4", "latency:0.5,energy:0.5", None),
        (mlp(9), "mesh_1x4", "energy", 1_200),
        pytest.param(mlp(9), "mesh_1x4", "latency:1,sram:1", None, marks=pytest.mark.slow),
        pytest.param(transformer(1, tokens=5), "mesh_1x2", "latency", None, marks=pytest.mark.slow),
    ],
)
def test_the_plan_is_the_cheapest_of_all_paddings_planned_alone(
    graph: Graph, target: str, objective: str, max_latency: float | None
) -> None:
    machine = load_target(target)
    rated: Objective = parse_objective(objective).on(graph, machine)

    def planned(graph: Graph, *, pads: bool) -> Compilation:
        return api.compile(
            graph,
            machine,
            objective=rated,
            max_latency=max_latency,
            pads=pads,
            stop_after="extract",
        )

    alone: dict[str, float] = {}
    for padding in paddings(graph, logical_mesh(machine).sizes):
        with suppress(InfeasibleError):
            plan = planned(padding.graph, pads=False).plan
            assert plan is not None
            alone[padding.text] = plan.cost
    done = planned(graph, pads=True)
    assert done.plan is not None
    assert len(done.paddings) > 1
    assert done.plan.cost == done.paddings[0].cost == min(alone.values())
    for found in done.paddings:
        cost = alone.get(found.padding.text, inf)
        if found.known is Known.BOUND:
            assert done.plan.cost <= found.cost <= cost
        else:
            assert found.known is (Known.PLAN if cost < inf else Known.INFEASIBLE)
            assert found.cost == cost


def test_copies_that_cost_more_than_they_save_are_not_made() -> None:
    """Of few rows and wide layers the weights are what takes time, and they can be split as they are."""
    b = GraphBuilder()
    x = b.input("x", 3, 64)
    for number in range(3):
        x = b.op("map", b.linear(x, f"fc{number}", 64), fn="relu")
    graph = b.graph(x)
    done = api.compile(graph, "mesh_1x4", stop_after="extract")
    assert [cost.padding.text for cost in done.paddings] == ["as given", "3 -> 4"]
    assert done.graph.types == graph.types
    forced = api.compile(
        done.paddings[1].padding.graph, "mesh_1x4", pads=False, stop_after="extract"
    )
    assert done.plan is not None
    assert forced.plan is not None
    assert done.plan.cost < forced.plan.cost


def assert_same(graph: Graph, other: Graph) -> None:
    """Both have the same operators on the same types."""
    assert (graph.ops, graph.types, graph.notes) == (other.ops, other.types, other.notes)


def told(found: tuple[PaddingCost, ...]) -> list[tuple[str, Known, float]]:
    """What is said of paddings."""
    return [(one.padding.text, one.known, one.cost) for one in found]


def test_rows_are_padded_where_nothing_else_can_be_split() -> None:
    done = api.compile(mlp(7), "mesh_2x2", without_rules=(COLUMNS,), stop_after="extract")
    assert told(done.paddings)[0][:2] == ("7 -> 8", Known.PLAN)
    assert done.plan is not None
    assert done.paddings[0].cost == done.plan.cost < done.paddings[1].cost
    assert done.graph.notes == ("7 rows of 4 products are padded to 8",)


@pytest.mark.parametrize("stage", ["frontend", "roll", "saturate"])
def test_every_stage_is_of_the_padding_that_is_planned(stage: str) -> None:
    whole = api.compile(mlp(7), "mesh_2x2", stop_after="extract")
    part = api.compile(mlp(7), "mesh_2x2", stop_after=stage)
    assert_same(part.graph, whole.graph)
    assert told(part.paddings) == told(whole.paddings)
    assert (part.rolled is None) == (stage == "frontend")
    assert bool(part.alternatives) == (stage == "saturate")


def test_questions_and_fronts_have_the_padding_that_is_planned() -> None:
    done = api.compile(mlp(7), "mesh_2x2", stop_after="extract")
    said: list[str] = []
    session = api.explore(mlp(7), "mesh_2x2", progress=said.append)
    assert_same(session.base.plan.graph, done.graph)
    assert told(session.paddings) == told(done.paddings)
    said.clear()
    assert_same(session.what_if("sram=x0.5").plan.graph, done.graph)
    assert not any("paddings" in line for line in said), "the padding stays"
    found = api.front(mlp(7), "mesh_2x2", ("energy", "latency"), points=2)
    least = api.compile(mlp(7), "mesh_2x2", objective="energy", stop_after="extract")
    assert_same(found.graph, least.graph)
    assert least.plan is not None
    assert min(point.plan.cost for point in found.points) <= least.plan.cost


def test_a_plan_without_a_rule_is_compared_at_the_same_padding() -> None:
    done = api.compile(mlp(7), "mesh_2x2", stop_after="extract")
    assert done.plan is not None
    rule = COLUMNS
    (loss,) = losses(done, (rule,), lambda _: None).values()
    graph, without = done.paddings[0].padding.graph, (rule,)
    alone = api.compile(graph, "mesh_2x2", without_rules=without, pads=False, stop_after="extract")
    assert alone.plan is not None
    assert loss == pytest.approx(alone.plan.cost / done.plan.cost - 1)
    again = api.compile(mlp(7), "mesh_2x2", without_rules=without, stop_after="extract")
    assert again.plan is not None
    assert again.plan.cost < alone.plan.cost, "another padding would be better then"


def test_the_report_names_all_paddings_with_their_costs(tilewright: Any, tmp_path: Path) -> None:
    nodes, weights = [], []
    for n in range(4):
        weight = numpy_helper.from_array(np.eye(12, dtype=np.float32), f"w{n}")
        weights.append(weight)
        nodes.append(helper.make_node("MatMul", [f"x{n}", f"w{n}"], [f"y{n}"]))
        nodes.append(helper.make_node("Relu", [f"y{n}"], [f"x{n + 1}"]))
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, (7, 12)) for n in ("x0", "x4")]
    graph = helper.make_graph(nodes, "mlp", ports[:1], ports[1:], weights)
    path = tmp_path / "mlp.onnx"
    opset = helper.make_opsetid("", 17)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), path)
    done = api.compile(path, "mesh_2x2", stop_after="extract")
    assert done.plan is not None
    ran = tilewright("compile", path, "--target", "mesh_2x2", "--verify")
    assert ran.code == 0, ran.err
    chosen, *others = done.paddings
    assert f"{chosen.padding.text}: taken, the cheapest of {len(done.paddings)} " in ran.out
    for other in others:
        assert f"{other.padding.text}: {other.known} {other.cost:,.0f} cycles" in ran.out
    assert "no plan considered with this padding is better" in " ".join(ran.out.split())
    ran = tilewright("compile", path, "--target", "mesh_2x2", "--no-padding")
    assert "padding" not in ran.out
