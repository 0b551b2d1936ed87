"""Compiled depth-first search for a packing within a capacity, with propagation.

Buffers are placed bottom up, each on top of what lies below it, so only *bottom-justified* packings are
made; every packing can be pushed down into one. A branch places a buffer at the lowest address left to
it; the other branch raises its lower bound: it must then rest on a buffer that is not placed yet. As in
Giffler and Thompson's schedules ("Algorithms for solving production-scheduling problems", 1960), only
buffers that start below the lowest possible top of all are candidates: whatever fits wholly below a
candidate goes first. Canonical packings, the floors of sections and the dominance are those of Moffitt,
"MiniMalloc: A Lightweight Memory Allocator for Hardware-Accelerated Machine Learning", ASPLOS 2023.
In each section a sweep by lower bounds must stay within the capacity, and what cannot be below all
of a set is above one of them (the not-first rule of disjunctive scheduling; Baptiste, Le Pape, Nuijten 2001).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tilewright.jit import compiled, compiled_part
from tilewright.lowering.packing_sort import sort_pairs
from tilewright.lowering.packing_tables import NEVER, Graph, Ints, PackingProblem, Shapes

EXHAUSTED, FOUND, STOPPED = 0, 1, 2
"""Results: no bottom-justified packing exists; `lower` holds one; the node limit was reached."""

LOWEST, LOWEST_NEAR, FIRST_NEAR, FIRST = 0, 1, 2, 3
"""How a branch chooses: the lowest candidate or the first in rank, of all or of those in conflict with
the buffer whose top is lowest."""

# scalars of the state
TRAIL, QUEUE, DEPTH, NODES, IS_TRAIL_FULL, CAPACITY = 0, 1, 2, 3, 4, 5
_SCALARS = 6


_LONGEST_TRAIL = 1 << 23


class State(NamedTuple):
    """What moves during a search; all int64."""

    lower: Ints
    """Lowest address left to each buffer; its address, once placed."""
    base: Ints
    """Lowest address above the placed neighbours."""
    placed: Ints
    rest: Ints
    """Grains of unplaced edges in each section."""
    highest: Ints
    """No unplaced edge of the section has a higher lower bound."""
    unplaced: Ints
    """Unplaced edges of each section: the first ones of its part of `active`."""
    active: Ints
    """Edges by section."""
    trail_at: Ints
    """Buffer of an undone change of `lower`; plus the number of buffers for `base`."""
    trail_old: Ints
    mark: Ints
    """Length of the trail at each decision."""
    decision: Ints
    is_queued: Ints
    queue: Ints
    """Sections to look at again."""
    by_start: Ints
    """[2, buffers]: start and edge."""
    by_top: Ints
    """[2, buffers]: lowest top, negated, and edge."""
    fails: Ints
    """How often each section was the contradiction."""
    scalars: Ints


def make_state(problem: PackingProblem) -> State:
    """Return room for a search; `search` resets what it needs."""
    graph, buffers = problem.graph, len(problem.buffers)
    sections = len(graph.first_edge) - 1
    widest = int(np.diff(graph.first_edge).max(initial=1))

    def zeros(*shape: int) -> Ints:
        return np.zeros(shape, dtype=np.int64)

    # a bound rises at most once for each place and each neighbour between two decisions
    trail = min(4 * (buffers + 1) * (buffers + 1) + 1024, _LONGEST_TRAIL)
    return State(
        lower=zeros(buffers),
        base=zeros(buffers),
        placed=zeros(buffers),
        rest=zeros(sections),
        highest=zeros(sections),
        unplaced=zeros(sections),
        active=zeros(len(graph.edge_owner)),
        trail_at=zeros(trail),
        trail_old=zeros(trail),
        mark=zeros(buffers + 1),
        decision=zeros(buffers + 1),
        is_queued=zeros(sections),
        queue=zeros(sections + 1),
        by_start=zeros(2, widest),
        by_top=zeros(2, widest),
        fails=zeros(sections),
        scalars=zeros(_SCALARS),
    )


@compiled_part
def _aligned(value: int, align: int) -> int:
    return value if align == 1 else -(-value // align) * align


@compiled_part
def _queue_sections(graph: Graph, state: State, b: int) -> None:
    """Look at a buffer's sections again, but not where all that is unplaced fits above the highest bound."""
    for k in range(graph.first_own[b], graph.first_own[b + 1]):
        e = graph.own_edge[k]
        s = graph.edge_section[e]
        state.highest[s] = max(state.highest[s], state.lower[b] + graph.edge_low[e])
        if state.highest[s] + state.rest[s] > state.scalars[CAPACITY] and not state.is_queued[s]:
            state.is_queued[s] = 1
            state.queue[state.scalars[QUEUE]] = s
            state.scalars[QUEUE] += 1


