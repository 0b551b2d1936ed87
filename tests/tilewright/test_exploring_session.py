"""Sessions and the commands of `tilewright explore`: answers hold, tables and JSON say the same."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tilewright import api
from tilewright.errors import DemandError, TargetError
from tilewright.exploring import Session
from tilewright.extract.exploration.resources import resources
from tilewright.extract.validate import validate_plan
from tilewright.hwmodel.change import changed_target
from tilewright.hwmodel.load import load_target
from tilewright.verification import compare, reference_outputs

Command = Callable[..., Any]

MODEL = ("--target", "mesh_1x2")


@pytest.fixture(scope="module")
def session(cnn: Path) -> Session:
    return api.explore(cnn, "toy", dims={"batch": 2})


def test_an_answer_lowers_and_simulates(session: Session) -> None:
    answer = session.force("memory=dram@a1")
    validate_plan(answer.plan, session.target)
    assert answer.plan.cost == pytest.approx(session.base.plan.cost + answer.delta)
    assert api.simulate(session.lower(answer)).run.cycles > 0
    without = session.forbid("memory=dram@a1", forcing=["memory=sram@a1"])
    assert without.delta == pytest.approx(0)


@pytest.mark.parametrize(
    "demand", ["tile=n=1,o=3,h=3@c1", "tile=m=1,n=7,k=50@logits", "tile=d1=3@a1"]
)
def test_a_demanded_tile_computes_what_onnxruntime_does(
    session: Session, cnn: Path, image: np.ndarray, demand: str
) -> None:
    answer = session.force(demand)
    validate_plan(answer.plan, session.target)
    expected = reference_outputs(cnn, {"image": image})
    checks = compare(api.run(session.lower(answer), {"image": image}), expected)
    assert checks
    assert all(check.passed for check in checks)
    assert session.forbid(demand).plan.ops != answer.plan.ops


def test_rules_that_price_are_forbidden_for_the_whole_plan(session: Session) -> None:
    answer = session.forbid("rule=memory.weight_resident")
    validate_plan(answer.plan, session.target)
    assert any(any(p.resident) for p in session.base.plan.ops)
    assert not any(any(p.resident) for p in answer.plan.ops)
    assert answer.delta > 0
    with pytest.raises(DemandError, match="treats all tensors alike"):
        session.force("rule=memory.weight_resident")
    with pytest.raises(DemandError, match="there is no such rule; did you mean fusion"):
        session.forbid("rule=fusio")


def test_the_base_is_no_dearer_than_a_compilation(session: Session, cnn: Path) -> None:
    done = api.compile(cnn, "toy", dims={"batch": 2}, stop_after="extract")
    assert done.plan is not None
    assert session.base.plan.cost <= done.plan.cost * (1 + 1e-9)


def test_what_if_agrees_with_planning_for_the_changed_target(session: Session, cnn: Path) -> None:
    for change in ("dram_bandwidth=x2", "sram=x0.5"):
        found = session.what_if(change)
        validate_plan(found.plan, found.target)
        fresh = api.explore(cnn, found.target, dims={"batch": 2})
        assert found.plan.cost == pytest.approx(fresh.base.plan.cost, rel=1e-6)
        assert found.before == resources(session.base.plan, session.target)
        assert found.after == resources(found.plan, found.target)
        assert found.after[0].amount - found.before[0].amount == pytest.approx(found.delta)
    faster = session.what_if("dram_bandwidth=x2")
    assert faster.delta < 0


def test_a_multiple_of_a_whole_figure_is_whole(session: Session) -> None:
    lanes = session.target.tile.vector.lanes
    smaller = changed_target(session.target, "lanes=x0.3")
    assert smaller.tile.vector.lanes == round(0.3 * lanes) != 0.3 * lanes
    with pytest.raises(TargetError, match="found 78643, expected a multiple of alignment_bytes"):
        changed_target(session.target, "sram=x0.3")


def test_rates_of_the_network_change_together(session: Session) -> None:
    faster = changed_target(session.target, "link_bandwidth=x2")
    for before, after in zip(session.target.interconnects, faster.interconnects, strict=True):
        assert after.port_bytes_per_cycle == 2 * before.port_bytes_per_cycle
        assert before.link_bytes_per_cycle is not None
        assert after.link_bytes_per_cycle == 2 * before.link_bytes_per_cycle
    crossbars = changed_target(load_target("corsair"), "link_bandwidth=x0.5").interconnects
    assert any(level.link_bytes_per_cycle is None for level in crossbars)
    assert session.what_if("link_bandwidth=x2").delta < 0


def test_a_change_that_changes_nothing_keeps_the_plan(session: Session) -> None:
    for change in ("sram=x1", "mesh=4x4"):
        assert session.what_if(change).plan is session.base.plan


def test_smaller_scratchpads_bring_chains_as_for_a_compilation(tmp_path: Path) -> None:
    """What two products pass on is a slice at a time only where it is a large part of the scratchpad."""
    path = tmp_path / "mlp.onnx"
    weights = [
        numpy_helper.from_array(np.full(shape, 0.1, np.float32), name)
        for name, shape in (("a", (16, 256)), ("b", (256, 16)))
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["hidden"]),
        helper.make_node("Relu", ["hidden"], ["active"]),
        helper.make_node("MatMul", ["active", "b"], ["y"]),
    ]
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, (64, 16)) for name in ("x", "y")
    ]
    graph = helper.make_graph(nodes, "mlp", ports[:1], ports[1:], weights)
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    session = api.explore(path, "mesh_1x2")
    (known,) = session.explorer.alternatives
    assert not any(node.kind == "chain" for node in known.nodes)
    found = session.what_if("sram=x0.125")
    validate_plan(found.plan, found.target)
    fresh = api.explore(path, found.target).base.plan
    assert found.plan.cost == pytest.approx(fresh.cost, rel=1e-6)
    assert found.plan.bound == pytest.approx(fresh.bound, rel=1e-6)
    assert any(planned.op.kind == "chain" for planned in found.plan.ops)


def test_what_if_saturates_again_for_another_mesh(session: Session) -> None:
    found = session.what_if("mesh=2x2")
    assert found.plan.mesh.sizes == (2, 2)
    validate_plan(found.plan, found.target)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("sram", "expected FIGURE=VALUE"),
        ("sram=lots", "found 'lots', expected a number or xFACTOR"),
        ("tile.engine=2", "is no figure of the target"),
        ("engine.size=2", "'engine' is no figure of the target, expected one of axes, clock"),
        ("sram=64KiB", "a number or xFACTOR for tile.sram.size_bytes, which is 262,144 now"),
        ("dram_bandwith=x2", "did you mean dram_bandwidth"),
        (
            "tile.matrix.rowz=x2",
            "expected tile.matrix and one of rows, .*did you mean tile.matrix.rows",
        ),
        (
            "tile.matrix=x2",
            "'tile.matrix' is no figure of the target, expected tile.matrix and one of rows",
        ),
        ("interconnects.x.hop_cycles=2", "expected interconnects and one of row-column"),
        ("mesh=2", "expected a size for each of the axes row, column"),
        ("sram=0", "greater than 0"),
    ],
)
def test_wrong_changes_are_refused(session: Session, change: str, reason: str) -> None:
    with pytest.raises(TargetError, match=reason):
        session.what_if(change)


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file of relu(x w + b)."""
    weights = [
        numpy_helper.from_array(np.ones(shape, np.float32), name)
        for name, shape in (("w", (16, 32)), ("b", (32,)))
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["product"]),
        helper.make_node("Add", ["product", "b"], ["sum"]),
        helper.make_node("Relu", ["sum"], ["y"]),
    ]
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", (8, 16)), ("y", (8, 32)))
    ]
    graph = helper.make_graph(nodes, "dense", ports[:1], ports[1:], weights)
    path = tmp_path_factory.mktemp("dense") / "dense.onnx"
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    return path


