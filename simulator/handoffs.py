"""Order between groups: whatever one group writes to DRAM and another reads is handed over and back.

Groups are ordered by signals alone. For every byte that group g writes and group h reads in the run phase it
must hold, in the order of the two engines that access DRAM:

* g signals h behind its last write, h waits for all tiles of g in front of its first read;
* h signals g behind its last read, g waits for all tiles of h behind its own signal.

Then neither is overtaken, in this inference or the next. No two groups write a byte.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tilewright.errors import ProgramError
from tilewright.lowering.isa import Engine, Opcode
from tilewright.lowering.program import Program
from tilewright.simulator.scheduling import Phase, arrivals
from tilewright.simulator.touches import SharedTouch, touches

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Accesses:
    """Accesses of one group to DRAM: lowest and highest byte, and the place in the engine's stream."""

    rows: Ints

    def meeting(self, other: _Accesses) -> Ints:
        """Return the places of accesses that share a byte with one of another group, as far as hulls tell."""
        found = [
            place
            for low, high, place in self.rows.tolist()
            if np.any((other.rows[:, 0] < high) & (low < other.rows[:, 1]))
        ]
        return np.array(found, dtype=np.int64)


def check_handoffs(program: Program, phases: Sequence[Phase]) -> None:
    """Check the run phases of all groups.

    Args:
        program: The program.
        phases: The run phase of each group.

    Raises:
        ProgramError: Two groups write a byte, or what one writes for another is not handed over and back.
    """
    writes = [_accesses(program, phase, is_write=True) for phase in phases]
    reads = [_accesses(program, phase, is_write=False) for phase in phases]
    for g, phase in enumerate(phases):
        for h, other in enumerate(phases):
            if g == h:
                continue
            if writes[g].meeting(writes[h]).size:
                raise ProgramError(
                    f"race: {phase.name} and {other.name} write the same bytes of DRAM"
                )
            written, read = writes[g].meeting(reads[h]), reads[h].meeting(writes[g])
            if written.size:
                signal = _handed(
                    phases, g, h, Engine.DO, Engine.DI, int(written.max()), int(read.min())
                )
                _handed_back(phases, g, h, int(read.max()), signal)


def _accesses(program: Program, phase: Phase, *, is_write: bool) -> _Accesses:
    rows = []
    for engine in Engine:
        for place, instruction in enumerate(phase.streams[engine]):
            for touch in touches(instruction, phase.mesh, program.host_regions):
                if isinstance(touch, SharedTouch) and touch.write == is_write:
                    expected = Engine.DO if is_write else Engine.DI
                    if engine is not expected and len(program.groups) > 1:
                        raise ProgramError(
                            f"{phase.describe(engine, place)}: accesses DRAM, expected only {expected.name} "
                            "to do so in a program of several groups"
                        )
                    rows.append((*touch.hull(phase.mesh.sizes), place))
    return _Accesses(np.array(rows, dtype=np.int64).reshape(-1, 3))


def _signal(phase: Phase, engine: Engine, group: int) -> tuple[int, int, int] | None:
    """Return place, semaphore and amount of the one signal of an engine to a group."""
    found = [
        (place, post.semaphore, arrivals(i, post, phase.mesh))
        for place, i in enumerate(phase.streams[engine])
        if i.opcode is Opcode.SIG and i.count == group
        for post in i.posts
    ]
    return found[0] if len(found) == 1 else None


def _wait(phase: Phase, engine: Engine, semaphore: int, amount: int) -> int | None:
    """Return the place of the one wait for a semaphore, if it takes all of an amount."""
    found = [
        (e, place, wait.count)
        for e in Engine
        for place, i in enumerate(phase.streams[e])
        for wait in i.waits
        if wait.semaphore == semaphore
    ]
    return found[0][1] if [(e, n) for e, _, n in found] == [(engine, amount)] else None


def _handed(
    phases: Sequence[Phase], g: int, h: int, out: Engine, into: Engine, last: int, first: int
) -> int:
    """Check that g hands to h; return the place of its signal."""
    signal = _signal(phases[g], out, h)
    wait = None if signal is None else _wait(phases[h], into, signal[1], signal[2])
    if signal is None or wait is None or signal[0] <= last or wait >= first:
        raise ProgramError(
            f"race: {phases[h].name} reads DRAM that {phases[g].name} writes; signal once behind the last "
            f"write ({out.name} {last}) and wait for all of it in front of the first read "
            f"({into.name} {first})"
        )
    return signal[0]


def _handed_back(phases: Sequence[Phase], g: int, h: int, last: int, handed: int) -> None:
    signal = _signal(phases[h], Engine.DI, g)
    wait = None if signal is None else _wait(phases[g], Engine.DO, signal[1], signal[2])
    if signal is None or wait is None or signal[0] <= last or wait <= handed:
        raise ProgramError(
            f"race: {phases[g].name} may write again what {phases[h].name} still reads; signal once behind "
            f"the last read (DI {last}) and wait for all of it on DO, behind {handed}"
        )
