"""Deliveries that a matrix product covers: known plans, what they are worth, and who notices false claims."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from extract_cases import Builder, Case, saturated

from tilewright.extract.choice import ChoiceProblem, Edge, Usage
from tilewright.extract.dominance import without_dominated
from tilewright.extract.extraction import extract
from tilewright.extract.objective import Objective
from tilewright.extract.overlap import late_operands, rounded_cycles
from tilewright.extract.plan import Delivery, MoveKind, Plan
from tilewright.extract.validate import PlanError, _Covers, validate_plan
from tilewright.graph import DEQUANTISE, PROLOGUE, Graph
from tilewright.hwmodel.family import mesh_target
from tilewright.hwmodel.target import Target
from tilewright.lowering.early import early_deliveries
from tilewright.lowering.lower import build_program, lower_plan
from tilewright.lowering.scheduled import Scheduling
from tilewright.rules.engine import saturate
from tilewright.simulator.timing import simulate

COMMUTED = (
    "algebra.rmsnorm_past_product",
    "algebra.layernorm_past_product",
    "algebra.affine_layernorm_past_product",
)


def norm_before_product(tokens: int, width: int, outputs: int, kind: str = "rmsnorm") -> Graph:
    """Return relu((norm(x w + x) g) v)."""
    b = Builder(f"{kind}_{tokens}x{width}")
    x = b.input(tokens, width)
    x = b.map("add", b.matmul(x, b.weight(width, width)), x)
    normal = b.op(kind, (x,), (tokens, width), epsilon=1e-5)
    scaled = b.map("mul", normal, b.weight(1, width))
    return b.graph(b.map("relu", b.matmul(scaled, b.weight(width, outputs))))


@cache
def norm_case(
    kind: str, tokens: int, width: int, outputs: int, rows: int = 4, columns: int = 4
) -> Case:
    return saturated(norm_before_product(tokens, width, outputs, kind), mesh_target(rows, columns))


def without_rules(case: Case) -> Plan:
    """Extract the plan for the same model saturated without the rules."""
    found = tuple(
        saturate(block.graph, case.mesh, without_rules=COMMUTED) for block in case.rolled.blocks
    )
    return extract(case.graph, case.rolled, found, case.target, case.mesh)


def hidden(plan: Plan) -> list[tuple[int, int, Delivery]]:
    return [
        (position, operand, delivery)
        for position, planned in enumerate(plan.ops)
        for operand, delivery in enumerate(planned.deliveries)
        if delivery.hidden_cycles
    ]


def cycles(plan: Plan, target: Target) -> float:
    return simulate(build_program(plan, target)).run.cycles


def divides_late(plan: Plan) -> bool:
    """Whether the norm's division comes after its product."""
    steps = [str(p.op.attrs.get("fn", p.op.attrs.get("epilogue", ""))) for p in plan.ops]
    return any(step.startswith("div_rms") for step in steps)


@pytest.mark.parametrize("kind", ["rmsnorm", "layernorm"])
def test_few_rows_commute_the_denominator_and_gain(kind: str) -> None:
    """A row is split over the tiles; its statistic is reduced while the matrix unit works."""
    case = norm_case(kind, 1, 512, 64)
    plan, before = case.extract(), without_rules(case)
    validate_plan(plan, case.target)
    assert divides_late(plan)
    assert not divides_late(before)
    assert any("all_reduce" in [m.kind for m in d.moves] for _, _, d in hidden(plan))
    assert plan.cost < before.cost
    assert plan.bound <= plan.cost
    assert cycles(plan, case.target) < 0.95 * cycles(before, case.target)


def test_many_rows_keep_their_norm() -> None:
    """With rows enough for all tiles the statistic is local, and one division before is as good."""
    case = norm_case("rmsnorm", 256, 32, 32, 1, 4)
    plan = case.extract()
    assert not divides_late(plan)
    assert plan.cost == pytest.approx(without_rules(case).cost, rel=1e-6)


def test_energy_hides_nothing() -> None:
    case = norm_case("rmsnorm", 1, 512, 64)
    plan = case.extract(Objective.ENERGY)
    validate_plan(plan, case.target)
    assert hidden(plan) == []


def test_covered_deliveries_leave_in_front_of_the_product() -> None:
    case = norm_case("rmsnorm", 1, 512, 64)
    plan = case.extract()
    early = early_deliveries(plan, case.target)
    readers = {reader for groups in early.values() for group in groups for reader in group}
    late = {
        (position, operand)
        for position, operand, delivery in hidden(plan)
        if plan.ops[position].op.kind == "map" and delivery.moves[0].kind is not MoveKind.LOAD
    }
    assert late
    assert late <= readers
    in_order = build_program(plan, case.target, Scheduling.PROGRAM)
    assert simulate(in_order).run.cycles <= _cycles_without_early(plan, case.target)


def _cycles_without_early(plan: Plan, target: Target) -> float:
    from tilewright.lowering import lower

    return simulate(lower._build(plan, target, {}, Scheduling.PROGRAM)).run.cycles


def test_lowered_order_has_the_statistic_before_the_product() -> None:
    case = norm_case("rmsnorm", 1, 512, 64)
    plan = case.extract()
    ((product, groups),) = early_deliveries(plan, case.target).items()
    (reader, _), *_ = groups[0]
    tags = [micro.tag for micro in lower_plan(plan, case.target).linear.run]
    assert tags.index(reader + 1) < max(n for n, tag in enumerate(tags) if tag == product + 1)