def test_tables_and_json_agree(tilewright: Command, dense: Path) -> None:
    arguments = ("explore", "force", dense, "memory=dram@product", *MODEL)
    shown = tilewright(*arguments)
    assert shown.code == 0, shown.err
    found = json.loads(tilewright(*arguments, "--json").out)
    assert f"{found['plan']['cost']:,.0f} cycles" in shown.out
    assert found["delta"] == pytest.approx(sum(c["delta"] for c in found["changes"]))
    assert "answered in" in shown.out


def test_a_tile_that_planning_leaves_out_is_answered(tilewright: Command, dense: Path) -> None:
    shown = tilewright("explore", "force", dense, "tile=m=3,n=5@product", *MODEL)
    assert shown.code == 0, shown.err
    assert "force tile=m=3,n=5@product" in shown.out


def test_every_verb_prints(tilewright: Command, dense: Path) -> None:
    for arguments, expected in (
        (("alternatives", dense, "y", "--top", "2"), "ways to compute y"),
        (("explain", dense, "y"), "cost term by term"),
        (("forbid", dense, "memory=dram@product"), "forbid memory=dram@product"),
        (
            ("diff", dense, "memory=dram@product", "--against", "memory=sram@product"),
            "to the second",
        ),
        (("what-if", dense, "sram=x2"), "mesh_1x2 with sram=x2"),
    ):
        shown = tilewright("explore", *arguments, *MODEL)
        assert shown.code == 0, shown.err
        assert expected in shown.out
    terms = json.loads(tilewright("explore", "explain", dense, "y", *MODEL, "--json").out)["terms"]
    assert terms


