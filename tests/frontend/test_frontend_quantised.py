"""Dequantised weights: kept as 8-bit integers and a scale, with the same bits, however they are written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, NodeProto, TensorProto, helper

from tilewright.dtypes import DType
from tilewright.frontend import load_onnx
from tilewright.graph import Graph, Op

Compare = Callable[..., Graph]
BuildModel = Callable[..., ModelProto]
K, N = 64, 80
RANGES: dict[str, tuple[int, int]] = {"int8": (-128, 128), "uint8": (0, 256)}


def constant_parts(graph: Graph) -> tuple[np.ndarray, np.ndarray]:
    """Return integers and scale of the only product's weight, which must be in the one form."""
    makers: dict[str, Op] = {op.output: op for op in graph.ops}
    (product,) = (op for op in graph.ops if op.kind in ("matmul", "conv"))
    scaled = makers[product.inputs[1]]
    assert (scaled.kind, scaled.attrs["fn"]) == ("map", "mul")
    cast = makers[scaled.inputs[0]]
    assert (cast.kind, cast.attrs["fn"]) == ("map", "cast(f32)")
    integers, scale = graph.constants[cast.inputs[0]], graph.constants[scaled.inputs[1]]
    return np.asarray(integers), np.asarray(scale)


def written(kind: str, axis: int | None, has_zero: bool) -> list[NodeProto]:
    """Return nodes that make `d` of `q`, `s` and perhaps `z`, as one of two exporters write them."""
    if kind == "DequantizeLinear":
        inputs = ["q", "s", "z"] if has_zero else ["q", "s"]
        return [helper.make_node(kind, inputs, ["d"], **({} if axis is None else {"axis": axis}))]
    nodes = [helper.make_node("Cast", ["q"], ["f"], to=TensorProto.FLOAT)]
    if has_zero:
        nodes.append(helper.make_node("Cast", ["z"], ["zf"], to=TensorProto.FLOAT))
        nodes.append(helper.make_node("Sub", ["f", "zf"], ["c"]))
    last = "c" if has_zero else "f"
    return [*nodes, helper.make_node("Mul", ["s", last] if axis else [last, "s"], ["d"])]


@settings(max_examples=15, deadline=None)
@given(
    st.sampled_from(["int8", "uint8"]),
    st.sampled_from([None, 0, 1]),
    st.sampled_from(["none", "zeros", "middle", "any"]),
    st.sampled_from(["DequantizeLinear", "Cast"]),
    st.sampled_from(["MatMul", "Gemm", "batch"]),
    st.integers(0, 1000),
)
def test_weights_keep_their_bits(
    build_model: BuildModel,
    compare: Compare,
    dtype: str,
    axis: int | None,
    zeros: str,
    kind: str,
    reader: str,
    seed: int,
):
    rng = np.random.default_rng(seed)
    shape = (N, K) if reader == "Gemm" else (K, N)
    low, high = RANGES[dtype]
    q = rng.integers(low, high, shape).astype(dtype)
    size = () if axis is None else (shape[axis],)
    s = rng.uniform(1e-3, 1e-2, size).astype(np.float32)
    middle = (low + high) // 2
    zero = {"none": 0, "zeros": 0, "middle": middle, "any": rng.integers(low, high, size)}[zeros]
    z = np.broadcast_to(np.asarray(zero), size).astype(dtype)
    along = [-1 if i == axis else 1 for i in range(2)] if axis is not None else []
    floats = (q.astype(np.float32) - z.astype(np.float32).reshape(along)) * s.reshape(along)
    if kind == "Cast":  # no axis: operands broadcast
        s, z = s.reshape(along), z.reshape(along)
    x = rng.normal(size=(2, 3, K) if reader == "batch" else (3, K)).astype(np.float32)
    nodes = written(kind, axis, zeros != "none")
    attributes: dict[str, Any] = {"transB": 1} if reader == "Gemm" else {}
    op_type = "Gemm" if reader == "Gemm" else "MatMul"
    nodes.append(helper.make_node(op_type, ["x", "d"], ["y"], **attributes))
    constants = {"q": q, "s": s} | ({"z": z} if zeros != "none" else {})
    graph = compare(build_model(nodes, {"x": x}, ["y"], constants), {"x": x})
    integers, scale = constant_parts(graph)
    wide = q.astype(np.int64) - z.astype(np.int64).reshape(along)
    narrow = -128 <= wide.min() and wide.max() <= 127
    kept = "uint8" if dtype == "uint8" and zeros in ("none", "zeros") else "int8"
    assert integers.dtype == np.dtype(kept if narrow or kept == "uint8" else "int16")
    expected = floats.T if reader == "Gemm" else floats
    found = integers.astype(np.float32) * scale
    np.testing.assert_array_equal(found.reshape(expected.shape), expected)
    assert all(op.kind in ("map", "matmul", "reshape") for op in graph.ops)


