"""The static schedule: when each micro runs if all tiles move in lock step.

This is the compiler's own estimate, printed next to two lower bounds (the busiest engine and the longest
chain of data). Transfers share the DRAM ports; the timing simulator knows more, such as scratchpad ports
and links on which different transfers meet.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tilewright.lowering.accesses import Touch
from tilewright.lowering.dependencies import BARRIER_POST, BARRIER_WAIT, OrderedProgram
from tilewright.lowering.durations import MicroTimes
from tilewright.lowering.isa import Engine
from tilewright.lowering.micro import Micro


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Start and end of each micro of one phase, in cycles, and what bounds them."""

    micros: tuple[Micro, ...]
    starts: tuple[float, ...]
    ends: tuple[float, ...]
    makespan_cycles: float
    busy_cycles: Mapping[Engine, float]
    """Cycles that each engine executes, less what may pass while it moves what was before."""
    critical_path_cycles: float
    """Longest chain of micros in which each uses what the one before it made, whatever the engines."""

    @property
    def lower_bound_cycles(self) -> float:
        """The larger of the busiest engine and the critical path."""
        return max(self.critical_path_cycles, *self.busy_cycles.values())


def estimate_schedule(ordered: OrderedProgram, durations: MicroTimes) -> Schedule:
    """Simulate the engines of one tile, in order, for one phase.

    Args:
        ordered: Micros with barriers and what each waits for.
        durations: What a micro takes; asked once for each.
    """
    times = [durations(micro) for micro in ordered.micros]
    engine_free = dict.fromkeys(Engine, 0.0)
    moving = dict.fromkeys(Engine, 0.0)  # since when the engine moves the bytes of its last micro
    busy = dict.fromkeys(Engine, 0.0)
    peers, ports = _PeerTimes(), _PortTimes()
    starts: list[float] = []
    ends: list[float] = []
    for micro, edges, time in zip(ordered.micros, ordered.edges, times, strict=True):
        ready = peers.earliest(micro)
        for position in edges:
            ready = max(ready, ends[position])
        start = max(engine_free[micro.engine], ready)
        own_cycles = time.cycles - time.ahead_cycles
        end = start + time.cycles
        if time.ahead_cycles:
            asked = max(moving[micro.engine], ready)
            end = max(start + own_cycles, asked + time.cycles)
        if time.port_cycles:
            read = end - time.cast_cycles
            end = max(end, ports.take(read - time.port_cycles, time.port_cycles) + time.cast_cycles)
        peers.record(micro, end)
        engine_free[micro.engine] = end
        moving[micro.engine] = end - own_cycles
        busy[micro.engine] += own_cycles
        starts.append(start)
        ends.append(end)
    return Schedule(
        micros=ordered.micros,
        starts=tuple(starts),
        ends=tuple(ends),
        makespan_cycles=max(ends, default=0.0),
        busy_cycles=busy,
        critical_path_cycles=_critical_path(ordered, [time.cycles for time in times]),
    )


class _PortTimes:
    """When the DRAM ports are busy, as disjoint intervals; who asks first in the linear order goes first."""

    def __init__(self) -> None:
        self._starts: list[float] = []
        self._ends: list[float] = []

    def take(self, begin: float, cycles: float) -> float:
        """Occupy the ports for some cycles in all, from some time on; return when that is done."""
        first = at = bisect_left(self._ends, begin)
        now = begin
        while at < len(self._starts) and self._starts[at] < now + cycles:
            cycles -= max(0.0, self._starts[at] - now)
            now = self._ends[at]
            at += 1
        end = now + cycles
        low = min(begin, self._starts[first]) if first < at else begin
        self._starts[first:at], self._ends[first:at] = [low], [end]
        return end


class _PeerTimes:
    """When the other tiles' posts arrive: as this tile's own, for all are in lock step."""

    def __init__(self) -> None:
        self._posted: dict[tuple[str, int], float] = {}

    def earliest(self, micro: Micro) -> float:
        """Return when the posts that a micro waits for have arrived."""
        match micro.role:
            case "first_send":
                return self._posted.get(("ready", micro.axes), 0.0)
            case "arrive":
                return self._posted.get(("sent", micro.axes), 0.0)
            case role if role == BARRIER_WAIT:
                return self._posted.get((BARRIER_POST, micro.axes), 0.0)
        return 0.0

    def record(self, micro: Micro, end: float) -> None:
        """Remember the posts of a complete micro."""
        kind = "sent" if micro.role in ("first_send", "send") else micro.role
        if kind in ("ready", "sent", BARRIER_POST):
            key = (kind, micro.axes)
            self._posted[key] = max(end, self._posted.get(key, 0.0))


class _DataTimes:
    """When the bytes of one buffer are complete, as segments with one time each."""

    def __init__(self) -> None:
        self._starts = [0]
        self._times = [0.0]

    def _cut(self, address: int) -> int:
        at = bisect_left(self._starts, address)
        if at == len(self._starts) or self._starts[at] != address:
            self._starts.insert(at, address)
            self._times.insert(at, self._times[at - 1])
        return at

    def read(self, touch: Touch) -> float:
        """Return when the bytes of an access are complete."""
        first = max(0, bisect_left(self._starts, touch.low + 1) - 1)
        after = bisect_left(self._starts, touch.high)
        return max(self._times[first:after])

    def write(self, touch: Touch, time: float, *, is_overwrite: bool) -> None:
        """Set when the bytes are complete; bytes that a write skips keep their times."""
        first, after = self._cut(touch.low), self._cut(touch.high)
        if is_overwrite:
            self._starts[first:after] = [touch.low]
            self._times[first:after] = [time]
            return
        starts, times = [touch.low], [max(self._times[first], time)]
        for start, old in zip(
            self._starts[first + 1 : after], self._times[first + 1 : after], strict=True
        ):
            latest = max(old, time)
            if latest != times[-1]:  # equal neighbours become one segment
                starts.append(start)
                times.append(latest)
        self._starts[first:after], self._times[first:after] = starts, times


def _is_dense(touch: Touch) -> bool:
    """Whether an access of every tile alike covers each byte of its hull."""
    covered = touch.item_bytes
    for distance, count in reversed(touch.terms):
        if distance > covered:
            return False
        covered = max(covered, distance * (count - 1) + covered)
    return not any(touch.coefficients)


def _critical_path(ordered: OrderedProgram, cycles: Sequence[float]) -> float:
    """Return the cycles of the longest chain of data (and of the parts of collectives)."""
    memory: dict[int, _DataTimes] = {}
    peers = _PeerTimes()
    longest = 0.0
    for micro, accesses, length in zip(ordered.micros, ordered.touches, cycles, strict=True):
        if micro.role in (BARRIER_POST, BARRIER_WAIT):
            continue
        is_receipt = micro.role in ("ready", "arrive")
        start = peers.earliest(micro)
        for touch in accesses:
            if not is_receipt and (not touch.is_write or micro.accumulate):
                times = memory.setdefault(touch.buffer, _DataTimes())
                start = max(start, times.read(touch))
        end = start + length
        peers.record(micro, end)
        longest = max(longest, end)
        if micro.role == "ready":
            continue
        for touch in accesses:
            if touch.is_write:
                is_overwrite = not is_receipt and not micro.accumulate and _is_dense(touch)
                times = memory.setdefault(touch.buffer, _DataTimes())
                times.write(touch, end, is_overwrite=is_overwrite)
    return longest
