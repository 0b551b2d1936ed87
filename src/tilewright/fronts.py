"""Pareto fronts of a model: what `tilewright.front` returns.

found = tilewright.front("model.onnx", "corsair", ("latency", "energy"))
for point in found.points: print(point.amounts, point.plan.gap)
program = found.lower(found.points[0])
"""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.compiler import REALISATION_ATTEMPTS, Compilation, Progress, available_rules
from tilewright.errors import InfeasibleError
from tilewright.extract.extraction import ExtractOptions
from tilewright.extract.front import FrontPlanner, front
from tilewright.extract.objective import Metric
from tilewright.extract.reweigh import Point
from tilewright.graph import Graph
from tilewright.hwmodel.target import Target
from tilewright.lowering.lower import build_program
from tilewright.lowering.program import Program


@dataclass(frozen=True, slots=True, kw_only=True)
class Front:
    """Plans of which none is better than another in every metric, in the order of the first metric."""

    graph: Graph
    target: Target
    metrics: tuple[Metric, ...]
    points: tuple[Point, ...]
    planner: FrontPlanner

    def lower(self, point: Point) -> tuple[Point, Program]:
        """Return the program of a point, and the point that it is of.

        A plan that cannot be allocated is made again, for the same weights, with less scratchpad.

        Raises:
            InfeasibleError: No plan for these weights that was found can be lowered.
        """
        limit, reason = point.limit_bytes, ""
        sram = self.target.tile.sram
        for _ in range(REALISATION_ATTEMPTS):
            try:
                spares = Metric.SRAM in self.metrics
                program = build_program(point.plan, self.target, spares_scratchpad=spares)
                return point, program
            except InfeasibleError as error:
                reason = str(error)
            limit -= max(min(limit, sram.size_bytes) // 16, sram.alignment_bytes)
            point = self.planner.plan(point.plan.objective, limit)
        raise InfeasibleError(
            f"model '{self.graph.name}' on '{self.target.name}': {REALISATION_ATTEMPTS} plans for "
            f"{point.plan.objective} could not be allocated, the last one because {reason}"
        )


def find_front(
    saturated: Compilation,
    metrics: tuple[Metric, ...],
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
    options = saturated.options
    rules = available_rules(options.user_rules).chosen(options.without_rules)
    tell("pricing options")
    planner = FrontPlanner(
        saturated.graph,
        saturated.rolled,
        saturated.alternatives,
        saturated.target,
        saturated.mesh,
        metrics,
        ExtractOptions(
            solve=options.extract.solve,
            tiling=rules.tiling,
            memory=rules.memory,
            collective=rules.collective,
        ),
    )
    return Front(
        graph=saturated.graph,
        target=saturated.target,
        metrics=metrics,
        points=front(planner, points, tell),
        planner=planner,
    )
