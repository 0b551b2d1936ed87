"""The check of a compilation's bound, apart from the search that made it."""

from __future__ import annotations

from dataclasses import replace

from tilewright.compiler import Compilation, extract_options
from tilewright.extract.deadline import NO_DEADLINE
from tilewright.extract.extraction import prepare
from tilewright.extract.limited import latency_cycles, within_latency
from tilewright.extract.objective import Metric
from tilewright.extract.recheck.bound import validate_bound
from tilewright.extract.recheck.footprints import validate_bound_of_footprints
from tilewright.extract.recheck.limits import validate_bound_within


def check_bound(done: Compilation) -> None:
    """Price the options of a compilation anew, and compute the bound of its plan from the certificate.

    Args:
        done: A compilation that got as far as a plan. The bound is that of plans on all tiles.

    Raises:
        PlanError: The bound does not follow, or the plan has no certificate.
    """
    assert done.rolled is not None, "the compilation got beyond"
    assert done.plan is not None, "the compilation got there"
    options = extract_options(done.options)
    options = replace(options, solve=replace(options.solve, deadline=NO_DEADLINE))
    model = (done.graph, done.rolled, done.alternatives, done.planning_target, done.mesh)
    if Metric.SRAM in done.plan.objective.metrics:
        validate_bound_of_footprints(done.plan, prepare(*model, options))
        return
    if done.options.max_latency is None:
        validate_bound(done.plan, prepare(*model, options))
        return
    most = latency_cycles(done.options.max_latency, done.target)
    validate_bound_within(done.plan, within_latency(*model, options), Metric.LATENCY, most)
