"""The check of a compilation's bound, apart from the search that made it."""

from __future__ import annotations

from dataclasses import replace

from tilewright.compiler import Compilation, extract_options
from tilewright.extract.deadline import NO_DEADLINE
from tilewright.extract.extraction import prepare
from tilewright.extract.recheck.bound import validate_bound


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
    validate_bound(done.plan, prepare(*model, options))
