"""The event loop of packet mode: engines as in `timing_core`, payloads on the network as packets.

An engine and the SRAM ports move a payload as in fluid mode. At the same time its packets cross the
network. A load or store is over when both are, a send when its last packet has left the tile; its remote
posts land with the last packet.
"""

from __future__ import annotations

import numpy as np

from tilewright.simulator.timing_core import (
    FULL,
    TOO_LONG,
    begin_cast,
    complete_all,
    deliver,
    end_of,
    flow_together,
    gather,
    is_skipped,
    issue_all,
    land,
    post_away,
)
from tilewright.simulator.timing_flows import finish_flow, start_flow
from tilewright.simulator.timing_heap import pop, schedule
from tilewright.simulator.timing_jit import compiled, compiled_part
from tilewright.simulator.timing_packet_core import decide_all, handle_event
from tilewright.simulator.timing_packet_core import start_flow as inject
from tilewright.simulator.timing_packet_records import (
    free_payload,
    has_room,
    new_flow,
    new_payload,
)
from tilewright.simulator.timing_packet_routes import (
    BUFFER_BYTES,
    FLIT_BYTES,
    HELD,
    LATE,
    MOVING,
    PACKET_BYTES,
    PacketWork,
)
from tilewright.simulator.timing_packet_state import DELIVERED, EVENTS_SIZE, NEWS_SIZE, Net
from tilewright.simulator.timing_sharing import share_anew
from tilewright.simulator.timing_state import (
    CAST,
    DRAM,
    ENGINES,
    EVENTS,
    FLOW,
    FLYING,
    HEAP,
    ISSUE,
    LINK,
    NOW,
    PACKET,
    UNTIL,
    State,
    Tables,
)

CROWDED = 4
"""The packet network needs more room; go on with a larger one."""


