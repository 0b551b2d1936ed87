"""Quantised weights from the ONNX file to the instructions: what they cost, and that the numbers stay."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper
from plan_cases import SMALL, compiled

from tilewright import api
from tilewright.compiler import Compilation
from tilewright.dtypes import DType
from tilewright.graph import dequantises
from tilewright.lowering.isa import Opcode
from tilewright.lowering.lower import lower

LAYER = "fusion.dequantised_weight_binary"
RULES = ("fusion.dequantised_weight", "fusion.dequantised_weight_unary", LAYER)
FILTERS = "fusion.dequantised_kernel_binary"
OF_CONVOLUTIONS = ("fusion.dequantised_kernel", "fusion.dequantised_kernel_unary", FILTERS)
ROWS, K, N = 8, 96, 160
RNG = np.random.default_rng(5)


def model(
    dtype: str, scales: tuple[int, ...], zero: int | None, before: tuple[NodeProto, ...] = ()
) -> bytes:
    """Return relu(x W + b) with W dequantised; `before` makes `h` of `x`."""
    low = 0 if dtype == "uint8" else -100
    constants = {
        "q": RNG.integers(low, low + 200, (K, N)).astype(dtype),
        "s": RNG.uniform(0.001, 0.01, scales).astype(np.float32),
        "b": RNG.normal(size=N).astype(np.float32),
    }
    inputs = ["q", "s"]
    if zero is not None:
        constants["z"] = np.full(scales, zero, dtype)
        inputs.append("z")
    attrs = {"axis": 0 if scales == (K,) else 1} if scales else {}
    nodes = [
        *(before or (helper.make_node("Identity", ["x"], ["h"]),)),
        helper.make_node("DequantizeLinear", inputs, ["w"], **attrs),
        helper.make_node("MatMul", ["h", "w"], ["p"]),
        helper.make_node("Add", ["p", "b"], ["a"]),
        helper.make_node("Relu", ["a"], ["y"]),
    ]
    quantisation = {"one": np.float32(0.05), "none": np.int8(0)} if before else {}
    graph = helper.make_graph(
        nodes,
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (ROWS, K))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (ROWS, N))],
        [numpy_helper.from_array(np.asarray(a), n) for n, a in (constants | quantisation).items()],
    )
    opsets = [helper.make_opsetid("", 17)]
    made = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    return bytes(made.SerializeToString())


def convolution(
    scales: tuple[int, ...], zero: int | None, groups: int = 1, epilogue: bool = True
) -> bytes:
    """Return relu(conv(x, W) + b), or the convolution alone, with W [48, 32 / groups, 3, 3] dequantised."""
    constants = {
        "q": RNG.integers(-100, 100, (48, 32 // groups, 3, 3)).astype(np.int8),
        "s": RNG.uniform(0.001, 0.01, scales).astype(np.float32),
        "b": RNG.normal(size=48).astype(np.float32),
    }
    inputs = ["q", "s"]
    if zero is not None:
        constants["z"] = np.full(scales, zero, np.int8)
        inputs.append("z")
    nodes = [
        helper.make_node("DequantizeLinear", inputs, ["w"], **({"axis": 0} if scales else {})),
        helper.make_node(
            *("Conv", ["x", "w", *(["b"] if epilogue else [])], ["c" if epilogue else "y"]),
            **{"pads": (1, 1, 1, 1), "group": groups},
        ),
    ]
    if epilogue:
        nodes.append(helper.make_node("Relu", ["c"], ["y"]))
    graph = helper.make_graph(
        nodes,
        "convolution",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 32, 6, 6))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 48, 6, 6))],
        [numpy_helper.from_array(a, n) for n, a in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    return bytes(made.SerializeToString())


def plan(data: bytes, without: tuple[str, ...] = ()) -> Compilation:
    """Compile for a tile that must stream the weights; the plan is valid, the numbers are right."""
    done = compiled(api.load(data), without, SMALL)
    assert all(check.passed for check in api.verify(data, done)), "onnxruntime says otherwise"
    return done


def weight_bytes(done: Compilation, elements: int = K * N) -> int:
    """Return the bytes of the weight as it lies in the program's DRAM."""
    assert done.program is not None
    (size,) = (a.nbytes for _, a in done.program.constants if prod(a.shape) == elements)
    return size


