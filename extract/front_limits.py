"""The front of the footprint and a metric that adds up: plans within limits of scratchpad.

What is proven within a limit holds for all smaller ones. So limits cut the range of footprints into spans,
and the span with the most room is halved, until enough points are known or nothing is left between them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import inf

from tilewright.errors import InfeasibleError
from tilewright.extract.front_gaps import ROUNDING
from tilewright.extract.front_planner import FrontPlanner
from tilewright.extract.objective import Metric, Objective
from tilewright.extract.reweigh import Point

_TRIES = 3
"""Limits within which plans are made at most, for each point wanted."""

_NARROW = 0.02
"""Largest part of a footprint that a span is not halved for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    """What every plan within a limit takes of the metric at least, and what the best one known takes."""

    limit_bytes: int
    bound: float
    best: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Span:
    """Footprints between two points, where every plan is at most so much better.

    `room` is what is proven, `hope` what it would be if no plan were better than those known; `limit_bytes`
    is the next limit to plan within.
    """

    limit_bytes: int
    room: float
    hope: float


class Limits:
    """What is known of the front."""

    def __init__(self, planner: FrontPlanner, points: int, tell: Callable[[str], None]) -> None:
        """Look for points, the widest gaps first; the arguments are those of `front`.

        Raises:
            InfeasibleError: Nothing fits the scratchpad.
        """
        self._planner, self._tell = planner, tell
        (self._metric,) = planner.summed
        self.points: list[Point] = []
        self._steps: list[_Step] = []
        """The highest limit first."""
        self._plan(planner.capacity_bytes)
        tell("planning for the least scratchpad")
        self._plan(self._bytes(planner.plan(Objective.SRAM)))
        for _ in range(_TRIES * points):
            ordered = self._ordered()
            if len(ordered) >= points:
                break
            spans = [span for ends in pairwise(ordered) for span in self._spans(*ends)]
            widest = max(spans, key=lambda span: span.hope, default=None)
            if widest is None or widest.hope <= ROUNDING:
                break
            self._plan(widest.limit_bytes)

    def room(self, ends: tuple[Point, Point]) -> float:
        """Return the room between two points of the front."""
        fat, lean = sorted(ends, key=self._bytes, reverse=True)
        most = max((span.room for span in self._spans(fat, lean)), default=0.0)
        return most if most > ROUNDING else 0.0

    def _plan(self, limit_bytes: int) -> None:
        objective = self._planner.objective((1.0,))
        self._tell(f"planning for {objective} within {limit_bytes:,} bytes a tile")
        bound, best = 0.0, inf
        try:
            point = self._planner.plan(objective, limit_bytes)
        except InfeasibleError:
            if not self._steps:
                raise
        else:
            self.points.append(point)
            bound, best = point.plan.bound, point.amounts[self._metric]
        self._steps.append(_Step(limit_bytes=limit_bytes, bound=bound, best=best))
        self._steps.sort(key=lambda step: step.limit_bytes, reverse=True)

    def _ordered(self) -> list[Point]:
        """Return the points that no other one is as good as, the largest footprint first."""
        found: list[Point] = []
        for point in sorted(self.points, key=lambda p: (self._bytes(p), self._amount(p))):
            if not found or self._amount(point) < self._amount(found[-1]) * (1 - ROUNDING):
                found.append(point)
        return found[::-1]

    def _bytes(self, point: Point) -> int:
        return int(point.amounts[Metric.SRAM])

    def _amount(self, point: Point) -> float:
        return point.amounts[self._metric]

    def _spans(self, fat: Point, lean: Point) -> Iterator[_Span]:
        """Yield the spans of footprints between two points."""
        limits = [step.limit_bytes for step in self._steps]
        leanest, bound = self._bytes(lean), 0.0
        for step, below in zip(self._steps, [*limits[1:], 0], strict=True):
            bound = max(bound, step.bound)
            low = max(below + 1, leanest)
            high = min(step.limit_bytes, self._bytes(fat) - 1)
            if low <= high:
                leaner = self._bytes(fat) / low - 1
                room, hope = (
                    min(leaner, self._amount(lean) / least - 1 if least > 0 else inf)
                    for least in (bound, step.best)
                )
                # a narrow span is asked for at once whether it is empty
                limit = high if leaner <= _NARROW else int((low * high) ** 0.5)
                yield _Span(limit_bytes=limit, room=room, hope=hope)
