"""The order of a program's instructions: the plan's own, or one of the scheduler's if that is better.

Other orders are made with the scheduler core (`reorder.py`) and taken through the whole back end. One is
taken when the static schedule of its final instructions is shorter, in no more scratchpad and no more
instructions. So the program is never longer than in the plan's order, as far as the static schedule can
tell.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from tilewright.errors import InfeasibleError, ProgramError
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.hwmodel.target import Target
from tilewright.lowering.backend import BackEnd, assemble_backend
from tilewright.lowering.durations import MicroTimes
from tilewright.lowering.loops import roll
from tilewright.lowering.micro import LinearProgram
from tilewright.lowering.program import Streams
from tilewright.lowering.reorder import Freedom, Reorder, cycles_of, pose_reorder
from tilewright.lowering.scheduling.exact import ExactLimits, exact_schedule
from tilewright.lowering.scheduling.list_scheduling import Effort, list_schedule


@dataclass(frozen=True, slots=True)
class _Trial:
    """How an order is made."""

    freedom: Freedom
    share: float
    """Of the scratchpad that the plan's order takes, what may be alive at a time."""


_FREE = Freedom()
_TRIALS = (
    *(_Trial(Freedom(window), 1.0) for window in (None, 64, 32)),
    *(_Trial(Freedom(window, is_step_in_order=True), 1.0) for window in (8, 16)),
    *(_Trial(Freedom(window), 1.0) for window in (16, 24, 48, 8)),
    *(_Trial(Freedom(window, is_step_in_order=True), 1.0) for window in (32, 64)),
    *(_Trial(Freedom(window), 0.9) for window in (None, 64, 32, 16)),
    *(_Trial(Freedom(window), 1.0) for window in (12, 4)),
)
"""Tried in this order, as many as the length of the program allows."""
MOST_ORDERED = 8192
"""Micros of all orders that are tried; a longer program keeps its order."""
_ORDERS_OF_DRAFT = 2
"""That take as long as lowering a plan once more and taking it through the back end."""
LEAST_GAIN = 0.02
"""Smaller gains are within the error of the static schedule (docs/accuracy.md)."""
_EFFORT = Effort(samples=100, placements=300_000)
_EXACT_MICROS = 500
"""Longer run phases are not scheduled exactly."""
_EXACT_LIMITS = ExactLimits(work=60.0)


