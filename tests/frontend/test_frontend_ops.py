"""Single operators against onnxruntime: old opsets, inputs that are not constant, fused operators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, helper, numpy_helper

from tilewright.dtypes import DType
from tilewright.frontend import load_onnx
from tilewright.graph import Graph
from tilewright.reference import evaluate

CompareNode = Callable[..., Graph]
RNG = np.random.default_rng(7)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


OLD_FORMS: list[tuple[str, int, list[np.ndarray], list[np.ndarray], dict[str, Any]]] = [
    ("Clip", 10, [normal(3, 4)], [], {"min": -0.5, "max": 0.5}),
    ("Clip", 6 + 1, [normal(3, 4)], [], {}),
    ("Dropout", 9, [normal(3, 4)], [], {"ratio": 0.7}),
    ("Slice", 9, [normal(4, 5)], [], {"starts": [1, -3], "ends": [100, -1], "axes": [0, 1]}),
    ("Squeeze", 11, [normal(1, 4, 1)], [], {"axes": [0]}),
    ("Squeeze", 13, [normal(1, 4, 1)], [], {}),
    ("Unsqueeze", 11, [normal(4)], [], {"axes": [0, 2]}),
    ("Pad", 10, [normal(2, 3)], [], {"pads": [1, 0, 0, 2], "value": 3.0}),
    ("Split", 11, [normal(2, 6)], [], {"axis": 1, "split": [2, 4], "outputs": 2}),
    ("ReduceSum", 11, [normal(2, 3, 4)], [], {"axes": [1], "keepdims": 0}),
    ("Softmax", 11, [normal(2, 3, 4)], [], {"axis": 1}),
    ("LogSoftmax", 11, [normal(2, 3, 4)], [], {"axis": 0}),
    ("Upsample", 9, [normal(1, 2, 3, 3)], [np.float32([1, 1, 2, 3])], {"mode": "nearest"}),
    ("Upsample", 9, [normal(1, 2, 3, 3)], [np.float32([1, 1, 2, 2])], {"mode": "linear"}),
    ("Upsample", 7, [normal(1, 2, 3, 3)], [], {"mode": "nearest", "scales": [1.0, 1.0, 2.0, 2.0]}),
    ("Resize", 10, [normal(1, 2, 4, 4)], [np.float32([1, 1, 0.5, 2])], {"mode": "nearest"}),
    (
        "Gemm",
        9,
        [normal(3, 2), normal(3, 4), normal(4)],
        [],
        {"transA": 1, "alpha": 0.5, "beta": 2.0},
    ),
    ("Flatten", 9, [normal(2, 3, 4)], [], {"axis": -1 + 3}),
]


@pytest.mark.parametrize(("op_type", "opset", "inputs", "known", "attributes"), OLD_FORMS)
def test_older_forms(
    compare_node: CompareNode,
    op_type: str,
    opset: int,
    inputs: list[np.ndarray],
    known: list[np.ndarray],
    attributes: dict[str, Any],
):
    compare_node(op_type, inputs, known=known, opset=opset, **attributes)


@pytest.mark.parametrize("opset", [9, 13, 14, 15])
def test_batch_normalization(compare_node: CompareNode, opset: int):
    statistics = [normal(3), normal(3), normal(3), np.abs(normal(3)) + 0.1]
    graph = compare_node("BatchNormalization", [normal(2, 3, 4, 4)], known=statistics, opset=opset)
    assert [op.kind for op in graph.ops] == ["map", "map"]


def test_batch_normalization_of_inputs(compare_node: CompareNode):
    compare_node(
        "BatchNormalization",
        [normal(2, 3, 4), normal(3), normal(3), normal(3), np.abs(normal(3)) + 0.1],
    )


@pytest.mark.parametrize("transposes", range(4))
def test_gemm(compare_node: CompareNode, transposes: int):
    a = normal(3, 2) if transposes & 1 else normal(2, 3)
    b = normal(4, 3) if transposes & 2 else normal(3, 4)
    attributes = {"transA": transposes & 1, "transB": transposes >> 1}
    compare_node("Gemm", [a], known=[b, normal(1, 4)], **attributes)
    compare_node("Gemm", [a, b], **attributes)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int32, np.int64, np.int8])
def test_arithmetic_keeps_types(compare_node: CompareNode, dtype: type):
    x = (normal(2, 3) * 5).astype(dtype)
    y = (normal(3) * 5).astype(dtype)
    y[y == 0] = 3
    # onnxruntime has no kernels for the small integers
    for op_type in ("Add", "Sub", "Mul", "Div") if np.dtype(dtype).itemsize > 1 else ("Mod",):
        compare_node(op_type, [x, y], tolerance=2e-3 if dtype is np.float16 else 1e-4)


@pytest.mark.parametrize("fmod", [0, 1])
def test_mod_signs(compare_node: CompareNode, fmod: int):
    x, y = np.array([-7, 7, -7, 7], np.int32), np.array([3, -3, -3, 3], np.int32)
    compare_node("Mod", [x, y], fmod=fmod)


def test_integer_division_truncates(compare_node: CompareNode):
    compare_node("Div", [np.array([-7, 7, -7, 6], np.int64), np.array([2, -2, -2, 3], np.int64)])


@pytest.mark.parametrize("exponent", [-1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 3.0, 2.5])
def test_pow_by_constant(compare_node: CompareNode, exponent: float):
    compare_node("Pow", [np.abs(normal(2, 3)) + 0.1], known=[np.float32(exponent)])


def test_pow_of_mixed_types(compare_node: CompareNode):
    compare_node("Pow", [np.array([1, 2, 3], np.int64), np.float32([3, 2, 1])])


def test_clip_with_computed_bounds(compare_node: CompareNode):
    compare_node("Clip", [normal(3, 4), np.float32(-0.3), np.float32(0.4)])
    compare_node("Clip", [normal(3, 4), None, np.float32(0.4)])
    compare_node("Clip", [normal(3, 4)], known=[np.float32(-0.1)])


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_softmax_axes(compare_node: CompareNode, axis: int):
    compare_node("Softmax", [normal(2, 3, 4)], axis=axis)
    compare_node("LogSoftmax", [normal(2, 3, 4) * 30], axis=axis)


@pytest.mark.parametrize("batch_dims", [0, 1])
def test_gather_nd_of_inputs(compare_node: CompareNode, batch_dims: int):
    indices = RNG.integers(-2, 2, (2, 3, 1))
    compare_node("GatherND", [normal(2, 2, 4), indices], batch_dims=batch_dims)


def test_gather_elements_of_inputs(compare_node: CompareNode):
    compare_node("GatherElements", [normal(3, 4), RNG.integers(-3, 3, (2, 4))], axis=0)
    compare_node("GatherElements", [normal(3, 4)], known=[RNG.integers(-4, 4, (3, 2))], axis=1)


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("bhid,bhjd->bhij", [(2, 3, 4, 5), (2, 3, 6, 5)]),
        ("ij,jk->ki", [(2, 3), (3, 4)]),
        ("ij->j", [(2, 3)]),
        ("i,j", [(2,), (3,)]),
        ("ij,ij->", [(2, 3), (2, 3)]),
        ("ab,bc,cd->ad", [(2, 3), (3, 4), (4, 5)]),
        ("bij,bj->bi", [(2, 3, 4), (2, 4)]),
    ],
)
def test_einsum(compare_node: CompareNode, equation: str, shapes: list[tuple[int, ...]]):
    compare_node("Einsum", [normal(*s) for s in shapes], equation=equation)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("flags", range(4))
def test_cumsum(compare_node: CompareNode, axis: int, flags: int):
    compare_node(
        "CumSum", [normal(3, 4)], known=[np.int64(axis)], exclusive=flags & 1, reverse=flags >> 1
    )


def test_one_hot(compare_node: CompareNode):
    indices = ints(-1, 0, 2, 7)
    compare_node("OneHot", [indices], known=[np.int64(4), np.float32([2.0, 5.0])], axis=0)


@pytest.mark.parametrize("op_type", ["Gelu", "FastGelu", "BiasGelu", "QuickGelu"])
def test_contrib_gelus(compare_node: CompareNode, op_type: str):
    known = [normal(4)] if op_type == "BiasGelu" else []
    compare_node(op_type, [normal(3, 4)], known=known, domain="com.microsoft", tolerance=1e-3)


def test_contrib_fused_matmul(compare_node: CompareNode):
    attributes = {"transA": 1, "transB": 1, "alpha": 0.25}
    compare_node(
        "FusedMatMul", [normal(2, 3, 4), normal(2, 5, 3)], domain="com.microsoft", **attributes
    )


def test_contrib_skip_layer_norm(compare_node: CompareNode):
    inputs = [normal(2, 3, 8), normal(2, 3, 8)]
    known = [normal(8), normal(8), normal(8)]
    compare_node(
        "SkipLayerNormalization", inputs, known=known, domain="com.microsoft", epsilon=1e-5
    )


@pytest.mark.parametrize("unsigned", [True, False])
def test_dynamic_quantised_matmul_is_exact(
    build_model: Callable[..., ModelProto], compare: Callable[..., Graph], unsigned: bool
):
    dtype = np.uint8 if unsigned else np.int8
    # 7-bit weights: onnxruntime's products of u8 by i8 saturate in 16 bits on some processors
    w = RNG.integers(0 if unsigned else -64, 64, (16, 5)).astype(dtype)
    zero = np.array(100 if unsigned else 0, dtype)
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        helper.make_node("MatMulInteger", ["q", "w", "z", "wz"], ["y"]),
    ]
    x = normal(4, 16)
    graph = compare(build_model(nodes, {"x": x}, ["y", "s", "z"], {"w": w, "wz": zero}), {"x": x})
    (product,) = (op for op in graph.ops if op.kind == "matmul")
    assert {graph.types[n].dtype for n in product.inputs} == {DType.I8}


def test_quantised_weights_stay_small(
    build_model: Callable[..., ModelProto], compare: Callable[..., Graph]
):
    w = RNG.integers(-127, 127, (1024, 1024)).astype(np.int8)
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s"], ["d"], axis=1),
        helper.make_node("MatMul", ["x", "d"], ["y"]),
    ]
    x = normal(2, 1024)
    constants = {"w": w, "s": np.abs(normal(1024)) / 100}
    graph = compare(build_model(nodes, {"x": x}, ["y"], constants), {"x": x})
    assert graph.types["w"].dtype is DType.I8


def test_four_bit_weights(build_model: Callable[..., ModelProto]):
    w = RNG.integers(-8, 8, (6, 4)).astype(np.int8)
    tensor = helper.make_tensor("w", 22, (6, 4), w.reshape(-1))
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s"], ["d"], axis=0, block_size=3),
        helper.make_node("MatMul", ["x", "d"], ["y"]),
    ]
    x, scale = normal(2, 6), np.abs(normal(2, 4))
    model = build_model(nodes, {"x": x}, ["y"], {"s": scale}, opset=21)
    model.graph.initializer.append(tensor)
    found = evaluate(load_onnx(model.SerializeToString()), {"x": x})["y"]
    np.testing.assert_allclose(found, x @ (w * np.repeat(scale, 3, axis=0)), rtol=1e-5)


def test_quantised_convolution(compare_node: CompareNode):
    x = RNG.integers(0, 255, (1, 4, 6, 6)).astype(np.uint8)
    w = RNG.integers(-64, 64, (3, 4, 3, 3)).astype(np.int8)
    known = [
        np.float32(0.02), np.uint8(120), w, np.float32([0.01, 0.02, 0.03]), np.int8([0, 0, 0]),
        np.float32(0.5), np.uint8(128), RNG.integers(-99, 99, 3).astype(np.int32),
    ]  # fmt: skip
    compare_node("QLinearConv", [x], known=known, pads=[1, 1, 1, 1])
    compare_node("ConvInteger", [x, w.astype(np.uint8)], known=[np.uint8(3), np.uint8(128)])


def test_scalars_keep_their_shape(
    build_model: Callable[..., ModelProto], compare: Callable[..., Graph]
):
    x, s = normal(3), np.float32(2.0).reshape(())
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["t"], keepdims=0),
        helper.make_node("Mul", ["t", "s"], ["y"]),
        helper.make_node("Identity", ["s"], ["same"]),
    ]
    graph = compare(build_model(nodes, {"x": x, "s": s}, ["y", "same"]), {"x": x, "s": s})
    assert [p.shape for p in (*graph.inputs, *graph.outputs)] == [(3,), (), (), ()]
    assert all(t.rank for t in graph.types.values())


def test_every_form_of_constant(
    build_model: Callable[..., ModelProto], compare: Callable[..., Graph]
):
    sparse = helper.make_sparse_tensor(
        numpy_helper.from_array(np.float32([4.0, 5.0]), "v"),
        numpy_helper.from_array(ints(0, 2), "i"),
        [3],
    )
    forms: list[dict[str, Any]] = [
        {"value": numpy_helper.from_array(normal(3))},
        {"value_float": 2.5},
        {"value_floats": [1.0, 2.0, 3.0]},
        {"sparse_value": sparse},
    ]
    nodes = [helper.make_node("Constant", [], [f"c{i}"], **form) for i, form in enumerate(forms)]
    nodes += [
        helper.make_node("Constant", [], ["shape"], value_ints=[3, 1]),
        helper.make_node("Sum", ["x", *(f"c{i}" for i in range(len(forms)))], ["t"]),
        helper.make_node("Reshape", ["t", "shape"], ["y"]),
    ]
    graph = compare(build_model(nodes, {"x": normal(3)}, ["y"]), {"x": normal(3)})
    assert graph.outputs[0].shape == (3, 1)


def test_shape_arithmetic_vanishes(
    build_model: Callable[..., ModelProto], compare: Callable[..., Graph]
):
    x = normal(2, 3, 4)
    one = numpy_helper.from_array(np.float32([1]))
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["b"]),
        helper.make_node("Unsqueeze", ["b", "axis"], ["b1"]),
        helper.make_node("Concat", ["b1", "rest"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["r"]),
        helper.make_node("ConstantOfShape", ["target1"], ["ones"], value=one),
        helper.make_node("NonZero", ["ones"], ["where"]),
        helper.make_node("Size", ["where"], ["count"]),
        helper.make_node("Cast", ["count"], ["n"], to=1),
        helper.make_node("Add", ["r", "n"], ["y"]),
    ]
    constants = {"zero": np.int64(0), "axis": ints(0), "rest": ints(-1), "target1": ints(5)}
    graph = compare(build_model(nodes, {"x": x}, ["y"], constants), {"x": x})
    assert [op.kind for op in graph.ops] == ["reshape", "map"]
    assert graph.ops[-1].attrs["fn"] == "add_const(5.0)"


def test_initializers_among_inputs_are_constants(build_model: Callable[..., ModelProto]):
    x, w = normal(2, 3), normal(3)
    model = build_model(
        [helper.make_node("Add", ["x", "w"], ["y"])], {"x": x, "w": w}, ["y"], {"w": w}
    )
    graph = load_onnx(model.SerializeToString())
    assert [p.name for p in graph.inputs] == ["x"]


def test_unused_inputs_and_outputs_stay(build_model: Callable[..., ModelProto]):
    x = normal(2, 4)
    nodes = [helper.make_node("Split", ["x"], ["a", "b"], axis=1)]
    graph = load_onnx(build_model(nodes, {"x": x, "unused": x}, ["a", "x"]).SerializeToString())
    assert [p.name for p in graph.inputs] == ["x", "unused"]
    found = evaluate(graph, {"x": x, "unused": x})
    np.testing.assert_array_equal(found["a"], x[:, :2])
    np.testing.assert_array_equal(found["x"], x)


def test_local_functions_are_inlined(build_model: Callable[..., ModelProto]):
    x = normal(2, 3)
    body = [helper.make_node("Relu", ["a"], ["r"]), helper.make_node("Neg", ["r"], ["b"])]
    function = helper.make_function(
        "mine", "NegRelu", ["a"], ["b"], body, [helper.make_opsetid("", 17)]
    )
    node = helper.make_node("NegRelu", ["x"], ["y"], domain="mine")
    model = build_model([node], {"x": x}, ["y"], domains=["mine"])
    model.functions.append(function)
    found = evaluate(load_onnx(model.SerializeToString()), {"x": x})["y"]
    np.testing.assert_array_equal(found, -np.maximum(x, 0))
