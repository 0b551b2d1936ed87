"""The event loop: engines issue, wait, move payloads and post until every stream has ended."""

from __future__ import annotations

import numpy as np

from tilewright.simulator.timing_flows import finish_flow, start_flow
from tilewright.simulator.timing_heap import pop, pop_message, push_message, schedule
from tilewright.simulator.timing_jit import compiled, compiled_part
from tilewright.simulator.timing_sharing import share_anew
from tilewright.simulator.timing_state import (
    ASKING,
    CAST,
    DONE,
    ENGINES,
    EVENTS,
    FLOW,
    FLYING,
    GATHER,
    GROUP,
    HEAP,
    ISSUE,
    LEAD,
    MEMBER,
    NEVER,
    NOW,
    REMOTE,
    SENT,
    SPANS,
    UNTIL,
    WAIT,
    State,
    Tables,
)

FINISHED, DEADLOCK, TOO_LONG, FULL = 0, 1, 2, 3
"""How a simulation ends."""


@compiled_part
def lead_cycles(tables: Tables, kind: int, tile: int) -> float:
    """Return the latency between issue (or the group's meeting) and the payload."""
    what = tables.kinds[kind]
    if what.lead_route:
        return float(what.lead + tables.routes[tables.route_of[what.way, tile]].latency)
    return float(what.lead)


@compiled_part
def is_skipped(tables: Tables, kind: int, tile: int) -> bool:
    """Whether this tile only goes through the motions of an instruction for others."""
    row = tables.kinds[kind].skip
    return bool(row >= 0 and tables.skip[row, tile])


