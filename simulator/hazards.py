"""Static checks of a program: races, reads of uninitialised memory, bounds, semaphores, deadlock.

The analysis follows one execution order that the semaphores allow, with vector clocks. Two accesses to
a common byte, one of them a write, must be ordered by program order and semaphores whatever the
timing; the order found here says nothing by itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tilewright.errors import IntricateError, ProgramError, UninitialisedError
from tilewright.lowering.isa import Engine, Instruction, Opcode, Space
from tilewright.lowering.program import Program
from tilewright.lowering.structure import check_structure
from tilewright.simulator.access_log import LocalLog, Record, SharedLog
from tilewright.simulator.clocks import Clock, ClockTracker
from tilewright.simulator.footprint import Dims, check_runs, is_injective
from tilewright.simulator.handoffs import check_handoffs
from tilewright.simulator.limits import DEFAULT_LIMITS, Limits
from tilewright.simulator.memory import access_extent, check_bounds
from tilewright.simulator.scheduling import (
    Phase,
    Scheduler,
    external_semaphores,
    program_phases,
)
from tilewright.simulator.touches import LocalTouch, Touch, local_overlap, touches
from tilewright.simulator.written import Written

_COLLECT_EVERY = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class HazardReport:
    """What the checks covered."""

    instructions: int
    accesses: int
    compared: int
    """Pairs of accesses to common bytes whose order was checked."""
    sampled_tiles: int
    """Tiles for which initialisation was followed (each group), enough for all when 1."""


def _check_bounds(instruction: Instruction, phase: Phase, sram_bytes: int, dram_bytes: int) -> None:
    for number, access in enumerate((instruction.dst, *instruction.sources)):
        if access is None:
            continue
        domain, sizes = instruction.domain, phase.mesh.sizes
        if instruction.opcode == Opcode.GTH and number == 1:
            domain = (instruction.count, *domain[1:])
        if instruction.opcode == Opcode.ST and number == 0:
            sizes = tuple(1 if instruction.axes >> a & 1 else n for a, n in enumerate(sizes))
        limit = sram_bytes if access.space == Space.L1 else dram_bytes
        check_bounds(access, access_extent(access, sizes, domain), limit)


def _own_dims(instruction: Instruction, phase: Phase) -> Dims:
    """Return the dimensions along which an instruction must not write a byte twice."""
    assert instruction.dst is not None
    dst, sizes = instruction.dst, phase.mesh.sizes
    dims = tuple((s, n) for s, n in zip(dst.strides, instruction.domain, strict=True) if s)
    if instruction.opcode == Opcode.MCS:
        return (
            *((dst.coefficients[a], n) for a, n in enumerate(sizes) if instruction.axes >> a & 1),
            *dims,
        )
    if dst.space == Space.DRAM:
        return (
            *(
                (dst.coefficients[a], n)
                for a, n in enumerate(sizes)
                if not instruction.axes >> a & 1
            ),
            *dims,
        )
    return dims


def _check_destination(instruction: Instruction, phase: Phase) -> None:
    if instruction.dst is None:
        return
    if not is_injective(instruction.dst.dtype.itemsize_bytes, _own_dims(instruction, phase)):
        raise ProgramError(
            "race: it writes some bytes more than once (from several tiles or several indices); "
            "give each its own place or name the axes of which only coordinate 0 writes"
        )


def _same_bytes(a: LocalTouch, b: LocalTouch) -> bool:
    """Whether two accesses pair the same bytes with each index."""
    return (a.base, a.itemsize, a.dims, a.coefficients) == (
        b.base,
        b.itemsize,
        b.dims,
        b.coefficients,
    )


def _check_in_place(
    instruction: Instruction, found: list[tuple[Touch, tuple[int, int]]], phase: Phase
) -> None:
    """Refuse an instruction that writes what it reads elsewhere: the order of its parts is not defined."""
    local = [(t, hull) for t, hull in found if isinstance(t, LocalTouch)]
    for write, (low, high) in local:
        for read, (read_low, read_high) in local:
            if not write.write or read.write or high <= read_low or read_high <= low:
                continue
            if _may_be_in_place(instruction, read, write):
                continue
            if local_overlap(read, write, phase.mesh.sizes):
                raise ProgramError("race: its destination overlaps a source")


def _may_be_in_place(instruction: Instruction, read: LocalTouch, write: LocalTouch) -> bool:
    if instruction.accumulate and _same_bytes(read, write):
        return True
    if instruction.opcode == Opcode.VEC:
        return _same_bytes(read, write)
    if instruction.opcode == Opcode.MCS and instruction.dst is not None:
        # the tile's own place in the destination may be where the data is already
        return instruction.dst == instruction.sources[0]
    return False


class _Analysis:
    """Checks one phase of one group."""

    def __init__(
        self, program: Program, group: int, phase: Phase, written: Written, limits: Limits
    ) -> None:
        self._program = program
        self._limits = limits
        self._group = group
        self._phase = phase
        self._written = written
        self._tracker = ClockTracker(phase)
        self._local = LocalLog(phase.mesh.sizes)
        self._shared = SharedLog(phase.mesh.sizes)
        self.accesses = 0

    @property
    def compared(self) -> int:
        """Pairs of accesses whose order was looked at."""
        return self._local.compared + self._shared.compared

    @property
    def work(self) -> int:
        """Records scanned and bytes compared."""
        return self._local.work + self._shared.work

    def run(self) -> None:
        """Execute the phase symbolically."""
        left = {engine: len(stream) for engine, stream in self._phase.streams.items()}
        scheduler = Scheduler(self._phase)
        for done, (engine, index) in enumerate(scheduler.steps()):
            instruction = self._phase.streams[engine][index]
            clock = self._tracker.begin(engine, index, instruction)
            try:
                self._check(engine, index, instruction, clock)
            except ProgramError as error:
                where = self._phase.describe(engine, index)
                raise type(error)(f"{where}: {error}") from error
            self._tracker.end(engine, index, instruction)
            left[engine] -= 1
            if done % _COLLECT_EVERY == _COLLECT_EVERY - 1:
                running = [self._tracker.running[e] for e in Engine if left[e]]
                self._local.collect(running)
                self._shared.collect(running)
            if self.work > self._limits.comparisons:
                raise IntricateError(
                    f"{self._phase.name}: too many accesses to common bytes to follow: {self.work} "
                    f"comparisons, expected at most {self._limits.comparisons}"
                )

    def _check(self, engine: Engine, index: int, instruction: Instruction, clock: Clock) -> None:
        program = self._program
        _check_bounds(instruction, self._phase, program.sram_bytes, program.dram_bytes)
        _check_destination(instruction, self._phase)
        sizes = self._phase.mesh.sizes
        found = [
            (t, t.hull(sizes)) for t in touches(instruction, self._phase.mesh, program.host_regions)
        ]
        for touch, _ in found:
            check_runs(touch.everywhere(sizes))
        _check_in_place(instruction, found, self._phase)
        for touch, hull in found:
            self.accesses += 1
            if self._written.account(self._group, touch):
                low, high = hull
                raise UninitialisedError(
                    f"uninitialised: it reads bytes of [{low:#x}, {high:#x}) that nothing has written"
                )
            if isinstance(touch, LocalTouch):
                earlier = self._local.compare(touch, hull, clock)
            else:
                earlier = self._shared.compare(touch, hull, clock)
            if earlier is not None:
                raise ProgramError(self._race(earlier, touch))
        for touch, hull in found:
            record = Record(engine, index + 1, touch)
            if isinstance(touch, LocalTouch):
                self._local.keep(record, touch, hull)
            else:
                self._shared.keep(record, hull)

    def _race(self, earlier: Record, touch: Touch) -> str:
        sizes = self._phase.mesh.sizes
        low, high = touch.hull(sizes)
        other_low, other_high = earlier.touch.hull(sizes)
        space = "L1" if isinstance(touch, LocalTouch) else "DRAM"
        verbs = {False: "reads", True: "writes"}
        other = self._phase.describe(earlier.engine, earlier.number - 1)
        actor = (
            ""
            if isinstance(earlier.touch, LocalTouch) and earlier.touch.actor.is_own
            else " (of any tile)"
        )
        return (
            f"race: it {verbs[touch.write]} {space} [{low:#x}, {high:#x}), which {other}{actor} "
            f"{verbs[earlier.touch.write]} as [{other_low:#x}, {other_high:#x}) without an order between them"
        )


def _own_part(phase: Phase, external: frozenset[int], kind: str) -> Phase:
    """Return what a group does by itself: no waits for others, no signals; two inferences in a row."""

    def own(i: Instruction) -> Instruction:
        waits = tuple(wait for wait in i.waits if wait.semaphore not in external)
        return replace(i, waits=waits, posts=() if i.opcode is Opcode.SIG else i.posts)

    repeats = 2 if kind == "run" and external else 1
    streams = {e: tuple(map(own, stream)) * repeats for e, stream in phase.streams.items()}
    return replace(phase, streams=streams)


def check_hazards(
    program: Program,
    *,
    structure_checked: bool = False,
    limits: Limits = DEFAULT_LIMITS,
) -> HazardReport:
    """Check a program without executing it.

    Args:
        program: The program.
        structure_checked: Whether `check_structure` was done already.
        limits: How many instructions and comparisons to follow at most.

    Returns:
        How much was checked.

    Raises:
        ProgramError: A race, a read of memory that nothing has written, an address out of bounds,
            a deadlock, or semaphores that overflow or do not return to zero.
    """
    if not structure_checked:
        check_structure(program)
    phases = list(program_phases(program, limits.instructions))
    if len(program.groups) > 1:
        check_handoffs(program, [phase for _, kind, phase in phases if kind == "run"])
        external = external_semaphores(program)
        phases = [(g, kind, _own_part(phase, external[g], kind)) for g, kind, phase in phases]
    try:
        written = Written(program, phases)
    except MemoryError as error:
        raise ProgramError(
            f"{program.dram_bytes} bytes of DRAM and {program.sram_bytes} of L1 are too many to follow"
        ) from error
    accesses = compared = 0
    for group, _, phase in phases:
        analysis = _Analysis(program, group, phase, written, limits)
        analysis.run()
        accesses, compared = accesses + analysis.accesses, compared + analysis.compared
    samples = max((len(s) for s in written.samples), default=0)
    return HazardReport(
        instructions=sum(phase.instructions for _, _, phase in phases),
        accesses=accesses,
        compared=compared,
        sampled_tiles=samples,
    )
