"""Bounds of divisions into stages are computed again from their certificates; raised ones are refused."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from types import MappingProxyType

import pytest
from test_pipeline_plans import TARGET, alternatives, layers
from test_pipeline_side_by_side import CHOSEN, towers

from tilewright.extract.certificate import Certificate, Claim, Divisions
from tilewright.extract.extraction import ExtractOptions
from tilewright.extract.objective import Objective
from tilewright.extract.pipeline.plan import PipelinePlan
from tilewright.extract.pipeline.planner import StageOptions, Task, plan_pipeline, task_of
from tilewright.extract.plan_error import PlanError
from tilewright.extract.recheck.divisions import validate_divisions
from tilewright.graph import Graph
from tilewright.rules.roll import roll

MODELS = {"layers": layers, "towers": towers}
ASKED = {
    "throughput": (Objective.THROUGHPUT, StageOptions(most=3)),
    "batches": (Objective.LATENCY, StageOptions(most=3, micro_batches=4)),
    "limited": (Objective.THROUGHPUT, StageOptions(most=3, max_latency_cycles=9000.0)),
    "few prices": (Objective.THROUGHPUT, StageOptions(stages=3, evaluations=3)),
    "beside": (Objective.LATENCY, CHOSEN),
}


@cache
def planned(name: str, asked: str) -> tuple[PipelinePlan, Task]:
    graph: Graph = MODELS[name]()
    objective, stages = ASKED[asked]
    options = ExtractOptions(objective=objective)
    model = (graph, roll(graph), TARGET, alternatives, options, stages)
    return plan_pipeline(*model), task_of(*model)


def claims_of(plan: PipelinePlan) -> Divisions:
    assert isinstance(plan.proof.certificate, Divisions)
    return plan.proof.certificate


def refuse(plan: PipelinePlan, task: Task, **changed: object) -> None:
    proof = replace(plan.proof, certificate=replace(claims_of(plan), **changed))
    with pytest.raises(PlanError):
        validate_divisions(replace(plan, proof=proof), task, None)


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("layers", "throughput"),
        ("layers", "batches"),
        ("layers", "limited"),
        ("layers", "few prices"),
        ("towers", "beside"),
    ],
)
def test_bounds_of_divisions_hold(name: str, asked: str) -> None:
    plan, task = planned(name, asked)
    assert task.parts.are_beside == (asked == "beside")
    validate_divisions(plan, task, None)
    for raised in (1.0001 * plan.bound, 1.01 * plan.cost):
        with pytest.raises(PlanError, match="stages may cost less"):
            validate_divisions(replace(plan, bound=raised), task, None)
    with pytest.raises(PlanError, match="no certificate"):
        validate_divisions(replace(plan, proof=replace(plan.proof, certificate=None)), task, None)


def test_claims_of_stages_are_checked() -> None:
    plan, task = planned("layers", "throughput")
    claims = claims_of(plan)
    place = next(iter(claims.stages))
    for wrong in (
        replace(claims.stages[place], bound=1.05 * claims.stages[place].bound),
        replace(claims.stages[place], certificate=None),
        replace(claims.stages[place], certificate=Certificate()),
        Claim(bound=float("inf"), certificate=None),
    ):
        refuse(plan, task, stages=MappingProxyType({**claims.stages, place: wrong}))
    first = claims.alone[0][0]
    for wrong in (
        replace(first, bound=1.05 * first.bound),
        Claim(bound=float("inf"), certificate=first.certificate),
    ):
        refuse(plan, task, alone=((wrong, *claims.alone[0][1:]), *claims.alone[1:]))


def test_stages_that_were_planned_are_part_of_the_proof() -> None:
    """Items by themselves prove less: a stage pays for the way from and to DRAM."""
    plan, task = planned("layers", "throughput")
    refuse(plan, task, stages=MappingProxyType({}))
