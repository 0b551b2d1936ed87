"""Find a packing within a capacity: greedy orders, promotion, then exact search with restarts.

All limits count work, not seconds, so that a result is the same on every machine; a caller that is
willing to lose that may pass a deadline.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from tilewright.lowering.packing_core import (
    EXHAUSTED,
    FOUND,
    STOPPED,
    search,
)
from tilewright.lowering.packing_place import Placer
from tilewright.lowering.packing_state import NODES, State, make_state
from tilewright.lowering.packing_tables import Ints, PackingProblem

_RESTART_BACKTRACKS = 100
"""Decisions that the shortest run takes back; others are multiples after Luby, Sinclair, Zuckerman 1993."""

_BUFFERS_PER_BACKTRACK = 50
"""Runs over many buffers, which take long to come back to where they stopped, are longer."""

_ROUNDS = 60
"""Packings with promotion from each order to start with."""

_MODES = (0, 1, 3, 2)
_FORGET = 0.9
"""What is left of a section's weight after each run."""

_STEPS = 4_000_000
"""Decisions times buffers of a search without a limit of its own; a few seconds."""

_NODES_PER_BUFFER = 3
"""Decisions for each buffer of a search without a limit of its own: fewer could not place all."""

_STEPS_PER_LOOK = 200_000
"""Decisions times buffers between two looks at the clock."""

