"""Tables that no tile can hold, shared out by rows: right values, no hazards, and faster."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from end_to_end import EndToEnd, check_end_to_end
from onnx import TensorProto, helper, numpy_helper

from tilewright import api
from tilewright.extract.plan import Memory, Plan
from tilewright.extract.validate import PlanError, validate_plan

RULE = "partition.vocabulary_of_table"
ROWS, COLUMNS, COUNT = 48_000, 3, 4096


def model(index: int) -> bytes:
    """Return a look-up of many indices in a table of 576,000 bytes; three columns cannot be split."""
    table = np.random.default_rng(0).standard_normal((ROWS, COLUMNS)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "i"], ["y"], axis=0)],
        "look_up",
        [helper.make_tensor_value_info("i", index, [COUNT])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [COUNT, COLUMNS])],
        [numpy_helper.from_array(table, "table")],
    )
    opsets = [helper.make_opsetid("", 17)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString())


@pytest.fixture(scope="module")
def shared() -> EndToEnd:
    indices = np.random.default_rng(1).integers(-ROWS, ROWS, COUNT)
    indices[:3] = 0, ROWS - 1, -1
    return check_end_to_end(model(TensorProto.INT64), "toy", inputs={"i": indices})


def plan_of(done: EndToEnd) -> Plan:
    assert done.compilation.plan is not None
    return done.compilation.plan


def test_a_table_too_large_for_a_tile_becomes_resident(shared: EndToEnd) -> None:
    plan, sram = plan_of(shared), shared.compilation.target.tile.sram.size_bytes
    assert ROWS * COLUMNS * 4 > sram
    (gather,) = (op for op in plan.ops if op.op.kind == "gather")
    assert "vocabulary" in gather.macros
    assert RULE in gather.split_rules
    assert gather.resident[0]
    assert gather.deliveries[0].after.memory is Memory.SRAM


def test_it_is_faster_than_reading_rows_from_memory(shared: EndToEnd) -> None:
    without = api.compile(model(TensorProto.INT64), "toy", without_rules=[RULE])
    assert without.plan is not None
    assert without.program is not None
    assert not any(any(op.macros) for op in without.plan.ops)
    assert plan_of(shared).cost < 0.7 * without.plan.cost
    assert shared.timing.run.cycles < 0.7 * api.simulate(without.program).run.cycles


def test_indices_of_32_bits() -> None:
    indices = np.random.default_rng(2).integers(0, ROWS, COUNT).astype(np.int32)
    done = check_end_to_end(model(TensorProto.INT32), "toy", inputs={"i": indices})
    assert any("vocabulary" in op.macros for op in plan_of(done).ops)


@pytest.mark.parametrize("damage", ["macros", "result"])
def test_damage_is_caught(shared: EndToEnd, damage: str) -> None:
    plan = plan_of(shared)
    number = next(n for n, op in enumerate(plan.ops) if op.op.kind == "gather")
    gather = plan.ops[number]
    if damage == "macros":
        wrong = replace(gather, macros=("",) * plan.mesh.rank)
    else:
        complete = tuple(-1 if state == -2 else state for state in gather.result.sharding)
        wrong = replace(gather, result=replace(gather.result, sharding=complete))
    ops = (*plan.ops[:number], wrong, *plan.ops[number + 1 :])
    with pytest.raises(PlanError):
        validate_plan(replace(plan, ops=ops), shared.compilation.target)
