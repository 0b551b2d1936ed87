"""Payloads in motion: join and leave resources, and share the contended ones fairly."""

from __future__ import annotations

import numpy as np

from tilewright.simulator.timing_fair import fair_rates
from tilewright.simulator.timing_heap import schedule
from tilewright.simulator.timing_jit import compiled
from tilewright.simulator.timing_state import ENGINES, FLOW, State, Tables

OVER = 1.0 + 1e-9
"""A resource is contended when its flows' limits add up to more than this times its capacity."""


@compiled
def _mark(state: State, resource: int) -> None:
    """Note that the flows of a resource must share anew."""
    if not state.is_dirty[resource]:
        state.is_dirty[resource] = True
        state.dirty[state.dirty_size[0]] = resource
        state.dirty_size[0] += 1


@compiled
def _join(tables: Tables, state: State, slot: int, resource: int, share: float) -> None:
    """Link a slot's payload into a resource's list of users."""
    if share <= 0.0 or not tables.shared[resource]:
        return
    node = tables.node_start[slot] + state.nodes[slot]
    state.nodes[slot] += 1
    state.node_resource[node], state.node_share[node], state.node_slot[node] = resource, share, slot
    first = state.head[resource]
    state.node_next[node], state.node_previous[node] = first, -1
    if first >= 0:
        state.node_previous[first] = node
    state.head[resource] = node
    state.load[resource] += share * state.limit[slot]
    state.flows[resource] += 1
    if state.load[resource] > tables.capacity[resource] * OVER:
        _mark(state, resource)


@compiled
def flow_limit(tables: Tables, kind: int, slot: int, route: int) -> float:
    """Return the rate of a payload that has every resource for itself, [bytes/cycle]."""
    limit = tables.rate[kind]
    tile = slot // ENGINES
    if tables.own[kind] > 0.0:
        limit = min(limit, tables.capacity[tile] / tables.own[kind])
    if route >= 0:
        for sort in range(tables.route_limit.shape[1]):
            if tables.factor[kind, sort] > 0.0:
                limit = min(limit, tables.route_limit[route, sort] / tables.factor[kind, sort])
    return float(limit)


