"""Max-min fair sharing of resources by progressive filling."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tilewright.simulator.timing_jit import compiled, compiled_part

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

SAME = 1.0 + 1e-12
"""Levels within this factor saturate together; only rounding separates them."""


class Filling(NamedTuple):
    """Room for `fair_rates`; sizes: r resources, f flows."""

    used: Floats  # [r] what stopped flows take
    growth: Floats  # [r] what rising flows take per unit of level
    dust: Floats  # [r] how much of that may be rounding
    full: Ints  # [r] whether the resource is full
    first: Ints  # [r + 1] where each resource's users begin
    users: Ints  # [entries] flows by resource
    fills: Floats  # [r] level at which the resource is full; infinite if it stops nobody any more
    touched: Ints  # [r] resources that flows left in this round
    is_touched: Ints  # [r]
    rising: Ints  # [f] flows that have not stopped, ascending
    stopping: Ints  # [f] whether a resource of the flow is full


def filling(flows: int, resources: int, entries: int) -> Filling:
    """Return room for so many flows, resources and entries."""
    return Filling(
        used=np.zeros(resources),
        growth=np.zeros(resources),
        dust=np.zeros(resources),
        full=np.zeros(resources, dtype=np.int64),
        first=np.zeros(resources + 1, dtype=np.int64),
        users=np.zeros(entries, dtype=np.int64),
        fills=np.zeros(resources),
        touched=np.zeros(resources, dtype=np.int64),
        is_touched=np.zeros(resources, dtype=np.int64),
        rising=np.zeros(flows, dtype=np.int64),
        stopping=np.zeros(flows, dtype=np.int64),
    )


@compiled
def fair_rates(
    flows: int,
    limits: Floats,
    capacities: Floats,
    starts: Ints,
    resources: Ints,
    coefficients: Floats,
    rates: Floats,
    causes: Ints,
    room: Filling,
) -> None:
    """Write the max-min fair rates of flows into `rates`.

    All rates rise together; a flow stops at its own limit or when one of its resources is full. A
    flow of rate x uses x * coefficient of a resource.

    Args:
        flows: Number of flows; arrays by flow or entry may be longer.
        limits: Maximal rate of each flow, [bytes/cycle].
        capacities: Capacity of each resource, [bytes/cycle].
        starts: Flow i has the entries starts[i] to starts[i + 1] of the next two.
        resources: Resource of each entry.
        coefficients: Use of the resource per unit of the flow's rate, positive.
        rates: Result, [bytes/cycle].
        causes: Result: the resource that stopped each flow, -1 if its own limit did.
        room: At least as large as needed; its contents do not matter.
    """
    _begin(flows, capacities, starts, resources, coefficients, room)
    used, growth, rising = room.used, room.growth, room.rising
    rises, lowest = 0, np.inf
    for flow in range(flows):
        rates[flow], causes[flow] = limits[flow], -1
        if starts[flow] < starts[flow + 1]:
            rising[rises] = flow
            rises += 1
            lowest = min(lowest, limits[flow])
    while rises > 0:
        level = min(lowest, _least(room.fills, capacities.size))
        _fill(level, capacities, room)
        kept = touched = 0
        lowest = np.inf
        for index in range(rises):
            flow = rising[index]
            if limits[flow] > level * SAME:
                if room.stopping[flow] == 0:
                    rising[kept] = flow
                    kept += 1
                    lowest = min(lowest, limits[flow])
                    continue
                entry = starts[flow]
                while room.full[resources[entry]] == 0:
                    entry += 1
                rates[flow], causes[flow] = level, resources[entry]
            for entry in range(starts[flow], starts[flow + 1]):
                r = resources[entry]
                used[r] += rates[flow] * coefficients[entry]
                growth[r] -= coefficients[entry]
                if room.is_touched[r] == 0:
                    room.is_touched[r] = 1
                    room.touched[touched] = r
                    touched += 1
        rises = kept
        for index in range(touched):
            r = room.touched[index]
            room.is_touched[r] = 0
            room.fills[r] = _filling_level(r, capacities, room)


@compiled_part
def _least(values: Floats, size: int) -> float:
    """Return the least of the first values; four at a time, since each minimum waits for the one before."""
    a = b = c = d = np.inf
    index = 0
    while index + 4 <= size:
        a, b = min(a, values[index]), min(b, values[index + 1])
        c, d = min(c, values[index + 2]), min(d, values[index + 3])
        index += 4
    while index < size:
        a = min(a, values[index])
        index += 1
    return min(min(a, b), min(c, d))


@compiled_part
def _filling_level(r: int, capacities: Floats, room: Filling) -> float:
    """Return the level of the rising flows at which a resource is full."""
    if room.full[r] or room.growth[r] <= room.dust[r]:
        return np.inf
    return float(max(capacities[r] - room.used[r], 0.0) / room.growth[r])


@compiled_part
def _fill(level: float, capacities: Floats, room: Filling) -> None:
    """Note which resources are full at a level, and that their users stop."""
    for r in range(capacities.size):
        # The quotient only finds the candidates; its rounding decides nothing.
        if room.fills[r] > level * (1.0 + 1e-11):
            continue
        left = max(capacities[r] - room.used[r], 0.0)
        if left <= level * SAME * room.growth[r]:
            room.full[r] = 1
            for place in range(room.first[r], room.first[r + 1]):
                room.stopping[room.users[place]] = 1


@compiled
def _begin(
    flows: int,
    capacities: Floats,
    starts: Ints,
    resources: Ints,
    coefficients: Floats,
    room: Filling,
) -> None:
    """List the users of each resource, and when each would be full if all flows rose."""
    for r in range(capacities.size):
        room.used[r] = room.growth[r] = 0.0
        room.full[r] = room.first[r] = room.is_touched[r] = 0
    for entry in range(starts[flows]):
        room.growth[resources[entry]] += coefficients[entry]
        room.first[resources[entry]] += 1
    total = 0
    for r in range(capacities.size):
        # Subtracting the coefficients of stopped flows leaves rounding dust; below it nothing grows.
        room.dust[r] = room.growth[r] * 1e-12
        total += room.first[r]
        room.first[r] = total
        room.fills[r] = _filling_level(r, capacities, room)
    room.first[capacities.size] = total
    for flow in range(flows):
        room.stopping[flow] = 0
        for entry in range(starts[flow], starts[flow + 1]):
            room.first[resources[entry]] -= 1
            room.users[room.first[resources[entry]]] = flow
