"""Max-min fair sharing of resources by progressive filling."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tilewright.simulator.timing_jit import compiled

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

SAME = 1.0 + 1e-12
"""Levels within this factor saturate together; only rounding separates them."""


@compiled
def fair_rates(
    limits: Floats,
    capacities: Floats,
    starts: Ints,
    resources: Ints,
    coefficients: Floats,
    rates: Floats,
    causes: Ints,
) -> None:
    """Write the max-min fair rates of flows into `rates`.

    All rates rise together; a flow stops at its own limit or when one of its resources is full. A
    flow of rate x uses x * coefficient of a resource.

    Args:
        limits: Maximal rate of each flow, [bytes/cycle].
        capacities: Capacity of each resource, [bytes/cycle].
        starts: Flow i has the entries starts[i] to starts[i + 1] of the next two.
        resources: Resource of each entry.
        coefficients: Use of the resource per unit of the flow's rate, positive.
        rates: Result, [bytes/cycle].
        causes: Result: the resource that stopped each flow, -1 if its own limit did.
    """
    flows = limits.size
    used = np.zeros(capacities.size)
    growth = np.zeros(capacities.size)
    full = np.zeros(capacities.size, dtype=np.bool_)
    rates[:flows] = -1.0
    for entry in range(starts[flows]):
        growth[resources[entry]] += coefficients[entry]
    # Subtracting the coefficients of stopped flows leaves rounding dust; below it nothing grows.
    dust = growth * 1e-12
    rising = flows
    while rising > 0:
        level = np.inf
        for flow in range(flows):
            if rates[flow] < 0.0:
                level = min(level, limits[flow])
        for r in range(capacities.size):
            if growth[r] > dust[r] and not full[r]:
                level = min(level, max(capacities[r] - used[r], 0.0) / growth[r])
        for r in range(capacities.size):
            if (
                growth[r] > dust[r]
                and max(capacities[r] - used[r], 0.0) <= level * SAME * growth[r]
            ):
                full[r] = True
        for flow in range(flows):
            if rates[flow] >= 0.0:
                continue
            cause, stopped = -1, limits[flow] <= level * SAME
            for entry in range(starts[flow], starts[flow + 1]):
                if full[resources[entry]]:
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
                used[resources[entry]] += rates[flow] * coefficients[entry]
                growth[resources[entry]] -= coefficients[entry]
