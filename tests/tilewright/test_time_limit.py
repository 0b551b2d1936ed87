"""Limits of planning's time: whenever it is up, an error, or a plan that holds and a bound that does."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.models import case_of, model_of
from typer.testing import CliRunner

from tilewright import api
from tilewright.cli import app
from tilewright.compiler import Compilation
from tilewright.errors import TimeLimitError
from tilewright.extract.deadline import NO_DEADLINE, Deadline
from tilewright.extract.extraction import ExtractOptions, extract
from tilewright.extract.plan import Plan
from tilewright.extract.solve import SolveOptions
from tilewright.extract.validate import validate_plan
from tilewright.hwmodel.family import mesh_target

TARGET = mesh_target(2, 2, name="square", sram_kib=32)
MODEL = "llama_mlp_2x64x4"
LONG_SECONDS = 3600.0


@pytest.fixture(scope="module")
def saturated() -> Compilation:
    return api.compile(model_of(case_of(MODEL)), TARGET, stop_after="saturate")


def plan_of(done: Compilation, deadline: Deadline = NO_DEADLINE) -> Plan:
    assert done.rolled is not None
    model = (done.graph, done.rolled, done.alternatives, done.target, done.mesh)
    return extract(*model, ExtractOptions(solve=SolveOptions(deadline=deadline)))


def test_whenever_the_time_is_up(saturated: Compilation, monkeypatch: pytest.MonkeyPatch) -> None:
    """From any question for the time on, the answer is that it is up."""
    best = plan_of(saturated)
    asked, last = 0, 10**9

    def is_past(_: Deadline) -> bool:
        nonlocal asked
        asked += 1
        return asked > last

    monkeypatch.setattr(Deadline, "is_past", property(is_past))
    deadline = Deadline.after(LONG_SECONDS)
    assert plan_of(saturated, deadline).cost == best.cost
    questions, refused, costs = asked, 0, []
    for part in range(6):
        asked, last = 0, questions * part // 6
        try:
            plan = plan_of(saturated, deadline)
        except TimeLimitError:
            refused += 1
            continue
        validate_plan(plan, TARGET)
        assert plan.bound <= best.cost * (1 + 1e-9)
        assert plan.cost >= best.bound * (1 - 1e-9)
        costs.append(plan.cost)
    assert refused, "the first questions come before there is a plan"
    assert costs, "the last ones come when there is one"


def test_no_time_at_all_is_an_error_that_says_what_to_change(tmp_path: Path) -> None:
    path = tmp_path / "mlp.onnx"
    path.write_bytes(model_of(case_of(MODEL)))
    result = CliRunner().invoke(app, ["compile", str(path), "--target=toy", "--time-limit=0"])
    assert isinstance(result.exception, TimeLimitError)
    text = str(result.exception)
    assert text.startswith("no plan within the time limit of 0 s: ways to compute 0 of")
    assert "allow more time" in text