@compiled_part
def _note(state: State, at: int, old: int) -> bool:
    """Put a change on the trail; False when the trail is full: the search goes back, and proves nothing."""
    top = state.scalars[TRAIL]
    if top == len(state.trail_at):
        state.scalars[IS_TRAIL_FULL] = 1
        return False
    state.trail_at[top] = at
    state.trail_old[top] = old
    state.scalars[TRAIL] = top + 1
    return True


@compiled_part
def _raise_lower(shapes: Shapes, graph: Graph, state: State, b: int, to: int) -> bool:
    """Raise a lower bound; False when the buffer does not fit any more."""
    to = _aligned(to, shapes.align[b])
    if to <= state.lower[b]:
        return True
    if to > shapes.latest[b] or (shapes.fixed[b] >= 0 and to > shapes.fixed[b]):
        return False
    if not _note(state, b, state.lower[b]):
        return False
    state.lower[b] = to
    _queue_sections(graph, state, b)
    return True


@compiled_part
def _sort_by_start(graph: Graph, state: State, s: int) -> None:
    """Fill `by_start` with the section's unplaced edges."""
    first = graph.first_edge[s]
    for k in range(state.unplaced[s]):
        e = state.active[first + k]
        state.by_start[0, k] = state.lower[graph.edge_owner[e]] + graph.edge_low[e]
        state.by_start[1, k] = e
    sort_pairs(state.by_start, state.unplaced[s])


@compiled_part
def _sort_by_top(graph: Graph, state: State, count: int) -> None:
    """Fill `by_top` with the edges of `by_start`, the highest lowest top first."""
    for k in range(count):
        e = state.by_start[1, k]
        state.by_top[0, k] = graph.edge_low[e] - graph.edge_high[e] - state.by_start[0, k]
        state.by_top[1, k] = e
    sort_pairs(state.by_top, count)


@compiled_part
def _lowest_above(graph: Graph, state: State, count: int, edge: int, room: int) -> int:
    """Return a height that the edge is above, when only `room` grains fit over it; else 0."""
    total = 0
    for k in range(count):
        e = state.by_top[1, k]
        if e == edge:
            continue
        total += graph.edge_high[e] - graph.edge_low[e]
        if total > room:
            return int(-state.by_top[0, k])
    return 0


@compiled_part
def _check_section(shapes: Shapes, graph: Graph, state: State, s: int) -> bool:
    """Raise lower bounds by what one section asks for; False when it cannot be."""
    capacity = state.scalars[CAPACITY]
    first, count, rest = graph.first_edge[s], state.unplaced[s], state.rest[s]
    lowest, highest = NEVER, 0
    for k in range(first, first + count):
        e = state.active[k]
        start = state.lower[graph.edge_owner[e]] + graph.edge_low[e]
        lowest, highest = min(lowest, start), max(highest, start)
    state.highest[s] = highest
    if count == 0 or highest + rest <= capacity:
        return True
    if lowest + rest > capacity:
        return False
    _sort_by_start(graph, state, s)
    top = 0
    for k in range(count):
        e = state.by_start[1, k]
        top = max(top, state.by_start[0, k]) + graph.edge_high[e] - graph.edge_low[e]
    if top > capacity:
        return False
    _sort_by_top(graph, state, count)
    for k in range(count - 1, -1, -1):
        start, e = state.by_start[0, k], state.by_start[1, k]
        if start + rest <= capacity:
            break
        room = capacity - start - graph.edge_high[e] + graph.edge_low[e]
        to = _lowest_above(graph, state, count, e, room) - graph.edge_low[e]
        if not _raise_lower(shapes, graph, state, graph.edge_owner[e], to):
            return False
    return True


@compiled_part
def _lowest_rest(graph: Graph, state: State, b: int) -> int:
    """Return the lowest address on top of a neighbour that is not placed; NEVER without one."""
    lowest = NEVER
    for k in range(graph.first_near[b], graph.first_near[b + 1]):
        d = graph.near[k]
        if not state.placed[d]:
            lowest = min(lowest, state.lower[d] + graph.near_fall[k])
    return lowest


