"""Pareto fronts of a model: what `tilewright.front` returns.

found = tilewright.front("model.onnx", "corsair", ("latency", "energy"))
for point in found.points: print(point.amounts, point.plan.gap)
program = found.lower(found.points[0])
"""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.compiler import Compilation, Progress, extract_options
from tilewright.extract.front import front
from tilewright.extract.front_planner import FrontPlanner
from tilewright.extract.objective import AnyMetric, Metric
from tilewright.extract.reweigh import Point
from tilewright.graph import Graph
from tilewright.hwmodel.target import Target
from tilewright.lowering.lower import build_program
from tilewright.lowering.program import Program
from tilewright.realising import realised


@dataclass(frozen=True, slots=True, kw_only=True)
class Front:
    """Plans of which none is better than another in every metric, in the order of the first metric.

    Between two neighbours may be plans that are better than each of the two in some metric, of two metrics at
    most by the share in `rooms`; 0 if there are none.
    """

    graph: Graph
    target: Target
    metrics: tuple[AnyMetric, ...]
    points: tuple[Point, ...]
    rooms: tuple[float, ...]
    planner: FrontPlanner

    def lower(self, point: Point) -> tuple[Point, Program]:
        """Return the program of a point, and the point that it is of.

        A plan that cannot be allocated is made again, for the same weights and limits, with less scratchpad.

        Raises:
            InfeasibleError: No plan for these weights that was found can be lowered.
        """
        spares = Metric.SRAM in self.metrics
        found = realised(
            point,
            lambda point: build_program(point.plan, self.target, spares_scratchpad=spares),
            lambda point, limit_bytes, _: self.planner.again(point, limit_bytes),
            what=f"model '{self.graph.name}' for {point.plan.objective}",
            target=self.target,
            limit_bytes=point.limit_bytes,
            can_avoid=False,
        )
        return found.planned, found.program


def find_front(
    saturated: Compilation,
    metrics: tuple[AnyMetric, ...],
    points: int,
    progress: Progress | None = None,
) -> Front:
    """Return the front of a saturated model.

    Raises:
        CompileError: The metrics make no front.
        InfeasibleError: Nothing fits the scratchpad.
    """
    assert saturated.rolled is not None, "the model is saturated"
    tell = progress or (lambda text: None)
    tell("pricing options")
    planner = FrontPlanner(
        saturated.graph,
        saturated.rolled,
        saturated.alternatives,
        saturated.target,
        saturated.mesh,
        metrics,
        extract_options(saturated.options),
    )
    found = front(planner, points, tell)
    return Front(
        graph=saturated.graph,
        target=saturated.target,
        metrics=metrics,
        points=found.points,
        rooms=found.rooms,
        planner=planner,
    )
