"""Bounds of objectives that weigh the footprint: what plans within each span of footprints cost at least.

A plan's footprint lies in some span. It is more than the span below has, and all other costs are at least
what is proven of the plans within a limit that no footprint of the span exceeds.
"""

from __future__ import annotations

from dataclasses import replace
from math import inf

import numpy as np

from tilewright.extract.certificate import Footprints
from tilewright.extract.choice import FORBIDDEN
from tilewright.extract.objective import Metric, Objective
from tilewright.extract.plan import Plan
from tilewright.extract.plan_error import PlanError
from tilewright.extract.recheck.bound import check_certificate, no_certificate, plans_below
from tilewright.extract.setting import Setting, narrowed

_RELATIVE = 1e-8
"""By so much a bound may be above what is proven: more than rounding."""


def validate_bound_of_footprints(plan: Plan, setting: Setting) -> None:
    """Raise PlanError unless the bound of a plan for an objective with the footprint holds.

    Args:
        plan: The plan, with a bound in units of its objective.
        setting: What `extraction.prepare` makes of the model with the options that the plan was made with.
    """
    certificate, objective = plan.proof.certificate, plan.objective
    if not isinstance(certificate, Footprints):
        raise no_certificate(plan.proof)
    sum_price = float(len(objective.metrics) > 1)
    bound = plan.bound * (1 - _RELATIVE)
    if certificate.is_exhausted:
        _check_exhausted(bound, sum_price, objective, setting)
        return
    byte_price, capacity = objective.rate(Metric.SRAM), setting.pricing.limit_bytes
    alignment = setting.pricing.target.tile.sram.alignment_bytes
    low = _least_bytes(setting)
    for span in certificate.spans:
        if span.high > span.limit_bytes:
            raise PlanError(
                f"plans of {span.high} bytes are bounded by those within {span.limit_bytes}"
            )
        missing = bound - byte_price * low
        if (
            missing > 0
        ):  # the other costs have to make up for it; there must be no plan if there are none
            least = missing / sum_price if sum_price else inf
            if span.certificate is None:
                raise no_certificate(plan.proof)
            within = narrowed(setting, min(span.limit_bytes, capacity))
            check_certificate(span.certificate, least, within, plan.proof.method)
        # every footprint is made of buffers of whole aligned units
        low = max(low, span.high // alignment * alignment + alignment)
    if low <= capacity:
        raise PlanError(f"no span has footprints of {low} to {capacity} bytes")


def _least_bytes(setting: Setting) -> int:
    """Return what the fullest row of every plan takes at least."""
    relaxed = setting.tables.relaxed
    rows = np.zeros(relaxed.rows)
    for usage in relaxed.usages:
        rows[usage.low : usage.high] += usage.amounts.min()
    return int(rows.max(initial=0.0))


def _check_exhausted(
    bound: float, sum_price: float, objective: Objective, setting: Setting
) -> None:
    """Raise PlanError if a choice makes a plan that fits and costs less than a bound."""
    tables, byte_price = setting.tables, objective.rate(Metric.SRAM)
    limit = min(float(setting.pricing.limit_bytes), bound / byte_price)
    problem = replace(tables.problem, limit=limit)
    # costs are those of the problem, so many for a unit of the additive cost
    enough, row_price = FORBIDDEN / 2, 0.0
    if sum_price:
        enough = min(enough, bound / sum_price * tables.scale)
        row_price = byte_price / sum_price * tables.scale
    for plan, peak_bytes in plans_below(setting, problem, enough, row_price):
        cost = sum_price * plan.cost + byte_price * peak_bytes
        if peak_bytes <= setting.pricing.limit_bytes and cost < bound:
            raise PlanError(f"the bound {bound:.9g} is above a plan that costs {cost:.9g}")