def test_weights_of_convolutions(build_model: BuildModel, compare: Compare):
    rng = np.random.default_rng(0)
    q = rng.integers(-127, 128, (32, 16, 9)).astype(np.int8)
    s = rng.uniform(1e-3, 1e-2, 32).astype(np.float32)
    x = rng.normal(size=(1, 16, 20)).astype(np.float32)
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "s"], ["d"], axis=0),
        helper.make_node("Conv", ["x", "d"], ["y"]),
    ]
    graph = compare(build_model(nodes, {"x": x}, ["y"], {"q": q, "s": s}), {"x": x})
    integers, scale = constant_parts(graph)
    assert (integers.shape, integers.dtype, scale.shape) == ((32, 16, 1, 9), np.int8, (32, 1, 1, 1))


def test_a_scale_per_tensor_is_a_constant(build_model: BuildModel, compare: Compare):
    """Layers with other scales are repeats of one block."""
    q = np.random.default_rng(0).integers(-127, 128, (K, N)).astype(np.int8)
    x = np.ones((2, K), np.float32)
    nodes = [*written("Cast", None, False), helper.make_node("MatMul", ["x", "d"], ["y"])]
    model = build_model(nodes, {"x": x}, ["y"], {"q": q, "s": np.float32(0.02)})
    _, scale = constant_parts(compare(model, {"x": x}))
    assert scale.shape == (1, 1)


@pytest.mark.parametrize(
    "nodes",
    [
        [helper.make_node("Add", ["f", "half"], ["h"]), helper.make_node("Mul", ["h", "s"], ["d"])],
        [helper.make_node("Mul", ["f", "s"], ["h"]), helper.make_node("Sub", ["h", "s"], ["d"])],
        [helper.make_node("Div", ["f", "s"], ["d"])],
    ],
    ids=["zero point that is not whole", "zero point after the scale", "division"],
)
def test_other_arithmetic_stays_as_it_is(
    build_model: BuildModel, compare: Compare, nodes: list[NodeProto]
):
    q = np.random.default_rng(0).integers(-127, 128, (K, N)).astype(np.int8)
    x = np.random.default_rng(1).normal(size=(2, K)).astype(np.float32)
    first = helper.make_node("Cast", ["q"], ["f"], to=TensorProto.FLOAT)
    last = helper.make_node("MatMul", ["x", "d"], ["y"])
    constants = {"q": q, "s": np.full((1, N), 0.3, np.float32), "half": np.float32(0.5)}
    compare(build_model([first, *nodes, last], {"x": x}, ["y"], constants), {"x": x})


def test_small_tables_are_folded(build_model: BuildModel):
    nodes = [*written("Cast", None, False), helper.make_node("MatMul", ["x", "d"], ["y"])]
    q, x = np.ones((8, 8), np.int8), np.ones((2, 8), np.float32)
    graph = load_onnx(
        build_model(nodes, {"x": x}, ["y"], {"q": q, "s": np.float32(2.0)}).SerializeToString()
    )
    assert [op.kind for op in graph.ops] == ["matmul"]
    assert {graph.types[name].dtype for name in graph.constants} == {DType.F32}
