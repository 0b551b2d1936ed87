"""Verification of a program: what holds for every execution, found without executing it on data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tilewright.errors import CompileError, IntricateError, ProgramError, UninitialisedError
from tilewright.lowering.loops import unrolled_length
from tilewright.lowering.program import Program
from tilewright.lowering.structure import check_structure
from tilewright.simulator.hazards import check_hazards
from tilewright.simulator.limits import DEFAULT_LIMITS, MAX_INSTRUCTIONS, Limits
from tilewright.simulator.verifier.balance import check_balance
from tilewright.simulator.verifier.bounds import check_bounds
from tilewright.simulator.verifier.lasting import check_lasting
from tilewright.simulator.verifier.progress import MAX_STEPS, check_progress
from tilewright.simulator.verifier.verdict import (
    Finding,
    Property,
    Verdict,
    Verification,
    not_proven,
    proven,
    refuted,
)

_STATIC: tuple[Callable[[Program], Finding], ...] = (check_bounds, check_balance, check_lasting)


def verify_statically(program: Program, *, max_steps: int = MAX_STEPS) -> tuple[Finding, ...]:
    """Decide what can be decided on rolled streams: form, bounds, semaphores, progress, lasting data.

    The work depends on the size of the file, not on how often its loops turn.
    """
    try:
        check_structure(program)
    except ProgramError as error:
        return (refuted(Property.FORM, str(error)),)
    streams = program.streams
    findings = {
        Property.FORM: proven(
            Property.FORM,
            f"{sum(map(len, streams)):,} instructions in {len(streams):,} streams",
        )
    }
    for check in _STATIC:
        finding = check(program)
        findings[finding.property] = finding
    findings[Property.PROGRESS] = check_progress(program, max_steps)
    return tuple(findings[what] for what in Property if what in findings)


def require_valid(program: Program) -> None:
    """Refuse a program of which something is refuted, before any of it is executed.

    Raises:
        ProgramError: Names the property, the place and what is wrong there.
    """
    for finding in verify_statically(program):
        if finding.verdict is Verdict.REFUTED:
            raise ProgramError(f"{finding.property}: {finding.detail}")


def verify(
    program: Program,
    *,
    max_steps: int = MAX_STEPS,
    max_instructions: int = MAX_INSTRUCTIONS,
) -> Verification:
    """Verify a program.

    Args:
        program: The program.
        max_steps: Synchronising instructions that the proof of progress may execute one by one.
        max_instructions: Unrolled instructions whose accesses may be compared for order and initialisation.

    Returns:
        A finding for each property. Nothing is raised for a wrong program.
    """
    found = {f.property: f for f in verify_statically(program, max_steps=max_steps)}
    open_reason = ""
    if any(f.verdict is Verdict.REFUTED for f in found.values()):
        open_reason = "other properties do not hold"
    elif found[Property.PROGRESS].verdict is not Verdict.PROVEN:
        open_reason = "no order of execution to follow without a proof of progress"
    else:
        unrolled = sum(map(unrolled_length, program.streams))
        if unrolled > max_instructions:
            open_reason = (
                f"{unrolled:,} instructions, expected at most {max_instructions:,} to compare; raise "
                "--max-instructions"
            )
    if not open_reason:
        found |= _compared(program, replace(DEFAULT_LIMITS, instructions=max_instructions))
    for what in Property:
        found.setdefault(what, not_proven(what, open_reason))
    return Verification(findings=tuple(found[what] for what in Property))


def _compared(program: Program, limits: Limits) -> dict[Property, Finding]:
    """Return what following all accesses in one order with vector clocks says."""
    try:
        report = check_hazards(program, structure_checked=True, limits=limits)
    except UninitialisedError as error:
        return {Property.INITIALISED: refuted(Property.INITIALISED, str(error))} | {
            Property.ORDER: not_proven(Property.ORDER, "other properties do not hold")
        }
    except (IntricateError, MemoryError) as error:
        text = str(error) or "not enough memory to follow its accesses"
        return {what: not_proven(what, text) for what in (Property.INITIALISED, Property.ORDER)}
    except CompileError as error:
        return {Property.ORDER: refuted(Property.ORDER, str(error))} | {
            Property.INITIALISED: not_proven(Property.INITIALISED, "other properties do not hold")
        }
    return {
        Property.INITIALISED: proven(
            Property.INITIALISED,
            f"{report.accesses:,} accesses, on {report.sampled_tiles:,} tiles that stand for all",
        ),
        Property.ORDER: proven(
            Property.ORDER,
            f"{report.instructions:,} instructions, {report.compared:,} pairs with bytes in common",
        ),
    }
