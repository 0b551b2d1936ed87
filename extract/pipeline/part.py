"""A plan that leaves tiles idle: the whole model on a part of the machine, where that is faster."""

from __future__ import annotations

from types import MappingProxyType

from tilewright.errors import InfeasibleError
from tilewright.extract.extraction import ExtractOptions, extract
from tilewright.extract.objective import Objective
from tilewright.extract.pipeline.plan import PipelinePlan, PlannedStage
from tilewright.extract.pipeline.prices import Saturate
from tilewright.extract.plan import Plan, Proof
from tilewright.graph import Graph
from tilewright.hwmodel.network import logical_mesh
from tilewright.hwmodel.roofline import roofline
from tilewright.hwmodel.submesh import Submesh, submesh_target, tiles_of
from tilewright.hwmodel.target import Target
from tilewright.rules.roll import Rolled


def plan_on_part(
    graph: Graph,
    rolled: Rolled,
    target: Target,
    saturate: Saturate,
    options: ExtractOptions,
    whole: Plan,
    shapes: tuple[Submesh, ...],
) -> PipelinePlan | None:
    """Plan a model for parts of a machine, and compare with all of it.

    Args:
        graph: The model.
        rolled: Its blocks.
        target: The machine.
        saturate: Gives the alternatives of a block on a mesh.
        options: How plans of least latency are extracted.
        whole: The plan for all tiles.
        shapes: The parts, those first that are the likeliest (`boxes_near_port`).

    Returns:
        A pipeline of one stage if its plan costs less than that for all tiles, else None.
    """
    best: tuple[Plan, Target, Submesh] | None = None
    cost, bound = whole.cost, whole.bound
    for shape in shapes:
        part = submesh_target(target, shape, is_alone=True)
        least = roofline(graph, part).bound_cycles
        if least >= cost:
            bound = min(bound, least)
            continue
        try:
            plan = _plan(graph, rolled, part, saturate, options)
        except InfeasibleError:
            continue
        bound = min(bound, plan.bound)
        if plan.cost < cost:
            best, cost = (plan, part, shape), plan.cost
    if best is None:
        return None
    plan, part, shape = best
    tiles = tiles_of(target, shape)
    stage = PlannedStage(plan=plan, target=part, shape=shape, tiles=tiles, cycles=plan.cost)
    return PipelinePlan(
        graph=graph,
        target_name=target.name,
        objective=Objective.LATENCY,
        micro_batches=1,
        stages=(stage,),
        cost=cost,
        bound=min(bound, cost),
        proof=Proof(
            method="parts of the machine",
            details=MappingProxyType({"sub_rectangles": float(len(shapes) + 1)}),
        ),
    )


def _plan(
    graph: Graph, rolled: Rolled, part: Target, saturate: Saturate, options: ExtractOptions
) -> Plan:
    mesh = logical_mesh(part)
    alternatives = tuple(saturate(block.graph, mesh) for block in rolled.blocks)
    return extract(graph, rolled, alternatives, part, mesh, options)
