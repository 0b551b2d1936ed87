"""Values computed again for readers far behind: against the enumeration of all plans, with and without it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from extract_cases import Builder, Case, Enumeration, naive_rows, one_block, saturated
from numpy.typing import NDArray

from tilewright.errors import DemandError
from tilewright.extract.exploration.demand import parse_demand
from tilewright.extract.exploration.explain import explain
from tilewright.extract.exploration.explorer import Explorer
from tilewright.extract.extraction import ExtractOptions, plan_setting, prepare
from tilewright.extract.objective import Objective
from tilewright.extract.plan import Plan, PlannedOp, Proof
from tilewright.extract.plan_writer import PlanWriter
from tilewright.extract.profile import sram_profile
from tilewright.extract.recheck.bound import validate_bound
from tilewright.extract.repeats import account_of
from tilewright.extract.validate import validate_plan
from tilewright.graph import Graph
from tilewright.hwmodel.family import mesh_target
from tilewright.rules.options import SaturationOptions

RULE = "pipeline.map_again"
FEW_FORMS = ("algebra", "fusion")


def two_products(b: Builder, x: str) -> str:
    """Return products of a value that do not merge."""
    width = b.types[x].shape[1]
    h = b.op("softmax", (b.matmul(x, b.weight(width, width)),), b.types[x].shape)
    return b.matmul(h, b.weight(width, width))


def outer_sum(b: Builder, rows: int, width: int) -> str:
    """Return a tensor that is made of much smaller ones."""
    return b.op("map", (b.input(rows, 1), b.input(1, width)), (rows, width), fn="add")


def one_late_reader(rows: int = 32, width: int = 32) -> Graph:
    """Return products of a sum of a column and a row, multiplied by the sum."""
    b = Builder("one_late_reader")
    c = outer_sum(b, rows, width)
    return b.graph(b.map("mul", two_products(b, c), c))


def two_late_readers() -> Graph:
    """Return the same with another reader behind."""
    b = Builder("two_late_readers")
    c = outer_sum(b, 32, 32)
    return b.graph(b.map("mul", two_products(b, c), c), b.op("softmax", (c,), (32, 32)))


def by(make: Callable[[Builder], str], name: str, *, reads_again: bool = False) -> Graph:
    """Return products of a value, multiplied by the value and perhaps added to the model's input."""
    b = Builder(name)
    c = make(b)
    y = b.map("mul", two_products(b, c), c)
    return b.graph(b.map("add", y, b.inputs[0]) if reads_again else y)


def short_product() -> Graph:
    """Return a model whose late value is a column by a row."""

    def make(b: Builder) -> str:
        return b.op("matmul", (b.input(32, 1), b.input(1, 32)), (32, 32))

    return by(make, "short_product")


def expanded() -> Graph:
    """Return a model whose late value is a row, again and again."""

    def make(b: Builder) -> str:
        return b.op("expand", (b.input(1, 32),), (32, 32), shape=(32, 32))

    return by(make, "expanded")


def normalised() -> Graph:
    """Return a model whose late value is a norm of an input that is read in the end."""

    def make(b: Builder) -> str:
        return b.op("rmsnorm", (b.input(32, 32),), (32, 32), epsilon=1e-5)

    return by(make, "normalised", reads_again=True)


CHANGED = {
    "pipeline.map_again": one_late_reader,
    "pipeline.movement_again": expanded,
    "pipeline.norm_again": normalised,
    "pipeline.short_product_again": short_product,
}
"""A model whose plan each rule changes."""

MODELS: dict[str, Callable[[], Graph]] = {f().name: f for f in (one_late_reader, two_late_readers)}


@cache
def case(name: str, *, is_offered: bool = True) -> Case:
    graph = {**MODELS, **CHANGED}[name]()
    return saturated(
        graph,
        mesh_target(1, 2),
        rolled=one_block(graph),
        without_rules=FEW_FORMS,
        options=SaturationOptions(scratchpad_bytes=0 if is_offered else None),
    )


@cache
def enumerated(
    name: str, limit: int | None = None, objective: Objective = Objective.LATENCY
) -> tuple[Enumeration, NDArray[np.float64]]:
    found = Enumeration(case(name), *case(name).tables(objective, limit))
    return found, found.costs()


def plan_of(found: Enumeration, place: tuple[int, ...]) -> tuple[tuple[int, ...], Plan]:
    """Return the choice at a place of the enumeration, and the plan that it is."""
    choice = tuple(int(found.numbers[n][i]) for n, i in enumerate(place))
    own = found.case
    parts = (own.graph, own.rolled, found.alternatives, found.tables, choice, found.pricing)
    return choice, PlanWriter(*parts).write((0.0, Proof(method="none")))


def cheapest_fitting(found: Enumeration, costs: NDArray[np.float64], limit: int) -> float:
    """Return the cost of the best plan that fits, inf if it is not among the cheapest thousand."""
    flat = costs.reshape(-1)
    for index in np.argsort(flat, kind="stable")[:1000]:
        if np.isfinite(flat[index]):
            place = tuple(int(i) for i in np.unravel_index(index, costs.shape))
            if max(sram_profile(plan_of(found, place)[1], found.case.target).rows) <= limit:
                return float(flat[index])
    return float("inf")


def again(plan: Plan) -> list[PlannedOp]:
    return [op for op in plan.ops if op.again is not None]


