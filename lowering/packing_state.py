"""What moves during a search for a packing, and how it starts."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tilewright.lowering.packing_jit import compiled_part
from tilewright.lowering.packing_tables import Graph, Ints, PackingProblem, Shapes

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
def reset(shapes: Shapes, graph: Graph, state: State, capacity: int) -> None:
    """Take back everything and queue every section."""
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
