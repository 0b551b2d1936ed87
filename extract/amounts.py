"""What a plan takes of each metric."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from tilewright.extract.objective import AnyMetric, Metric, Objective, single
from tilewright.extract.plan import Delivery, Plan
from tilewright.extract.reshard import delivery_units
from tilewright.hwmodel.target import Target


def amounts(
    plan: Plan, target: Target, metrics: Iterable[AnyMetric] = ()
) -> Mapping[AnyMetric, float]:
    """Return a plan's amount of every metric, whatever it was made for, in the metric's unit.

    Args:
        plan: The plan.
        target: Its machine.
        metrics: Metrics of users to count besides those of the plan's objective.
    """
    known = dict.fromkeys((*Metric, *plan.objective.metrics, *metrics))
    return MappingProxyType(
        {
            metric: float(plan.peak_sram_bytes)
            if metric is Metric.SRAM
            else additive_units(plan, single(metric), target)
            for metric in known
        }
    )


def additive_units(plan: Plan, objective: Objective, target: Target) -> float:
    """Return what kernels and moves of a plan cost under an objective."""
    kernels = sum(objective.kernel_units(planned.cost, target) for planned in plan.ops)
    return kernels + sum(delivery_units(delivery, objective) for delivery in paid_deliveries(plan))


def paid_deliveries(plan: Plan) -> list[Delivery]:
    """Return all deliveries that are paid for: equal outputs are brought to DRAM once."""
    brought = {delivery.tensor: delivery for delivery in plan.output_deliveries}
    return [*(d for planned in plan.ops for d in planned.deliveries), *brought.values()]
