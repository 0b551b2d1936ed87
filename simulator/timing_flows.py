"""Payloads in motion: they join and leave resources, and get on at the rates that they are given."""

from __future__ import annotations

from tilewright.simulator.timing_heap import schedule
from tilewright.simulator.timing_jit import compiled_part
from tilewright.simulator.timing_memo import CHANGED, MOVING, count_in
from tilewright.simulator.timing_state import (
    DIRTY,
    ENGINES,
    FLOWING,
    HEAP,
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
def _mark(state: State, resource: int) -> None:
    """Note that the flows of a resource must share anew."""
    if state.resources[resource].dirty == 0:
        state.resources[resource].dirty = 1
        state.dirty[state.sizes[DIRTY]] = resource
        state.sizes[DIRTY] += 1
        count_in(state.memo, CHANGED, resource, 1)


@compiled_part
def _join(state: State, slot: int, resource: int, share: float) -> None:
    """Link a slot's payload into a resource's list of users."""
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
    if it.load > it.capacity * OVER:
        _mark(state, resource)


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
    if what.own > 0.0 and state.resources[tile].shared:
        _join(state, slot, tile, what.own)
    if route >= 0:
        for number in range(tables.routes[route].start, tables.routes[route].end):
            entry = tables.entries[number]
            it = state.resources[entry.resource]
            share = entry.share * tables.factor[kind, it.sort]
            if it.sort == LINK and what.cast > 0.0:
                continue
            if it.shared and share > 0.0 and (contended != PACKET or it.sort == SRAM):
                _join(state, slot, entry.resource, share)
    me.sharing = what.sharing
    if me.nodes > 0:
        state.sizes[FLOWING] += 1
        count_in(state.memo, MOVING, me.sharing * state.slots.size + slot, 1)


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
def finish_flow(state: State, slot: int) -> None:
    """Take a payload off its resources."""
    _settle(state, slot)
    me = state.slots[slot]
    if me.nodes > 0:
        state.sizes[FLOWING] -= 1
        count_in(state.memo, MOVING, me.sharing * state.slots.size + slot, -1)
    for number in range(me.first_node, me.first_node + me.nodes):
        node = state.nodes[number]
        it = state.resources[node.resource]
        if it.load > it.capacity * OVER:
            _mark(state, node.resource)
        if node.previous >= 0:
            state.nodes[node.previous].next = node.next
        else:
            it.head = node.next
        if node.next >= 0:
            state.nodes[node.next].previous = node.previous
        it.flows -= 1
        it.load -= node.share * me.limit
        if it.flows == 0:
            it.load = 0.0  # forget the rounding dust
    me.nodes = 0


@compiled_part
def set_rate(state: State, slot: int, rate: float, cause: int) -> None:
    """Let a payload go on at a rate; re-time its end if that is another than before."""
    me = state.slots[slot]
    if rate == me.speed and cause == me.cause:
        return
    _settle(state, slot)
    me.speed, me.cause = rate, cause
    time = state.clock[NOW] + max(me.left, 0.0) / me.speed
    schedule(state.heap, state.place, state.times, state.sizes, HEAP, slot, time)
