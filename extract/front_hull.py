"""The front of two metrics that add up: its convex hull, and what lies behind the hull.

The hull begins at its ends, and between two neighbours the weights are those for which both cost the same. A
plan that is cheaper then lies between them; if there is none, their connection is an edge of the hull. When
all edges are known and more points are wanted, plans behind the edges are looked for, which no weights make
the cheapest (`behind.py`): each has least of the second metric within its amount of the first one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from tilewright.extract.front_gaps import Line, room
from tilewright.extract.front_planner import FrontPlanner
from tilewright.extract.objective import Objective
from tilewright.extract.reweigh import Point

_TIE = 1e-6
"""Weight of the other metrics at the ends of a front, of the same references: of equal plans the better."""

_GAIN = 1e-6
"""Relative gain of a plan that is new."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Edge:
    """Two neighbours of the hull; `is_complete` if all points behind it are known."""

    ends: tuple[Point, Point]
    is_complete: bool = False


class Hull:
    """What is known of the front within a limit of scratchpad."""

    def __init__(
        self, planner: FrontPlanner, limit_bytes: int, points: int, tell: Callable[[str], None]
    ) -> None:
        """Look for points, the widest gaps first.

        Args:
            planner: The model, the machine and the metrics.
            limit_bytes: The scratchpad of plans.
            points: When there are as many, nothing more is looked for.
            tell: Called with a line of text before each plan.

        Raises:
            InfeasibleError: Nothing fits the scratchpad.
        """
        self._planner, self._limit_bytes, self._tell = planner, limit_bytes, tell
        self._lines: list[Line] = []
        first, last = self._plan(self._weighed(1.0, _TIE)), self._plan(self._weighed(_TIE, 1.0))
        self.points = [first, last]
        self._edges = self._between((first, last), points)
        for n in sorted(range(len(self._edges)), key=lambda n: -self._area(self._edges[n].ends)):
            if len(self.points) >= points:
                break
            self._edges[n] = self._look_behind(self._edges[n].ends)

    def room(self, ends: tuple[Point, Point]) -> float:
        """Return the room between two points of the front."""
        x, _ = self._planner.summed
        low, high = (end.amounts[x] for end in ends)
        first, last = map(self._planner.amounts, ends)
        inside = [edge for edge in self._edges if self._is_between(edge, low, high)]
        between = map(self._planner.amounts, self.points)
        return room(
            (first, last),
            self._lines,
            [own for own in between if low < own[0] < high],
            is_complete=all(edge.is_complete for edge in inside),
        )

    def _is_between(self, edge: _Edge, low: float, high: float) -> bool:
        x, _ = self._planner.summed
        return edge.ends[0].amounts[x] < high and edge.ends[1].amounts[x] > low

    def _weighed(self, *shares: float) -> Objective:
        return self._planner.objective(shares)

    def _plan(self, objective: Objective) -> Point:
        self._tell(f"planning for {objective} within {self._limit_bytes:,} bytes a tile")
        point = self._planner.plan(objective, self._limit_bytes)
        x, y = (objective.rate(metric) for metric in self._planner.summed)
        self._lines.append(Line((x, y), point.plan.bound))
        return point

    def _between(self, ends: tuple[Point, Point], points: int) -> list[_Edge]:
        """Find points of the hull between its ends, and return the edges."""
        left, hull = [ends], list(ends)
        while left and len(self.points) < points:
            gap = max(left, key=self._area)  # the first of equal ones
            left.remove(gap)
            if self._area(gap) <= 0:
                continue
            objective = self._planner.between(gap)
            middle = self._plan(objective)
            line = min(objective.weigh(end.amounts) for end in gap)
            if middle.plan.cost < line * (1 - _GAIN):
                self.points.append(middle)
                hull.insert(hull.index(gap[1]), middle)
                left += [(gap[0], middle), (middle, gap[1])]
        return [_Edge(ends=pair) for pair in pairwise(hull)]

    def _area(self, ends: tuple[Point, Point]) -> float:
        """Return the area that points between two may gain, in parts of the references."""
        x, y = self._planner.summed
        dx = (ends[1].amounts[x] - ends[0].amounts[x]) / self._planner.references[x]
        dy = (ends[0].amounts[y] - ends[1].amounts[y]) / self._planner.references[y]
        return dx * dy if dx > 0 and dy > 0 else 0.0

    def _look_behind(self, ends: tuple[Point, Point]) -> _Edge:
        """Find points behind an edge."""
        if self._area(ends) <= 0:
            return _Edge(ends=ends)
        self._tell(f"looking behind the hull within {self._limit_bytes:,} bytes a tile")
        objective = self._planner.between(ends)
        found, is_complete = self._planner.behind(objective, ends, self._limit_bytes)
        self.points += [self._bounded(point, is_complete=is_complete) for point in found]
        return _Edge(ends=ends, is_complete=is_complete)

    def _bounded(self, point: Point, *, is_complete: bool) -> Point:
        if is_complete:
            return self._planner.within(point, None, "exact search behind the hull")
        x, _ = self._planner.summed
        bound = max(line.least(point.amounts[x]) for line in self._lines)
        return self._planner.within(point, bound, "weights of both metrics")
