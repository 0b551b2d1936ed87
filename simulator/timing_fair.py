"""Max-min fair sharing of resources by progressive filling."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tilewright.simulator.timing_jit import compiled

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

SAME = 1.0 + 1e-12
"""Levels within this factor saturate together; only rounding separates them."""


USED, GROWTH, DUST, FULL = 0, 1, 2, 3
"""Columns of the scratch room: what stopped flows take, what rising ones take per unit of level, how much
of that may be rounding, and whether the resource is full."""
SCRATCH_COLUMNS = 4


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
    scratch: Floats,
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
        scratch: Room for SCRATCH_COLUMNS figures of each resource.
    """
    for r in range(capacities.size):
        for column in range(SCRATCH_COLUMNS):
            scratch[r, column] = 0.0
    for entry in range(starts[flows]):
        scratch[resources[entry], GROWTH] += coefficients[entry]
    # Subtracting the coefficients of stopped flows leaves rounding dust; below it nothing grows.
    for r in range(capacities.size):
        scratch[r, DUST] = scratch[r, GROWTH] * 1e-12
    for flow in range(flows):
        rates[flow] = -1.0
    rising = flows
    while rising > 0:
        level = np.inf
        for flow in range(flows):
            if rates[flow] < 0.0:
                level = min(level, limits[flow])
        for r in range(capacities.size):
            if scratch[r, GROWTH] > scratch[r, DUST] and scratch[r, FULL] == 0.0:
                left = max(capacities[r] - scratch[r, USED], 0.0)
                level = min(level, left / scratch[r, GROWTH])
        for r in range(capacities.size):
            if scratch[r, GROWTH] > scratch[r, DUST]:
                left = max(capacities[r] - scratch[r, USED], 0.0)
                if left <= level * SAME * scratch[r, GROWTH]:
                    scratch[r, FULL] = 1.0
        for flow in range(flows):
            if rates[flow] >= 0.0:
                continue
            cause, stopped = -1, limits[flow] <= level * SAME
            for entry in range(starts[flow], starts[flow + 1]):
                if scratch[resources[entry], FULL] != 0.0:
                    if not stopped:
                        cause = resources[entry]
                    stopped = True
                    break
            if not stopped:
                continue
            rates[flow] = min(level, limits[flow])
            causes[flow] = cause
            rising -= 1
            for entry in range(starts[flow], starts[flow + 1]):
                r = resources[entry]
                scratch[r, USED] += rates[flow] * coefficients[entry]
                scratch[r, GROWTH] -= coefficients[entry]
