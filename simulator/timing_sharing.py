"""Who shares with whom, and at which rates the payloads go on.

Rates are max-min fair when no resource is asked for more than it has and every payload is at its limit or is
*held back*: a resource of it is full, and no other user of that resource is faster. So when payloads come
and go, only those are rated anew of which that is not true any more. The ones that come share what the
others leave. Who is held back where something became free joins them, and who is faster than one that
is held back at the same resource (`timing_affected`), until nobody else has to. Of the resources that they
use, only those are looked at that were full or become so.

Rounding depends on who was rated with whom: rates are those of all payloads shared at once up to some 1e-12
of their value.
"""

from __future__ import annotations

from tilewright.simulator.timing_affected import activate, add_affected, add_payload
from tilewright.simulator.timing_fair import SAME, fair_rates
from tilewright.simulator.timing_flows import OVER, set_rate
from tilewright.simulator.timing_jit import compiled_part
from tilewright.simulator.timing_memo import COUNT, FILLED, find, forget_change, make_room
from tilewright.simulator.timing_state import FREED, FRESH, LATE, Ints, State


@compiled_part
def share_anew(state: State) -> None:
    """Give all payloads the rates that follow from which of them move now."""
    sizes, memo = state.sizes, state.memo
    if sizes[FREED] > 0 or sizes[FRESH] > 0:
        entry = find(memo)
        if memo.ends[entry, 1] == 0:
            entry = _note(state, _work_out(state))
        for place in range(memo.ends[entry, 0], memo.ends[entry, 1] - 1):
            set_rate(state, memo.slots[place], memo.rates[place], memo.causes[place])
        for index in range(sizes[FREED]):
            state.resources[state.freed[index]].is_freed = 0
        for index in range(sizes[FRESH]):
            state.slots[state.fresh[index]].is_fresh = 0
        sizes[FREED] = sizes[FRESH] = 0
    forget_change(memo)


@compiled_part
def _work_out(state: State) -> int:
    """Write new rates and what holds each payload back into the scratch room; return of how many payloads."""
    room = state.scratch
    _catch_up(state)
    active = 0
    for index in range(state.sizes[FREED]):
        resource = state.freed[index]
        it = state.resources[resource]
        if state.used[resource] + it.freed > state.brim[resource]:
            active = activate(state, resource, True, active)
    payloads = 0
    for index in range(state.sizes[FRESH]):
        slot = state.fresh[index]
        if state.slots[slot].nodes > 0:
            payloads = add_payload(state, slot, payloads)
    fresh, before_payloads, before_active = payloads, payloads, 0
    active = _take(state, payloads, active)
    while True:
        payloads, active = add_affected(state, fresh, payloads, active)
        if payloads == 0 or (payloads == before_payloads and active == before_active):
            break
        before_payloads, before_active = payloads, active
        _rate(state, payloads, active)
        active = _take(state, payloads, active)
    for index in range(active):
        state.resources[room.active[index]].is_active = 0
    return payloads


@compiled_part
def _catch_up(state: State) -> None:
    """Count at their speeds all payloads that have been rated."""
    for index in range(state.sizes[LATE]):
        slot = state.late[index]
        me = state.slots[slot]
        me.is_late = 0
        if me.nodes == 0 or me.is_fresh or me.taken == me.speed:
            continue
        change = me.speed - me.taken
        me.taken = me.speed
        for number in range(me.first_node, me.first_node + me.nodes):
            node = state.nodes[number]
            state.used[node.resource] += change * node.share
    state.sizes[LATE] = 0


@compiled_part
def _take(state: State, payloads: int, active: int) -> int:
    """Count the payloads listed at their new rates, and activate what that makes full or leaves room in.

    Returns:
        How many resources are active now.
    """
    room, used, brim = state.scratch, state.used, state.brim
    for index in range(payloads):
        me = state.slots[room.slots[index]]
        change = room.rates[index] - me.taken
        if change == 0.0:
            continue
        me.taken = room.rates[index]
        for number in range(me.first_node, me.first_node + me.nodes):
            node = state.nodes[number]
            resource = node.resource
            before = used[resource]
            after = before + change * node.share
            used[resource] = after
            if max(before, after) > brim[resource]:
                it = state.resources[resource]
                if it.is_active == 0 and it.load > it.capacity * OVER:
                    active = activate(state, resource, before > brim[resource], active)
    return active


@compiled_part
def sort(values: Ints, size: int) -> None:
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
def _rate(state: State, payloads: int, active: int) -> None:
    """Share what all others leave of the active resources among the payloads listed."""
    room = state.scratch
    _pose(state, payloads, active)
    fair_rates(
        payloads,
        room.limits,
        room.capacities[:active],
        room.starts,
        room.users,
        room.shares,
        room.rates,
        room.causes,
        room.filling,
    )
    for index in range(payloads):
        if room.causes[index] >= 0:
            room.causes[index] = room.active[room.causes[index]]
        speed = state.slots[room.slots[index]].speed
        if speed < room.rates[index] * SAME and room.rates[index] < speed * SAME:
            room.rates[index] = speed


@compiled_part
def _pose(state: State, payloads: int, active: int) -> None:
    """State the problem of the payloads listed with the active resources, in order."""
    room = state.scratch
    sort(room.active, active)
    for index in range(payloads + 1):
        room.starts[index] = 0
    for index in range(active):
        it = state.resources[room.active[index]]
        left = it.capacity
        number = it.head
        while number >= 0:
            node = state.nodes[number]
            payload = room.number[node.slot]
            if payload >= 0:
                room.starts[payload + 1] += 1
            else:
                left -= state.slots[node.slot].speed * node.share
            number = node.next
        room.capacities[index] = max(left, 0.0)
    for index in range(payloads):
        room.filled[index] = room.starts[index]
        room.starts[index + 1] += room.starts[index]
    for index in range(active):
        number = state.resources[room.active[index]].head
        while number >= 0:
            node = state.nodes[number]
            payload = room.number[node.slot]
            if payload >= 0:
                entry = room.filled[payload]
                room.filled[payload] = entry + 1
                room.users[entry], room.shares[entry] = index, node.share
            number = node.next


@compiled_part
def _note(state: State, payloads: int) -> int:
    """Keep the rates worked out, for now and for when the same change comes again; return their entry."""
    memo, room = state.memo, state.scratch
    make_room(memo, payloads)
    entry, first = find(memo), memo.sizes[FILLED]
    for index in range(payloads):
        slot = room.slots[index]
        room.number[slot] = -1
        memo.slots[first + index] = slot
        memo.rates[first + index] = room.rates[index]
        memo.causes[first + index] = room.causes[index]
    memo.sizes[FILLED] = first + payloads
    memo.sizes[COUNT] += 1
    memo.ends[entry, 0], memo.ends[entry, 1] = first, first + payloads + 1
    return entry
