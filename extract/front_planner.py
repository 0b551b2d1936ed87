"""Plans of one model for any weights of some metrics within any limits; what fronts are made with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tilewright.errors import CompileError
from tilewright.extract.chains import Amounts
from tilewright.extract.extraction import ExtractOptions
from tilewright.extract.limited import least_within, under
from tilewright.extract.objective import AnyMetric, Metric, Objective, references, single
from tilewright.extract.plan import Proof
from tilewright.extract.reweigh import Point, Reweigher
from tilewright.graph import Graph
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.hwmodel.target import Target
from tilewright.rules.alternatives import Alternatives
from tilewright.rules.roll import Rolled


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

    def between(self, ends: tuple[Point, Point]) -> Objective:
        """Return the weights of two metrics for which two points cost the same."""
        x, y = self.summed
        dx, dy = (abs(ends[0].amounts[m] - ends[1].amounts[m]) / self.references[m] for m in (x, y))
        return self.objective((dy / (dx + dy), dx / (dx + dy)))

    def amounts(self, point: Point) -> Amounts:
        """Return what a point takes of the two metrics."""
        x, y = self.metrics
        return point.amounts[x], point.amounts[y]

    def plan(self, objective: Objective, limit_bytes: int | None = None) -> Point:
        """Return the best plan for weights within a limit of scratchpad.

        Raises:
            InfeasibleError: None was found.
        """
        return self._made.plan(objective, limit_bytes)

    def behind(
        self, objective: Objective, ends: tuple[Point, Point], limit_bytes: int
    ) -> tuple[tuple[Point, ...], bool]:
        """Return points behind the line between two that cost the same, and whether there are no others.

        Bounds of these points are still missing.
        """
        x, y = self.summed
        return self._made.behind(objective, (x, y), ends, limit_bytes)

    def within(self, point: Point, bound: float | None, method: str) -> Point:
        """Return a point as one of least of the second metric within its amount of the first one.

        Args:
            point: The point.
            bound: What all plans within that take of the second metric at least; None: what this one takes.
            method: What proves it.
        """
        x, y = self.summed
        least = point.amounts[y] if bound is None else bound
        target = self._made.target
        plan = under(point.plan, single(y), least, Proof(method=method), target)
        return replace(point, plan=plan, most=(x, point.amounts[x]))

    def again(self, point: Point, limit_bytes: int) -> Point:
        """Return a point as another one within less scratchpad.

        Raises:
            InfeasibleError: None was found.
        """
        if point.most is None:
            return self.plan(point.plan.objective, limit_bytes)
        return least_within(self._made, point.plan.objective, *point.most, limit_bytes)


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
