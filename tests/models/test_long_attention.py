"""Attention whose scores do not fit the scratchpad: fused it is faster, and right."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from end_to_end import EndToEnd, check_end_to_end
from onnx import TensorProto, helper, numpy_helper

from tilewright import api
from tilewright.extract.plan import Plan
from tilewright.extract.planned import planned_nest
from tilewright.extract.validate import PlanError, validate_plan
from tilewright.rules.gathered import GATHERED

FUSION = ("fusion.attention_of_products", "fusion.masked_attention_of_products")
HEADS, QUERIES, KEYS, FEATURES = 4, 512, 500, 32
SCORES = (HEADS, QUERIES, KEYS)
"""A sixteenth of them, in f32, is 250 KB of the 256 KiB of a tile of `toy`."""


def model(*, masked: bool) -> bytes:
    """Return softmax(q k^T / sqrt(d) + mask) v with a mask of -inf, as exporters write it."""
    mask = np.where(np.tri(QUERIES, KEYS, KEYS - QUERIES, dtype=bool), 0.0, -np.inf)
    constants = {"scale": np.float32(FEATURES**-0.5), "mask": mask.astype(np.float32)[None]}
    shapes = {"q": (HEADS, QUERIES, FEATURES)} | dict.fromkeys("kv", (HEADS, KEYS, FEATURES))
    nodes = [
        helper.make_node("Transpose", ["k"], ["kt"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["q", "kt"], ["products"]),
        helper.make_node("Mul", ["products", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "mask"], ["masked"]),
        helper.make_node("Softmax", ["masked" if masked else "scaled"], ["weights"], axis=-1),
        helper.make_node("MatMul", ["weights", "v"], ["y"]),
    ]
    graph = helper.make_graph(
        [node for node in nodes if masked or node.op_type != "Add"],
        "attention",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shapes["q"])],
        [numpy_helper.from_array(a, n) for n, a in constants.items() if masked or n != "mask"],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.checker.check_model(made)
    return bytes(made.SerializeToString())


def kinds(plan: Plan) -> list[str]:
    return [planned.op.kind for planned in plan.ops]


def checked(*, masked: bool) -> tuple[EndToEnd, Plan]:
    done = check_end_to_end(model(masked=masked), "toy")
    assert done.compilation.plan is not None
    return done, done.compilation.plan


@pytest.mark.parametrize("masked", [False, True])
def test_scores_never_exist(masked: bool) -> None:
    done, plan = checked(masked=masked)
    assert kinds(plan).count("attention") == 1
    assert "softmax" not in kinds(plan)
    made = [plan.types[name].shape for op in plan.ops for name in op.op.outputs]
    assert SCORES not in made
    without = api.compile(model(masked=masked), "toy", without_rules=FUSION)
    assert without.plan is not None
    assert without.program is not None
    assert "attention" not in kinds(without.plan)
    assert plan.cost < without.plan.cost / 2
    assert done.timing.run.cycles < api.simulate(without.program).run.cycles / 2


def ring_model() -> bytes:
    """Return causal attention over normalised tokens of one head, as exporters write it."""
    tokens, size = 512, 64
    mask = np.where(np.tri(tokens, dtype=bool), 0.0, -np.inf).astype(np.float32)
    constants = {"gain": np.ones(size, np.float32), "mask": mask, "scale": np.float32(size**-0.5)}
    nodes = [
        helper.make_node("LayerNormalization", ["x", "gain"], ["y"], axis=-1),
        helper.make_node("Transpose", ["y"], ["t"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["y", "t"], ["products"]),
        helper.make_node("Mul", ["products", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "mask"], ["masked"]),
        helper.make_node("Softmax", ["masked"], ["weights"], axis=-1),
        helper.make_node("MatMul", ["weights", "y"], ["mixed"]),
        helper.make_node("LayerNormalization", ["mixed", "gain"], ["z"], axis=-1),
    ]
    graph = helper.make_graph(
        nodes,
        "ring",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, tokens, size))],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, (1, tokens, size))],
        [numpy_helper.from_array(a, n) for n, a in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.checker.check_model(made)
    return bytes(made.SerializeToString())


def test_keys_pass_round_under_a_causal_mask() -> None:
    """On tiles in a row, chunks that the mask hides from a tile's queries arrive first, last or between."""
    target = "mesh_1x8?sram_kib=512"
    done = check_end_to_end(ring_model(), target)
    plan = done.compilation.plan
    assert plan is not None
    (attention,) = (planned for planned in plan.ops if planned.op.kind == "attention")
    assert attention.macros == ("", GATHERED)
    assert len(attention.op.inputs) == 4


def test_keys_split_over_the_mesh_are_refused() -> None:
    done, plan = checked(masked=False)
    number = kinds(plan).index("attention")
    planned = plan.ops[number]
    names = [loop.name for loop in planned_nest(planned, plan.types).dims]
    for axis in range(plan.mesh.rank):
        keys = names.index("n")
        split = tuple(keys if a == axis else d for a, d in enumerate(planned.split_dims))
        ops = (*plan.ops[:number], replace(planned, split_dims=split), *plan.ops[number + 1 :])
        with pytest.raises(PlanError, match="splits a reduction that must be whole"):
            validate_plan(replace(plan, ops=ops), done.compilation.target)
