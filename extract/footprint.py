"""Plans that spare scratchpad: the bytes of the fullest moment count, alone or beside additive metrics.

The footprint is a largest value, not a sum. So the range of footprints is cut into spans: plans within a
span cost at least its lowest footprint and what is proven of all plans within its highest one. The span
with the least bound is halved by a plan within its middle, until the best plan known is proven or enough
was tried.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf
from typing import Protocol

import numpy as np

from tilewright.errors import TimeLimitError
from tilewright.extract.certificate import AnyCertificate, Certificate, Footprints, SpanBound
from tilewright.extract.choice import ChoiceProblem
from tilewright.extract.closing import Scales, Within
from tilewright.extract.model_tables import ModelTables
from tilewright.extract.objective import Metric, Objective
from tilewright.extract.plan import Plan
from tilewright.extract.pricing import Pricing

_SPLITS = 8
"""Plans within smaller limits of scratchpad, made at most."""

_GAP = 1e-6


class _HasTables(Protocol):
    @property
    def pricing(self) -> Pricing: ...

    @property
    def tables(self) -> ModelTables: ...


class Planner(Protocol):
    """Makes plans of one model with any limit of scratchpad; see `extraction`."""

    @property
    def setting(self) -> _HasTables:
        """What plans are chosen from."""

    def within(self, limit_bytes: int) -> Within:
        """Return the best plan of least additive cost with a limit of scratchpad."""

    def search(self, known: Within, scales: Scales, limit_bytes: int) -> Within:
        """Look exactly for what is better than a known plan, if the problem is small."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Span:
    """Plans with footprints from `low` to `high`; `least` bounds the additive cost of those up to `high`.

    `limit_bytes` is the limit within which that was proven, with the certificate.
    """

    low: int
    high: int
    least: float
    limit_bytes: int
    certificate: AnyCertificate | None
    is_final: bool = False
    """Whether halving it again is of no use."""

    def bound(self, scales: Scales) -> float:
        """Return what each of the plans costs at least, inf if there are none."""
        if self.least == inf:  # 0 times inf would be no number
            return inf
        return scales.sum_price * self.least + scales.use_price * self.low

    def evidence(self) -> SpanBound:
        """Return what the bound can be computed from again."""
        own = self.certificate if isinstance(self.certificate, Certificate) else None
        return SpanBound(high=self.high, limit_bytes=self.limit_bytes, certificate=own)


def spare_scratchpad(planner: Planner, objective: Objective, capacity: int) -> Plan:
    """Return the best plan found for an objective that weighs the footprint.

    Args:
        planner: Makes plans.
        objective: What to minimise.
        capacity: The scratchpad of a tile, [bytes].

    Raises:
        InfeasibleError: Nothing fits the scratchpad.
    """
    is_sum = len(objective.metrics) > 1
    scales = Scales(sum_price=float(is_sum), use_price=objective.rate(Metric.SRAM))
    best, spans = _halved(planner, scales, capacity)
    bound = min(span.bound(scales) for span in spans)
    found = planner.search(Within(plan=best, bound=bound), scales, capacity)
    assert found.plan is not None, "one was known"
    plan = found.plan
    is_late = planner.setting.pricing.deadline.is_past
    if not is_sum and not is_late:  # of the plans of least footprint, the fastest
        within = planner.within(plan.peak_sram_bytes).plan
        plan = plan if within is None else replace(within, proof=plan.proof)
    cost = scales.cost(plan)
    certificate: AnyCertificate | None = found.proof.certificate
    if found.bound <= bound:
        ordered = sorted(spans, key=lambda span: span.low)
        certificate = Footprints(spans=tuple(span.evidence() for span in ordered))
    proof = replace(plan.proof, certificate=certificate)
    return replace(plan, objective=objective, cost=cost, bound=min(found.bound, cost), proof=proof)


def _halved(planner: Planner, scales: Scales, capacity: int) -> tuple[Plan, list[_Span]]:
    """Return the best plan of the search among spans, and what is left of these."""
    first = planner.within(capacity)
    if first.plan is None:
        assert first.failed is not None, "nothing is found for a reason"
        raise first.failed
    best = first.plan
    low = least_bytes(planner.setting.tables.relaxed)
    own = first.proof.certificate
    spans = [
        _Span(low=low, high=capacity, least=first.bound, limit_bytes=capacity, certificate=own)
    ]
    unit = planner.setting.pricing.target.tile.sram.alignment_bytes
    for _ in range(_SPLITS):
        if planner.setting.pricing.deadline.is_past:
            break
        span = min(
            (s for s in spans if not s.is_final), key=lambda s: s.bound(scales), default=None
        )
        if span is None or span.bound(scales) >= scales.cost(best) * (1 - _GAP):
            break
        # above the best plan's cost there is nothing to look for
        room = (scales.cost(best) - scales.sum_price * span.least) / scales.use_price
        high = min(span.high, int(room))
        middle = span.low + (high - span.low) // 2 // unit * unit
        try:
            found = planner.within(middle)
        except TimeLimitError:
            break
        spans.remove(span)
        spans.append(replace(span, low=middle + unit, is_final=middle + unit > high))
        if found.plan is not None and scales.cost(found.plan) < scales.cost(best):
            best = found.plan
        is_final = found.plan is None or middle - span.low < unit
        lower = replace(span, high=middle, is_final=is_final)
        if found.bound > span.least:
            own = found.proof.certificate
            lower = replace(lower, least=found.bound, limit_bytes=middle, certificate=own)
        spans.append(lower)
    return best, spans


def least_bytes(relaxed: ChoiceProblem) -> int:
    """Return the bytes that the fullest moment of every plan takes: each variable by its leanest option.

    Args:
        relaxed: The problem whose rows count no more than every plan needs.
    """
    delta = np.zeros(relaxed.rows + 1)
    for usage in relaxed.usages:
        amount = float(usage.amounts.min())
        delta[usage.low] += amount
        delta[usage.high] -= amount
    return int(np.cumsum(delta).max(initial=0.0))
