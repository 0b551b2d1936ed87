"""Repair a packing of many buffers that is almost within the capacity: search one neighbourhood at a time.

A neighbourhood is a buffer that sticks out and those nearest to it in time; all others stay where they
are. Shaw, "Using constraint programming and local search methods to solve vehicle routing problems", 1998.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tilewright.lowering.live_buffer import LiveBuffer
from tilewright.lowering.packing_search import Effort, search_packing
from tilewright.lowering.packing_tables import Ints, PackingProblem, make_problem

_SIZES = (60, 120, 240, 400)
"""Buffers of a neighbourhood; larger ones when the smaller ones did not do."""

_NODES = 3000
"""Decisions of the search in one neighbourhood."""


def repair_packing(problem: PackingProblem, offsets: Ints, effort: Effort) -> Ints | None:
    """Return a packing within the capacity, or None.

    Args:
        problem: What to pack.
        offsets: Addresses such that buffers are apart; some of them end above the capacity.
        effort: Its nodes limit all searches together.
    """
    offsets = offsets.copy()
    shapes = problem.shapes
    starts = np.array([b.start for b in problem.buffers], dtype=np.int64)
    ends = np.array([b.end for b in problem.buffers], dtype=np.int64)
    nodes = effort.nodes
    for size in _SIZES:
        for b in np.flatnonzero(offsets > shapes.latest).tolist():
            if offsets[b] <= shapes.latest[b]:
                continue  # an earlier neighbourhood took it along
            if nodes <= 0 or effort.is_late:
                return None
            free = _neighbourhood(starts, ends, b, size)
            limit = min(_NODES, nodes)
            found, used = _solve(problem, offsets, free, replace(effort, nodes=limit))
            nodes -= used
            if found is not None:
                offsets[free] = found
    return None if (offsets > shapes.latest).any() else offsets


def _neighbourhood(starts: Ints, ends: Ints, b: int, size: int) -> Ints:
    """Return a buffer and those nearest in time: the ones that share most of their life with it."""
    apart = np.maximum(starts, starts[b]) - np.minimum(ends, ends[b])
    outside = np.maximum(starts[b] - starts, 0) + np.maximum(ends - ends[b], 0)
    order = np.lexsort((np.arange(len(starts)), outside + np.maximum(apart, 0)))
    chosen = order[:size]
    return np.union1d(chosen, [b]).astype(np.int64)


def _solve(
    problem: PackingProblem, offsets: Ints, free: Ints, effort: Effort
) -> tuple[Ints | None, int]:
    """Return addresses of the free buffers, the others staying, and the decisions made."""
    part, count = _subproblem(problem, offsets, free)
    found = search_packing(part, effort)
    if found.offsets is None:
        return None, max(1, found.nodes)
    grains = found.offsets[:count] * part.grain_bytes
    return grains // problem.grain_bytes, max(1, found.nodes)


def _subproblem(problem: PackingProblem, offsets: Ints, free: Ints) -> tuple[PackingProblem, int]:
    """Return the problem of the free buffers among those around them, and how many are free.

    Of the others, those that stick out are left out.
    """
    buffers = problem.buffers
    start = min(buffers[b].start for b in free)
    end = max(buffers[b].end for b in free)
    is_free = np.zeros(len(buffers), dtype=np.bool_)
    is_free[free] = True
    chosen: list[LiveBuffer] = [buffers[b] for b in free]
    sticks_out = offsets > problem.shapes.latest
    for b, buffer in enumerate(buffers):
        if is_free[b] or sticks_out[b] or buffer.start >= end or buffer.end <= start:
            continue
        chosen.append(_stay(buffer, int(offsets[b]) * problem.grain_bytes, start, end))
    return (
        make_problem(
            chosen,
            capacity_bytes=problem.capacity_bytes,
            alignment_bytes=problem.alignment_bytes,
        ),
        len(free),
    )


def _stay(buffer: LiveBuffer, offset: int, start: int, end: int) -> LiveBuffer:
    """Return a buffer that stays, cut to the time that matters."""
    if buffer.gaps:
        return replace(buffer, offset=offset)
    return replace(buffer, start=max(start, buffer.start), end=min(end, buffer.end), offset=offset)
