"""Pareto fronts: plans of one model of which none is better than another in every metric.

Options are priced once, and stay if they are the best for any weights of the metrics. The footprint becomes
a limit of scratchpad, lowered step by step. At each limit the other metrics are weighed: a front of two
begins at its ends, and between two neighbours the weights are those for which both cost the same. A plan
that is cheaper then lies between them; if there is none, their connection is an edge of the front's convex
hull. So every point is the optimum of a weighted sum within a limit, with the bound and the proof of that;
what lies behind the hull is not looked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from tilewright.errors import CompileError, InfeasibleError
from tilewright.extract.extraction import ExtractOptions
from tilewright.extract.objective import AnyMetric, Metric, Objective, references, single
from tilewright.extract.reweigh import Point, Reweigher
from tilewright.graph import Graph
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.hwmodel.target import Target
from tilewright.rules.alternatives import Alternatives
from tilewright.rules.roll import Rolled

_MOST_POINTS = 1000

_TIE = 1e-6
"""Weight of the other metrics at the ends of a front, of the same references: of equal plans the better."""

_GAIN = 1e-6
"""Relative gain of a plan that is new."""


class FrontPlanner:
    """Prices a model's options once and plans for any weights of some metrics and any limit of scratchpad."""

    def __init__(
        self,
        graph: Graph,
        rolled: Rolled,
        alternatives: tuple[Alternatives, ...],
        target: Target,
        mesh: LogicalMesh,
        metrics: tuple[AnyMetric, ...],
        options: ExtractOptions,
    ) -> None:
        """Price the options; the arguments are those of `extract`.

        Raises:
            CompileError: The metrics make no front.
            InfeasibleError: Some tensor cannot be computed within the scratchpad.
        """
        self.metrics = check_metrics(metrics)
        self.summed = tuple(m for m in metrics if m is not Metric.SRAM)
        self.references = references(graph, target, metrics)
        self._made = Reweigher(
            graph, rolled, alternatives, target, mesh, tuple(map(single, metrics)), options
        )

    @property
    def capacity_bytes(self) -> int:
        """The scratchpad of a tile."""
        return self._made.capacity_bytes

    def objective(self, shares: Sequence[float]) -> Objective:
        """Return the summed metrics with weights in parts of the references."""
        pairs = tuple((m, w) for m, w in zip(self.summed, shares, strict=True) if w > 0)
        return (
            single(pairs[0][0])
            if len(pairs) == 1
            else Objective(pairs).relative_to(self.references)
        )

    def plan(self, objective: Objective, limit_bytes: int | None = None) -> Point:
        """Return the best plan for weights within a limit of scratchpad.

        Raises:
            InfeasibleError: None was found.
        """
        return self._made.plan(objective, limit_bytes)


def check_metrics(metrics: tuple[AnyMetric, ...]) -> tuple[AnyMetric, ...]:
    """Return metrics that make a front.

    Raises:
        CompileError: They make none.
    """
    names = ",".join(map(str, metrics))
    if len(set(map(str, metrics))) != len(metrics) or not 2 <= len(metrics) <= 3:
        raise CompileError(
            f"objectives '{names}': expected two or three different ones, such as latency,energy"
        )
    if {Metric.LATENCY, Metric.THROUGHPUT} <= set(metrics):
        raise CompileError(
            f"objectives '{names}': latency and throughput count the same cycles; drop one of them"
        )
    return metrics


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
) -> tuple[Point, ...]:
    """Return up to `points` plans of which none is better than another, in the order of the first metric.

    Args:
        planner: The model, the machine and the metrics.
        points: Plans wanted at most, at least two.
        tell: Called with a line of text before each plan.

    Raises:
        InfeasibleError: Nothing fits the scratchpad.
    """
    check_points(points)
    if Metric.SRAM not in planner.metrics:
        found = _at_limit(planner, planner.capacity_bytes, points, tell)
    else:
        found = _over_limits(planner, points, tell)
    kept = nondominated(found, planner.metrics)
    if len(kept) <= points:  # of three metrics, each limit has two ends
        return kept
    return tuple(kept[n * (len(kept) - 1) // (points - 1)] for n in range(points))


def _over_limits(planner: FrontPlanner, points: int, tell: Callable[[str], None]) -> list[Point]:
    """Return points at falling limits of scratchpad, down to the least that any plan was found for."""
    steps = points if len(planner.summed) == 1 else max(2, points // 2)
    each = max(2, points // steps)
    found = _at_limit(planner, planner.capacity_bytes, each, tell)
    most = max(int(point.amounts[Metric.SRAM]) for point in found)
    tell("planning for the least scratchpad")
    least = int(planner.plan(Objective.SRAM).amounts[Metric.SRAM])
    ratio = (least / most) ** (1 / (steps - 1)) if most else 1.0
    for step in range(1, steps):
        limit = least if step == steps - 1 else int(most * ratio**step)
        try:
            found += _at_limit(planner, max(limit, least), each, tell)
        except InfeasibleError:  # none was found within this limit: there is no point here
            continue
    return found


def _at_limit(
    planner: FrontPlanner, limit_bytes: int, points: int, tell: Callable[[str], None]
) -> list[Point]:
    """Return points of the convex hull within a limit of scratchpad, the widest gaps closed first."""

    def plan(shares: Sequence[float]) -> Point:
        objective = planner.objective(shares)
        tell(f"planning for {objective} within {limit_bytes:,} bytes a tile")
        return planner.plan(objective, limit_bytes)

    if len(planner.summed) == 1:
        return [plan((1.0,))]
    first, last = plan((1.0, _TIE)), plan((_TIE, 1.0))
    found, gaps = [first, last], list(_gaps(planner, (first, last)))
    while gaps and len(found) < points:
        gap = max(gaps, key=lambda one: one.area)  # the first of equal ones
        gaps.remove(gap)
        middle = plan(gap.shares)
        line = min(middle.plan.objective.weigh(end.amounts) for end in gap.ends)
        if middle.plan.cost < line * (1 - _GAIN):
            found.append(middle)
            gaps += _gaps(planner, (gap.ends[0], middle, gap.ends[1]))
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Gap:
    """Two neighbours, the area that points between may gain, the weights for which both cost the same."""

    ends: tuple[Point, Point]
    area: float
    shares: tuple[float, float]


def _gaps(planner: FrontPlanner, points: tuple[Point, ...]) -> Iterator[_Gap]:
    x, y = planner.summed
    for a, b in pairwise(points):
        dx = (b.amounts[x] - a.amounts[x]) / planner.references[x]
        dy = (a.amounts[y] - b.amounts[y]) / planner.references[y]
        if dx > 0 and dy > 0:
            shares = (dy / (dx + dy), dx / (dx + dy))
            yield _Gap(ends=(a, b), area=dx * dy, shares=shares)


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