class Scheduling(StrEnum):
    """Which orders of instructions are considered, besides the plan's own."""

    PROGRAM = "program"
    """None."""
    LIST = "list"
    """Those of list scheduling with look-ahead."""
    EXACT = "exact"
    """Those, and in short programs one that is optimal apart from memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheduled:
    """What the back end made, with loops rolled, and how its order was found."""

    back: BackEnd
    load: Streams
    run: Streams
    order: str
    """Whose order it is: "program", "list" or "exact"."""
    bound_cycles: float = 0.0
    """No order of the same instructions is faster, whatever the scratchpad; 0 if that was not looked into."""
    note: str = ""
    """What came of the exact schedule, if one was asked for, or why no other order was tried."""

    @property
    def instructions(self) -> int:
        """In all streams, loops counted once."""
        return sum(len(stream) for part in (self.load, self.run) for stream in part.values())

    @property
    def facts(self) -> dict[str, str]:
        """What a program tells of its schedule; all numbers are cycles of one tile."""
        schedule = self.back.schedule
        facts = {
            "schedule_order": self.order,
            "schedule_cycles": repr(schedule.makespan_cycles),
            "schedule_critical_path_cycles": repr(schedule.critical_path_cycles),
            "schedule_resource_cycles": repr(max(schedule.busy_cycles.values())),
        }
        if self.bound_cycles:
            facts["schedule_bound_cycles"] = repr(self.bound_cycles)
        return facts | ({"schedule_note": self.note} if self.note else {})


def schedule_backend(
    linear: LinearProgram,
    *,
    target: Target,
    mesh: LogicalMesh,
    durations: MicroTimes,
    scheduling: Scheduling = Scheduling.LIST,
    back: BackEnd | None = None,
    drafts: int = 0,
) -> Scheduled:
    """Return the engine streams of a linear program in the best order that was found.

    Args:
        linear: Micros in an order that is correct when executed one by one.
        target: The machine.
        mesh: The logical mesh of the group that runs the program.
        durations: As for `assemble_backend`.
        scheduling: Which other orders to try.
        back: What `assemble_backend` makes of the program's own order, if that is known.
        drafts: How many programs were compared with this one; fewer orders are tried for each.

    Raises:
        InfeasibleError: The buffers do not fit in the program's own order.
        ProgramError: As `assemble_backend`.
        CompileError: An exact schedule is asked for and OR-tools is not installed.
    """
    if back is None:
        back = assemble_backend(linear, target=target, mesh=mesh, durations=durations)
    own = _rolled(back, "program")
    if scheduling is Scheduling.PROGRAM or not linear.run:
        return own
    if len(linear.run) > MOST_ORDERED:
        note = f"{len(linear.run):,} micros keep their order, at most {MOST_ORDERED:,} are ordered"
        return replace(own, note=note)
    reorder = pose_reorder(linear, mesh, durations)
    limit_bytes = target.tile.sram.size_bytes
    best, limit = own, (1.0 - LEAST_GAIN) * own.back.schedule.makespan_cycles
    bound, note, seen = 0.0, "", {linear.run}
    for candidate in _candidates(reorder, limit_bytes, scheduling, drafts):
        bound, note = max(bound, candidate.bound_cycles), candidate.note or note
        if limit <= bound:
            break
        if candidate.linear.run in seen:
            continue
        seen.add(candidate.linear.run)
        try:
            back = assemble_backend(
                candidate.linear,
                target=target,
                mesh=mesh,
                durations=durations,
                limit_bytes=limit_bytes,
            )
        except (InfeasibleError, ProgramError):
            # too large, or more pairs of engines with tokens than there are semaphores
            continue
        if back.schedule.makespan_cycles < limit:
            found = _rolled(back, candidate.order)
            if found.instructions <= own.instructions:
                best, limit = found, back.schedule.makespan_cycles
    return replace(best, bound_cycles=bound, note=note)


def _rolled(back: BackEnd, order: str) -> Scheduled:
    """Return what the back end made with loops in its streams."""
    load, run = (
        {engine: roll(stream) for engine, stream in streams.items()}
        for streams in (back.streams_load, back.streams_run)
    )
    return Scheduled(back=back, load=load, run=run, order=order)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Candidate:
    linear: LinearProgram
    order: str
    bound_cycles: float
    note: str = ""


def _candidates(
    reorder: Reorder, limit_bytes: int, scheduling: Scheduling, drafts: int
) -> Iterator[_Candidate]:
    """Yield orders to try; how many depends on the length of the program."""
    micros = len(reorder.ticks)
    free = list_schedule(reorder.problem(_FREE), _EFFORT)
    is_exact = scheduling is Scheduling.EXACT and micros <= _EXACT_MICROS
    if is_exact:
        free = exact_schedule(reorder.problem(_FREE), _EXACT_LIMITS, free)
    bound_cycles = cycles_of(reorder.bound(free))
    if scheduling is Scheduling.EXACT:
        note = f"{micros:,} micros are ordered by lists, at most {_EXACT_MICROS:,} exactly"
        if is_exact:
            note = _exact_note(cycles_of(free.makespan), bound_cycles)
        for share in (1.0, 0.9):
            yield _Candidate(
                linear=reorder.order_by(free.starts, int(share * limit_bytes)),
                order="exact",
                bound_cycles=bound_cycles,
                note=note,
            )
    solutions = {_FREE: free}
    for trial in _TRIALS[: max(0, MOST_ORDERED // micros - _ORDERS_OF_DRAFT * drafts)]:
        if trial.freedom not in solutions:
            solutions[trial.freedom] = list_schedule(reorder.problem(trial.freedom), _EFFORT)
        yield _Candidate(
            linear=reorder.order_by(
                solutions[trial.freedom].starts, int(trial.share * limit_bytes)
            ),
            order="list",
            bound_cycles=bound_cycles,
        )


def _exact_note(shortest: float, bound: float) -> str:
    """Say what the exact scheduler found."""
    if shortest == bound:
        return f"{shortest:,.0f} cycles are optimal if memory is no limit"
    return f"{shortest:,.0f} cycles found if memory is no limit, at least {bound:,.0f} proven"