@compiled_part
def _start_packets(tables: Tables, work: PacketWork, net: Net, slot: int, kind: int) -> None:
    """Cut the slot's payload into packets, spread evenly over the trees of its route."""
    what = tables.kinds[kind]
    route = tables.route_of[what.way, slot // ENGINES] if what.way >= 0 else -1
    if route < 0 or work.start[route] == work.start[route + 1]:
        return
    first, last = work.start[route], work.start[route + 1]
    number = new_payload(net)
    payload = net.payloads[number]
    payload.slot, payload.kind, payload.route = slot, kind, route
    payload.injecting = last - first
    work.moving[slot] = number
    share = what.work / (last - first)
    for tree in range(first, last):
        # What branches must fit into a buffer whole: so no two trees can wait for each other.
        most = work.figures[PACKET_BYTES if work.sinks[tree] == 1 else BUFFER_BYTES]
        index = new_flow(net, number)
        flow = net.flows[index]
        flow.root, flow.virtual = work.roots[tree], 0
        flow.packets = max(1, int(np.ceil(share / most)))
        flow.flits = max(1, int(np.ceil(share / flow.packets / work.figures[FLIT_BYTES])))
        size = share / (flow.packets * flow.flits)
        flow.link_bytes = size * tables.factor[kind, LINK]
        flow.memory_bytes = size * tables.factor[kind, DRAM]
        payload.pending += flow.packets * work.sinks[tree]
        inject(net, index)


@compiled_part
def _finish(tables: Tables, state: State, work: PacketWork, net: Net, slot: int, kind: int) -> None:
    """End the slot's instruction, for its whole group if it has one, and see to its remote posts."""
    me, what = state.slots[slot], tables.kinds[kind]
    skipped = me.status == ISSUE and is_skipped(tables, kind, slot // ENGINES)
    lost = 0.0
    if me.status in (FLOW, CAST):
        late = what.cast
        if work.late[kind]:
            late += tables.routes[tables.route_of[what.way, slot // ENGINES]].latency
        lost = max(state.clock[NOW] - me.flowing - what.work / me.limit - late, 0.0)
        report = state.lost.shape[1] - 1
        state.flow_lost[slot, report] = state.clock[NOW] - what.cast - work.hold[slot]
    number = work.moving[slot]
    work.moving[slot] = -1
    complete_all(tables, state, slot, kind, skipped, lost)
    if number >= 0 and net.payloads[number].pending > 0:
        net.payloads[number].slot = -1  # its posts land with the last packet
        return
    if number >= 0:
        free_payload(net, number)
    post_away(tables, state, slot, kind)


@compiled_part
def _is_held(tables: Tables, work: PacketWork, net: Net, slot: int, kind: int) -> bool:
    """Whether packets still hold the slot's instruction up."""
    number = work.moving[slot]
    if number < 0:
        return False
    # Sends have their route's latency after the payload: they end when all is on its way.
    if work.late[kind]:
        return bool(net.payloads[number].pending > 0)
    return bool(net.payloads[number].injecting > 0)


@compiled_part
def _advance(tables: Tables, state: State, work: PacketWork, net: Net, slot: int) -> None:
    """Handle a slot's event."""
    me = state.slots[slot]
    kind = tables.stream[me.position]
    what, status = tables.kinds[kind], me.status
    skipped = status == ISSUE and is_skipped(tables, kind, slot // ENGINES)
    if status == ISSUE and what.gang >= 0 and not skipped:
        gather(tables, state, slot, kind)
        return
    if status not in (FLOW, CAST) and what.work > 0.0 and not skipped:
        me.status = FLOW
        work.phase[slot] = MOVING
        start_flow(tables, state, kind, slot, PACKET)
        if what.gang >= 0 and not skipped and what.ahead:
            flow_together(tables, state, slot, what.gang)
        _start_packets(tables, work, net, slot, kind)
        return
    if status == FLOW:
        if work.phase[slot] == MOVING:
            finish_flow(state, slot)
            work.phase[slot] = LATE
            if work.late[kind]:
                route = tables.route_of[what.way, slot // ENGINES]
                time = state.clock[NOW] + tables.routes[route].latency
                schedule(state.heap, state.place, state.times, state.sizes, HEAP, slot, time)
                return
        work.hold[slot] = state.clock[NOW]
        if _is_held(tables, work, net, slot, kind):
            work.phase[slot] = HELD
            return
        if begin_cast(tables, state, slot, kind):
            return
    _finish(tables, state, work, net, slot, kind)


@compiled_part
def _hear(tables: Tables, state: State, work: PacketWork, net: Net) -> None:
    """Go on with what waited for the packets that have just left or arrived."""
    for index in range(net.sizes[NEWS_SIZE]):
        number = net.news[index, 0]
        payload = net.payloads[number]
        slot, kind = payload.slot, payload.kind
        if slot >= 0:
            if work.phase[slot] == HELD and not _is_held(tables, work, net, slot, kind):
                work.phase[slot] = LATE
                if not begin_cast(tables, state, slot, kind):
                    _finish(tables, state, work, net, slot, kind)
        elif net.news[index, 1] == DELIVERED:
            route = payload.route
            free_payload(net, number)
            if tables.kinds[kind].posts_away:
                deliver(tables, state, route, kind)
    net.sizes[NEWS_SIZE] = 0


@compiled
def simulate_packets(
    tables: Tables, state: State, work: PacketWork, net: Net, max_events: int
) -> int:
    """Run all streams to their ends, from the start or from where the last call stopped.

    Returns:
        As `simulate_events`, or CROWDED (no room for packets).
    """
    sizes, messages, clock = state.sizes, state.messages, state.clock
    while True:
        issue_all(tables, state)
        if sizes[FLYING] == messages.shape[0]:
            return FULL
        if not has_room(net):
            return CROWDED
        if sizes[FLYING] > 0 and messages[0, 0] <= clock[UNTIL]:
            land(tables, state)
        elif sizes[HEAP] > 0 and state.times[state.heap[0]] <= clock[UNTIL]:
            slot = pop(state.heap, state.place, state.times, sizes, HEAP)
            _advance(tables, state, work, net, slot)
        elif net.sizes[EVENTS_SIZE] > 0 and net.heap[0, 0] <= clock[UNTIL]:
            handle_event(net)
            _hear(tables, state, work, net)
        else:
            share_anew(state)
            decide_all(net, clock[NOW])
            now = np.inf
            if sizes[HEAP] > 0:
                now = state.times[state.heap[0]]
            if sizes[FLYING] > 0:
                now = min(now, messages[0, 0])
            if net.sizes[EVENTS_SIZE] > 0:
                now = min(now, net.heap[0, 0])
            if now == np.inf:
                break
            clock[NOW] = clock[UNTIL] = now
            continue
        sizes[EVENTS] += 1
        if sizes[EVENTS] > max_events:
            return TOO_LONG
    return end_of(state)
