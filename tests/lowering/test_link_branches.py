"""Branches on parts of their own as one program: it computes the model, sooner than all tiles together."""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from tilewright import api
from tilewright.compiler import Compilation
from tilewright.hwmodel.family import mesh_target
from tilewright.inputs import example_inputs
from tilewright.simulator.functional import run_stream
from tilewright.simulator.timing import simulate
from tilewright.stage_report import pipeline_facts
from tilewright.verification import compare, reference_outputs

TARGET = mesh_target(1, 4, name="row_of_four", sram_kib=64)
ROWS, DEPTH = 3, 4


def _tower(number: int) -> list[NodeProto]:
    nodes, value = [], f"x{number}"
    for layer in range(DEPTH):
        name = f"{number}_{layer}"
        nodes.append(helper.make_node("MatMul", [value, f"w{name}"], [f"m{name}"]))
        nodes.append(helper.make_node("Relu", [f"m{name}"], [f"r{name}"]))
        value = f"r{name}"
    return nodes


@cache
def towers(count: int, *, width: int = 17, in_turn: bool = False) -> bytes:
    """Towers of small layers, joined by a dot product, one behind the other or layer by layer in turn."""
    draw = np.random.default_rng(1)
    weights = [
        numpy_helper.from_array(
            (draw.normal(size=(width, width)) / 4).astype(np.float32), f"w{t}_{layer}"
        )
        for t in range(count)
        for layer in range(DEPTH)
    ]
    parts = [_tower(t) for t in range(count)]
    rows = zip(*parts, strict=True) if in_turn else parts
    nodes = [node for row in rows for node in row]
    value = f"r0_{DEPTH - 1}"
    for t in range(1, count):
        nodes.append(helper.make_node("Mul", [value, f"r{t}_{DEPTH - 1}"], [f"p{t}"]))
        value = f"p{t}"
    weights.append(numpy_helper.from_array(np.array([1], np.int64), "axes"))
    nodes.append(helper.make_node("ReduceSum", [value, "axes"], ["y"], keepdims=1))
    ports = [
        helper.make_tensor_value_info(f"x{t}", TensorProto.FLOAT, (ROWS, width))
        for t in range(count)
    ]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, (ROWS, 1))]
    graph = helper.make_graph(nodes, "towers", ports, outputs, weights)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(made)
    return bytes(made.SerializeToString())


@cache
def divided(count: int) -> Compilation:
    return api.compile(towers(count, in_turn=True), TARGET, stages=0)


def cycles(done: Compilation) -> float:
    assert done.program is not None
    return simulate(done.program).cycles


@pytest.mark.parametrize("count", [2, 3])
def test_towers_side_by_side_are_sooner_than_on_all_tiles(count: int) -> None:
    """The best plan of all tiles, whichever way the model is written."""
    done = divided(count)
    assert done.pipeline is not None
    assert len(done.pipeline.stages) == count
    whole = min(
        cycles(api.compile(towers(count, in_turn=in_turn), TARGET)) for in_turn in (False, True)
    )
    assert cycles(done) < {2: 0.95, 3: 0.85}[count] * whole
    assert done.program is not None
    assert done.program.scheduled_cycles == pytest.approx(cycles(done), rel=0.05)


def test_they_compute_the_model_once_and_in_a_stream() -> None:
    done = divided(3)
    assert done.program is not None
    assert all(check.passed for check in api.verify(towers(3, in_turn=True), done))
    given = [example_inputs(done.graph, seed) for seed in range(3)]
    for inputs, outputs in zip(given, run_stream(done.program, given), strict=True):
        expected = reference_outputs(towers(3), inputs)
        assert all(check.passed for check in compare(dict(outputs), expected))


def test_what_waits_for_another_branch_does_not_hold_up_its_own() -> None:
    done = divided(2)
    assert done.pipeline is not None
    first, second = done.pipeline.stages
    assert not first.waits
    (wait,) = second.waits
    assert cycles(done) < first.cycles + second.cycles - wait.left_cycles
    facts = dict(pipeline_facts(done.pipeline, TARGET))
    assert "waits for none" in facts["stage 1"]
    assert "reads stage 1" in facts["stage 2"]


def test_stages_that_would_end_later_are_not_taken() -> None:
    """Costs say that branches save time, schedules that all tiles hide more of it."""
    pair = mesh_target(1, 2, name="pair", sram_kib=64)
    whole, found, asked = (api.compile(towers(2, width=22), pair, stages=n) for n in (1, 0, 2))
    assert whole.plan is not None
    assert asked.pipeline is not None
    assert asked.pipeline.cost < whole.plan.cost
    assert cycles(found) == cycles(whole) < cycles(asked)
    assert any("by their static schedules" in reason for reason in found.rejected)
