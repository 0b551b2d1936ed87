"""Whom new rates of some payloads concern: those that are not rated fairly beside them any more."""

from __future__ import annotations

import numpy as np

from tilewright.simulator.timing_fair import SAME
from tilewright.simulator.timing_jit import compiled_part
from tilewright.simulator.timing_state import State

FULL = 1.0 + 1e-11
"""A resource is full when what is taken is its capacity within this factor; only rounding differs."""


@compiled_part
def activate(state: State, resource: int, was_full: bool, active: int) -> int:
    """List a resource that may hold payloads back; return how many there are now."""
    it = state.resources[resource]
    it.is_active, it.was_full = 1, was_full
    state.scratch.active[active] = resource
    return active + 1


@compiled_part
def add_payload(state: State, slot: int, payloads: int) -> int:
    """List a payload that is to be rated anew, as it is now; return how many there are now."""
    room, me = state.scratch, state.slots[slot]
    room.number[slot] = payloads
    room.slots[payloads] = slot
    room.limits[payloads], room.rates[payloads] = me.limit, me.speed
    room.causes[payloads] = me.cause
    return payloads + 1


@compiled_part
def add_affected(state: State, fresh: int, payloads: int, active: int) -> tuple[int, int]:
    """List who is not rated fairly beside the new rates, and what holds them back now.

    Args:
        state: The payloads listed have new rates; the first so many (`fresh`) had none before.
        fresh: See above.
        payloads: Number of payloads listed.
        active: Number of active resources.

    Returns:
        How many payloads and active resources are listed then.
    """
    index = 0
    while index < active:
        resource = state.scratch.active[index]
        most, least = _judge(state, resource, fresh)
        payloads, active = _add_unfair(state, resource, most, least, payloads, active)
        index += 1
    return payloads, active


@compiled_part
def _judge(state: State, resource: int, fresh: int) -> tuple[float, float]:
    """Return beyond which rate users of a resource are too fast, and from which on they may be too slow.

    Both are infinite where nobody is. Too slow are only those below their limits.
    """
    room, it = state.scratch, state.resources[resource]
    total = highest = highest_before = 0.0
    level = -1.0
    number = it.head
    while number >= 0:
        node = state.nodes[number]
        payload, rate = room.number[node.slot], state.slots[node.slot].speed
        if payload < 0 or payload >= fresh:
            highest_before = max(highest_before, rate)
        if payload >= 0:
            rate = room.rates[payload]
            if room.causes[payload] == resource:
                level = max(level, rate)
        total += rate * node.share
        highest = max(highest, rate)
        number = node.next
    if total > it.capacity * FULL:
        return _water_level(state, resource) * SAME, np.inf
    most, least = np.inf, np.inf
    if level >= 0.0:
        most = level * SAME
    if it.was_full and (total * FULL < it.capacity or highest > highest_before * SAME):
        least = highest_before / SAME
    return most, least


@compiled_part
def _water_level(state: State, resource: int) -> float:
    """Return the rate above which users of a resource must slow down, if only it held them back."""
    room, it = state.scratch, state.resources[resource]
    level, before = 0.0, -1.0
    while level > before:
        before = level
        left, growth = it.capacity, 0.0
        number = it.head
        while number >= 0:
            node = state.nodes[number]
            payload, rate = room.number[node.slot], state.slots[node.slot].speed
            if payload >= 0:
                rate = room.rates[payload]
            if rate <= level:
                left -= rate * node.share
            else:
                growth += node.share
            number = node.next
        if growth == 0.0:
            break
        level = max(level, left / growth)
    return level


@compiled_part
def _add_unfair(
    state: State, resource: int, most: float, least: float, payloads: int, active: int
) -> tuple[int, int]:
    """List users of a resource that are too fast, or too slow and below their limits."""
    room = state.scratch
    number = state.resources[resource].head
    while number >= 0:
        slot = state.nodes[number].slot
        number = state.nodes[number].next
        if room.number[slot] >= 0:
            continue
        me = state.slots[slot]
        if me.speed > most or (me.speed >= least and me.speed < me.limit):
            payloads = add_payload(state, slot, payloads)
            if me.cause >= 0 and state.resources[me.cause].is_active == 0:
                was_full = state.used[me.cause] > state.brim[me.cause]
                active = activate(state, me.cause, was_full, active)
    return payloads, active
