"""Pareto fronts: plans of one model of which none is better than another in every metric.

Options are priced once, and stay unless another one is as good in every metric. Of two metrics that add up,
the convex hull is found by weights and what lies behind it by limits (`front_hull.py`). Beside one such
metric the footprint becomes a limit of scratchpad (`front_limits.py`). Both say what is proven of the room
between neighbours (`front_gaps.py`). With the footprint as a third metric the limit is lowered step by step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from tilewright.errors import CompileError, InfeasibleError
from tilewright.extract.front_gaps import better
from tilewright.extract.front_hull import Hull
from tilewright.extract.front_limits import Limits
from tilewright.extract.front_planner import FrontPlanner
from tilewright.extract.objective import AnyMetric, Metric, Objective
from tilewright.extract.reweigh import Point

_MOST_POINTS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """Points of which none is better than another, in the order of the first metric.

    `rooms` are those between neighbours, see `front_gaps`; there are none for three metrics.
    """

    points: tuple[Point, ...]
    rooms: tuple[float, ...] = ()


def check_points(points: int) -> None:
    """Refuse numbers of points that make no front.

    Raises:
        CompileError: There are too few or too many.
    """
    if not 2 <= points <= _MOST_POINTS:
        raise CompileError(
            f"{points} points of a front: expected 2 to {_MOST_POINTS}; ask for as many"
        )


def front(
    planner: FrontPlanner, points: int, tell: Callable[[str], None] = lambda text: None
) -> Outline:
    """Return up to `points` plans of which none is better than another.

    Args:
        planner: The model, the machine and the metrics.
        points: Plans wanted at most, at least two.
        tell: Called with a line of text before each plan.

    Raises:
        InfeasibleError: Nothing fits the scratchpad.
    """
    check_points(points)
    if len(planner.metrics) == 3:
        kept = nondominated(_over_limits(planner, points, tell), planner.metrics)
        if len(kept) > points:  # each limit has two ends
            kept = tuple(kept[n * (len(kept) - 1) // (points - 1)] for n in range(points))
        return Outline(points=kept)
    known: Hull | Limits
    if Metric.SRAM in planner.metrics:
        known = Limits(planner, points, tell)
    else:
        known = Hull(planner, planner.capacity_bytes, points, tell)
    kept = _spread(planner, nondominated(known.points, planner.metrics), points)
    return Outline(points=kept, rooms=tuple(known.room(ends) for ends in pairwise(kept)))


def _spread(planner: FrontPlanner, points: tuple[Point, ...], count: int) -> tuple[Point, ...]:
    """Return some of the points, each the one that is better than its neighbours by most."""
    chosen = {0, len(points) - 1}
    own = [planner.amounts(point) for point in points]
    while len(chosen) < min(count, len(points)):
        left = [
            (better(own[n], (own[after][0], own[before][1])), -n)
            for before, after in pairwise(sorted(chosen))
            for n in range(before + 1, after)
        ]
        chosen.add(-max(left)[1])
    return tuple(points[n] for n in sorted(chosen))


def _over_limits(planner: FrontPlanner, points: int, tell: Callable[[str], None]) -> list[Point]:
    """Return points at falling limits of scratchpad, down to the least that any plan was found for."""
    steps = max(2, points // 2)
    each = max(2, points // steps)
    found = Hull(planner, planner.capacity_bytes, each, tell).points
    most = max(int(point.amounts[Metric.SRAM]) for point in found)
    tell("planning for the least scratchpad")
    least = int(planner.plan(Objective.SRAM).amounts[Metric.SRAM])
    ratio = (least / most) ** (1 / (steps - 1)) if most else 1.0
    for step in range(1, steps):
        limit = least if step == steps - 1 else int(most * ratio**step)
        try:
            found = found + Hull(planner, max(limit, least), each, tell).points
        except InfeasibleError:  # none was found within this limit: there is no point here
            continue
    return found


def nondominated(points: Sequence[Point], metrics: tuple[AnyMetric, ...]) -> tuple[Point, ...]:
    """Return the points that no other one is as good as in every metric, in order, equal ones once."""

    def is_beaten(point: Point, other: Point) -> bool:
        pairs = [(point.amounts[m], other.amounts[m]) for m in metrics]
        return all(theirs <= ours * (1 + 1e-9) for ours, theirs in pairs) and any(
            theirs < ours * (1 - 1e-9) for ours, theirs in pairs
        )

    kept: list[Point] = []
    for point in sorted(points, key=lambda p: [p.amounts[m] for m in metrics]):
        is_new = not any(
            all(abs(point.amounts[m] - k.amounts[m]) <= 1e-9 * abs(k.amounts[m]) for m in metrics)
            for k in kept
        )
        if is_new and not any(is_beaten(point, other) for other in points):
            kept.append(point)
    return tuple(kept)
