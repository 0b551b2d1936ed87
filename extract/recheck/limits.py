"""Bounds of plans within a limit of a metric: what all plans cost at a price, less the price of the limit.

Source:
    Geoffrion, "Lagrangean relaxation for integer programming", Mathematical Programming Study 2 (1974).
"""

from __future__ import annotations

from tilewright.extract.certificate import LimitPrice
from tilewright.extract.limited import with_price
from tilewright.extract.objective import AnyMetric
from tilewright.extract.plan import Plan
from tilewright.extract.plan_error import PlanError
from tilewright.extract.recheck.bound import check_certificate, validate_bound
from tilewright.extract.reweigh import Reweigher


def validate_bound_within(plan: Plan, made: Reweigher, metric: AnyMetric, most: float) -> None:
    """Raise PlanError unless the bound of a plan holds for all plans within a limit.

    Args:
        plan: The plan, with a bound in units of its objective.
        made: What prices the options of the plan for any weights.
        metric: What is limited.
        most: The limit.
    """
    certificate = plan.proof.certificate
    if not isinstance(certificate, LimitPrice):  # of all plans, whether within or not
        validate_bound(plan, made.setting_of(plan.objective))
        return
    if not certificate.price >= 0:
        raise PlanError(f"the price of {metric} is negative")
    priced = plan.objective
    if certificate.price > 0:
        priced = with_price(priced, metric, certificate.price)
    bound = plan.bound + certificate.price * most
    check_certificate(certificate.certificate, bound, made.setting_of(priced), plan.proof.method)