def loaded_bytes(done: Compilation) -> int:
    """Return what kernels read from DRAM."""
    assert done.plan is not None
    return sum(planned.cost.dram_bytes for planned in done.plan.ops)


@pytest.mark.parametrize(
    ("dtype", "scales", "zero", "width"),
    [
        pytest.param("int8", (), None, 1, id="per tensor", marks=pytest.mark.slow),
        pytest.param("uint8", (N,), 128, 1, id="per column", marks=pytest.mark.slow),
        # -3 to 196 steps from zero: 8 bits with a sign are too few
        pytest.param("uint8", (N,), 3, 2, id="wide range"),
        pytest.param("int8", (K,), -1, 1, id="per row", marks=pytest.mark.slow),
    ],
)
def test_weights_stay_integers(
    dtype: str, scales: tuple[int, ...], zero: int | None, width: int
) -> None:
    data = model(dtype, scales, zero)
    done, floats = plan(data), plan(data, RULES)
    assert done.plan is not None
    assert floats.plan is not None
    assert [op.rule for op in done.plan.ops] == [LAYER]
    assert (weight_bytes(done), weight_bytes(floats)) == (width * K * N, 4 * K * N)
    assert loaded_bytes(done) < loaded_bytes(floats) * (width + 1) / 4
    assert done.plan.cost < floats.plan.cost


@pytest.mark.parametrize(
    ("scales", "zero", "groups", "epilogue"),
    [
        pytest.param((), -1, 1, True, id="per tensor", marks=pytest.mark.slow),
        pytest.param((48,), None, 1, True, id="per filter"),
        pytest.param((48,), None, 2, True, id="groups", marks=pytest.mark.slow),
        pytest.param((48,), None, 1, False, id="without epilogue", marks=pytest.mark.slow),
    ],
)
def test_filters_stay_integers(
    scales: tuple[int, ...], zero: int | None, groups: int, epilogue: bool
) -> None:
    data = convolution(scales, zero, groups, epilogue)
    done, floats = plan(data), plan(data, OF_CONVOLUTIONS)
    assert done.plan is not None
    assert floats.plan is not None
    assert [op.rule for op in done.plan.ops] == [FILTERS if epilogue else OF_CONVOLUTIONS[0]]
    elements = 48 * 32 // groups * 9
    assert weight_bytes(floats, elements) == 4 * weight_bytes(done, elements) == 4 * elements
    assert loaded_bytes(done) < loaded_bytes(floats)
    assert done.plan.cost < floats.plan.cost


def test_weights_beside_quantised_activations() -> None:
    """No bit changes, so that the rule runs where activations are rounded too."""
    before = (
        helper.make_node("QuantizeLinear", ["x", "one", "none"], ["r"]),
        helper.make_node("DequantizeLinear", ["r", "one", "none"], ["h"]),
    )
    done = plan(model("int8", (N,), None, before))
    assert done.plan is not None
    assert LAYER in [op.rule for op in done.plan.ops]


def test_boxes_are_dequantised_once_while_others_are_multiplied() -> None:
    """The vector unit makes every element once; the matrix unit reads floats from two buffers in turn."""
    done = plan(model("int8", (N,), None))
    assert done.plan is not None
    assert done.program is not None
    (planned,) = (op for op in done.plan.ops if dequantises(op.op.attrs))
    assert planned.tiling is not None
    boxes = prod(
        -(-extent // size) for extent, size in zip((ROWS, N, K), planned.tiling.sizes, strict=True)
    )
    assert boxes > 1
    micros = lower(done.plan, done.target).run
    scaled = [m for m in micros if m.fn == "mul" and m.sources[0].dtype is DType.I8]
    assert sum(prod(m.domain) for m in scaled) == K * N
    buffers = [m.sources[1].buffer for m in micros if m.opcode is Opcode.MM]
    assert len(set(buffers)) == 2
    order = [m.opcode is Opcode.MM for m in micros if m in scaled or m.opcode is Opcode.MM]
    assert order == [False, *(True, False) * (boxes - 1), True], "one box ahead"
