"""The check of a compilation's bounds, apart from the search that made them."""

from __future__ import annotations

from dataclasses import replace

from tilewright.compiler import Compilation, extract_options, saturation_of, stage_options
from tilewright.extract.certificate import Divisions
from tilewright.extract.deadline import NO_DEADLINE
from tilewright.extract.extraction import prepare
from tilewright.extract.limited import latency_cycles, within_latency
from tilewright.extract.objective import Metric, Objective
from tilewright.extract.pipeline.planner import task_of
from tilewright.extract.recheck.bound import validate_bound
from tilewright.extract.recheck.divisions import validate_divisions
from tilewright.extract.recheck.footprints import validate_bound_of_footprints
from tilewright.extract.recheck.limits import validate_bound_within


def check_bound(done: Compilation) -> tuple[str, ...]:
    """Price the options of a compilation anew, and compute its bounds from their certificates.

    Args:
        done: A compilation that got as far as a plan.

    Returns:
        What the bounds are of: plans on all tiles, and divisions into stages if one was looked for.

    Raises:
        PlanError: A bound does not follow, or has no certificate.
    """
    assert done.rolled is not None, "the compilation got beyond"
    assert done.plan is not None, "the compilation got there"
    options = extract_options(done.options)
    options = replace(options, solve=replace(options.solve, deadline=NO_DEADLINE))
    model = (done.graph, done.rolled, done.alternatives, done.planning_target, done.mesh)
    most = done.options.max_latency
    if Metric.SRAM in done.plan.objective.metrics:
        validate_bound_of_footprints(done.plan, prepare(*model, options))
    elif most is None:
        validate_bound(done.plan, prepare(*model, options))
    else:
        cycles = latency_cycles(most, done.target)
        made = within_latency(*model, options)
        validate_bound_within(done.plan, made, Metric.LATENCY, cycles)
    pipeline = done.pipeline
    if pipeline is None or not isinstance(pipeline.proof.certificate, Divisions):
        return ("plans on all tiles",)
    task = task_of(
        done.graph,
        done.rolled,
        done.planning_target,
        saturation_of(done, done.options),
        options,
        stage_options(done.options, done.target),
    )
    is_known = options.objective == Objective.LATENCY
    validate_divisions(pipeline, task, prepare(*model, options) if is_known else None)
    return "plans on all tiles", "divisions into stages"
