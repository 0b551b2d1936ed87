"""Compiled propagation of the search: lower bounds of addresses, raised until nothing changes.

In each section a sweep by lower bounds must stay within the capacity, and what cannot be below all
of a set is above one of them (the not-first rule of disjunctive scheduling; Baptiste, Le Pape, Nuijten 2001).
A buffer that is kept from its lowest place must rest on one that is not placed yet.
"""

from __future__ import annotations

from tilewright.lowering.packing_jit import compiled_part
from tilewright.lowering.packing_sort import sort_pairs
from tilewright.lowering.packing_state import CAPACITY, IS_TRAIL_FULL, QUEUE, TRAIL, State
from tilewright.lowering.packing_tables import NEVER, Graph, Shapes


@compiled_part
def aligned(value: int, align: int) -> int:
    """Return the lowest multiple that is not below the value."""
    return value if align == 1 else -(-value // align) * align


@compiled_part
def queue_sections(graph: Graph, state: State, b: int) -> None:
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
def note(state: State, at: int, old: int) -> bool:
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
def raise_lower(shapes: Shapes, graph: Graph, state: State, b: int, to: int) -> bool:
    """Raise a lower bound; False when the buffer does not fit any more."""
    to = aligned(to, shapes.align[b])
    if to <= state.lower[b]:
        return True
    if to > shapes.latest[b] or (shapes.fixed[b] >= 0 and to > shapes.fixed[b]):
        return False
    if not note(state, b, state.lower[b]):
        return False
    state.lower[b] = to
    queue_sections(graph, state, b)
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
        if not raise_lower(shapes, graph, state, graph.edge_owner[e], to):
            return False
    return True


@compiled_part
def lowest_rest(graph: Graph, state: State, b: int) -> int:
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
        lowest = lowest_rest(graph, state, b)
        if lowest == NEVER or not raise_lower(shapes, graph, state, b, lowest):
            return False
    return True


@compiled_part
def propagate(shapes: Shapes, graph: Graph, state: State, is_plain: bool) -> bool:
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
