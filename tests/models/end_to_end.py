"""One path for all model tests: compile, validate the plan, run with checks, compare, simulate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tilewright import api
from tilewright.compiler import Compilation
from tilewright.extract.validate import validate_plan
from tilewright.graph import Array
from tilewright.hwmodel.target import Target
from tilewright.inputs import example_inputs
from tilewright.lowering.program import Program
from tilewright.simulator.timing import TimingReport
from tilewright.simulator.verifier.verdict import Verdict
from tilewright.simulator.verifier.verify import verify_statically
from tilewright.verification import compare, reference_outputs

Model = Path | bytes


@dataclass(frozen=True, slots=True)
class EndToEnd:
    """What a checked model came to."""

    compilation: Compilation
    timing: TimingReport


FUZZ_TARGETS = ("toy", "mesh_2x3", "mesh_1x1", "mesh_2x3?sram_kib=16")
"""Targets of random models: square, odd, a single tile, and one where little fits."""


def check_end_to_end(
    model: Model,
    target: str | Target,
    *,
    dims: Mapping[str, int] | None = None,
    inputs: Mapping[str, Array] | None = None,
    tolerance: float | Mapping[str, float] | None = None,
) -> EndToEnd:
    """Compile a model and fail unless its program is valid, right and timed above its bound.

    Args:
        model: The model's file or bytes.
        target: A target or its name.
        dims: Sizes of symbolic dimensions.
        inputs: Inputs to run on; seeded examples when None.
        tolerance: As in `compare`; 1e-4 of the largest |reference| without it.
    """
    done = api.compile(model, target, dims=dims)
    plan, program = done.plan, done.program
    assert plan is not None
    assert program is not None
    validate_plan(plan, done.target)
    assert 0 <= plan.bound <= plan.cost * (1 + 1e-9)
    given = example_inputs(done.graph) if inputs is None else inputs
    # order and initialisation are checked by the run
    unproven = [f for f in verify_statically(program) if f.verdict is not Verdict.PROVEN]
    assert unproven == []
    checks = compare(api.run(program, given), reference_outputs(model, given), tolerance)
    assert checks
    wrong = [
        f"'{c.name}': error {c.relative_error:.2e} of {c.scale:.3g}, allowed {c.tolerance:.2e}"
        for c in checks
        if not c.passed
    ]
    assert wrong == []
    return EndToEnd(done, check_timing(program))


def check_timing(program: Program) -> TimingReport:
    """Simulate the timing; cycles are at least the bound, and positive if there is work."""
    timing = api.simulate(program)
    assert timing.run.cycles >= timing.run.bound_cycles * (1 - 1e-9)
    # Every stream ends with one instruction that says so.
    has_work = any(len(stream) > 1 for group in program.groups for stream in group.run.values())
    assert (timing.run.cycles > 0) == has_work
    return timing
