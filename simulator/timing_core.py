"""The event loop: engines issue, wait, move payloads and post until every stream has ended."""

from __future__ import annotations

import numpy as np

from tilewright.simulator.timing_flows import finish_flow, share_anew, start_flow
from tilewright.simulator.timing_heap import pop, pop_message, push_message, schedule
from tilewright.simulator.timing_jit import compiled
from tilewright.simulator.timing_state import (
    DONE,
    ENGINES,
    FLOW,
    GATHER,
    GROUP,
    ISSUE,
    LEAD,
    MEMBER,
    REMOTE,
    WAIT,
    State,
    Tables,
)

FINISHED, DEADLOCK, TOO_LONG = 0, 1, 2
"""How a simulation ends."""


@compiled
def _lead_cycles(tables: Tables, kind: int, tile: int) -> float:
    """Return the latency between issue (or the group's meeting) and the payload."""
    cycles = tables.lead[kind]
    if tables.lead_route[kind]:
        cycles += tables.route_latency[tables.route_of[tables.route_class[kind], tile]]
    return float(cycles)


@compiled
def _is_skipped(tables: Tables, kind: int, tile: int) -> bool:
    """Whether this tile only goes through the motions of an instruction for others."""
    return bool(tables.skip_class[kind] >= 0 and tables.skip[tables.skip_class[kind], tile])


@compiled
def _try_issue(tables: Tables, state: State, slot: int, poster: int) -> None:
    """Issue the slot's next instruction if its waits hold; `poster` caused this try (-1: own progress)."""
    now = state.clock[0]
    if state.position[slot] == tables.stream_end[slot]:
        state.status[slot] = DONE
        return
    kind = tables.stream[state.position[slot]]
    tile = slot // ENGINES
    for w in range(2):
        if state.semaphore[tile, tables.wait_semaphore[kind, w]] < tables.wait_count[kind, w]:
            if state.status[slot] != WAIT:
                state.status[slot] = WAIT
                state.began[slot] = now
            return
    for w in range(2):
        state.semaphore[tile, tables.wait_semaphore[kind, w]] -= tables.wait_count[kind, w]
    if state.status[slot] == WAIT:
        state.stall[slot, poster] += now - state.began[slot]
    state.status[slot] = ISSUE
    state.began[slot] = state.resumed[slot] = now
    cycles = tables.issue[kind]
    if tables.gang_class[kind] < 0 and not _is_skipped(tables, kind, tile):
        cycles += _lead_cycles(tables, kind, tile)
    schedule(state.heap, state.place, state.times, state.heap_size, slot, now + cycles)


@compiled
def _wake(tables: Tables, state: State, tile: int, poster: int) -> None:
    """Let the tile's waiting engines look at their semaphores."""
    for slot in range(tile * ENGINES, (tile + 1) * ENGINES):
        if state.status[slot] == WAIT:
            _try_issue(tables, state, slot, poster)


@compiled
def _occupied(tables: Tables, state: State, slot: int, kind: int, lost: float) -> None:
    """Count the busy time since the slot resumed, `lost` cycles of which are contention."""
    cycles = state.clock[0] - state.resumed[slot]
    tile, engine = slot // ENGINES, slot % ENGINES
    state.busy[slot] += cycles
    state.ideal[slot] += cycles - lost
    state.tag_busy[tables.tag[kind], engine] += cycles * tables.members[tile]


