"""Bounds of plans are computed again from their certificates; none above a plan is accepted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from itertools import product
from typing import Any

import pytest
from extract_cases import MODELS, Case, saturated, tiny, with_sram
from test_rolled import layers

from tilewright import compiler
from tilewright.bound_check import check_bound
from tilewright.errors import InfeasibleError
from tilewright.extract.certificate import Certificate
from tilewright.extract.choice import ChoiceProblem, Usage
from tilewright.extract.extraction import ExtractOptions, plan_setting, prepare
from tilewright.extract.objective import Objective
from tilewright.extract.plan import Plan
from tilewright.extract.plan_error import PlanError
from tilewright.extract.recheck.bound import validate_bound
from tilewright.extract.recheck.exhausted import choices_below
from tilewright.extract.setting import Setting
from tilewright.extract.solve import SolveOptions
from tilewright.hwmodel.family import mesh_target


def planned(case: Case, options: ExtractOptions) -> tuple[Plan, Setting]:
    model = (case.graph, case.rolled, case.alternatives, case.target, case.mesh)
    setting = prepare(*model, options)
    return plan_setting(setting, options), setting


def check(plan: Plan, setting: Setting) -> None:
    """The bound is accepted, and one that the plan itself refutes is not."""
    validate_bound(plan, setting)
    with pytest.raises(PlanError):
        validate_bound(replace(plan, bound=1.01 * plan.cost), setting)
    if plan.gap < 1e-6:
        with pytest.raises(PlanError):
            validate_bound(replace(plan, bound=1.0001 * plan.bound), setting)


@pytest.mark.parametrize("objective", [Objective.LATENCY, Objective.ENERGY])
@pytest.mark.parametrize("name", MODELS)
def test_bounds_of_small_models_hold(name: str, objective: Objective) -> None:
    check(*planned(tiny(name, 1, 2), ExtractOptions(objective=objective)))


@pytest.mark.parametrize("name", ["linear_relu", "residual", "two_outputs", "heads"])
@pytest.mark.parametrize("work", ["much", "little"])
def test_bounds_of_tight_plans_hold(name: str, work: str) -> None:
    """With little work for eliminations they rest on relaxations and branch and bound."""
    few = SolveOptions(branching_gap=0.15, exact_work=0, closing_work=0)
    for limit in (2048, 3072):
        options = ExtractOptions(sram_limit_bytes=limit)
        options = options if work == "much" else replace(options, solve=few)
        check(*planned(tiny(name, 1, 2), options))


@cache
def wide_layers() -> Case:
    return saturated(layers(6, width=64), mesh_target(1, 2))


@pytest.mark.parametrize(("limit", "method"), [(8192, "elimination"), (49152, "rows by spans")])
def test_bounds_of_repeats_hold(limit: int, method: str) -> None:
    """Links between repeats are in both bounds; where constants stay, limits of rows are walked."""
    plan, setting = planned(wide_layers(), ExtractOptions(sram_limit_bytes=limit))
    certificate = plan.proof.certificate
    assert plan.proof.method.startswith(method)
    assert certificate is not None
    assert certificate.links is not None
    assert (certificate.spans is not None) == (method == "rows by spans")
    check(plan, setting)
    if plan.gap > 0.05:  # a hundredth more is not proven, though it may be true
        with pytest.raises(PlanError, match="good for"):
            validate_bound(replace(plan, bound=1.01 * plan.bound), setting)


def test_links_are_part_of_the_proof() -> None:
    plan, setting = planned(wide_layers(), ExtractOptions(sram_limit_bytes=8192))
    certificate = plan.proof.certificate
    assert certificate is not None
    proof = replace(plan.proof, certificate=replace(certificate, links=None))
    with pytest.raises(PlanError, match="not proven"):
        validate_bound(replace(plan, proof=proof), setting)


@pytest.mark.parametrize("certificate", [None, Certificate()])
def test_a_bound_without_a_reason_is_refused(certificate: Certificate | None) -> None:
    plan, setting = planned(tiny("residual", 1, 2), ExtractOptions())
    bare = replace(plan, proof=replace(plan.proof, certificate=certificate))
    with pytest.raises(PlanError, match="certificate"):
        validate_bound(bare, setting)


def test_a_plan_that_is_made_again_keeps_the_bound_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans within less scratchpad cost more at least; those that were sent back do not."""
    real, sent_back = compiler.build_program, list[Plan]()

    def refusing(plan: Plan, *others: Any) -> Any:
        if len(sent_back) < 3:
            sent_back.append(plan)
            raise InfeasibleError("no room")
        return real(plan, *others)

    monkeypatch.setattr(compiler, "build_program", refusing)
    target = with_sram(mesh_target(1, 2), 3072)
    done = compiler.compile_graph(MODELS["residual"](), target)
    assert done.plan is not None
    first, *_, last = sent_back
    assert last.bound > first.cost
    assert done.plan.bound == first.bound <= first.cost
    check_bound(done)


def naively_below(
    problem: ChoiceProblem, usages: Sequence[Usage], cost: float
) -> Iterator[tuple[int, ...]]:
    for choice in product(*(range(len(own)) for own in problem.costs)):
        if problem.cost(choice) < cost:
            if (replace(problem, usages=tuple(usages)).use(choice) <= problem.limit).all():
                yield choice


def test_an_exact_search_is_made_again() -> None:
    plan, setting = planned(tiny("residual", 1, 2), ExtractOptions(sram_limit_bytes=2048))
    assert plan.proof.method.endswith("exact search")
    check(plan, setting)
    problem = setting.tables.problem
    usages = setting.tables.relaxed.usages
    below = set(choices_below(problem, usages, (), 1.5 * plan.cost * setting.tables.scale))
    assert below == set(naively_below(problem, usages, 1.5 * plan.cost * setting.tables.scale))
