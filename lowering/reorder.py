"""Other orders of a program's micros, in which the engines of a tile wait less for each other.

What keeps its order (`conflicts.py`) and how long each micro takes is a scheduling problem with five
resources, the engines. The scheduler core ignores the scratchpad; so its schedule becomes a linear order
again that is as close to it as the scratchpad allows, and windows keep micros near their old places where
memory is scarce.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.lowering.accesses import buffers_of
from tilewright.lowering.conflicts import find_conflicts
from tilewright.lowering.durations import MicroTimes
from tilewright.lowering.isa import LOADS, Engine, Space
from tilewright.lowering.micro import LinearProgram, Micro
from tilewright.lowering.scheduling.bounds import lower_bound
from tilewright.lowering.scheduling.problem import MAX_TIME, Precedence, Problem, Solution

_LOOK_AHEAD = 64
"""Micros that are looked at for one that fits the memory."""

_TICKS = 64
"""Units of a cycle in which durations are counted, rounded down so that bounds stay bounds."""


@dataclass(frozen=True, slots=True)
class Freedom:
    """How far micros may leave their old order."""

    window: int | None = None
    """No micro overtakes one that is this many or more in front of it; None for no limit."""
    is_step_in_order: bool = False
    """Whether an engine runs the micros of each plan step in their old order, which keeps most loops."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reorder:
    """The run phase of a program as a scheduling problem.

    Attributes:
        linear: The program.
        conflicts: For each micro of the run phase, earlier ones that stay in front of it.
        ticks: Duration of each.
        ahead_ticks: Those of them in which its engine may move bytes of the micro before.
    """

    linear: LinearProgram
    conflicts: tuple[tuple[int, ...], ...]
    ticks: tuple[int, ...]
    ahead_ticks: tuple[int, ...]

    def problem(self, freedom: Freedom) -> Problem:
        """Return the scheduling problem within a freedom."""
        micros, window = self.linear.run, freedom.window
        order = [Precedence(b, after) for after, found in enumerate(self.conflicts) for b in found]
        if window is not None:
            order += [Precedence(at - window, at) for at in range(window, len(micros))]
        if freedom.is_step_in_order:
            last: dict[tuple[int, Engine], int] = {}
            for at, micro in enumerate(micros):
                key = (micro.tag, micro.engine)
                if key in last:
                    order.append(Precedence(last[key], at))
                last[key] = at
        return self._problem(self.ticks, order)

    def bound(self, found: Solution) -> int:
        """Return the ticks that no order beats, given a solution of the problem without limits.

        The problem lets no latency pass while bytes before come, which is no bound where that happens.
        """
        if not any(self.ahead_ticks):
            return found.bound
        micros, ahead = self.linear.run, self.ahead_ticks
        order = [
            Precedence(
                b, after, ahead[after] if micros[b].engine is not micros[after].engine else 0
            )
            for after, before in enumerate(self.conflicts)
            for b in before
        ]
        own = tuple(ticks - early for ticks, early in zip(self.ticks, ahead, strict=True))
        return lower_bound(self._problem(own, order))[0]

    def _problem(self, durations: tuple[int, ...], order: Sequence[Precedence]) -> Problem:
        return Problem(
            durations=durations,
            demands=tuple(tuple(int(m.engine is e) for e in Engine) for m in self.linear.run),
            capacities=(1,) * len(Engine),
            precedences=tuple(order),
            name="run phase",
        )

    def order_by(self, starts: Sequence[int], budget_bytes: int) -> LinearProgram:
        """Return the program with the micros of the run phase in the order of a schedule.

        What makes a buffer for others (a load, the readiness for a collective) comes right in front of its
        first user; loads are moved forward again when memory is known. A micro that would make more bytes
        alive than the budget is put off; when all would, the one goes that comes first in the old order.
        """
        micros = self.linear.run
        keys = _late_keys(micros, self.conflicts, starts)
        memory = _Memory(self.linear)
        users = _users(self.conflicts)
        waiting = [len(found) for found in self.conflicts]
        ready = [(keys[at], at) for at, count in enumerate(waiting) if count == 0]
        heapq.heapify(ready)
        is_done = [False] * len(micros)
        order: list[int] = []
        oldest = 0
        for _ in micros:
            while is_done[oldest]:
                oldest += 1
            chosen = _take(ready, memory, budget_bytes, oldest)
            is_done[chosen] = True
            order.append(chosen)
            memory.run(chosen)
            for user in users[chosen]:
                waiting[user] -= 1
                if waiting[user] == 0:
                    heapq.heappush(ready, (keys[user], user))
        linear = self.linear
        run = tuple(micros[at] for at in order)
        return LinearProgram(buffers=linear.buffers, load=linear.load, run=run)


