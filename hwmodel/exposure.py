"""How much of the lead of a model's inputs and outputs a plan counts: constants that may be calibrated.

A load or store has a lead, in which no bytes move (latency, start-up), and a transfer. Planning adds up
operators and moves as if each waited for the one before. But a model's inputs are there from the start, so
that loads of them are asked for ahead, and nothing waits for stores of its outputs: much of these leads
passes while something else runs, and may count less. Transfers count in full, so that no plan costs less
than its bytes take at the ports and links that they pass; so do all other moves, which operators wait for.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tilewright.hwmodel.target import Frozen, Target

Share = Annotated[float, Field(ge=0, le=1)]


class Exposure(Frozen):
    """Shares of leads that count; all of them unless told otherwise."""

    input: Share = 1.0
    """Of loads of the model's inputs from DRAM."""
    output: Share = 1.0
    """Of stores of the model's outputs to DRAM."""


FULL = Exposure()


class ExposedTarget(Target):
    """A target for which plans count other shares of leads.

    It is the same machine. What plans, prices and bounds takes the shares from here; programs and
    simulators get the target itself.
    """

    exposure: Exposure


def exposed(target: Target, exposure: Exposure) -> ExposedTarget:
    """Return a target as planning with other shares sees it."""
    fields = {name: getattr(target, name) for name in Target.model_fields}
    return ExposedTarget.model_construct(**fields, exposure=exposure)


def exposure_of(target: Target) -> Exposure:
    """Return the shares of leads that plans for a target count."""
    return target.exposure if isinstance(target, ExposedTarget) else FULL