@compiled_part
def _asked(tables: Tables, state: State, slot: int, kind: int) -> float:
    """Return since when an instruction that is issued now has been asked for.

    One that asks ahead: since the payload before began and the last post that it may have needed.
    """
    if tables.kinds[kind].ahead == 0:
        return float(state.clock[NOW])
    since = state.slots[slot].flowing
    for w in range(0, 4, 2):
        if tables.waits[kind, w + 1] > 0:
            since = max(since, state.posted[tables.waits[kind, w], slot // ENGINES])
    return float(since)


@compiled_part
def try_issue(tables: Tables, state: State, slot: int, poster: int) -> None:
    """Issue the slot's next instruction if its waits hold; `poster` caused this try (-1: own progress)."""
    now, me = state.clock[NOW], state.slots[slot]
    if me.position == me.end:
        me.status = DONE
        return
    kind, tile = tables.stream[me.position], slot // ENGINES
    lacking = False
    for w in range(0, 4, 2):
        semaphore, count = tables.waits[kind, w], tables.waits[kind, w + 1]
        if state.semaphore[semaphore, tile] < count:
            state.needed[semaphore, tile] = min(state.needed[semaphore, tile], count)
            lacking = True
    if lacking:
        if me.status != WAIT:
            me.status = WAIT
            me.began = now
        return
    for w in range(0, 4, 2):
        state.semaphore[tables.waits[kind, w], tile] -= tables.waits[kind, w + 1]
    if me.status == WAIT:
        state.stall[slot, poster] += now - me.began
    me.status = ISSUE
    me.began = me.resumed = now
    cycles = tables.kinds[kind].issue
    me.asked = _asked(tables, state, slot, kind)
    if tables.kinds[kind].gang < 0 and not is_skipped(tables, kind, tile):
        cycles += max(0.0, lead_cycles(tables, kind, tile) - (now - me.asked))
    schedule(state.heap, state.place, state.times, state.sizes, HEAP, slot, now + cycles)


@compiled_part
def _post(state: State, tile: int, semaphore: int, count: int) -> bool:
    """Add to a semaphore; return whether an engine waits for what it has now."""
    total = state.semaphore[semaphore, tile] + count
    state.semaphore[semaphore, tile] = total
    state.posted[semaphore, tile] = state.clock[NOW]
    if total < state.needed[semaphore, tile]:
        return False
    state.needed[semaphore, tile] = NEVER  # engines that still lack something ask again
    return True


@compiled_part
def _ask(state: State, slot: int, poster: int) -> None:
    """Let a slot try to issue as soon as the event at hand is over."""
    number = state.sizes[ASKING]
    state.asking[number, 0], state.asking[number, 1] = slot, poster
    state.sizes[ASKING] = number + 1


@compiled_part
def _wake(state: State, tile: int, poster: int) -> None:
    """Let the tile's waiting engines look at their semaphores."""
    for slot in range(tile * ENGINES, (tile + 1) * ENGINES):
        if state.slots[slot].status == WAIT:
            _ask(state, slot, poster)


@compiled_part
def _occupied(tables: Tables, state: State, slot: int, kind: int, lost: float) -> None:
    """Count the busy time since the slot resumed, `lost` cycles of which are contention."""
    me = state.slots[slot]
    cycles = state.clock[NOW] - me.resumed
    me.busy += cycles
    me.ideal += cycles - lost
    members = tables.tiles[slot // ENGINES].members
    state.tag_busy[tables.kinds[kind].tag, slot % ENGINES] += cycles * members


@compiled_part
def gather(tables: Tables, state: State, slot: int, kind: int) -> None:
    """Come to the group's meeting; the last to come starts the activity in the leader's name."""
    now, engine, me = state.clock[NOW], slot % ENGINES, state.slots[slot]
    gang = tables.gang_of[tables.kinds[kind].gang, slot // ENGINES]
    first, last = tables.gang_start[gang], tables.gang_start[gang + 1]
    _occupied(tables, state, slot, kind, 0.0)
    me.status, me.resumed = GATHER, now
    state.gang_arrived[gang] += 1
    if state.gang_arrived[gang] < last - first:
        return
    state.gang_arrived[gang] = 0
    asked = 0.0
    for index in range(first, last):
        member = tables.gang_member[index] * ENGINES + engine
        other = state.slots[member]
        other.status = MEMBER
        asked = max(asked, other.asked)
        state.stall[member, GROUP] += now - other.resumed
        other.resumed = now
    leader = tables.gang_member[first] * ENGINES + engine
    state.slots[leader].status = LEAD
    time = now + lead_cycles(tables, kind, tables.gang_member[first])
    if tables.kinds[kind].ahead:
        time = max(now, time - (now - asked))
    schedule(state.heap, state.place, state.times, state.sizes, HEAP, leader, time)


@compiled_part
def complete(tables: Tables, state: State, slot: int, kind: int, leader: int, lost: float) -> None:
    """End a slot's instruction: measure, post locally, go on.

    `lost` cycles of the leader's payload are contention.
    """
    now, me, what = state.clock[NOW], state.slots[slot], tables.kinds[kind]
    tile, tag = slot // ENGINES, state.tags[what.tag]
    _occupied(tables, state, slot, kind, lost)
    if lost > 0.0:
        for report in range(state.lost.shape[1]):
            state.lost[slot, report] += state.flow_lost[leader, report]
    tag.first = min(tag.first, me.began)
    tag.last = max(tag.last, now)
    if tables.tiles[tile].traced and state.sizes[SPANS] < state.spans.size:
        span = state.spans[state.sizes[SPANS]]
        span.slot, span.kind, span.begin, span.end = slot, kind, me.began, now
        state.sizes[SPANS] += 1
    if what.cast > 0.0:
        me.flowing = now  # nothing is asked for before the cast is over
    me.position += 1
    if what.posts_here:
        awaited = False
        for p in range(0, 6, 3):
            if tables.posts[kind, p + 2] == 0:
                awaited |= _post(state, tile, tables.posts[kind, p], tables.posts[kind, p + 1])
        if awaited:
            _wake(state, tile, slot % ENGINES)
    _ask(state, slot, -1)


@compiled_part
def deliver(tables: Tables, state: State, route: int, kind: int) -> None:
    """Let a remote post land at its tiles."""
    for number in range(tables.routes[route].peer_start, tables.routes[route].peer_end):
        peer = tables.peers[number]
        awaited = False
        for p in range(0, 6, 3):
            if tables.posts[kind, p + 2]:
                count = tables.posts[kind, p + 1] * peer.count
                awaited |= _post(state, peer.tile, tables.posts[kind, p], count)
        if awaited:
            _wake(state, peer.tile, REMOTE)


@compiled_part
def flow_together(tables: Tables, state: State, leader: int, row: int) -> None:
    """Note for all tiles of a group that the leader's payload began."""
    gang = tables.gang_of[row, leader // ENGINES]
    for index in range(tables.gang_start[gang], tables.gang_start[gang + 1]):
        member = tables.gang_member[index] * ENGINES + leader % ENGINES
        state.slots[member].flowing = state.clock[NOW]


@compiled_part
def begin_cast(tables: Tables, state: State, slot: int, kind: int) -> bool:
    """Let a tile that has read for its group cast the bytes; return whether it has."""
    cycles = tables.kinds[kind].cast
    if cycles == 0.0:
        return False
    state.slots[slot].status = CAST
    time = state.clock[NOW] + cycles
    schedule(state.heap, state.place, state.times, state.sizes, HEAP, slot, time)
    return True


@compiled_part
def complete_all(
    tables: Tables, state: State, slot: int, kind: int, skipped: bool, lost: float
) -> None:
    """End a slot's instruction, for its whole group if it has one; `lost` is as for `complete`."""
    joint = tables.kinds[kind].gang >= 0 and not skipped
    first, last = 0, 1
    if joint:
        gang = tables.gang_of[tables.kinds[kind].gang, slot // ENGINES]
        first, last = tables.gang_start[gang], tables.gang_start[gang + 1]
    for index in range(first, last):
        member = tables.gang_member[index] * ENGINES + slot % ENGINES if joint else slot
        complete(tables, state, member, kind, slot, lost)


@compiled_part
def post_away(tables: Tables, state: State, slot: int, kind: int) -> None:
    """Send the remote posts of an instruction that has ended."""
    what = tables.kinds[kind]
    if what.posts_away and what.way >= 0:
        route = tables.route_of[what.way, slot // ENGINES]
        arrival = state.clock[NOW] + tables.routes[route].latency
        push_message(state.messages, state.sizes[FLYING], arrival, state.sizes[SENT], route, kind)
        state.sizes[FLYING] += 1
        state.sizes[SENT] += 1


@compiled_part
def land(tables: Tables, state: State) -> None:
    """Deliver the remote post that arrives next."""
    route, kind = int(state.messages[0, 2]), int(state.messages[0, 3])
    pop_message(state.messages, state.sizes[FLYING])
    state.sizes[FLYING] -= 1
    deliver(tables, state, route, kind)


@compiled_part
def issue_all(tables: Tables, state: State) -> None:
    """Let the slots that asked for it try to issue."""
    for number in range(state.sizes[ASKING]):
        try_issue(tables, state, state.asking[number, 0], state.asking[number, 1])
    state.sizes[ASKING] = 0


@compiled_part
def end_of(state: State) -> int:
    """Return how a simulation ended in which nothing is under way any more."""
    for slot in range(state.slots.size):
        if state.slots[slot].status != DONE:
            return DEADLOCK
    return FINISHED


@compiled_part
def _progress(tables: Tables, state: State, slot: int, contended: int) -> None:
    """Handle the slot's event."""
    me = state.slots[slot]
    kind = tables.stream[me.position]
    what, status = tables.kinds[kind], me.status
    skipped = status == ISSUE and is_skipped(tables, kind, slot // ENGINES)
    if status == ISSUE and what.gang >= 0 and not skipped:
        gather(tables, state, slot, kind)
        return
    if status not in (FLOW, CAST) and what.work > 0.0 and not skipped:
        me.status = FLOW
        start_flow(tables, state, kind, slot, contended)
        if what.gang >= 0 and what.ahead:
            flow_together(tables, state, slot, what.gang)
        return
    lost = 0.0
    if status == FLOW:
        finish_flow(state, slot)
        if begin_cast(tables, state, slot, kind):
            return
    if status in (FLOW, CAST):
        lost = max(state.clock[NOW] - me.flowing - what.cast - what.work / me.limit, 0.0)
    complete_all(tables, state, slot, kind, skipped, lost)
    post_away(tables, state, slot, kind)


@compiled
def simulate_events(tables: Tables, state: State, contended: int, max_events: int) -> int:
    """Run all streams to their ends, from the start or from where the last call stopped.

    With `contended` FREE every payload moves at its limit: the time is then the length of the
    longest dependency chain; with FLUID they share resources.

    Returns:
        FINISHED, DEADLOCK (nothing is under way but some stream has not ended), TOO_LONG or
        FULL (no room for a message; go on with a larger array).
    """
    sizes, messages, clock = state.sizes, state.messages, state.clock
    while True:
        issue_all(tables, state)
        if sizes[FLYING] == messages.shape[0]:
            return FULL
        if sizes[FLYING] > 0 and messages[0, 0] <= clock[UNTIL]:
            land(tables, state)
        elif sizes[HEAP] > 0 and state.times[state.heap[0]] <= clock[UNTIL]:
            slot = pop(state.heap, state.place, state.times, sizes, HEAP)
            _progress(tables, state, slot, contended)
        else:
            share_anew(state)
            if sizes[HEAP] == 0 and sizes[FLYING] == 0:
                break
            now = np.inf
            if sizes[HEAP] > 0:
                now = state.times[state.heap[0]]
            if sizes[FLYING] > 0:
                now = min(now, messages[0, 0])
            clock[NOW] = now
            # Events that only rounding separates are one batch: rates are shared anew once for them all.
            clock[UNTIL] = now + 1e-9 + 1e-14 * now
            continue
        sizes[EVENTS] += 1
        if sizes[EVENTS] > max_events:
            return TOO_LONG
    return end_of(state)
