"""Layers whose hidden features do not fit the scratchpads: in slices they are faster, and right."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import pytest
from benchmarks.stream.machines import mesh
from end_to_end import check_end_to_end
from onnx import TensorProto, helper, numpy_helper

from tilewright import api
from tilewright.extract.plan import Plan
from tilewright.rules.options import builtin_rules

CHAINS = tuple(rule.name for rule in builtin_rules() if rule.name.startswith("fusion.chain"))
ROWS, WIDTH, HIDDEN = 2048, 64, 512
"""A sixteenth of the hidden features, in f32, is 256 KiB: all that a tile of `toy` has."""


def layer(rows: int, width: int, hidden: int) -> bytes:
    """Return relu(x w1 + b1) w2 + b2."""
    rng = np.random.default_rng(7)
    shapes = {"w1": (width, hidden), "b1": (hidden,), "w2": (hidden, width), "b2": (width,)}
    weights = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    return _model(
        [
            helper.make_node("MatMul", ["x", "w1"], ["p"]),
            helper.make_node("Add", ["p", "b1"], ["s"]),
            helper.make_node("Relu", ["s"], ["h"]),
            helper.make_node("MatMul", ["h", "w2"], ["q"]),
            helper.make_node("Add", ["q", "b2"], ["y"]),
        ],
        {name: array.astype(np.float32) for name, array in weights.items()},
        (TensorProto.FLOAT, (rows, width)),
    )


def quantised(rows: int, width: int, hidden: int) -> bytes:
    """Return two products of 8-bit integers, each scaled and rounded to 8 bits."""
    rng = np.random.default_rng(7)
    weights = {
        "w1": rng.integers(-90, 90, (width, hidden), np.int8),
        "w2": rng.integers(-90, 90, (hidden, width), np.int8),
        "fine": np.array(2.0**-5, np.float32),
        "coarse": np.array(2.0**-1, np.float32),
        "zero": np.array(0, np.int8),
    }
    first = ["x", "fine", "zero", "w1", "fine", "zero", "coarse", "zero"]
    second = ["h", "coarse", "zero", "w2", "fine", "zero", "coarse", "zero"]
    nodes = [
        helper.make_node("QLinearMatMul", first, ["h"]),
        helper.make_node("QLinearMatMul", second, ["y"]),
    ]
    return _model(nodes, weights, (TensorProto.INT8, (rows, width)))


def _model(
    nodes: list[onnx.NodeProto],
    weights: Mapping[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]],
    port: tuple[int, tuple[int, ...]],
) -> bytes:
    graph = helper.make_graph(
        nodes,
        "layer",
        [helper.make_tensor_value_info("x", *port)],
        [helper.make_tensor_value_info("y", *port)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.checker.check_model(made)
    return bytes(made.SerializeToString())


def kinds(plan: Plan | None) -> list[str]:
    assert plan is not None
    return [planned.op.kind for planned in plan.ops]


def test_hidden_features_never_exist() -> None:
    model = layer(ROWS, WIDTH, HIDDEN)
    done = check_end_to_end(model, "toy")
    plan = done.compilation.plan
    assert plan is not None
    assert kinds(plan).count("chain") == 1
    made = [plan.types[name].shape for op in plan.ops for name in op.op.outputs]
    assert (ROWS, HIDDEN) not in made
    without = api.compile(model, "toy", without_rules=CHAINS)
    assert without.plan is not None
    assert without.program is not None
    assert "chain" not in kinds(without.plan)
    assert plan.cost < without.plan.cost / 1.5
    assert done.timing.run.cycles < api.simulate(without.program).run.cycles / 1.5
    assert done.timing.run.cycles == pytest.approx(plan.cost, rel=0.15)


def test_integers_are_exact_in_slices() -> None:
    """Sums of 32 bits, rounded to 8 bits between the products; four tiles at one port of 8 bytes a cycle."""
    model, target = quantised(1024, 32, 1024), mesh(2, 2, 1, 8)
    done = check_end_to_end(model, target, tolerance=0.0)
    assert kinds(done.compilation.plan) == ["chain"]
    without = api.compile(model, target, without_rules=CHAINS)
    assert without.program is not None
    assert done.timing.run.cycles < api.simulate(without.program).run.cycles / 3


def test_small_values_are_left_alone() -> None:
    """What is between the products is below a quarter of the scratchpads: rules do not look at it."""
    done = api.compile(layer(256, WIDTH, HIDDEN), "toy", stop_after="saturate")
    assert all(node.kind != "chain" for found in done.alternatives for node in found.nodes)
