"""Moving loads forward in the linear order, so that the DMA runs ahead of compute.

The queues decouple the engines, so a load may start long before the micros around it; but its buffer takes
the place of buffers whose last use comes before the load in the linear order, and the load waits for that
use. Hence a load should stand as early as the memory allows and as its own duration asks for. But an engine
loads in order: at a long load that could wait, it keeps those waiting that are needed first.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tilewright.lowering.accesses import buffers_of, live_ranges, written_by
from tilewright.lowering.allocation import round_up
from tilewright.lowering.durations import MicroTimes
from tilewright.lowering.isa import LOADS, Engine, Opcode, Space
from tilewright.lowering.micro import LinearProgram, Micro

_EAGERNESS = 2.0
"""Loads are given this many times their duration, against waiting for each other."""


class LoadHoister:
    """Moves loads forward, as far as different memory budgets allow; other micros keep their order.

    A load stays behind the micros that touched its destination or wrote its sources. What fills the padding
    around it moves along: left behind, it would wait in the vector unit's queue for work that the load is
    to run beside. So do loads of other parts of the same box.
    """

    def __init__(
        self,
        linear: LinearProgram,
        durations: MicroTimes,
        *,
        alignment_bytes: int,
        window: int = 4096,
    ) -> None:
        """Simulate the compute of both phases.

        Args:
            linear: The program.
            durations: What each micro takes.
            alignment_bytes: Buffer sizes are rounded up to it.
            window: A load moves over at most this many micros.
        """
        self._linear, self._window = linear, window
        ranges = live_ranges(linear)
        total = len(linear.load) + len(linear.run)
        changes = np.zeros(total + 1, dtype=np.int64)
        # what a buffer costs when it starts to live earlier; nothing if it is alive all the time
        self._growth = [0] * len(ranges)
        for buffer, (start, end) in zip(linear.buffers, ranges, strict=True):
            if buffer.space is Space.L1:
                size = round_up(buffer.size_bytes, alignment_bytes)
                changes[start] += size
                changes[end] -= size
                self._growth[buffer.number] = 0 if end - start == total else size
        self._live_bytes = np.cumsum(changes)[:total]
        self._outlooks = tuple(_outlook(micros, durations) for micros in (linear.load, linear.run))

    def hoist(self, budget_bytes: int) -> LinearProgram:
        """Return the program with loads moved forward.

        Args:
            budget_bytes: Scratchpad bytes that may be alive at any point, unless more are already.
        """
        linear, boundary = self._linear, len(self._linear.load)
        live = self._live_bytes.copy()
        phases = tuple(
            _hoist(micros, outlook, self._growth, part, budget_bytes, self._window)
            for micros, outlook, part in zip(
                (linear.load, linear.run),
                self._outlooks,
                (live[:boundary], live[boundary:]),
                strict=True,
            )
        )
        return LinearProgram(buffers=linear.buffers, load=phases[0], run=phases[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outlook:
    """When the micros of a phase would run if loads took no time, and what loads should come to."""

    ends: Sequence[float]
    horizon: Sequence[float]
    """When this micro and all before it are complete."""
    wanted: Sequence[int]
    """Where each load should stand."""
    load_cycles: Sequence[float]
    needed: Sequence[float]
    """When each load is used first."""


class _Held(NamedTuple):
    """A load that is held back by what touched its buffer or writes its source."""

    position: int
    target: int
    free_cycle: float
    """When what holds it is complete."""


def _is_load(micro: Micro) -> bool:
    return micro.opcode in LOADS


def _fills_of_loads(micros: tuple[Micro, ...]) -> dict[int, int]:
    """Return, by position, the load that follows on a fill of the same buffer, or on several."""
    found: dict[int, int] = {}
    for position in reversed(range(len(micros) - 1)):
        micro, following = micros[position], micros[position + 1]
        if micro.opcode is not Opcode.VEC or micro.sources or micro.dst is None:
            continue
        if following.dst is None or following.dst.buffer != micro.dst.buffer:
            continue
        if _is_load(following):
            found[position] = position + 1
        elif position + 1 in found:
            found[position] = found[position + 1]
    return found


def _hoist(
    micros: tuple[Micro, ...],
    outlook: _Outlook,
    growth: Sequence[int],
    live: NDArray[np.int64],
    budget_bytes: int,
    window: int,
) -> tuple[Micro, ...]:
    """Hoist the loads of one phase; updates `live`, the bytes alive at each micro."""
    last_touch: dict[int, int] = {}
    last_write: dict[int, int] = {}
    host = -1  # the last host region that may write any buffer of DRAM
    fills = _fills_of_loads(micros)
    keys: list[tuple[int, bool, int]] = []
    held: dict[Engine, list[_Held]] = {engine: [] for engine in Engine}
    parts: dict[
        tuple[int, Engine], tuple[int, int]
    ] = {}  # last load into a buffer: position, target
    waiting: list[int] = []
    for position, micro in enumerate(micros):
        if position in fills:
            waiting.append(position)
            continue
        first = target = position - len(waiting)
        if _is_load(micro) and micro.dst is not None:
            number = micro.dst.buffer
            floor = last_touch.get(number, -1)
            is_new = floor < 0
            if (number, micro.engine) in parts and parts[number, micro.engine][0] == floor:
                floor = parts[number, micro.engine][1] - 1  # the part before may have moved
            floor = max(floor, host, *(last_write.get(s.buffer, -1) for s in micro.sources))
            target = min(first, max(floor + 1, outlook.wanted[position], position - window))
            size = growth[number]
            if is_new and size and target < first:
                over = np.flatnonzero(live[target:first] + size > budget_bytes)
                if len(over):
                    target += int(over[-1]) + 1
            mine = held[micro.engine]
            target = min(first, _behind_urgent(target, position, mine, outlook))
            parts[number, micro.engine] = (position, target)
            if floor >= 0:
                mine.append(_Held(position, target, outlook.ends[floor]))
            if is_new and size and target < first:
                live[target:first] += size
        # loads moved to before micro t precede it, among themselves they keep their order
        keys += [(target, not _is_load(micro), moved) for moved in (*waiting, position)]
        waiting = []
        for number in buffers_of(micro):
            last_touch[number] = position
        for number in written_by(micro):
            last_write[number] = position
        if micro.opcode is Opcode.HOST and not buffers_of(micro):
            host = position
    return tuple(micros[position] for _, _, position in sorted(keys))


def _behind_urgent(target: int, position: int, held: Sequence[_Held], outlook: _Outlook) -> int:
    """Return where a load should stand so that it is not in the way of loads that are held back.

    The engine loads in order: one that it is at when a held one gets free to come holds that one up. It goes
    behind the held one if it is late by less then.
    """
    own_cycles = outlook.load_cycles[position]
    first = bisect_left(held, target, key=lambda other: other.position)
    for index in range(first, len(held)):
        other = held[index]
        if other.target < target:
            continue
        begin = outlook.horizon[target - 1] if target else 0.0
        held_up = begin + own_cycles - other.free_cycle
        if held_up <= 0:
            break
        follows = other.free_cycle + outlook.load_cycles[other.position]
        late = max(0.0, follows + own_cycles - outlook.needed[position])
        if begin <= other.free_cycle and late < held_up:
            target = other.target
    return target


def _outlook(micros: tuple[Micro, ...], durations: MicroTimes) -> _Outlook:
    """Simulate the compute of a phase, and say where each load should stand to be complete when it is needed.

    Compute is simulated as if loads took no time. Going backwards over the loads, each must be
    complete before its first use and before the next load of its engine starts. It should stand before the
    first micro that is not complete when it starts, so that it never waits for the memory of an earlier one.
    """
    starts, ends = _compute_times(micros, durations)
    horizon = list(accumulate(ends, max))
    last = horizon[-1] if horizon else 0.0
    first_use: dict[int, float] = {}
    wanted, load_cycles = list(range(len(micros))), [0.0] * len(micros)
    needed = [last] * len(micros)
    following = dict.fromkeys(Engine, last)
    for position in reversed(range(len(micros))):
        micro = micros[position]
        if _is_load(micro) and micro.dst is not None:
            needed[position] = first_use.get(micro.dst.buffer, last)
            load_cycles[position] = durations(micro).cycles
            end = min(needed[position], following[micro.engine])
            begin = following[micro.engine] = end - _EAGERNESS * load_cycles[position]
            wanted[position] = bisect_right(horizon, begin)
        else:
            for number in buffers_of(micro):
                first_use[number] = starts[position]
    return _Outlook(
        ends=ends, horizon=horizon, wanted=wanted, load_cycles=load_cycles, needed=needed
    )


def _compute_times(
    micros: tuple[Micro, ...], durations: MicroTimes
) -> tuple[list[float], list[float]]:
    """Return start and end cycles of each micro if loads took no time, ordered by buffers."""
    engine_free = dict.fromkeys(Engine, 0.0)
    written: dict[int, float] = {}
    used: dict[int, float] = {}
    starts, ends = [], []
    for micro in micros:
        start = 0.0 if _is_load(micro) else engine_free[micro.engine]
        for source in micro.sources:
            start = max(start, written.get(source.buffer, 0.0))
        if micro.dst is not None:
            start = max(start, used.get(micro.dst.buffer, 0.0))
        end = start
        if not _is_load(micro):
            end += durations(micro).cycles
            engine_free[micro.engine] = end
        if micro.dst is not None:
            written[micro.dst.buffer] = max(end, written.get(micro.dst.buffer, 0.0))
        for number in buffers_of(micro):
            used[number] = max(end, used.get(number, 0.0))
        starts.append(start)
        ends.append(end)
    return starts, ends