def claimed(plan: Plan, position: int, operand: int, cycles: float) -> Plan:
    """Return the plan with another claim, at the cost that goes with it."""
    ops = list(plan.ops)
    planned = ops[position]
    deliveries = list(planned.deliveries)
    more = cycles - deliveries[operand].hidden_cycles
    deliveries[operand] = replace(deliveries[operand], hidden_cycles=cycles)
    ops[position] = replace(
        planned, deliveries=tuple(deliveries), cost_units=planned.cost_units - more
    )
    return replace(plan, ops=tuple(ops), cost=plan.cost - more, bound=0.0)


def test_validator_refuses_false_claims() -> None:
    case = norm_case("rmsnorm", 1, 512, 64)
    plan = case.extract()
    position, operand, delivery = hidden(plan)[0]
    moved = sum(move.cycles for move in delivery.moves)
    with pytest.raises(PlanError, match="its moves take less"):
        validate_plan(claimed(plan, position, operand, moved + 1), case.target)
    with pytest.raises(PlanError, match="are hidden from the cost"):
        validate_plan(claimed(plan, position, operand, -1.0), case.target)
    other = next(
        (p, o)
        for p, planned in enumerate(plan.ops)
        for o, d in enumerate(planned.deliveries)
        if d.moves and not d.hidden_cycles
    )
    with pytest.raises(PlanError, match="no product runs beside"):
        validate_plan(claimed(plan, *other, 1.0), case.target)
    cheaper = replace(plan, cost=plan.cost - 1.0, bound=0.0)
    with pytest.raises(PlanError, match="it says"):
        validate_plan(cheaper, case.target)


@pytest.mark.parametrize("attrs", [{"epilogue": "add"}, {PROLOGUE: DEQUANTISE}])
def test_a_third_operand_may_be_late_and_a_scale_may_not(attrs: dict[str, str]) -> None:
    """Where a product dequantises and has no third operand, its third input is the scale."""
    case = norm_case("rmsnorm", 1, 512, 64)
    plan = case.extract()
    delivery = hidden(plan)[0][2]
    position = next(n for n, planned in enumerate(plan.ops) if planned.op.kind == "matmul")
    planned = plan.ops[position]
    op = replace(planned.op, attrs=attrs, inputs=(*planned.op.inputs[:2], delivery.tensor))
    changed = replace(planned, op=op, deliveries=(*planned.deliveries[:2], delivery))
    ops = (*plan.ops[:position], changed, *plan.ops[position + 1 :])
    covers = _Covers(replace(plan, ops=ops), case.target)
    is_late = covers._product_beside(position, 2) == position
    assert is_late == ("epilogue" in attrs)
    if not is_late:
        with pytest.raises(PlanError, match="no product runs beside"):
            covers.check(position, 2)


def test_what_is_made_from_a_product_is_not_late() -> None:
    """In p / sum(p) the sum needs the product, so that nothing runs beside its delivery."""
    b = Builder("own_sum")
    product = b.matmul(b.input(8, 32), b.weight(32, 32))
    total = b.op("reduce", (product,), (8, 1), fn="sum", axes=(1,))
    case = saturated(b.graph(b.map("div", product, total)), mesh_target(1, 2))
    assert late_operands(case.alternatives[0], case.target) == {}


def test_an_unrelated_operand_of_a_map_is_late() -> None:
    b = Builder("residual")
    x = b.input(8, 32)
    case = saturated(b.graph(b.map("sub", b.matmul(x, b.weight(32, 32)), x)), mesh_target(1, 2))
    (late,) = late_operands(case.alternatives[0], case.target).values()
    assert late.position == 1
    assert late.cover_cycles > 0


@pytest.mark.parametrize("cycles", [0.0, 0.9, 1.0, 63.9, 64.0, 95.0, 96.0, 1e6])
def test_rounded_cycles_are_less_by_a_third_at_most(cycles: float) -> None:
    found = rounded_cycles(cycles)
    assert found <= cycles
    assert found == 0.0 if cycles < 1 else found > cycles / 1.5


def random_problem(seed: int) -> ChoiceProblem:
    random = np.random.default_rng(seed)
    counts = random.integers(1, 6, 5)
    costs = tuple(random.integers(0, 9, n).astype(float) for n in counts)
    edges = []
    for left in range(5):
        for right in range(left + 1, 5):
            if random.random() < 0.6:
                ports = [random.integers(0, 3, counts[v]) for v in (left, right)]
                matrix = random.integers(0, 5, (3, 3)).astype(float)
                edges.append(Edge(left, right, ports[0], ports[1], matrix))
    usages = tuple(
        Usage(v, v % 2, v % 2 + 1, random.integers(0, 4, n).astype(float))
        for v, n in enumerate(counts)
    )
    return ChoiceProblem(costs, tuple(edges), usages, 2, 5.0)


def optimum(problem: ChoiceProblem) -> float:
    """Return the least cost of a choice that fits, by trying all; infinite if none does."""
    fitting = [
        problem.cost(choice)
        for choice in np.ndindex(*(len(own) for own in problem.costs))
        if (problem.use(choice) <= problem.limit).all()
    ]
    return min(fitting, default=np.inf)


def test_dropping_dominated_options_keeps_the_optimum() -> None:
    dropped = 0
    for seed in range(40):
        problem = random_problem(seed)
        fewer, kept = without_dominated(problem)
        dropped += sum(map(len, problem.costs)) - sum(map(len, kept))
        assert all(len(left) for left in kept)
        assert optimum(fewer) == optimum(problem)
        for own, left, all_ in zip(fewer.costs, kept, problem.costs, strict=True):
            np.testing.assert_array_equal(own, all_[left])
    assert dropped > 40
