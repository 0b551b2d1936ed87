"""Stages asked for on the command line and from Python: what is refused, and how it is reported."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from tilewright import api
from tilewright.cli import app
from tilewright.compiler import Compilation
from tilewright.errors import CompileError, InfeasibleDemandError
from tilewright.hwmodel.family import mesh_target
from tilewright.report import schedule_facts
from tilewright.stage_report import pipeline_facts

TARGET = mesh_target(1, 2, name="pair", sram_kib=64)


def two_layers() -> bytes:
    weights = [numpy_helper.from_array(np.eye(18, dtype=np.float32), f"w{i}") for i in range(2)]
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "w1"], ["y"]),
    ]
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, (3, 18)) for n in ("x", "y")]
    graph = helper.make_graph(nodes, "two_layers", ports[:1], ports[1:], weights)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(made)
    return made.SerializeToString()


@pytest.mark.parametrize("text", ["none", "0", "-1", "1.5"])
def test_a_bad_number_of_stages_is_refused(text: str) -> None:
    result = CliRunner().invoke(app, ["compile", "model.onnx", f"--stages={text}"])
    assert result.exit_code == 2
    assert "auto" in result.output


def test_stages_are_reported() -> None:
    done = api.compile(two_layers(), TARGET, stages=2, objective="throughput", stop_after="extract")
    assert done.pipeline is not None
    facts = dict(pipeline_facts(done.pipeline, TARGET, 1234.0))
    assert {"predicted interval", "simulated interval", "proven bound"} <= set(facts)
    assert "1 x 1 tiles from 0" in facts["stage 1"]
    assert "1 x 1 tiles from 1" in facts["stage 2"]
    assert api.compile(two_layers(), TARGET, stop_after="extract").pipeline is None


@pytest.mark.parametrize(("objective", "stages"), [("latency", 0), ("throughput", None)])
def test_a_model_without_operators_is_one_stage(objective: str, stages: int | None) -> None:
    node = helper.make_node("Identity", ["x"], ["y"])
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, (3,)) for n in ("x", "y")]
    graph = helper.make_graph([node], "same", ports[:1], ports[1:])
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=9)
    done = api.compile(model.SerializeToString(), TARGET, objective=objective, stages=stages)
    given = {"x": np.arange(3, dtype=np.float32)}
    assert done.program is not None
    assert np.array_equal(api.run(done.program, given)["y"], given["x"])


def test_each_stage_has_a_schedule() -> None:
    done = api.compile(two_layers(), TARGET, stages=2, objective="throughput")
    assert done.program is not None
    facts = dict(schedule_facts(done.program))
    assert list(facts) == ["stage 1 schedule", "stage 2 schedule"]
    assert all("critical path" in text and "busiest engine" in text for text in facts.values())
    # facts of a file are free text
    broken = replace(done.program, facts={"stage 1 schedule_cycles": "many"})
    assert schedule_facts(broken) == []


def test_stages_keep_a_limit_of_latency() -> None:
    def compiled(limit: float | None) -> Compilation:
        return api.compile(
            two_layers(),
            TARGET,
            objective="throughput",
            stages=2,
            max_latency=limit,
            stop_after="extract",
        )

    free = compiled(None)
    assert free.plan is not None
    assert free.pipeline is not None
    whole, latency = free.plan.cost, sum(stage.plan.cost for stage in free.pipeline.stages)
    limited = compiled(2 * latency)
    assert limited.pipeline is not None
    assert limited.pipeline.cost == free.pipeline.cost
    # one stage on all tiles is within this limit, two stages are not
    assert 1.5 * whole < latency
    with pytest.raises(InfeasibleDemandError, match="fewer stages") as raised:
        compiled(latency)  # without what the stages exchange
    assert raised.value.limit == latency < raised.value.demand < 2 * latency


def test_demands_that_cannot_be_met() -> None:
    with pytest.raises(CompileError, match="energy"):
        api.compile(two_layers(), TARGET, stages=2, objective="energy", stop_after="extract")
    with pytest.raises(CompileError, match="into 3 stages"):
        api.compile(two_layers(), TARGET, stages=3, stop_after="extract")
