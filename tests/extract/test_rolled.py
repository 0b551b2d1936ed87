"""Models with repeated blocks: one choice for all instances, bounds for any choice."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import pytest
from extract_cases import MIX, OBJECTIVES, Builder, Case, one_block, saturated

from tilewright.extract.objective import Objective
from tilewright.extract.plan import Plan
from tilewright.extract.reshard import move_units
from tilewright.extract.validate import validate_plan
from tilewright.graph import Graph
from tilewright.hwmodel.family import mesh_target


def layers(count: int, *, width: int = 32) -> Graph:
    """Return residual layers x + relu(layernorm(x) w + b) v, with ops before and one behind."""
    b = Builder(f"layers{count}")
    # no rule reaches across the ends of blocks: the function keeps the weights of two products apart
    x = b.map("tanh", b.matmul(b.input(16, 8), b.weight(8, width)))
    for _ in range(count):
        normal = b.op("layernorm", (x,), (16, width), epsilon=1e-5)
        wide = b.map("add", b.matmul(normal, b.weight(width, 2 * width)), b.weight(1, 2 * width))
        x = b.map("add", x, b.matmul(b.map("relu", wide), b.weight(2 * width, width)))
    return b.graph(b.map("tanh", x))


@cache
def case_of(count: int, *, rolled: bool = True) -> Case:
    graph = layers(count)
    return saturated(graph, mesh_target(2, 2), rolled=None if rolled else one_block(graph))


@cache
def plan_of(count: int, objective: Objective = Objective.LATENCY, *, rolled: bool = True) -> Plan:
    return case_of(count, rolled=rolled).extract(objective)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("count", [4, 7])
def test_rolled_plans_are_valid_and_add_up(count: int, objective: Objective) -> None:
    case, plan = case_of(count), plan_of(count, objective)
    assert len(case.rolled.blocks) < len(case.rolled.instances)
    validate_plan(plan, case.target)
    total = sum(op.cost_units for op in plan.ops)
    total += sum(move_units(m, objective) for d in plan.output_deliveries for m in d.moves)
    assert plan.cost == pytest.approx(total)
    assert 0 < plan.bound <= plan.cost


def test_every_instance_has_its_own_names_and_weights() -> None:
    plan, count = plan_of(5), 5
    names = [name for op in plan.ops for name in op.op.outputs]
    assert len(set(names)) == len(names)
    assert set(plan.types) >= set(names)
    read = [name for op in plan.ops for name in op.op.inputs]
    folded = [name for op in plan.folded for name in op.inputs]
    for weight in plan.graph.constants:
        assert weight in read or weight in folded
        assert read.count(weight) <= 1
    norms = [op for op in plan.ops if op.op.kind == "layernorm"]
    assert len(norms) in (0, count)
    (delivered,) = plan.output_deliveries
    assert delivered.tensor == plan.graph.outputs[0].tensor == plan.ops[-1].op.outputs[0]


def test_instances_of_a_block_run_alike() -> None:
    plan = plan_of(6)
    case = case_of(6)
    block = max(
        range(len(case.rolled.blocks)),
        key=lambda b: sum(i.block == b for i in case.rolled.instances),
    )
    name = case.rolled.blocks[block].name
    copies = sum(i.block == block for i in case.rolled.instances)
    own = [
        (op.op.kind, op.split_dims, op.result, op.tiling, op.resident)
        for op in plan.ops
        if op.block == name
    ]
    assert copies > 1
    assert len(own) % copies == 0
    length = len(own) // copies
    assert all(own[n : n + length] == own[:length] for n in range(0, len(own), length))


@pytest.mark.parametrize(
    "objective",
    [
        Objective.LATENCY,
        Objective.ENERGY,
        *(pytest.param(o, marks=pytest.mark.slow) for o in (Objective.THROUGHPUT, MIX)),
    ],
)
def test_rolled_bounds_the_unrolled_model_too(objective: Objective) -> None:
    rolled, single = plan_of(4, objective), plan_of(4, objective, rolled=False)
    validate_plan(single, case_of(4, rolled=False).target)
    assert rolled.bound <= single.cost * (1 + 1e-9)
    assert single.bound <= rolled.cost * (1 + 1e-9)
    assert rolled.cost <= 1.09 * single.cost


def test_each_further_layer_costs_the_same() -> None:
    costs = [plan_of(count).cost for count in (4, 5, 6, 7)]
    steps = [b - a for a, b in pairwise(costs)]
    assert steps == pytest.approx([steps[0]] * 3, rel=1e-6)
