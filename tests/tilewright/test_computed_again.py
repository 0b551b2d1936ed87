"""A value computed again saves simulated cycles, is right, and reports say so."""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import tilewright
from tilewright.compiler import Compilation
from tilewright.hwmodel.family import mesh_target
from tilewright.hwmodel.target import Target, interned
from tilewright.report import plan_facts
from tilewright.rule_stats import rule_uses

ROWS, WIDTH = 128, 32
RULE = "pipeline.map_again"


def model() -> bytes:
    """Return two products of an outer sum, multiplied by it in the end."""
    draw = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(draw.normal(size=(WIDTH, WIDTH)).astype(np.float32) / 6, name)
        for name in ("u", "v")
    ]
    nodes = [
        helper.make_node("Add", ["column", "row"], ["field"]),
        helper.make_node("MatMul", ["field", "u"], ["first"]),
        helper.make_node("Softmax", ["first"], ["shares"]),
        helper.make_node("MatMul", ["shares", "v"], ["second"]),
        helper.make_node("Mul", ["second", "field"], ["y"]),
    ]

    def port(name: str, *shape: int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    graph = helper.make_graph(
        nodes,
        "field",
        [port("column", ROWS, 1), port("row", 1, WIDTH)],
        [port("y", ROWS, WIDTH)],
        weights,
    )
    opset = helper.make_opsetid("", 17)
    return bytes(helper.make_model(graph, opset_imports=[opset], ir_version=9).SerializeToString())


def target(sram_bytes: int) -> Target:
    base = mesh_target(1, 2)
    sram = base.tile.sram.model_copy(update={"size_bytes": sram_bytes})
    tile = base.tile.model_copy(update={"sram": sram})
    return interned(base.model_copy(update={"tile": tile}))


@cache
def compiled(*without: str) -> Compilation:
    """Compile for a scratchpad that cannot hold the sum beside the products, with few rules."""
    rules = ("algebra", "fusion", *without)
    return tilewright.compile(model(), target(20 * 1024), without_rules=rules)


def test_it_saves_simulated_cycles_and_is_right() -> None:
    with_it, without = compiled(), compiled(RULE)
    assert with_it.program is not None
    assert without.program is not None
    saved = 1 - tilewright.simulate(with_it.program).run.cycles / (
        tilewright.simulate(without.program).run.cycles
    )
    assert saved > 0.1
    assert all(check.passed for check in tilewright.verify(model(), with_it))


def test_the_report_says_what_is_computed_again_and_what_for() -> None:
    done = compiled()
    assert done.plan is not None
    (late,) = (op for op in done.plan.ops if op.again is not None)
    (text,) = (text for name, text in plan_facts(done, done.plan) if name == "computed again")
    assert text == f"'field' for 'y' by {RULE}, in place of holding 8.19 kB a tile for 2 ops"
    assert late.again is not None
    assert late.again.tensor == "field"
    assert rule_uses(done)[RULE] == 1


def test_left_out_by_name_nothing_is_computed_again() -> None:
    plan = compiled(RULE).plan
    assert plan is not None
    assert all(op.again is None for op in plan.ops)
