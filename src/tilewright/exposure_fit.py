"""Shares of leads that fit simulated plans best, and how well they predict programs they were not fitted to.

What planning adds up for a plan is linear in the shares (`hwmodel.exposure`):

    planned = fixed + input share * leads of inputs + output share * leads of outputs

The shares, each between 0 and 1, make the squares of the relative errors least (bounded-variable least
squares, Stark and Parker 1995). Every program weighs the same, however many plans of it there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from scipy.optimize import lsq_linear
from scipy.stats import spearmanr

from tilewright.extract.plan import Delivery, MoveKind, Plan
from tilewright.hwmodel.exposure import FULL, Exposure

_PRIOR = 1e-3
"""Relative error that a share which is off 1 by 1 counts as: what nothing was measured of stays 1."""

_DECIMALS = 4
_LEAST_RANKED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """A plan of a program: what planning adds up for it, and what it took; [cycles]."""

    program: str
    fixed_cycles: float
    """Everything but the leads."""
    input_cycles: float
    """Leads of loads of the model's inputs."""
    output_cycles: float
    """Leads of stores of its outputs."""
    simulated_cycles: float

    def planned_cycles(self, exposure: Exposure) -> float:
        """Return what planning adds up at these shares."""
        leads = exposure.input * self.input_cycles + exposure.output * self.output_cycles
        return self.fixed_cycles + leads


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """How close planned cycles of some plans are to simulated ones."""

    median_error: float
    """Of the absolute errors, relative to the simulation."""
    rank: float | None
    """Spearman's rank correlation; None of too few plans, or if all plans are equal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """A program's plans with all of their leads, and at the shares that were fitted to the other programs."""

    exposure: Exposure
    before: Accuracy
    after: Accuracy


def measurement(
    plan: Plan, program: str, exposure: Exposure, simulated_cycles: float
) -> Measurement:
    """Take a plan's cost apart.

    Args:
        plan: A plan for latency.
        program: What it is a plan of.
        exposure: The shares that it was priced with.
        simulated_cycles: What it took.
    """
    inputs = {port.tensor for port in plan.graph.inputs}
    loaded = [d for op in plan.ops for d in op.deliveries if d.tensor in inputs]
    # equal outputs are brought to DRAM once
    stored = {delivery.tensor: delivery for delivery in plan.output_deliveries}
    input_cycles = sum(_lead_cycles(d, MoveKind.LOAD) for d in loaded)
    output_cycles = sum(_lead_cycles(d, MoveKind.STORE) for d in stored.values())
    leads = exposure.input * input_cycles + exposure.output * output_cycles
    return Measurement(
        program=program,
        fixed_cycles=plan.cost - leads,
        input_cycles=input_cycles,
        output_cycles=output_cycles,
        simulated_cycles=simulated_cycles,
    )


def _lead_cycles(delivery: Delivery, kind: MoveKind) -> float:
    assert delivery.hidden_cycles == 0.0, "what products cover of a move is not linear in its share"
    return sum(move.lead_cycles for move in delivery.moves if move.kind is kind)


def fitted(measurements: Sequence[Measurement]) -> Exposure:
    """Return the shares that fit best."""
    simulated = np.array([m.simulated_cycles for m in measurements])
    names = [m.program for m in measurements]
    weights = np.array([names.count(name) for name in names]) ** -0.5 / simulated
    leads = np.array([(m.input_cycles, m.output_cycles) for m in measurements]) * weights[:, None]
    rest = (simulated - np.array([m.fixed_cycles for m in measurements])) * weights
    prior = _PRIOR * np.eye(leads.shape[1])
    found = lsq_linear(
        np.vstack([leads, prior]),
        np.concatenate([rest, prior.sum(axis=1)]),
        bounds=(0.0, 1.0),
        method="bvls",
    )
    of_inputs, of_outputs = (round(float(share), _DECIMALS) for share in found.x)
    return Exposure(input=of_inputs, output=of_outputs)


def held_out(measurements: Sequence[Measurement]) -> dict[str, HeldOut]:
    """Return, for each of two or more programs, how shares fitted to the others do."""
    found = {}
    for program in dict.fromkeys(m.program for m in measurements):
        own = [m for m in measurements if m.program == program]
        exposure = fitted([m for m in measurements if m.program != program])
        found[program] = HeldOut(
            exposure=exposure, before=accuracy(own, FULL), after=accuracy(own, exposure)
        )
    return found


def accuracy(measurements: Sequence[Measurement], exposure: Exposure) -> Accuracy:
    """Return how close planned cycles are at these shares."""
    planned = [m.planned_cycles(exposure) for m in measurements]
    simulated = [m.simulated_cycles for m in measurements]
    errors = [abs(p / s - 1.0) for p, s in zip(planned, simulated, strict=True)]
    is_ranked = len(planned) >= _LEAST_RANKED and min(len(set(planned)), len(set(simulated))) > 1
    rank = float(spearmanr(planned, simulated).statistic) if is_ranked else None
    return Accuracy(median_error=median(errors), rank=rank)
