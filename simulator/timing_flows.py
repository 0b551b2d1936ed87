"""Payloads in motion: they join and leave resources, and get on at the rates that they are given."""

from __future__ import annotations

from tilewright.simulator.timing_heap import schedule
from tilewright.simulator.timing_jit import compiled_part
from tilewright.simulator.timing_memo import count_in
from tilewright.simulator.timing_state import (
    ENGINES,
    FREED,
    FRESH,
    HEAP,
    LATE,
    LINK,
    NOW,
    PACKET,
    SORTS,
    SRAM,
    State,
    Tables,
)

OVER = 1.0 + 1e-9
"""A resource is contended when its flows' limits add up to more than this times its capacity."""


@compiled_part
def _be_late(state: State, slot: int) -> None:
    """Note that what the slot's payload takes may not be what `used` counts."""
    if state.slots[slot].is_late == 0:
        state.slots[slot].is_late = 1
        state.late[state.sizes[LATE]] = slot
        state.sizes[LATE] += 1


@compiled_part
def _join(state: State, slot: int, resource: int, share: float) -> bool:
    """Link a slot's payload into a resource's list of users; return whether the resource is contended."""
    me, it = state.slots[slot], state.resources[resource]
    number = me.first_node + me.nodes
    me.nodes += 1
    node = state.nodes[number]
    node.resource, node.share, node.slot = resource, share, slot
    node.next, node.previous = it.head, -1
    if it.head >= 0:
        state.nodes[it.head].previous = number
    it.head = number
    it.load += share * me.limit
    it.flows += 1
    return bool(it.load > it.capacity * OVER)


@compiled_part
def start_flow(tables: Tables, state: State, kind: int, slot: int, contended: int) -> None:
    """Let the slot's payload move, at its limit until a contended resource says otherwise.

    In packet mode links and DRAM ports are no resources of the payload, only SRAM ports are. What one tile
    reads for its group takes no links on its way to that tile; the cast has a rate of its own.
    """
    now, me, what = state.clock[NOW], state.slots[slot], tables.kinds[kind]
    tile = slot // ENGINES
    route = tables.route_of[what.way, tile] if what.way >= 0 else -1
    limit = what.rate
    if what.own > 0.0:
        limit = min(limit, state.resources[tile].capacity / what.own)
    if route >= 0:
        for sort in range(SORTS):
            if tables.factor[kind, sort] > 0.0 and not (sort == LINK and what.cast > 0.0):
                limit = min(limit, tables.route_limit[route, sort] / tables.factor[kind, sort])
    me.limit = me.speed = limit
    me.left, me.flowing, me.touched = what.work, now, now
    me.cause, me.nodes, me.weight = -1, 0, 1.0
    if what.gang >= 0:
        me.weight = tables.gang_weight[tables.gang_of[what.gang, tile]]
    schedule(state.heap, state.place, state.times, state.sizes, HEAP, slot, now + what.work / limit)
    if not contended:
        return
    state.flow_lost[slot] = 0.0
    me.taken, contends = 0.0, False
    if what.own > 0.0 and state.resources[tile].shared:
        contends |= _join(state, slot, tile, what.own)
    if route >= 0:
        for number in range(tables.routes[route].start, tables.routes[route].end):
            entry = tables.entries[number]
            it = state.resources[entry.resource]
            share = entry.share * tables.factor[kind, it.sort]
            if it.sort == LINK and what.cast > 0.0:
                continue
            if it.shared and share > 0.0 and (contended != PACKET or it.sort == SRAM):
                contends |= _join(state, slot, entry.resource, share)
    me.sharing = what.sharing
    if me.nodes > 0:
        count_in(state.memo, me.sharing * state.slots.size + slot, 1)
        _be_late(state, slot)
    if contends and me.is_fresh == 0:
        me.is_fresh = 1
        state.fresh[state.sizes[FRESH]] = slot
        state.sizes[FRESH] += 1


@compiled_part
def _settle(state: State, slot: int) -> None:
    """Account for what a payload moved since it was last touched."""
    me = state.slots[slot]
    passed = state.clock[NOW] - me.touched
    me.touched = state.clock[NOW]
    me.left -= passed * me.speed
    me.moved += passed * me.speed * me.weight
    if me.cause >= 0:
        report = state.resources[me.cause].report
        state.flow_lost[slot, report] += passed * (1.0 - me.speed / me.limit)


@compiled_part
def _leave(state: State, number: int, taken: float, speed: float, limit: float) -> None:
    """Take a node out of its resource's list of users."""
    node = state.nodes[number]
    it = state.resources[node.resource]
    if it.is_freed == 0 and it.load > it.capacity * OVER:
        it.is_freed, it.freed = 1, 0.0
        state.freed[state.sizes[FREED]] = node.resource
        state.sizes[FREED] += 1
    if it.is_freed:
        it.freed += node.share * speed
    if node.previous >= 0:
        state.nodes[node.previous].next = node.next
    else:
        it.head = node.next
    if node.next >= 0:
        state.nodes[node.next].previous = node.previous
    it.flows -= 1
    it.load -= node.share * limit
    state.used[node.resource] -= node.share * taken
    if it.flows == 0:
        it.load = state.used[node.resource] = 0.0  # forget the rounding dust


@compiled_part
def finish_flow(state: State, slot: int) -> None:
    """Take a payload off its resources."""
    _settle(state, slot)
    me = state.slots[slot]
    if me.nodes > 0:
        count_in(state.memo, me.sharing * state.slots.size + slot, -1)
    for number in range(me.first_node, me.first_node + me.nodes):
        _leave(state, number, me.taken, me.speed, me.limit)
    me.nodes = 0


@compiled_part
def set_rate(state: State, slot: int, rate: float, cause: int) -> None:
    """Let a payload go on at a rate; re-time its end if that is another than before."""
    me = state.slots[slot]
    if rate == me.speed and cause == me.cause:
        return
    _settle(state, slot)
    me.speed, me.cause = rate, cause
    if me.taken != rate:
        _be_late(state, slot)
    time = state.clock[NOW] + max(me.left, 0.0) / me.speed
    schedule(state.heap, state.place, state.times, state.sizes, HEAP, slot, time)
