"""Plans for a changed target, made from what was known of another one, against plans made afresh."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
from extract_cases import MODELS, Case, Enumeration, layered, matmul_chain, saturated, sliced, tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.extract.choice import ChoiceProblem
from tilewright.extract.exploration.explorer import Explorer
from tilewright.extract.extraction import ExtractOptions
from tilewright.extract.objective import Objective
from tilewright.extract.validate import validate_plan
from tilewright.hwmodel.change import changed_target
from tilewright.hwmodel.family import mesh_target

FIGURES = (
    "sram",
    "sram_bandwidth",
    "dram_bandwidth",
    "dram.latency_cycles",
    "dram.efficiency",
    "clock",
    "lanes",
    "tile.matrix.rows",
    "tile.matrix.columns.f32",
    "tile.matrix.fill_cycles",
    "tile.dma.in_bytes_per_cycle",
    "tile.dma.startup_cycles",
    "tile.dma.burst_bytes",
    "tile.control.issue_cycles",
    "interconnects.row-column.link_bytes_per_cycle",
    "interconnects.row-column.hop_cycles",
    "energy.dram_pj_per_byte",
    "energy.static_watt",
)
FACTORS = ("x0.5", "x0.25", "x2", "x4")
LESS_SCRATCHPAD = "sram=6400"
OBJECTIVES = (Objective.LATENCY, Objective.ENERGY)


def case_of(name: str) -> Case:
    match name:
        case "sliced":
            return sliced(1, 4)
        case "layered":
            return layered(1, 2)
        case "wide":
            return wide()
    return tiny(name, 1, 2)


@cache
def wide() -> Case:
    """Return products large enough for boxes to have many sizes, which may gather operands in chunks."""
    return saturated(matmul_chain(64, 256, 256, 64), mesh_target(1, 4, sram_kib=48))


def explorer_of(case: Case, objective: Objective, start: Explorer | None = None) -> Explorer:
    args = (case.graph, case.rolled, case.alternatives, case.target, case.mesh)
    return Explorer(*args, ExtractOptions(objective=objective), start)


@cache
def known(name: str, objective: Objective) -> Explorer:
    return explorer_of(case_of(name), objective)


def changed(name: str, change: str) -> Case:
    case = case_of(name)
    return replace(case, target=changed_target(case.target, change))


def arrays_of(problem: ChoiceProblem) -> list[object]:
    edges = [(e.left, e.right, e.matrix.tolist()) for e in problem.edges]
    usages = [(u.variable, u.low, u.high, u.amounts.tolist()) for u in problem.usages]
    return [[own.tolist() for own in problem.costs], edges, usages, problem.limit]


def check(name: str, objective: Objective, change: str, bound_rel: float = 1e-6) -> None:
    """Hold a plan, its prices and its bound to those of an extraction that knew nothing.

    Bounds may differ by `bound_rel`, relative, where both searches end above what is proven exactly.
    """
    case = changed(name, change)
    found = explorer_of(case, objective, known(name, objective))
    fresh = explorer_of(case, objective)
    ours, theirs = found.setting.tables, fresh.setting.tables
    assert ours.options == theirs.options
    assert arrays_of(ours.problem) == arrays_of(theirs.problem)
    assert arrays_of(ours.relaxed) == arrays_of(theirs.relaxed)
    plan = found.base.plan
    validate_plan(plan, case.target)
    assert plan.cost == pytest.approx(case.extract(objective).cost, rel=1e-9)
    assert plan.bound <= plan.cost * (1 + 1e-9)
    assert plan.bound == pytest.approx(fresh.base.plan.bound, rel=bound_rel)


@settings(max_examples=20)
@given(
    st.sampled_from((*sorted(MODELS), "sliced")),
    st.sampled_from(OBJECTIVES),
    st.sampled_from(FIGURES),
    st.sampled_from(FACTORS),
)
def test_a_plan_for_a_changed_figure_is_that_made_afresh(
    name: str, objective: Objective, figure: str, factor: str
) -> None:
    factor = "x0.5" if figure == "dram.efficiency" else factor  # at most 1
    check(name, objective, f"{figure}={factor}")


def test_rates_of_chunks_are_those_of_the_changed_network() -> None:
    """Rankings of tilings are kept, but not what exchanges cost in them."""
    for factor in ("x0.03", "x32"):
        check("wide", Objective.LATENCY, f"link_bandwidth={factor}")


def test_repeated_layers_are_planned_as_afresh() -> None:
    for change in ("dram_bandwidth=x0.5", "sram=3200"):
        check("layered", Objective.LATENCY, change, bound_rel=1e-3)


@pytest.mark.parametrize("name", ["linear_relu", "two_outputs"])
def test_a_bound_for_a_changed_target_is_below_the_best_of_all_plans(name: str) -> None:
    for change in ("dram_bandwidth=x0.5", LESS_SCRATCHPAD):
        case = changed(name, change)
        plan = explorer_of(case, Objective.LATENCY, known(name, Objective.LATENCY)).base.plan
        least = Enumeration(case, *case.tables()).costs().min()
        assert plan.bound <= least * (1 + 1e-9)
        assert plan.cost == pytest.approx(least, rel=1e-6)


def test_what_is_known_is_not_changed_by_what_starts_from_it() -> None:
    one = known("heads", Objective.LATENCY)
    ops, costs = one.base.plan.ops, arrays_of(one.setting.tables.problem)
    for change in ("interconnects.row-column.link_bytes_per_cycle=x0.25", "sram=x0.5"):
        explorer_of(changed("heads", change), Objective.LATENCY, one)
    again = explorer_of(case_of("heads"), Objective.LATENCY, one)
    assert again.base.plan.ops == ops
    assert arrays_of(again.setting.tables.problem) == costs
