"""Bounds within limits are computed again from their certificates; none that is raised is accepted."""

from __future__ import annotations

from dataclasses import replace

import pytest
from extract_cases import Case, tiny
from test_objectives_brute_force import case_of

from tilewright.errors import InfeasibleError
from tilewright.extract.amounts import amounts
from tilewright.extract.certificate import Footprints, LimitPrice
from tilewright.extract.closing import Scales, Within
from tilewright.extract.extraction import ExtractOptions, plan_setting, prepare
from tilewright.extract.footprint import spare_scratchpad
from tilewright.extract.limited import extract_within_latency, within_latency
from tilewright.extract.objective import Metric, Objective, parse_objective
from tilewright.extract.plan import Plan
from tilewright.extract.plan_error import PlanError
from tilewright.extract.recheck.footprints import validate_bound_of_footprints
from tilewright.extract.recheck.limits import validate_bound_within
from tilewright.extract.reweigh import Reweigher
from tilewright.extract.setting import Setting


def within(case: Case, share: float) -> tuple[Plan, Reweigher, float]:
    """Return a plan of least energy within a latency between the fastest and the sparing plan."""
    fastest, slowest = (
        amounts(case.extract(objective), case.target)[Metric.LATENCY]
        for objective in (Objective.LATENCY, Objective.ENERGY)
    )
    most = fastest + share * (slowest - fastest)
    options = ExtractOptions(objective=Objective.ENERGY)
    model = (case.graph, case.rolled, case.alternatives, case.target, case.mesh, options)
    return extract_within_latency(*model, most), within_latency(*model), most


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 1.0])
def test_bounds_within_a_latency_hold(share: float) -> None:
    plan, made, most = within(case_of(2), share)
    validate_bound_within(plan, made, Metric.LATENCY, most)
    for raised in (1.0001 * plan.bound, 1.01 * plan.cost):
        with pytest.raises(PlanError):
            validate_bound_within(replace(plan, bound=raised), made, Metric.LATENCY, most)
    certificate = plan.proof.certificate
    assert isinstance(certificate, LimitPrice) == (share < 1)
    if isinstance(certificate, LimitPrice):
        assert certificate.price > 0
        with pytest.raises(PlanError):  # of a lower limit, more would follow
            validate_bound_within(plan, made, Metric.LATENCY, 1.01 * most)
        for price in (0.5 * certificate.price, -certificate.price):
            proof = replace(plan.proof, certificate=replace(certificate, price=price))
            with pytest.raises(PlanError):
                validate_bound_within(replace(plan, proof=proof), made, Metric.LATENCY, most)


def test_a_bound_of_another_limit_without_a_certificate_is_refused() -> None:
    plan, made, most = within(tiny("two_outputs"), 0.5)
    bare = replace(plan, proof=replace(plan.proof, certificate=None))
    with pytest.raises(PlanError, match="no certificate"):
        validate_bound_within(bare, made, Metric.LATENCY, most)


def sparing(case: Case, text: str) -> tuple[Plan, Setting]:
    options = ExtractOptions(objective=parse_objective(text).on(case.graph, case.target))
    model = (case.graph, case.rolled, case.alternatives, case.target, case.mesh)
    setting = prepare(*model, options)
    return plan_setting(setting, options), setting


def with_certificate(plan: Plan, certificate: Footprints | None) -> Plan:
    return replace(plan, proof=replace(plan.proof, certificate=certificate))


@pytest.mark.parametrize("text", ["sram", "latency:1,sram:40", "energy:1,throughput:2,sram:60"])
@pytest.mark.parametrize("name", ["residual", "two_outputs", "heads"])
def test_bounds_with_the_footprint_hold(name: str, text: str) -> None:
    plan, setting = sparing(tiny(name, 1, 2), text)
    assert plan.gap < 1e-6
    validate_bound_of_footprints(plan, setting)
    with pytest.raises(PlanError):
        validate_bound_of_footprints(replace(plan, bound=1.001 * plan.cost), setting)
    with pytest.raises(PlanError, match="no certificate"):
        validate_bound_of_footprints(with_certificate(plan, None), setting)


def by_spans(case: Case, text: str) -> tuple[Plan, Setting]:
    """Return a plan without an exact search at the end: spans and what is proven in them are the proof."""
    objective = parse_objective(text).on(case.graph, case.target)
    options = ExtractOptions(objective=objective)
    model = (case.graph, case.rolled, case.alternatives, case.target, case.mesh)
    setting = prepare(*model, options)
    planner = NoLastSearch(setting, options)
    return spare_scratchpad(planner, objective, setting.pricing.limit_bytes), setting


def test_nothing_but_no_plan_proves_a_footprint() -> None:
    plan, setting = by_spans(tiny("two_outputs", 1, 2), "sram")
    validate_bound_of_footprints(plan, setting)
    certificate = plan.proof.certificate
    assert isinstance(certificate, Footprints)
    assert any(span.certificate is not None for span in certificate.spans)
    for raised in (1.001 * plan.bound, 1.001 * plan.cost, 2 * plan.cost):
        with pytest.raises(PlanError):
            validate_bound_of_footprints(replace(plan, bound=raised), setting)


def test_spans_of_footprints_hold() -> None:
    plan, setting = by_spans(tiny("two_outputs", 1, 2), "latency:1,sram:40")
    certificate = plan.proof.certificate
    assert isinstance(certificate, Footprints)
    assert len(certificate.spans) > 2
    assert 0 < plan.gap < 0.5
    validate_bound_of_footprints(plan, setting)
    *others, last = certificate.spans
    unlimited = replace(others[0], limit_bytes=last.limit_bytes, certificate=last.certificate)
    for spans in (others, (last,), (unlimited, *others[1:], last)):
        wrong = replace(certificate, spans=tuple(spans))
        with pytest.raises(PlanError):
            validate_bound_of_footprints(with_certificate(plan, wrong), setting)
    for raised in (1.001 * plan.bound, 1.001 * plan.cost):
        with pytest.raises(PlanError):
            validate_bound_of_footprints(replace(plan, bound=raised), setting)


class NoLastSearch:
    """Makes plans within limits, and does not look for better ones when the objective is known."""

    def __init__(self, setting: Setting, options: ExtractOptions) -> None:
        self.setting, self._options = setting, options

    def within(self, limit_bytes: int) -> Within:
        options = replace(
            self._options, objective=self._options.objective.additive, sram_limit_bytes=limit_bytes
        )
        try:
            plan = plan_setting(self.setting, options)
        except InfeasibleError as error:
            return Within(plan=None, bound=0.0, failed=error)
        return Within(plan=plan, bound=plan.bound, proof=plan.proof)

    def search(self, known: Within, scales: Scales, limit_bytes: int) -> Within:
        return known