_Key = tuple[int, int]
"""Start, and position in the old order among what starts together."""


def pose_reorder(linear: LinearProgram, mesh: LogicalMesh, durations: MicroTimes) -> Reorder:
    """Return the scheduling problem of a program's run phase.

    Args:
        linear: Micros in an order that is correct when executed one by one.
        mesh: The logical mesh of the group.
        durations: What a micro takes.
    """
    conflicts = find_conflicts(linear.run, linear.buffers, mesh.sizes)
    most = MAX_TIME // (len(linear.run) + sum(map(len, conflicts)) + 1)
    times = [durations(micro) for micro in linear.run]

    # shorter times than the true ones leave bounds valid; the core refuses sums beyond its range
    def ticks(cycles: float) -> int:
        return min(int(cycles * _TICKS), most)

    return Reorder(
        linear=linear,
        conflicts=conflicts,
        ticks=tuple(ticks(time.cycles) for time in times),
        ahead_ticks=tuple(ticks(t.cycles) - ticks(t.cycles - t.ahead_cycles) for t in times),
    )


def cycles_of(ticks: int) -> float:
    """Return a time of the scheduling problem in cycles."""
    return ticks / _TICKS


def _users(conflicts: Sequence[Sequence[int]]) -> list[list[int]]:
    """Return the micros that stay behind each."""
    users: list[list[int]] = [[] for _ in conflicts]
    for after, found in enumerate(conflicts):
        for before in found:
            users[before].append(after)
    return users


def _late_keys(
    micros: Sequence[Micro], conflicts: Sequence[Sequence[int]], starts: Sequence[int]
) -> list[_Key]:
    """Return by what to sort the micros: by their starts, but what makes a buffer with its first user."""
    keys = [(start, position) for position, start in enumerate(starts)]
    users = _users(conflicts)
    for position in reversed(range(len(micros))):
        micro = micros[position]
        if users[position] and (micro.opcode in LOADS or micro.role == "ready"):
            keys[position] = min((keys[user][0], position) for user in users[position])
    return keys


class _Memory:
    """Bytes alive in the scratchpad while the run phase is executed in some order."""

    def __init__(self, linear: LinearProgram) -> None:
        self._touched = [tuple(dict.fromkeys(buffers_of(micro))) for micro in linear.run]
        self._left = [0] * len(linear.buffers)
        for numbers in self._touched:
            for number in numbers:
                self._left[number] += 1
        fixed = {number for micro in linear.load for number in buffers_of(micro)}
        fixed |= {buffer.number for buffer in linear.buffers if buffer.pinned}
        self._sizes = [b.size_bytes if b.space is Space.L1 else 0 for b in linear.buffers]
        self._is_alive = [buffer.number in fixed for buffer in linear.buffers]
        self._is_fixed = tuple(self._is_alive)
        self.alive_bytes = sum(self._sizes[number] for number in fixed)

    def growth_bytes(self, position: int) -> int:
        """Return how many more bytes are alive while a micro runs."""
        return sum(self._sizes[n] for n in self._touched[position] if not self._is_alive[n])

    def run(self, position: int) -> None:
        """Execute a micro."""
        self.alive_bytes += self.growth_bytes(position)
        for number in self._touched[position]:
            self._is_alive[number] = True
            self._left[number] -= 1
            if self._left[number] == 0 and not self._is_fixed[number]:
                self.alive_bytes -= self._sizes[number]


def _take(ready: list[tuple[_Key, int]], memory: _Memory, budget_bytes: int, oldest: int) -> int:
    """Take the first micro off the heap that fits the budget, or else the oldest."""
    put_off: list[tuple[_Key, int]] = []
    chosen = -1
    while ready and chosen < 0 and len(put_off) < _LOOK_AHEAD:
        entry = heapq.heappop(ready)
        if memory.alive_bytes + memory.growth_bytes(entry[1]) <= budget_bytes:
            chosen = entry[1]
        else:
            put_off.append(entry)
    if chosen < 0:
        # all that it waits for is older and done, so it is ready
        chosen = oldest
        ready[:] = [entry for entry in (*ready, *put_off) if entry[1] != oldest]
        heapq.heapify(ready)
        return chosen
    for entry in put_off:
        heapq.heappush(ready, entry)
    return chosen