@compiled_part
def _is_blocked(shapes: Shapes, graph: Graph, state: State, b: int) -> bool:
    """Whether a neighbour can start early enough to keep a buffer from its base."""
    for k in range(graph.first_near[b], graph.first_near[b + 1]):
        d = graph.near[k]
        if not state.placed[d] and state.lower[d] < state.base[b] + shapes.size[b]:
            return True
    return False


@compiled_part
def _check_rests(shapes: Shapes, graph: Graph, state: State, is_plain: bool) -> bool:
    """Raise buffers that must rest on one that is not placed yet; False when none can carry them."""
    for b in range(len(shapes.size)):
        if state.placed[b] or state.lower[b] <= state.base[b] or shapes.fixed[b] >= 0:
            continue
        if is_plain and not _is_blocked(shapes, graph, state, b):
            return False
        lowest = _lowest_rest(graph, state, b)
        if lowest == NEVER or not _raise_lower(shapes, graph, state, b, lowest):
            return False
    return True


@compiled_part
def _propagate(shapes: Shapes, graph: Graph, state: State, is_plain: bool) -> bool:
    """Raise lower bounds until nothing changes; False at a contradiction."""
    is_sound, is_stable, scalars = True, False, state.scalars
    while is_sound and not is_stable:
        while is_sound and scalars[QUEUE] > 0:
            scalars[QUEUE] -= 1
            s = state.queue[scalars[QUEUE]]
            state.is_queued[s] = 0
            is_sound = _check_section(shapes, graph, state, s)
            if not is_sound:
                state.fails[s] += 1
        is_sound = is_sound and _check_rests(shapes, graph, state, is_plain)
        is_stable = scalars[QUEUE] == 0
    while scalars[QUEUE] > 0:
        scalars[QUEUE] -= 1
        state.is_queued[state.queue[scalars[QUEUE]]] = 0
    return is_sound


@compiled_part
def _is_candidate(shapes: Shapes, state: State, b: int, limit: int) -> bool:
    if state.placed[b] or state.lower[b] >= limit:
        return False
    # a fixed buffer takes its place when all that may lie below does
    return bool(shapes.fixed[b] >= 0 or state.lower[b] == state.base[b])


@compiled_part
def _is_better(state: State, rank: Ints, b: int, best: int, is_lowest: bool) -> bool:
    if best < 0:
        return True
    if is_lowest and state.lower[b] != state.lower[best]:
        return bool(state.lower[b] < state.lower[best])
    return bool(rank[b] < rank[best])


@compiled_part
def _choose(
    shapes: Shapes, graph: Graph, state: State, rank: Ints, mode: int, is_plain: bool
) -> int:
    """Return the buffer to place next."""
    limit, tight = NEVER, -1
    for b in range(len(shapes.size)):
        if not state.placed[b]:
            top = state.lower[b] + shapes.size[b]
            if tight < 0 or top < limit or (top == limit and rank[b] < rank[tight]):
                limit, tight = top, b
    if not is_plain:
        limit = NEVER
    best, is_lowest = -1, mode in (LOWEST, LOWEST_NEAR)
    if is_plain and mode in (LOWEST_NEAR, FIRST_NEAR):
        best = tight
        for k in range(graph.first_near[tight], graph.first_near[tight + 1]):
            b = graph.near[k]
            if _is_candidate(shapes, state, b, limit) and _is_better(
                state, rank, b, best, is_lowest
            ):
                best = b
        return best
    for b in range(len(shapes.size)):
        if _is_candidate(shapes, state, b, limit) and _is_better(state, rank, b, best, is_lowest):
            best = b
    return best


@compiled_part
def _place(shapes: Shapes, graph: Graph, state: State, b: int) -> bool:
    """Put a buffer at its lower bound and its neighbours above; False when one cannot be."""
    state.placed[b] = 1
    for k in range(graph.first_own[b], graph.first_own[b + 1]):
        e = graph.own_edge[k]
        s = graph.edge_section[e]
        state.rest[s] -= graph.edge_high[e] - graph.edge_low[e]
        at, last = graph.first_edge[s], graph.first_edge[s] + state.unplaced[s] - 1
        while state.active[at] != e:
            at += 1
        state.active[at] = state.active[last]
        state.active[last] = e
        state.unplaced[s] -= 1
    _queue_sections(graph, state, b)
    for k in range(graph.first_near[b], graph.first_near[b + 1]):
        d = graph.near[k]
        if state.placed[d]:
            continue
        base = _aligned(state.lower[b] + graph.near_rise[k], shapes.align[d])
        if base > state.base[d]:
            if not _note(state, d + len(shapes.size), state.base[d]):
                return False
            state.base[d] = base
        if not _raise_lower(shapes, graph, state, d, base):
            return False
    return True


