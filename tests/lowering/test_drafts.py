"""Programs whose kernels do more than is planned: which are compared, and which is taken."""

from __future__ import annotations

from functools import cache, partial

import pytest
from benchmarks.stream.machines import mesh
from benchmarks.stream.models import Workload, gemm_chain
from onnx import TensorProto

from tilewright import api
from tilewright.compiler import Stage
from tilewright.errors import InfeasibleError
from tilewright.extract.plan import Plan
from tilewright.hwmodel.target import Target
from tilewright.lowering import drafts
from tilewright.lowering.drafts import Draft, best_draft, draft_of
from tilewright.lowering.eager import Eager, eager_kernels
from tilewright.lowering.lower import lower_plan
from tilewright.lowering.lowered import Lowered
from tilewright.lowering.scheduled import LEAST_GAIN

INTEGERS, FLOATS = (gemm_chain(1, dtype) for dtype in (TensorProto.INT8, TensorProto.BFLOAT16))
SMALL, LARGE = mesh(2, 2, 2, 32), mesh(4, 4, 4, 32)


@cache
def planned_on(workload: Workload, machine: Target) -> tuple[Plan, Draft]:
    """Return the plan and what becomes of it as it is; kernels that scatter sums have no parts."""
    found = api.compile(
        workload.ours,
        machine,
        stop_after=Stage.EXTRACT,
        without_rules=("partition.scattered_matmul_rows",),
    )
    plan = found.plan
    assert plan is not None
    return plan, draft_of(lower_plan(plan, machine), machine, plan.mesh)


def offered(plan: Plan, machine: Target) -> list[tuple[bool, bool]]:
    """Return whether each variant has third buffers, and parts."""
    return [
        (any(e.thrice for e in eager), any(e.parts > 1 for e in eager))
        for eager in eager_kernels(plan, machine)
    ]


def test_parts_are_taken_where_they_are_clearly_shorter() -> None:
    """Boxes that are loaded for a quarter of the time are cut; there is no room for a third one."""
    plan, planned = planned_on(INTEGERS, SMALL)
    assert offered(plan, SMALL) == [(False, True)]
    best = best_draft(planned, plan, SMALL, lambda eager: lower_plan(plan, SMALL, eager=eager))
    assert best.cycles < (1 - LEAST_GAIN) * planned.cycles
    assert best.others == 1


def test_parts_are_not_taken_where_they_are_longer() -> None:
    """Boxes of 22 rows fill the matrix unit too often in parts; the third buffer is taken."""
    plan, planned = planned_on(FLOATS, LARGE)
    assert offered(plan, LARGE) == [(True, False), (True, True)]
    seen: list[Eager] = []

    def lower(eager: Eager) -> Lowered:
        seen.append(eager)
        return lower_plan(plan, LARGE, eager=eager)

    best = best_draft(planned, plan, LARGE, lower)
    cut = draft_of(lower(seen[1]), LARGE, plan.mesh)
    assert best.cycles <= planned.cycles < cut.cycles
    buffers = [len(d.lowered.linear.buffers) for d in (planned, best)]
    assert buffers[1] == buffers[0] + 1
    assert best.others == 2


@pytest.mark.parametrize(
    ("workload", "machine", "is_taken"),
    [
        pytest.param(FLOATS, LARGE, True, id="third buffers"),
        pytest.param(INTEGERS, SMALL, False, id="parts"),
    ],
)
def test_as_long_is_enough_for_buffers_alone(
    workload: Workload, machine: Target, is_taken: bool
) -> None:
    plan, planned = planned_on(workload, machine)
    best = best_draft(planned, plan, machine, lambda _: planned.lowered)
    assert best.cycles == planned.cycles
    assert (best.back is not planned.back) is is_taken


def test_what_does_not_fit_or_is_long_stays_as_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    plan, planned = planned_on(INTEGERS, SMALL)

    def refuse(eager: Eager) -> Lowered:
        raise InfeasibleError("no room")

    assert best_draft(planned, plan, SMALL, refuse).back is planned.back
    monkeypatch.setattr(drafts, "MOST_ORDERED", len(planned.lowered.linear.run) - 1)
    lower = partial(lower_plan, plan, SMALL)
    assert best_draft(planned, plan, SMALL, lambda eager: lower(eager=eager)) is planned
