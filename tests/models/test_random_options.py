"""Random small models under random options: each is compiled right, or refused with a reason."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_models import random_models
from test_random_models import drawn_inputs, is_well_conditioned

from tilewright import api
from tilewright.errors import CompileError
from tilewright.extract.validate import validate_plan
from tilewright.verification import compare, reference_outputs

TARGETS = (
    "toy",
    "mesh_2x3",
    "mesh_1x4",
    "mesh_2x3?sram_kib=16",
    "corsair",
    "wormhole_n150",
    "gemmini",
)
OF_TIME = ("latency", "throughput")
OTHERS = ("energy", "sram", "latency:0.7,energy:0.3", "latency:0.5,energy:0.2,sram:0.3")


@st.composite
def options(draw: st.DrawFn) -> dict[str, Any]:
    """Draw keyword arguments of `api.compile` that go together."""
    chosen: dict[str, Any] = {"target": draw(st.sampled_from(TARGETS))}
    chosen["objective"] = draw(st.sampled_from((*OF_TIME, *OF_TIME, *OTHERS)))
    if chosen["objective"] in OF_TIME:
        chosen["stages"] = draw(st.sampled_from((None, 0, 1, 2, 3)))
    if chosen["objective"] in (*OF_TIME, "energy"):
        chosen["max_latency"] = draw(st.sampled_from((None, None, "50us", 2000)))
    chosen["schedule"] = draw(st.sampled_from(("list", "list", "exact", "program")))
    return chosen


def check(model: bytes, chosen: dict[str, Any]) -> None:
    """Fail unless the model is refused as a model may be, or its program is right."""
    try:
        done = api.compile(model, **chosen)
    except CompileError:
        return
    assert done.plan is not None
    assert done.program is not None
    validate_plan(done.plan, done.target)
    assert api.simulate(done.program).run.cycles >= 0
    inputs = drawn_inputs(model)
    found = api.run(done.program, inputs)
    if is_well_conditioned(model, inputs):
        assert [c for c in compare(found, reference_outputs(model, inputs)) if not c.passed] == []


CHECKS = list(HealthCheck)


@settings(max_examples=6, suppress_health_check=CHECKS)
@given(random_models(), options())
def test_random_options(model: bytes, chosen: dict[str, Any]) -> None:
    check(model, chosen)


@pytest.mark.slow
@settings(max_examples=300, suppress_health_check=CHECKS)
@given(random_models(most_steps=10), options())
def test_many_random_options(model: bytes, chosen: dict[str, Any]) -> None:
    check(model, chosen)
