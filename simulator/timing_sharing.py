"""Who shares with whom, and at which rates the payloads go on.

Of the resources that are asked for more than they have, few are full in the end: the others would be if
payloads that are held back elsewhere came at their limits. So fair rates are worked out for resources
that were full lately; then all that the payloads take is added up, and what is full joins, until nothing
does. That is the solution for all resources, for one that is not full stops nobody.
"""

from __future__ import annotations

from tilewright.simulator.timing_fair import fair_rates
from tilewright.simulator.timing_flows import OVER, set_rate
from tilewright.simulator.timing_jit import compiled_part
from tilewright.simulator.timing_memo import CHANGED, FILLED, find, make_room, refer
from tilewright.simulator.timing_state import DIRTY, FLOWING, KNOWN, Ints, State

NEARLY = 1.0 - 1e-9
"""A resource of which more than this part is taken may be full; rounding does not decide."""


@compiled_part
def share_anew(state: State) -> None:
    """Recompute the rates of all payloads that contended resources connect to a changed one.

    A resource whose flows could all run at their limits stops nobody, so it connects nothing.
    """
    if state.sizes[DIRTY] == 0:
        return
    memo = state.memo
    entry = find(memo, False)
    if memo.ends[entry, 1] == 0:
        entry = _work_out(state)
    for place in range(memo.ends[entry, 0], memo.ends[entry, 1] - 1):
        set_rate(state, memo.slots[place], memo.rates[place], memo.causes[place])
    for index in range(state.sizes[DIRTY]):
        state.resources[state.dirty[index]].met = 0
        state.resources[state.dirty[index]].dirty = 0
    state.sizes[DIRTY] = 0
    memo.sums[CHANGED] = memo.sums[CHANGED + 1] = 0


@compiled_part
def _work_out(state: State) -> int:
    """Share among the payloads that changed resources connect; return the memo's entry of the rates."""
    memo = state.memo
    flows = _connected(state)
    is_whole = flows == state.sizes[FLOWING]
    make_room(memo, flows)
    entry = find(memo, is_whole)
    if memo.ends[entry, 1] == 0:
        _share(state, flows)
        _note(state, entry, flows)
    if is_whole:
        other = find(memo, False)
        if memo.ends[other, 1] == 0:
            refer(memo, other, memo.ends[entry, 0], memo.ends[entry, 1])
    return entry


@compiled_part
def _connected(state: State) -> int:
    """List the payloads that contended resources connect to a changed one; return how many.

    Where that is half of all it takes all: to share among more than need be changes no rate.
    """
    room = state.scratch
    flows = visited = listed = 0
    while 2 * flows < state.sizes[FLOWING]:
        if listed < state.sizes[DIRTY]:
            flows = _add_users(state, state.dirty[listed], flows)
            listed += 1
        elif visited < flows:
            _add_resources(state, room.slots[visited])
            visited += 1
        else:
            break
    if 2 * flows < state.sizes[FLOWING]:
        # Order by slot, so that rounding does not depend on the history of the lists.
        sort(room.slots, flows)
        return flows
    for index in range(flows):
        room.number[room.slots[index]] = -1
    flows = 0
    for slot in range(state.slots.size):
        if state.slots[slot].nodes > 0:
            room.slots[flows] = slot
            flows += 1
    return flows


@compiled_part
def _add_users(state: State, resource: int, flows: int) -> int:
    """List the payloads on a resource that are not listed yet; return how many there are now."""
    room, it = state.scratch, state.resources[resource]
    number = it.head
    while number >= 0 and it.met < it.flows:
        slot = state.nodes[number].slot
        if room.number[slot] < 0:
            room.number[slot] = flows
            room.slots[flows] = slot
            flows += 1
        number = state.nodes[number].next
    return flows