@pytest.mark.parametrize("objective", [Objective.LATENCY, Objective.ENERGY])
@pytest.mark.parametrize("name", MODELS)
def test_the_optimum_is_found_and_bounded(name: str, objective: Objective) -> None:
    _, costs = enumerated(name, None, objective)
    plan = case(name).extract(objective)
    validate_plan(plan, case(name).target)
    assert plan.cost == pytest.approx(costs.min(), rel=1e-6)
    assert plan.bound <= costs.min() * (1 + 1e-9)


@pytest.mark.parametrize("name", MODELS)
def test_plans_cost_what_choices_do_and_need_no_less_than_rows_say(name: str) -> None:
    """Kept values are in their place, run nothing, and are alive as long as somebody reads them."""
    found, costs = enumerated(name)
    target, mesh = case(name).target, case(name).mesh
    account = account_of(found.tables, found.alternatives, mesh, target.tile.sram.alignment_bytes)
    rng = np.random.default_rng(3)
    finite = np.argwhere(np.isfinite(costs))
    kept = made = 0
    for position in finite[rng.choice(len(finite), 40, replace=False)]:
        place = tuple(int(i) for i in position)
        choice, plan = plan_of(found, place)
        validate_plan(plan, target)
        assert plan.cost == pytest.approx(costs[place], rel=1e-6)
        stated = found.tables.problem.cost(choice) / found.tables.scale
        assert stated == pytest.approx(costs[place], rel=1e-6)
        profile = sram_profile(plan, target)
        assert np.all(np.array(naive_rows(plan, target)) <= profile.rows)  # which knows moves, too
        assert found.tables.relaxed.use(choice).max() <= max(profile.rows)
        assert account.use(choice).max() <= max(profile.rows) - profile.resident_bytes
        chosen = [own[c] for own, c in zip(found.tables.options, choice, strict=True)]
        kept += any(option.is_kept for option in chosen)
        made += bool(again(plan))
    assert kept
    assert made


@pytest.mark.parametrize(
    ("name", "limit"),
    [
        ("one_late_reader", 3072),
        ("one_late_reader", 5120),
        ("one_late_reader", 6144),
        ("one_late_reader", 8192),
        ("two_late_readers", 6144),
    ],
)
def test_the_optimum_in_a_tight_scratchpad_is_found_and_bounded(name: str, limit: int) -> None:
    optimum = cheapest_fitting(*enumerated(name, limit), limit)
    plan = case(name).extract(limit=limit)
    validate_plan(plan, case(name).target)
    assert max(naive_rows(plan, case(name).target)) <= limit
    assert plan.bound <= optimum * (1 + 1e-9), "the bound is above the optimum"
    assert plan.cost <= optimum * (1 + 1e-6), "a better plan is overlooked"
    assert plan.cost >= plan.bound


@pytest.mark.parametrize("limit", [5120, 6144])
def test_computing_again_makes_room_for_something_better(limit: int) -> None:
    with_it, without = (
        case("one_late_reader", is_offered=o).extract(limit=limit) for o in (True, False)
    )
    (late,) = again(with_it)
    assert late.again is not None
    assert (late.again.rule, late.again.tensor) == (RULE, "map0")
    assert not again(without)
    assert with_it.cost < without.bound


@pytest.mark.parametrize("rule", CHANGED)
def test_each_rule_makes_a_plan_cheaper(rule: str) -> None:
    with_it, without = (
        case(rule, is_offered=offered).extract(limit=6144) for offered in (True, False)
    )
    validate_plan(with_it, case(rule).target)
    assert {op.again.rule for op in again(with_it) if op.again is not None} == {rule}
    assert with_it.cost < without.bound


@pytest.mark.parametrize("limit", [5120, 8192])
def test_certificates_prove_the_bound(limit: int) -> None:
    own = case("one_late_reader")
    options = ExtractOptions(sram_limit_bytes=limit)
    setting = prepare(own.graph, own.rolled, own.alternatives, own.target, own.mesh, options)
    validate_bound(plan_setting(setting, options), setting)


@cache
def explorer(limit: int) -> Explorer:
    own = case("one_late_reader")
    options = ExtractOptions(sram_limit_bytes=limit)
    return Explorer(own.graph, own.rolled, own.alternatives, own.target, own.mesh, options)


@pytest.mark.parametrize("demand", [f"rule={RULE}", f"rule={RULE}@map0", "rule=pipeline"])
def test_it_is_forced_and_forbidden_like_other_rules(demand: str) -> None:
    session = explorer(6144)
    assert again(session.base.plan)
    without = session.answer(parse_demand(demand, is_forced=False)).plan
    assert not again(without)
    assert without.cost == pytest.approx(
        case("one_late_reader", is_offered=False).extract(limit=6144).cost, rel=1e-6
    )
    roomy = explorer(8192)
    assert not again(roomy.base.plan)
    forced = roomy.answer(parse_demand(demand)).plan
    assert len(again(forced)) == 1
    assert forced.cost >= roomy.base.plan.cost


def test_explanations_say_that_it_is_computed_again_and_why() -> None:
    session = explorer(6144)
    (late,) = again(session.base.plan)
    for tensor in ("map0", late.op.output):
        (text,) = (t for t in explain(session, tensor).binding if "again" in t)
        assert text.startswith(f"'map0' is computed again for 'map4' by {RULE}: kept, it would ")
    with pytest.raises(DemandError, match="the plan keeps 'map0' for its readers"):
        explain(explorer(8192), late.op.output)
