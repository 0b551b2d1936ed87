"""Extraction of tiny models against the enumeration of all combinations of options."""

from __future__ import annotations

import numpy as np
import pytest
from extract_cases import MODELS, OBJECTIVES, Case, Enumeration, naive_rows, sliced, tiny
from numpy.typing import NDArray

from tilewright.errors import InfeasibleError
from tilewright.extract.choice import FORBIDDEN
from tilewright.extract.objective import Objective
from tilewright.extract.plan import Plan, Proof
from tilewright.extract.plan_writer import PlanWriter
from tilewright.extract.profile import sram_profile
from tilewright.extract.repeats import account_of
from tilewright.extract.validate import validate_plan

SMALL = [name for name in MODELS if name != "attention_scores"]


def enumerated(
    case: Case, objective: Objective, limit: int | None = None, *, keep_all: bool = False
) -> tuple[Enumeration, NDArray[np.float64]]:
    alternatives, pricing, tables = case.tables(objective, limit)
    found = Enumeration(case, alternatives, pricing, tables, keep_all=keep_all)
    return found, found.costs()


def plan_of(found: Enumeration, position: tuple[int, ...]) -> Plan:
    """Write out the plan of one combination."""
    choice = tuple(int(found.numbers[n][i]) for n, i in enumerate(position))
    case = found.case
    writer = PlanWriter(
        case.graph, case.rolled, found.alternatives, found.tables, choice, found.pricing
    )
    return writer.write((0.0, Proof(method="none")))


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("columns", [(1, 2), (2, 2)])
@pytest.mark.parametrize("name", SMALL)
def test_ample_scratchpad_gives_the_optimum(
    name: str, columns: tuple[int, int], objective: Objective
) -> None:
    case = tiny(name, *columns)
    _, costs = enumerated(case, objective)
    plan = case.extract(objective)
    validate_plan(plan, case.target)
    assert plan.cost == pytest.approx(costs.min(), rel=1e-6)
    assert plan.bound <= costs.min() * (1 + 1e-9)
    assert plan.bound >= costs.min() * (1 - 1e-3)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_loopy_softmax_is_solved_exactly(objective: Objective) -> None:
    case = tiny("attention_scores", 1, 2)
    _, costs = enumerated(case, objective)
    plan = case.extract(objective)
    validate_plan(plan, case.target)
    assert plan.cost == pytest.approx(costs.min(), rel=1e-6)
    assert plan.bound == pytest.approx(costs.min(), rel=1e-6)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("columns", [(1, 2), (2, 2)])
def test_chains_are_solved_exactly(columns: tuple[int, int], objective: Objective) -> None:
    case = sliced(*columns)
    _, costs = enumerated(case, objective)
    plan = case.extract(objective)
    validate_plan(plan, case.target)
    assert plan.cost == pytest.approx(costs.min(), rel=1e-6)
    assert costs.min() * (1 - 1e-3) <= plan.bound <= costs.min() * (1 + 1e-9)


@pytest.mark.parametrize("limit", [3072, 4608, 6144, 9216])
def test_chains_are_the_optimum_of_tight_scratchpads(limit: int) -> None:
    """The plan is within the rows, and no dearer than any combination of options that fits."""
    case = sliced(1, 2)
    found, costs = enumerated(case, Objective.LATENCY, limit, keep_all=True)
    plan = case.extract(Objective.LATENCY, limit)
    validate_plan(plan, case.target)
    assert max(naive_rows(plan, case.target)) <= limit
    flat = costs.reshape(-1)
    for index in np.argsort(flat, kind="stable")[:4000]:
        other = plan_of(found, tuple(int(i) for i in np.unravel_index(index, costs.shape)))
        if max(sram_profile(other, case.target).rows) <= limit:
            assert flat[index] * (1 - 1e-9) <= plan.cost
            assert plan.bound <= flat[index] * (1 + 1e-9)
            break


@pytest.mark.parametrize("name", ["residual", "heads", "two_outputs"])
def test_problem_and_plan_agree_with_the_enumeration(name: str) -> None:
    case = tiny(name, 1, 2)
    found, costs = enumerated(case, Objective.LATENCY)
    rng = np.random.default_rng(3)
    finite = np.argwhere(np.isfinite(costs))
    for position in finite[rng.choice(len(finite), 12, replace=False)]:
        place = tuple(int(i) for i in position)
        plan = plan_of(found, place)
        choice = [int(found.numbers[n][i]) for n, i in enumerate(place)]
        assert plan.cost == pytest.approx(costs[place], rel=1e-6)
        stated = found.tables.problem.cost(choice) / found.tables.scale
        assert stated == pytest.approx(costs[place], rel=1e-6)
        validate_plan(plan, case.target)
    broken = np.argwhere(np.isinf(costs))[:20]
    for position in broken:
        choice = [int(found.numbers[n][i]) for n, i in enumerate(position)]
        assert found.tables.problem.cost(choice) >= FORBIDDEN


@pytest.mark.parametrize("name", list(MODELS))
def test_relaxed_rows_use_no_more_than_the_plan(name: str) -> None:
    """A plan that fits must satisfy the rows that prove the bound, or the bound may be too high."""
    case = tiny(name, 1, 2)
    found, costs = enumerated(case, Objective.LATENCY)
    alignment = case.target.tile.sram.alignment_bytes
    account = account_of(found.tables, found.alternatives, case.mesh, alignment)
    rng = np.random.default_rng(5)
    finite = np.argwhere(np.isfinite(costs))
    for position in finite[rng.choice(len(finite), min(60, len(finite)), replace=False)]:
        place = tuple(int(i) for i in position)
        choice = [int(found.numbers[n][i]) for n, i in enumerate(place)]
        plan = plan_of(found, place)
        if len(plan.ops) < sum(
            found.tables.options[n][c].node is not None for n, c in enumerate(choice)
        ):
            continue
        profile = sram_profile(plan, case.target)
        needs = max(profile.rows)
        assert found.tables.relaxed.use(choice).max() <= needs
        assert account.use(choice).max() <= needs - profile.resident_bytes


@pytest.mark.parametrize(
    "name", ["matmul_chain", "linear_relu", "residual", "heads", "two_outputs"]
)
@pytest.mark.parametrize("objective", [Objective.LATENCY, Objective.ENERGY])
@pytest.mark.parametrize("limit", [1536, 2048, 3072, 4608, 6144, 9216])
def test_tight_scratchpad_is_bracketed(name: str, objective: Objective, limit: int) -> None:
    case = tiny(name, 1, 2)
    try:
        found, costs = enumerated(case, objective, limit, keep_all=True)
    except InfeasibleError:
        with pytest.raises(InfeasibleError):
            case.extract(objective, limit)
        return
    flat = costs.reshape(-1)
    optimum = float("inf")
    for index in np.argsort(flat, kind="stable")[:4000]:
        if not np.isfinite(flat[index]):
            break
        plan = plan_of(found, tuple(int(i) for i in np.unravel_index(index, costs.shape)))
        if max(sram_profile(plan, case.target).rows) <= limit:
            optimum = float(flat[index])
            break
    try:
        plan = case.extract(objective, limit)
    except InfeasibleError:
        assert not np.isfinite(optimum), "a plan that fits is overlooked"
        return
    assert max(naive_rows(plan, case.target)) <= limit
    assert plan.peak_sram_bytes <= limit
    assert plan.cost >= optimum * (1 - 1e-9)
    assert plan.bound <= optimum * (1 + 1e-9), "the bound is above the optimum"
