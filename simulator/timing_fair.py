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
    flows: int,
    capacities: int,
    limits: Floats,
    starts: Ints,
    resources: Ints,
    coefficients: Floats,
    rates: Floats,
    causes: Ints,
    filling: Floats,
) -> None:
    """Write the max-min fair rates of flows into `rates`.

    All rates rise together; a flow stops at its own limit or when one of its resources is full. A
    flow of rate x uses x * coefficient of a resource.

    Args:
        flows: Number of flows; arrays may be longer.
        capacities: Number of resources.
        limits: Maximal rate of each flow, [bytes/cycle].
        starts: Flow i has the entries starts[i] to starts[i + 1] of the next two.
        resources: Resource of each entry.
        coefficients: Use of the resource per unit of the flow's rate, positive.
        rates: Result, [bytes/cycle].
        causes: Result: the resource that stopped each flow, -1 if its own limit did.
        filling: [resources, 4]; column 0 holds the capacities, [bytes/cycle], the others are scratch.
    """
    room, growth, dust = 1, 2, 3  # what is left; its decline per unit of level, 0 once full; rounding
    for r in range(capacities):
        filling[r, room] = filling[r, 0]
        filling[r, growth] = 0.0
    for entry in range(starts[flows]):
        filling[resources[entry], growth] += coefficients[entry]
    for r in range(capacities):
        # Subtracting the coefficients of stopped flows leaves dust; below it nothing grows.
        filling[r, dust] = filling[r, growth] * 1e-12
