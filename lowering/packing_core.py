"""Compiled depth-first search for a packing within a capacity, with propagation.

Buffers are placed bottom up, each on top of what lies below it, so only *bottom-justified* packings are
made; every packing can be pushed down into one. A branch places a buffer at the lowest address left to
it; the other branch raises its lower bound: it must then rest on a buffer that is not placed yet. As in
Giffler and Thompson's schedules ("Algorithms for solving production-scheduling problems", 1960), only
buffers that start below the lowest possible top of all are candidates: whatever fits wholly below a
candidate goes first. Canonical packings, the floors of sections and the dominance are those of Moffitt,
"MiniMalloc: A Lightweight Memory Allocator for Hardware-Accelerated Machine Learning", ASPLOS 2023.
"""

from __future__ import annotations

from tilewright.lowering.packing_bounds import (
    aligned,
    lowest_rest,
    note,
    propagate,
    queue_sections,
    raise_lower,
)
from tilewright.lowering.packing_jit import compiled, compiled_part
from tilewright.lowering.packing_state import (
    DEPTH,
    IS_TRAIL_FULL,
    NODES,
    TRAIL,
    State,
    reset,
)
from tilewright.lowering.packing_tables import NEVER, Graph, Ints, Shapes

EXHAUSTED, FOUND, STOPPED = 0, 1, 2
"""Results: no bottom-justified packing exists; `lower` holds one; the limit was reached."""

LOWEST, LOWEST_NEAR, FIRST_NEAR, FIRST = 0, 1, 2, 3
"""How a branch chooses: the lowest candidate or the first in rank, of all or of those in conflict with
the buffer whose top is lowest."""


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
    queue_sections(graph, state, b)
    for k in range(graph.first_near[b], graph.first_near[b + 1]):
        d = graph.near[k]
        if state.placed[d]:
            continue
        base = aligned(state.lower[b] + graph.near_rise[k], shapes.align[d])
        if base > state.base[d]:
            if not note(state, d + len(shapes.size), state.base[d]):
                return False
            state.base[d] = base
        if not raise_lower(shapes, graph, state, d, base):
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
            lowest = lowest_rest(graph, state, like)
            # with gaps, a neighbour below need not lift the buffer
            lowest = max(lowest, state.lower[b] + 1)
            if lowest >= NEVER or not raise_lower(shapes, graph, state, like, lowest):
                return False
        like = shapes.twin[like]
        if like == b:
            return True


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
    """Search until a packing is found, all are ruled out, or `limit` decisions were taken back.

    A search that was stopped goes on when it is not fresh and the limit is higher.
    """
    if is_fresh:
        reset(shapes, graph, state, capacity)
    scalars, buffers = state.scalars, len(shapes.size)
    is_sound = True
    if is_fresh:
        for b in range(buffers):
            is_sound = is_sound and state.lower[b] <= shapes.latest[b]
    while True:
        if is_sound:
            is_sound = propagate(shapes, graph, state, is_plain)
        if is_sound:
            if scalars[DEPTH] == buffers:
                return FOUND
            if scalars[NODES] - scalars[DEPTH] >= limit:
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