@compiled
def _gather(tables: Tables, state: State, slot: int, kind: int) -> None:
    """Come to the group's meeting; the last to come starts the activity in the leader's name."""
    now, engine = state.clock[0], slot % ENGINES
    gang = tables.gang_of[tables.gang_class[kind], slot // ENGINES]
    first, last = tables.gang_start[gang], tables.gang_start[gang + 1]
    _occupied(tables, state, slot, kind, 0.0)
    state.status[slot] = GATHER
    state.resumed[slot] = now
    state.gang_arrived[gang] += 1
    if state.gang_arrived[gang] < last - first:
        return
    state.gang_arrived[gang] = 0
    for index in range(first, last):
        member = tables.gang_member[index] * ENGINES + engine
        state.status[member] = MEMBER
        state.stall[member, GROUP] += now - state.resumed[member]
        state.resumed[member] = now
    leader = tables.gang_member[first]
    state.status[leader * ENGINES + engine] = LEAD
    cycles = _lead_cycles(tables, kind, leader)
    schedule(state.heap, state.place, state.times, state.heap_size, leader * ENGINES + engine, now + cycles)


@compiled
def _complete(tables: Tables, state: State, slot: int, kind: int, leader: int, lost: float) -> None:
    """End a slot's instruction: measure, post locally, go on. `lost` cycles of the leader's payload are contention."""
    now = state.clock[0]
    tile, engine, tag = slot // ENGINES, slot % ENGINES, tables.tag[kind]
    _occupied(tables, state, slot, kind, lost)
    if lost > 0.0:
        state.lost[slot] += state.flow_lost[leader]
    state.tag_first[tag] = min(state.tag_first[tag], state.began[slot])
    state.tag_last[tag] = max(state.tag_last[tag], now)
    if tables.traced[tile] and state.trace_size[0] < state.trace_slot.size:
        row = state.trace_size[0]
        state.trace_slot[row], state.trace_kind[row] = slot, kind
        state.trace_begin[row], state.trace_end[row] = state.began[slot], now
        state.trace_size[0] += 1
    state.position[slot] += 1
    posted = False
    for p in range(2):
        if tables.post_count[kind, p] > 0 and not tables.post_remote[kind, p]:
            state.semaphore[tile, tables.post_semaphore[kind, p]] += tables.post_count[kind, p]
            posted = True
    if posted:
        _wake(tables, state, tile, engine)
    _try_issue(tables, state, slot, -1)


@compiled
def _deliver(tables: Tables, state: State, route: int, kind: int) -> None:
    """Let a remote post land at its tiles."""
    for peer in range(tables.peer_start[route], tables.peer_start[route + 1]):
        tile = tables.peer_tile[peer]
        for p in range(2):
            if tables.post_remote[kind, p]:
                count = tables.post_count[kind, p] * tables.peer_count[peer]
                state.semaphore[tile, tables.post_semaphore[kind, p]] += count
        _wake(tables, state, tile, REMOTE)


@compiled
def _progress(tables: Tables, state: State, slot: int, contended: bool) -> bool:
    """Handle the slot's event; return whether its instruction ended."""
    kind = tables.stream[state.position[slot]]
    tile, status = slot // ENGINES, state.status[slot]
    if status == ISSUE:
        if _is_skipped(tables, kind, tile):
            _complete(tables, state, slot, kind, slot, 0.0)
            return True
        if tables.gang_class[kind] >= 0:
            _gather(tables, state, slot, kind)
            return False
    if status != FLOW and tables.work[kind] > 0.0:
        route = -1 if tables.route_class[kind] < 0 else tables.route_of[tables.route_class[kind], tile]
        state.status[slot] = FLOW
        start_flow(tables, state, kind, slot, route, contended)
        return False
    lost = 0.0
    if status == FLOW:
        finish_flow(tables, state, slot)
        lost = max(state.clock[0] - state.flowing[slot] - tables.work[kind] / state.limit[slot], 0.0)
    if tables.gang_class[kind] < 0:
        _complete(tables, state, slot, kind, slot, lost)
        return True
    gang = tables.gang_of[tables.gang_class[kind], tile]
    for index in range(tables.gang_start[gang], tables.gang_start[gang + 1]):
        _complete(tables, state, tables.gang_member[index] * ENGINES + slot % ENGINES, kind, slot, lost)
    return True


@compiled
def simulate_events(tables: Tables, state: State, contended: bool, max_events: int) -> int:
    """Run all streams to their ends.

    Without `contended` every payload moves at its limit: the time is then the length of the
    longest dependency chain.

    Returns:
        FINISHED, DEADLOCK (nothing is under way but some stream has not ended) or TOO_LONG.
    """
    messages = np.empty((64, 4))
    flying = sent = 0
    for slot in range(state.status.size):
        _try_issue(tables, state, slot, -1)
    while state.heap_size[0] > 0 or flying > 0:
        now = np.inf
        if state.heap_size[0] > 0:
            now = state.times[state.heap[0]]
        if flying > 0:
            now = min(now, messages[0, 0])
        state.clock[0] = now
        # Events that only rounding separates are one batch: rates are shared anew once for all of them.
        until = now + 1e-9 + 1e-14 * now
        while True:
            if state.events[0] >= max_events:
                return TOO_LONG
            if flying > 0 and messages[0, 0] <= until:
                route, kind = int(messages[0, 2]), int(messages[0, 3])
                pop_message(messages, flying)
                flying -= 1
                _deliver(tables, state, route, kind)
            elif state.heap_size[0] > 0 and state.times[state.heap[0]] <= until:
                slot = pop(state.heap, state.place, state.times, state.heap_size)
                kind = tables.stream[state.position[slot]]
                if _progress(tables, state, slot, contended) and (
                    tables.post_remote[kind, 0] or tables.post_remote[kind, 1]
                ):
                    route = tables.route_of[tables.route_class[kind], slot // ENGINES]
                    if route >= 0:
                        if flying == messages.shape[0]:
                            grown = np.empty((2 * flying, 4))
                            grown[:flying] = messages
                            messages = grown
                        push_message(messages, flying, now + tables.route_latency[route], sent, route, kind)
                        flying += 1
                        sent += 1
            else:
                break
            state.events[0] += 1
        share_anew(tables, state)
    for slot in range(state.status.size):
        if state.status[slot] != DONE:
            return DEADLOCK
    return FINISHED