@compiled
def start_flow(tables: Tables, state: State, kind: int, slot: int, route: int, contended: bool) -> None:
    """Let the slot's payload move, at its limit until a contended resource says otherwise."""
    now = state.clock[0]
    limit = flow_limit(tables, kind, slot, route)
    state.limit[slot] = state.speed[slot] = limit
    state.left[slot], state.flowing[slot], state.touched[slot] = tables.work[kind], now, now
    state.cause[slot] = -1
    state.flow_lost[slot] = 0.0
    state.nodes[slot] = 0
    if contended:
        _join(tables, state, slot, slot // ENGINES, tables.own[kind])
        if route >= 0:
            for entry in range(tables.route_start[route], tables.route_start[route + 1]):
                resource = tables.route_resource[entry]
                share = tables.route_share[entry] * tables.factor[kind, tables.sort[resource]]
                _join(tables, state, slot, resource, share)
    schedule(state.heap, state.place, state.times, state.heap_size, slot, now + state.left[slot] / limit)


@compiled
def settle(tables: Tables, state: State, slot: int) -> None:
    """Account for what a payload moved since it was last touched."""
    now = state.clock[0]
    passed = now - state.touched[slot]
    state.touched[slot] = now
    if passed <= 0.0:
        return
    bytes_moved = passed * state.speed[slot]
    state.left[slot] -= bytes_moved
    state.moved[slot] += bytes_moved
    if state.cause[slot] >= 0:
        report = tables.report[state.cause[slot]]
        state.flow_lost[slot, report] += passed * (1.0 - state.speed[slot] / state.limit[slot])


@compiled
def finish_flow(tables: Tables, state: State, slot: int) -> None:
    """Take a payload off its resources."""
    settle(tables, state, slot)
    base = tables.node_start[slot]
    for node in range(base, base + state.nodes[slot]):
        resource = state.node_resource[node]
        if state.load[resource] > tables.capacity[resource] * OVER:
            _mark(state, resource)
        after, before = state.node_next[node], state.node_previous[node]
        if before >= 0:
            state.node_next[before] = after
        else:
            state.head[resource] = after
        if after >= 0:
            state.node_previous[after] = before
        state.flows[resource] -= 1
        state.load[resource] -= state.node_share[node] * state.limit[slot]
        if state.flows[resource] == 0:
            state.load[resource] = 0.0  # forget the rounding dust
    state.nodes[slot] = 0


@compiled
def share_anew(tables: Tables, state: State) -> None:
    """Recompute the rates of all payloads that contended resources connect to a changed one.

    A resource whose flows could all run at their limits stops nobody, so it connects nothing.
    """
    if state.dirty_size[0] == 0:
        return
    resources = state.dirty_size[0]
    slots = np.empty(state.status.size, dtype=np.int64)
    flows = entries = done = 0
    for index in range(resources):
        state.seen_resource[state.dirty[index]] = index
    while done < resources:  # `dirty` grows into the list of the component's resources
        node = state.head[state.dirty[done]]
        done += 1
        while node >= 0:
            slot = state.node_slot[node]
            node = state.node_next[node]
            if state.seen_slot[slot]:
                continue
            state.seen_slot[slot] = True
            slots[flows] = slot
            flows += 1
            base = tables.node_start[slot]
            entries += state.nodes[slot]
            for other in range(base, base + state.nodes[slot]):
                resource = state.node_resource[other]
                if state.seen_resource[resource] < 0 and (
                    state.load[resource] > tables.capacity[resource] * OVER
                ):
                    state.seen_resource[resource] = resources
                    state.dirty[resources] = resource
                    resources += 1
    # Order by slot, so that rounding does not depend on the history of the lists.
    slots[:flows].sort()
    _assign(tables, state, slots[:flows], resources, entries)
    for flow in range(flows):
        state.seen_slot[slots[flow]] = False
    for index in range(resources):
        state.seen_resource[state.dirty[index]] = -1
        state.is_dirty[state.dirty[index]] = False
    state.dirty_size[0] = 0


@compiled
def _assign(tables: Tables, state: State, slots: np.ndarray, resources: int, room: int) -> None:  # type: ignore[type-arg]
    """Solve one component and re-time its payloads."""
    capacities = np.empty(resources)
    for index in range(resources):
        capacities[index] = tables.capacity[state.dirty[index]]
    starts = np.zeros(slots.size + 1, dtype=np.int64)
    users = np.empty(room, dtype=np.int64)
    shares = np.empty(room)
    limits = np.empty(slots.size)
    size = 0
    for flow in range(slots.size):
        slot = slots[flow]
        limits[flow] = state.limit[slot]
        base = tables.node_start[slot]
        for node in range(base, base + state.nodes[slot]):
            local = state.seen_resource[state.node_resource[node]]
            if local >= 0:
                users[size], shares[size] = local, state.node_share[node]
                size += 1
        starts[flow + 1] = size
    rates = np.empty(slots.size)
    causes = np.empty(slots.size, dtype=np.int64)
    fair_rates(limits, capacities, starts, users, shares, rates, causes)
    for flow in range(slots.size):
        slot = slots[flow]
        assert state.status[slot] == FLOW
        cause = -1 if causes[flow] < 0 else state.dirty[causes[flow]]
        if rates[flow] == state.speed[slot] and cause == state.cause[slot]:
            continue
        settle(tables, state, slot)
        state.speed[slot], state.cause[slot] = rates[flow], cause
        time = state.clock[0] + max(state.left[slot], 0.0) / rates[flow]
        schedule(state.heap, state.place, state.times, state.heap_size, slot, time)