@compiled_part
def _undo(shapes: Shapes, graph: Graph, state: State) -> int:
    """Take back the last decision and return its buffer."""
    scalars, buffers = state.scalars, len(shapes.size)
    scalars[DEPTH] -= 1
    while scalars[TRAIL] > state.mark[scalars[DEPTH]]:
        scalars[TRAIL] -= 1
        at = state.trail_at[scalars[TRAIL]]
        if at >= buffers:
            state.base[at - buffers] = state.trail_old[scalars[TRAIL]]
        else:
            state.lower[at] = state.trail_old[scalars[TRAIL]]
    b = int(state.decision[scalars[DEPTH]])
    state.placed[b] = 0
    for k in range(graph.first_own[b], graph.first_own[b + 1]):
        e = graph.own_edge[k]
        s = graph.edge_section[e]
        state.rest[s] += graph.edge_high[e] - graph.edge_low[e]
        state.unplaced[s] += 1
        state.highest[s] = max(state.highest[s], state.lower[b] + graph.edge_low[e])
    return b


@compiled_part
def _postpone(shapes: Shapes, graph: Graph, state: State, b: int) -> bool:
    """Keep a buffer and its twins from where it was just ruled out; False when it has to be there."""
    if shapes.fixed[b] >= 0:
        return False
    like = b
    while True:
        if not state.placed[like]:
            lowest = _lowest_rest(graph, state, like)
            # with gaps, a neighbour below need not lift the buffer
            lowest = max(lowest, state.lower[b] + 1)
            if lowest >= NEVER or not _raise_lower(shapes, graph, state, like, lowest):
                return False
        like = shapes.twin[like]
        if like == b:
            return True


@compiled_part
def _reset(shapes: Shapes, graph: Graph, state: State, capacity: int) -> None:
    state.base[:] = 0
    state.placed[:] = 0
    state.rest[:] = 0
    state.fails[:] = 0
    state.scalars[:] = 0
    for b in range(len(shapes.size)):
        state.lower[b] = max(0, shapes.fixed[b])
    for e in range(len(graph.edge_owner)):
        state.active[e] = e
        state.rest[graph.edge_section[e]] += graph.edge_high[e] - graph.edge_low[e]
    for s in range(len(state.unplaced)):
        state.unplaced[s] = graph.first_edge[s + 1] - graph.first_edge[s]
        state.is_queued[s] = 1
        state.queue[s] = s
    state.scalars[CAPACITY] = capacity
    state.scalars[QUEUE] = len(state.unplaced)


@compiled
def search(
    shapes: Shapes,
    graph: Graph,
    state: State,
    rank: Ints,
    capacity: int,
    is_plain: bool,
    mode: int,
    limit: int,
    is_fresh: bool,
) -> int:
    """Search until a packing is found, all are ruled out, or `limit` decisions were made.

    A search that was stopped goes on when it is not fresh and the limit is higher.
    """
    if is_fresh:
        _reset(shapes, graph, state, capacity)
    scalars, buffers = state.scalars, len(shapes.size)
    is_sound = True
    if is_fresh:
        for b in range(buffers):
            is_sound = is_sound and state.lower[b] <= shapes.latest[b]
    while True:
        if is_sound:
            is_sound = _propagate(shapes, graph, state, is_plain)
        if is_sound:
            if scalars[DEPTH] == buffers:
                return FOUND
            if scalars[NODES] == limit:
                return STOPPED
            b = _choose(shapes, graph, state, rank, mode, is_plain)
            scalars[NODES] += 1
            state.mark[scalars[DEPTH]] = scalars[TRAIL]
            state.decision[scalars[DEPTH]] = b
            scalars[DEPTH] += 1
            is_sound = _place(shapes, graph, state, b)
        elif scalars[DEPTH] == 0:
            return STOPPED if scalars[IS_TRAIL_FULL] else EXHAUSTED
        else:
            b = _undo(shapes, graph, state)
            is_sound = _postpone(shapes, graph, state, b)