@compiled_part
def _add_resources(state: State, slot: int) -> None:
    """List the contended resources of a payload that are not listed yet."""
    me = state.slots[slot]
    for number in range(me.first_node, me.first_node + me.nodes):
        resource = state.nodes[number].resource
        it = state.resources[resource]
        if it.dirty == 0 and it.load > it.capacity * OVER:
            it.dirty = 1
            state.dirty[state.sizes[DIRTY]] = resource
            state.sizes[DIRTY] += 1
        it.met += it.dirty


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
def _share(state: State, flows: int) -> None:
    """Write the rates of the payloads listed, and what holds each back, into the scratch room."""
    room = state.scratch
    for flow in range(flows):
        slot = room.slots[flow]
        room.number[slot] = flow
        room.limits[flow] = state.slots[slot].limit
    before, count = -1, _known_full(state)
    while count > before:
        _pose(state, flows, count)
        fair_rates(
            flows,
            room.limits,
            room.capacities[:count],
            room.starts,
            room.users,
            room.shares,
            room.rates,
            room.causes,
            room.filling,
        )
        before, count = count, _with_full(state, flows, count)
    for flow in range(flows):
        room.number[room.slots[flow]] = -1
        if room.causes[flow] >= 0:
            room.causes[flow] = room.active[room.causes[flow]]
    _remember_full(state, count)


@compiled_part
def _known_full(state: State) -> int:
    """List the resources of the payloads at hand that were full when last shared; return how many."""
    room = state.scratch
    count = 0
    for index in range(state.sizes[KNOWN]):
        resource = room.full[index]
        it = state.resources[resource]
        if it.load > it.capacity * OVER and room.number[state.nodes[it.head].slot] >= 0:
            it.is_active = 1
            room.active[count] = resource
            count += 1
    return count


@compiled_part
def _remember_full(state: State, count: int) -> None:
    """Keep which of the resources at hand are full, and what is known of others."""
    room = state.scratch
    kept = 0
    for index in range(state.sizes[KNOWN]):
        it = state.resources[room.full[index]]
        if it.is_active == 0 and it.load > it.capacity * OVER:
            room.full[kept] = room.full[index]
            kept += 1
    for index in range(count):
        state.resources[room.active[index]].is_active = 0
        if room.filling.full[index]:
            room.full[kept] = room.active[index]
            kept += 1
    state.sizes[KNOWN] = kept


@compiled_part
def _pose(state: State, flows: int, count: int) -> None:
    """State the problem of the payloads at hand with the first resources of the list, in order."""
    room = state.scratch
    sort(room.active, count)
    for flow in range(flows + 1):
        room.starts[flow] = 0
    for index in range(count):
        it = state.resources[room.active[index]]
        room.capacities[index] = it.capacity
        number = it.head
        while number >= 0:
            room.starts[room.number[state.nodes[number].slot] + 1] += 1
            number = state.nodes[number].next
    for flow in range(flows):
        room.filled[flow] = room.starts[flow]
        room.starts[flow + 1] += room.starts[flow]
    for index in range(count):
        number = state.resources[room.active[index]].head
        while number >= 0:
            flow = room.number[state.nodes[number].slot]
            entry = room.filled[flow]
            room.filled[flow] = entry + 1
            room.users[entry], room.shares[entry] = index, state.nodes[number].share
            number = state.nodes[number].next


@compiled_part
def _with_full(state: State, flows: int, count: int) -> int:
    """Add to the list what the rates make full or more than that; return how many there are now."""
    room = state.scratch
    touched = 0
    for flow in range(flows):
        me = state.slots[room.slots[flow]]
        rate = room.rates[flow]
        for number in range(me.first_node, me.first_node + me.nodes):
            resource = state.nodes[number].resource
            if room.used[resource] == 0.0:
                room.touched[touched] = resource
                touched += 1
            room.used[resource] += rate * state.nodes[number].share
    for index in range(touched):
        resource = room.touched[index]
        it = state.resources[resource]
        if (
            it.is_active == 0
            and room.used[resource] > it.capacity * NEARLY
            and it.load > it.capacity * OVER
        ):
            it.is_active = 1
            room.active[count] = resource
            count += 1
        room.used[resource] = 0.0
    return count


@compiled_part
def _note(state: State, entry: int, flows: int) -> None:
    """Keep the rates worked out, for now and for when the same payloads move again."""
    memo, room = state.memo, state.scratch
    first = memo.sizes[FILLED]
    for flow in range(flows):
        memo.slots[first + flow] = room.slots[flow]
        memo.rates[first + flow] = room.rates[flow]
        memo.causes[first + flow] = room.causes[flow]
    memo.sizes[FILLED] = first + flows
    refer(memo, entry, first, first + flows + 1)
