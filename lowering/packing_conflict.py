"""Why buffers do not fit: the peak, a smallest set in conflict, and what would relieve it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from tilewright.lowering.live_buffer import LiveBuffer
from tilewright.lowering.packing_search import Effort, search_packing
from tilewright.lowering.packing_tables import PackingProblem

_NAMED = 5
"""Buffers that an error names; it counts the others."""

_WAYS = 3
"""Ways of relief that an error names."""


class Lever(StrEnum):
    """What can take a buffer's bytes away from the peak."""

    STREAM = "stream"
    """It is alive throughout: fetch it when it is needed."""
    RECOMPUTE = "recompute"
    """It waits through the peak: compute it again, or spill it, afterwards."""
    SPLIT = "split"
    """It is made or used at the peak: work on a part of it at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Relief:
    """One way to lower the peak."""

    lever: Lever
    buffer: str
    gain_bytes: int
    """Bytes that the peak loses at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """Buffers that cannot share a memory."""

    buffers: tuple[str, ...]
    """Names. If proven, these do not fit, and without any one of them the others do."""
    peak: int
    """The time at which most bytes are alive."""
    live_bytes: int
    """Bytes alive then, sizes rounded up to the alignment."""
    capacity_bytes: int
    shortfall_bytes: int
    """Bytes that the memory lacks: proven when the live bytes exceed it, else for the best packing found;
    0 when only fixed addresses are in the way."""
    is_proven: bool
    """Whether no packing of these buffers exists, and every smaller set was shown to fit."""
    relief: tuple[Relief, ...]
    """The largest gain first."""

    def describe(self, *, with_relief: bool = True) -> str:
        """Return which buffers they are and, of a scratchpad, what would help, as text for an error."""
        shown = ", ".join(f"'{name}'" for name in self.buffers[:_NAMED])
        more = len(self.buffers) - _NAMED
        shown += f" and {more} more" if more > 0 else ""
        kind = "that cannot fit together" if self.is_proven else "that were not packed"
        if not with_relief:
            return f"smallest set found {kind}: {shown}"
        ways = ", ".join(
            f"{r.lever} '{r.buffer}' (up to {r.gain_bytes:_} bytes)" for r in self.relief[:_WAYS]
        )
        return f"smallest set found {kind}: {shown}; relief: {ways}"


def live_peak(problem: PackingProblem) -> tuple[int, int]:
    """Return the most grains in use together and the first time when that is so."""
    shapes = problem.shapes
    if not len(shapes.start):
        return 0, 0
    used = shapes.high - shapes.low
    times = np.concatenate([shapes.start, shapes.end])
    changes = np.concatenate([used, -used])
    order = np.lexsort((changes, times))  # ends (negative) before starts at equal times
    running = np.cumsum(changes[order])
    top = int(running.argmax())
    return int(running[top]), int(times[order][top])


def find_conflict(
    problem: PackingProblem, *, packed_bytes: int | None, suspects: Sequence[int], effort: Effort
) -> Conflict:
    """Explain why a problem was not packed.

    Args:
        problem: The problem.
        packed_bytes: Height of the best packing found, or None.
        suspects: Buffers that were shown not to fit; empty when nothing was shown.
        effort: Limits of each search for a smaller set.
    """
    live, peak = live_peak(problem)
    live_bytes = live * problem.grain_bytes
    if live > problem.capacity:
        chosen, is_proven = _fewest_above(problem, peak), True
        if not _is_simple(problem, chosen):
            chosen, is_proven = _irreducible(problem, chosen, effort)
    elif suspects:
        chosen, is_proven = _irreducible(problem, list(suspects), effort)
    else:
        chosen, is_proven = _alive(problem, peak), False
    # below the live bytes only what is in conflict matters
    blamed = chosen if suspects else _alive(problem, peak)
    demand = max(live_bytes, packed_bytes or 0)
    return Conflict(
        buffers=tuple(problem.buffers[b].name for b in chosen),
        peak=peak,
        live_bytes=live_bytes,
        capacity_bytes=problem.capacity_bytes,
        shortfall_bytes=max(0, demand - problem.capacity_bytes),
        is_proven=is_proven,
        relief=_relief(problem, blamed, peak),
    )


def _alive(problem: PackingProblem, time: int) -> list[int]:
    """Return the buffers that use bytes at a time, the largest first."""
    shapes = problem.shapes
    pieces = np.flatnonzero((shapes.start <= time) & (shapes.end > time))
    used = (shapes.high - shapes.low)[pieces]
    order = np.lexsort((pieces, -used))
    return [int(b) for b in shapes.owner[pieces[order]]]


def _fewest_above(problem: PackingProblem, time: int) -> list[int]:
    """Return the fewest buffers that exceed the capacity at a time.

    The largest ones: without any of them, what is left is no more than without the smallest of them.
    """
    shapes = problem.shapes
    total, chosen = 0, []
    for b in _alive(problem, time):
        pieces = range(shapes.first_piece[b], shapes.first_piece[b + 1])
        total += sum(
            int(shapes.high[p] - shapes.low[p])
            for p in pieces
            if shapes.start[p] <= time < shapes.end[p]
        )
        chosen.append(b)
        if total > problem.capacity:
            break
    return chosen


def _is_simple(problem: PackingProblem, chosen: Sequence[int]) -> bool:
    """Whether buffers alive together fit whenever their sizes do: none is fixed or aligned more coarsely."""
    shapes, buffers = problem.shapes, list(chosen)
    return (
        problem.capacity_bytes % problem.grain_bytes == 0
        and bool((shapes.fixed[buffers] < 0).all())
        and bool((shapes.align[buffers] == 1).all())
    )


def _irreducible(
    problem: PackingProblem, chosen: list[int], effort: Effort
) -> tuple[list[int], bool]:
    """Drop buffers that a conflict does not need, small ones first; also whether all are needed."""
    is_proven = True
    sizes = problem.shapes.size
    lengths = [b.end - b.start for b in problem.buffers]
    for b in sorted(chosen, key=lambda b: (int(sizes[b]) * lengths[b], b)):
        fewer = [other for other in chosen if other != b]
        found = search_packing(problem.restricted(fewer), effort)
        if found.is_exhausted:
            chosen = [fewer[k] for k in found.component]
        elif found.offsets is None:
            is_proven = False
    return chosen, is_proven


def _relief(problem: PackingProblem, blamed: Sequence[int], peak: int) -> tuple[Relief, ...]:
    buffers = problem.buffers
    ordered = sorted(blamed, key=lambda b: (-buffers[b].size_bytes, b))
    first, last = min(b.start for b in buffers), max(b.end for b in buffers)
    return tuple(
        Relief(
            lever=_lever(buffers[b], peak, first, last),
            buffer=buffers[b].name,
            gain_bytes=buffers[b].size_bytes,
        )
        for b in ordered
    )


def _lever(buffer: LiveBuffer, peak: int, first: int, last: int) -> Lever:
    if buffer.start == first and buffer.end == last and last - first > 1:
        return Lever.STREAM
    if peak == buffer.start or peak == buffer.end - 1:
        return Lever.SPLIT
    return Lever.RECOMPUTE