def test_what_cannot_be_asked_is_refused_before_any_planning(
    tilewright: Command, dense: Path
) -> None:
    for arguments, reason in (
        (("what-if", dense, "sram=x2", "dram_bandwith=x2"), "did you mean dram_bandwidth"),
        (("force", dense, "memory=drum@y"), "found 'drum', expected sram or dram"),
        (("forbid", dense, "split=z:m@y"), "demand 'forbid split=z:m@y': found 'z:m'"),
        (("diff", dense, "memory=dram@y", "--against", "weights=all@y"), "found 'all'"),
    ):
        shown = tilewright("explore", *arguments, *MODEL)
        assert shown.code == 1
        assert reason in shown.err
        assert "extracting" not in shown.out + shown.err


def test_another_clock_is_told_in_time(tilewright: Command, dense: Path) -> None:
    shown = tilewright("explore", "what-if", dense, "clock=x2", *MODEL).out
    assert "+0 (+0.0%) cycles, -" in shown
    assert "us (-50.0%)" in shown


def test_bounds_have_the_unit_of_the_cost(tilewright: Command, dense: Path) -> None:
    shown = tilewright("explore", "what-if", dense, "clock=x2", *MODEL, "--objective", "energy").out
    assert re.search(r"[\d.]+ uJ, bound [\d.]+ uJ, gap", shown)


def test_rules_of_ways_stand_below_their_table(tilewright: Command, dense: Path) -> None:
    shown = tilewright("explore", "alternatives", dense, "y", *MODEL).out
    table, _, below = shown.partition("rules that make ways")
    assert "fusion." in below
    assert "fusion." not in table


def test_errors_are_one_line(tilewright: Command, dense: Path) -> None:
    beyond = tilewright("explore", "force", dense, "tile=m=9@product", *MODEL)
    assert beyond.code == 1
    assert "demand 9, limit 8, gap 1 indices that loop 'm' has on a tile" in beyond.err
    assert beyond.err.count("\n") == 1
    contrary = ("memory=dram@product", "memory=sram@product")
    shown = tilewright("explore", "force", dense, *contrary, *MODEL)
    assert shown.code == 1
    assert "'force memory=dram@product' and 'force memory=sram@product' contradict" in shown.err
    assert shown.err.count("\n") == 1
