"""Payloads in motion: join and leave resources, and share the contended ones fairly."""

from __future__ import annotations

from tilewright.simulator.timing_fair import fair_rates
from tilewright.simulator.timing_heap import schedule
from tilewright.simulator.timing_jit import compiled_part
from tilewright.simulator.timing_memo import (
    CHANGED,
    COUNT,
    FILLED,
    MOVING,
    count_in,
    find,
    make_room,
)
from tilewright.simulator.timing_state import (
    DIRTY,
    ENGINES,
    HEAP,
    NOW,
    PACKET,
    SORTS,
    SRAM,
    Ints,
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

    In packet mode links and DRAM ports are no resources of the payload, only SRAM ports are.
    """
    now, me, what = state.clock[NOW], state.slots[slot], tables.kinds[kind]
    tile = slot // ENGINES
    route = tables.route_of[what.way, tile] if what.way >= 0 else -1
    limit = what.rate
    if what.own > 0.0:
        limit = min(limit, state.resources[tile].capacity / what.own)
    if route >= 0:
        for sort in range(SORTS):
            if tables.factor[kind, sort] > 0.0:
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
            if it.shared and share > 0.0 and (contended != PACKET or it.sort == SRAM):
                _join(state, slot, entry.resource, share)
    me.sharing = what.sharing
    if me.nodes > 0:
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
def share_anew(state: State) -> None:
    """Recompute the rates of all payloads that contended resources connect to a changed one.

    A resource whose flows could all run at their limits stops nobody, so it connects nothing.
    """
    if state.sizes[DIRTY] == 0:
        return
    memo = state.memo
    entry = find(memo)
    resources = state.sizes[DIRTY]
    if memo.ends[entry, 1] == 0:
        flows, resources = _component(state)
        _assign(state, flows, resources)
        _note(state, entry, flows)
    else:
        for place in range(memo.ends[entry, 0], memo.ends[entry, 1] - 1):
            _set_rate(state, memo.slots[place], memo.rates[place], memo.causes[place])
    for index in range(resources):
        state.resources[state.dirty[index]].seen = -1
        state.resources[state.dirty[index]].met = 0
        state.resources[state.dirty[index]].dirty = 0
    state.sizes[DIRTY] = 0
    memo.sums[CHANGED] = memo.sums[CHANGED + 1] = 0


@compiled_part
def _component(state: State) -> tuple[int, int]:
    """List the payloads that contended resources connect to a changed one; return how many, and resources.

    `dirty` grows into the list of the resources, `seen` is their place in it.
    """
    slots = state.scratch.slots
    flows = done = 0
    resources = state.sizes[DIRTY]
    for index in range(resources):
        state.resources[state.dirty[index]].seen = index
    while done < resources:
        here = state.resources[state.dirty[done]]
        number = here.head
        done += 1
        while number >= 0 and here.met < here.flows:
            slot = state.nodes[number].slot
            number = state.nodes[number].next
            me = state.slots[slot]
            if me.seen:
                continue
            me.seen = 1
            slots[flows] = slot
            flows += 1
            for other in range(me.first_node, me.first_node + me.nodes):
                resource = state.nodes[other].resource
                it = state.resources[resource]
                if it.seen < 0 and it.load > it.capacity * OVER:
                    it.seen = resources
                    state.dirty[resources] = resource
                    resources += 1
                if it.seen >= 0:
                    it.met += 1
    # Order by slot, so that rounding does not depend on the history of the lists.
    _sort(slots, flows)
    for flow in range(flows):
        state.slots[slots[flow]].seen = 0
    return flows, resources


@compiled_part
def _sort(values: Ints, size: int) -> None:
    """Sort the first values in place (Shell's method)."""
    gap = size // 2
    while gap > 0:
        for index in range(gap, size):
            value, place = values[index], index
            while place >= gap and values[place - gap] > value:
                values[place] = values[place - gap]
                place -= gap
            values[place] = value
        gap = 1 if gap == 2 else int(gap / 2.2)


@compiled_part
def _assign(state: State, flows: int, resources: int) -> None:
    """Solve one component and re-time its payloads."""
    room = state.scratch
    for index in range(resources):
        room.capacities[index] = state.resources[state.dirty[index]].capacity
    size = 0
    for flow in range(flows):
        me = state.slots[room.slots[flow]]
        room.limits[flow] = me.limit
        for number in range(me.first_node, me.first_node + me.nodes):
            local = state.resources[state.nodes[number].resource].seen
            if local >= 0:
                room.users[size], room.shares[size] = local, state.nodes[number].share
                size += 1
        room.starts[flow + 1] = size
    fair_rates(
        flows,
        room.limits,
        room.capacities[:resources],
        room.starts,
        room.users,
        room.shares,
        room.rates,
        room.causes,
        room.filling,
    )
    for flow in range(flows):
        cause = -1 if room.causes[flow] < 0 else state.dirty[room.causes[flow]]
        room.causes[flow] = cause
        _set_rate(state, room.slots[flow], room.rates[flow], cause)


@compiled_part
def _set_rate(state: State, slot: int, rate: float, cause: int) -> None:
    """Let a payload go on at a rate; re-time its end if that is another than before."""
    me = state.slots[slot]
    if rate == me.speed and cause == me.cause:
        return
    _settle(state, slot)
    me.speed, me.cause = rate, cause
    time = state.clock[NOW] + max(me.left, 0.0) / me.speed
    schedule(state.heap, state.place, state.times, state.sizes, HEAP, slot, time)


@compiled_part
def _note(state: State, entry: int, flows: int) -> None:
    """Keep the rates of the component at hand, for when the same payloads move again."""
    memo, room = state.memo, state.scratch
    if not make_room(memo, flows):
        return
    first = memo.sizes[FILLED]
    for flow in range(flows):
        memo.slots[first + flow] = room.slots[flow]
        memo.rates[first + flow] = room.rates[flow]
        memo.causes[first + flow] = room.causes[flow]
    memo.sizes[FILLED] = first + flows
    memo.sizes[COUNT] += 1
    memo.ends[entry, 0], memo.ends[entry, 1] = first, first + flows + 1
