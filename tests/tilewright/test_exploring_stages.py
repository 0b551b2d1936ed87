"""Sessions and the commands of `tilewright explore` on stages: answers run, tables and JSON say the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tilewright import api
from tilewright.errors import CompileError, DemandError
from tilewright.exploring import Session
from tilewright.extract.exploration.demand import parse_demand
from tilewright.extract.validate import validate_plan
from tilewright.simulator.timing import interval_cycles

Command = Callable[..., Any]

MODEL = ("--target", "mesh_1x2", "--objective", "throughput")


@pytest.fixture(scope="module")
def layers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file of relu(x w0) w1."""
    draw = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(draw.normal(size=shape).astype(np.float32), name)
        for name, shape in (("w0", (18, 20)), ("w1", (20, 22)))
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "w1"], ["y"]),
    ]
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", (3, 18)), ("y", (3, 22)))
    ]
    graph = helper.make_graph(nodes, "layers", ports[:1], ports[1:], weights)
    path = tmp_path_factory.mktemp("layers") / "layers.onnx"
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    return path


@pytest.fixture(scope="module")
def session(layers: Path) -> Session:
    return api.explore(layers, "mesh_1x2", objective="throughput")


def test_an_answer_on_stages_lowers_and_runs(session: Session, layers: Path) -> None:
    answer = session.divide("cut@b", "part=1x1@y")
    assert [stage.shape for stage in answer.pipeline.stages] == [(1, 1), (1, 1)]
    assert answer.delta == pytest.approx(answer.pipeline.cost - session.divided.pipeline.cost)
    for stage in answer.pipeline.stages:
        validate_plan(stage.plan, stage.target)
    program = session.lower(answer)
    values = {"x": np.random.default_rng(1).normal(size=(3, 18)).astype(np.float32)}
    given = {w.name: numpy_helper.to_array(w) for w in onnx.load(layers).graph.initializer}
    expected = np.maximum(values["x"] @ given["w0"], 0) @ given["w1"]
    np.testing.assert_allclose(api.run(program, values)["y"], expected, rtol=1e-4, atol=1e-4)
    assert interval_cycles(program) > 0


def test_demands_on_plans_and_on_stages_are_told_apart(session: Session) -> None:
    with pytest.raises(DemandError, match=r"ask `Session\.divide`"):
        session.force("cut@b")
    plain = session.divide("memory=dram@a", "stages=1")
    (stage,) = plain.pipeline.stages
    (made,) = (p for p in stage.plan.ops if p.op.output == "a")
    assert made.result.memory == "dram"


def test_rules_are_forbidden_for_all_stages(session: Session) -> None:
    with pytest.raises(DemandError, match="a place where a rule allows a cut"):
        session.divide("cut@b", forbidding=["rule=pipeline.cut_at_one_value"])
    answer = session.divide("stages=2", forbidding=["rule=memory.weight_resident"])
    assert not any(any(p.resident) for stage in answer.pipeline.stages for p in stage.plan.ops)
    with pytest.raises(DemandError, match="treats all tensors alike"):
        session.divide("stages=2", "rule=pipeline.cut_at_one_value")


def test_more_cuts_than_tiles_are_refused(session: Session) -> None:
    with pytest.raises(DemandError, match="found 3 stages, expected at most 2, so many tiles has"):
        session.divide("cut@a", "cut@b")
    assert len(session.divide("cut@a", forbidding=["cut@b"]).pipeline.stages) == 2


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("cut=2@a", "write cut@fc1"),
        ("cut@", "found no tensor"),
        ("stages=2@a", "write stages=2, or stage=2@a"),
        ("stage=2", "found no tensor"),
        ("stage=@a", "found no value"),
    ],
)
def test_stages_are_written_in_one_form(text: str, reason: str) -> None:
    with pytest.raises(DemandError, match=reason):
        parse_demand(text)


def test_stages_need_an_objective_of_time(layers: Path) -> None:
    with pytest.raises(CompileError, match="energy"):
        api.explore(layers, "mesh_1x2", objective="energy").divide("stages=2")


def test_tables_and_json_of_stages_agree(tilewright: Command, layers: Path) -> None:
    arguments = ("explore", "force", layers, "stages=2", "--forbid", "cut@b", *MODEL)
    shown = tilewright(*arguments)
    assert shown.code == 0, shown.err
    assert "force stages=2" in shown.out
    assert "forbid cut@b" in shown.out
    assert "answered in" in shown.out
    found = json.loads(tilewright(*arguments, "--json").out)
    first, second = found["pipeline"]["stages"]
    assert (first["from"], first["to"], first["hands_on"]) == ("a", "a", ["a"])
    assert (second["from"], second["to"], second["hands_on"]) == ("b", "y", ["y"])
    assert f"{found['pipeline']['cost']:,.0f} cycles" in shown.out
    assert found["delta"] == pytest.approx(found["pipeline"]["cost"] - found["base"]["cost"])


def test_verbs_on_stages_print(tilewright: Command, layers: Path) -> None:
    for arguments, expected in (
        (("explain", layers, "cut@b"), "behind b"),
        (("forbid", layers, "stages=1"), "stages without demands"),
        (("diff", layers, "cut@a", "--against", "cut@b"), "stages of the second"),
    ):
        shown = tilewright("explore", *arguments, *MODEL)
        assert shown.code == 0, shown.err
        assert expected in shown.out
    reason = json.loads(tilewright("explore", "explain", layers, "cut@b", *MODEL, "--json").out)
    assert reason["is_cut"] == (reason["chosen"]["stages"][0]["to"] == "b")
    assert reason["other"]["pipeline"]["cost"] >= reason["chosen"]["cost"]


def test_errors_on_stages_are_one_line(tilewright: Command, layers: Path) -> None:
    shown = tilewright("explore", "force", layers, "stage=2@a", "stage=1@b", *MODEL)
    assert shown.code == 1
    assert shown.err.count("\n") == 1
    shown = tilewright("explore", "force", layers, "cut=2@a", *MODEL)
    assert shown.code == 1
    assert "write cut@fc1" in shown.err