_MOST_PAIRS = 8_000_000
"""Pairs of buffers alive together up to which the search is tried; each takes about 100 bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """Limits of the work on one problem."""

    placements: int = 100_000
    """Buffers placed by greedy packings with promotion."""
    nodes: int | None = None
    """Decisions of the exact search, over all restarts and components; by default fewer for more buffers."""
    deadline_seconds: float | None = None
    """Time of `time.monotonic` at which to give up."""

    def nodes_for(self, buffers: int) -> int:
        """Return the limit on decisions for so many buffers."""
        if self.nodes is not None:
            return self.nodes
        return max(_STEPS // max(1, buffers), _NODES_PER_BUFFER * buffers)

    @property
    def is_late(self) -> bool:
        """Whether the deadline has passed."""
        return self.deadline_seconds is not None and time.monotonic() > self.deadline_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """What a search found."""

    offsets: Ints | None
    """Addresses in grains within the capacity, or None."""
    is_exhausted: bool
    """Whether the search went through everything without finding a packing."""
    nodes: int
    component: tuple[int, ...] = ()
    """The buffers for which no packing was found."""


def greedy_packings(problem: PackingProblem, *, is_quick: bool) -> Iterator[Ints]:
    """Yield packings in fixed orders, the ones that are best most often first."""
    placer = Placer(problem.shapes)
    by_length, by_size, by_area, by_start, by_end = _orders(problem)
    yield placer.place(by_length)
    yield placer.place(by_size)
    if is_quick:
        return
    for order in (by_area, by_start, by_end):
        yield placer.place(order)
    for order in (by_size, by_length, by_area, by_start):
        yield placer.place(order, is_tightest=True)


def promoted_packings(problem: PackingProblem, effort: Effort) -> Iterator[Ints]:
    """Yield packings, each time with the buffers that stuck out moved towards the front of the order.

    Joslin and Clements, "Squeaky wheel optimization", 1999.
    """
    shapes = problem.shapes
    placer = Placer(shapes)
    orders = _orders(problem)[:3]
    rounds = min(_ROUNDS, effort.placements // max(1, len(shapes.size) * len(orders)))
    for order in orders:
        rank = np.empty(len(order), dtype=np.float64)
        rank[order] = np.arange(len(order))
        step = max(1.0, len(order) / 8)
        for _ in range(rounds):
            if effort.is_late:
                return
            offsets = placer.place(np.argsort(rank, kind="stable"))
            yield offsets
            rank[offsets > shapes.latest] -= step
            step = max(1.0, step * 0.97)


def search_packing(problem: PackingProblem, effort: Effort) -> SearchResult:
    """Search each component of a problem, the parts of time that no buffer crosses.

    The result is exhausted only if that proves that no packing exists.
    """
    offsets = np.zeros(len(problem.buffers), dtype=np.int64)
    limit = left = effort.nodes_for(len(problem.buffers))
    for component in components(problem):
        part = problem.restricted(component)
        if part.pairs_alive_together > _MOST_PAIRS:
            return SearchResult(
                offsets=None, is_exhausted=False, nodes=limit - left, component=component
            )
        found = _search_component(part, left, effort)
        left -= found.nodes
        if found.offsets is None:
            return replace(found, nodes=limit - left, component=component)
        # a part may count in coarser grains
        offsets[list(component)] = found.offsets * (part.grain_bytes // problem.grain_bytes)
    return SearchResult(offsets=offsets, is_exhausted=False, nodes=limit - left)


def components(problem: PackingProblem) -> tuple[tuple[int, ...], ...]:
    """Return the buffers between times that none of them crosses."""
    starts = [b.start for b in problem.buffers]
    found: list[list[int]] = []
    end = None
    for b in sorted(range(len(starts)), key=lambda b: (starts[b], b)):
        if end is None or starts[b] >= end:
            found.append([])
        found[-1].append(b)
        end = max(problem.buffers[b].end, end or 0)
    return tuple(tuple(sorted(part)) for part in found)


def _search_component(problem: PackingProblem, nodes: int, effort: Effort) -> SearchResult:
    state, ranks = make_state(problem), _ranks(problem)
    weights = np.zeros(len(state.fails))
    used, run = 0, 0
    while used < nodes and not effort.is_late:
        rank = ranks[run % len(ranks)]
        if run % 2:
            rank = _weighted(problem, rank, weights, run // 2 % 3)
        mode = _MODES[run // len(ranks) % len(_MODES)]
        least = max(_RESTART_BACKTRACKS, len(rank) // _BUFFERS_PER_BACKTRACK)
        limit = min(least * _luby(run + 1), nodes - used)
        result = _run(problem, state, rank, mode, limit, effort)
        used += max(1, int(state.scalars[NODES]))
        run += 1
        if result == FOUND:
            return SearchResult(offsets=state.lower.copy(), is_exhausted=False, nodes=used)
        if result == EXHAUSTED:
            # with gaps two buffers may each be above the other, which the search does not try
            return SearchResult(offsets=None, is_exhausted=problem.is_plain, nodes=used)
        weights = _FORGET * weights + state.fails / max(1, int(state.fails.sum()))
    return SearchResult(offsets=None, is_exhausted=False, nodes=used)


def _run(
    problem: PackingProblem, state: State, rank: Ints, mode: int, limit: int, effort: Effort
) -> int:
    """Search up to a limit on decisions taken back, in chunks if there is a deadline to look at."""
    chunk = limit if effort.deadline_seconds is None else _STEPS_PER_LOOK // len(rank) + 1
    done, result = 0, STOPPED
    while result == STOPPED and done < limit and (done == 0 or not effort.is_late):
        is_fresh = done == 0
        done = min(limit, done + chunk)
        result = search(
            problem.shapes,
            problem.graph,
            state,
            rank,
            problem.capacity,
            problem.is_plain,
            mode,
            done,
            is_fresh,
        )
    return result


def _luby(run: int) -> int:
    """Return the term of the sequence 1 1 2 1 1 2 4 ..., counted from 1."""
    while (run + 1) & run:
        run -= (1 << (run.bit_length() - 1)) - 1
    return (run + 1) // 2


def _orders(problem: PackingProblem) -> tuple[Ints, Ints, Ints, Ints, Ints]:
    """Return the buffers by length, size, area, start and end."""
    sizes, starts, ends = _boxes(problem)
    lengths, position = ends - starts, np.arange(len(sizes))
    return (
        np.lexsort((position, starts, -sizes, -lengths)),
        np.lexsort((position, starts, -lengths, -sizes)),
        np.lexsort((position, -(sizes * lengths))),
        np.lexsort((position, -sizes, -lengths, starts)),
        np.lexsort((position, -sizes, -lengths, -ends)),
    )


def _boxes(problem: PackingProblem) -> tuple[Ints, Ints, Ints]:
    starts = np.array([b.start for b in problem.buffers], dtype=np.int64)
    ends = np.array([b.end for b in problem.buffers], dtype=np.int64)
    return problem.shapes.size, starts, ends


def _ranks(problem: PackingProblem) -> list[Ints]:
    """Return ranks of buffers: combinations of size, length, area and the load of their sections."""
    sizes, starts, ends = _boxes(problem)
    lengths, areas = ends - starts, sizes * (ends - starts)
    graph = problem.graph
    load = np.zeros(len(graph.first_edge) - 1, dtype=np.int64)
    np.add.at(load, graph.edge_section, graph.edge_high - graph.edge_low)
    peak = np.zeros(len(sizes), dtype=np.int64)
    np.maximum.at(peak, graph.edge_owner, load[graph.edge_section])
    many = np.bincount(graph.edge_owner, minlength=len(sizes))
    return [
        _rank(peak, areas),
        _rank(areas),
        _rank(peak, lengths, sizes),
        _rank(lengths, sizes),
        _rank(many, sizes),
        _rank(peak, sizes, lengths),
        _rank(sizes, lengths),
    ]


def _rank(*keys: Ints | np.ndarray) -> Ints:
    """Return the place of each buffer when sorted by falling keys, the first key first."""
    order = np.lexsort(tuple(-key for key in reversed(keys)))
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return rank


def _weighted(problem: PackingProblem, rank: Ints, weights: np.ndarray, kind: int) -> Ints:
    """Return a rank that puts buffers of sections that failed often first."""
    graph = problem.graph
    count = len(rank)
    total, most = np.zeros(count), np.zeros(count)
    np.add.at(total, graph.edge_owner, weights[graph.edge_section])
    np.maximum.at(most, graph.edge_owner, weights[graph.edge_section])
    key = (total, total * problem.shapes.size, most)[kind]
    return _rank(key, -rank)
