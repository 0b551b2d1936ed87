"""Random models under random tiles agree with onnxruntime, whatever planning would have chosen."""

from __future__ import annotations

from random import Random

import pytest
from end_to_end import FUZZ_TARGETS, check_timing
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from random_models import random_models
from test_random_models import drawn_inputs, is_well_conditioned

from tilewright import api
from tilewright.errors import DemandError, InfeasibleError
from tilewright.extract.plan import Plan, PlannedOp
from tilewright.extract.planned import planned_nest
from tilewright.extract.validate import validate_plan
from tilewright.verification import compare, reference_outputs

CHECKS = list(HealthCheck)


def drawn_tile(plan: Plan, planned: PlannedOp, draw: Random) -> dict[str, int]:
    """Return sizes of some loops of an op, often no divisors."""
    dims = planned_nest(planned, plan.types).dims
    return {d.name: draw.randint(1, max(1, d.extent)) for d in dims if draw.random() < 0.6}


def check(model: bytes, target: str, draw: Random) -> None:
    inputs = drawn_inputs(model)
    assume(is_well_conditioned(model, inputs))
    session = api.explore(model, target)
    plan = session.base.plan
    ops = [p for p in plan.ops if p.tiling is not None and p.op.kind not in ("host", "reshape")]
    assume(ops)
    planned = draw.choice(ops)
    tile = drawn_tile(plan, planned, draw)
    assume(tile)
    demand = "tile=" + ",".join(f"{loop}={size}" for loop, size in tile.items())
    try:
        answer = session.force(f"{demand}@{planned.op.output}")
        program = session.lower(answer)
    except (DemandError, InfeasibleError):
        assume(False)
    validate_plan(answer.plan, session.target)
    assert answer.plan.bound <= answer.plan.cost * (1 + 1e-9)
    (made,) = (p for p in answer.plan.ops if p.op.output == planned.op.output)
    assert made.tiling is not None
    loops = [dim.name for dim in planned_nest(made, answer.plan.types).dims]
    assert tile.items() <= dict(zip(loops, made.tiling.sizes, strict=False)).items()
    checks = compare(api.run(program, inputs), reference_outputs(model, inputs))
    assert checks
    assert all(one.passed for one in checks)
    check_timing(program)


@settings(max_examples=6, suppress_health_check=CHECKS)
@given(random_models(), st.sampled_from(FUZZ_TARGETS), st.randoms(use_true_random=False))
def test_random_tiles(model: bytes, target: str, draw: Random) -> None:
    check(model, target, draw)


@pytest.mark.slow
@settings(max_examples=150, suppress_health_check=CHECKS)
@given(random_models(), st.sampled_from(FUZZ_TARGETS), st.randoms(use_true_random=False))
def test_many_random_tiles(model: bytes, target: str, draw: Random) -> None:
    check(model, target, draw)
