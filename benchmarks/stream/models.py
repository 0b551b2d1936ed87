"""The workloads of the comparison, each as two ONNX models of the same shapes and element types.

Stream takes a `MatMul` of 8-bit integers and gives its result 8 bits, rescaling for nothing; ONNX has no such
operator. Ours is a `QLinearMatMul`, which rescales and rounds. Weights are inputs of ours, so
that no plan keeps them in the scratchpads between inferences, and constants of Stream's, which loads them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

M, K, N = 256, 512, 512
_OPSET, _IR_VERSION = 17, 9
_ITEMSIZES: Mapping[int, int] = {
    TensorProto.INT8: 1,
    TensorProto.BFLOAT16: 2,
    TensorProto.FLOAT: 4,
}
_SHORT_NAMES = {TensorProto.INT8: "int8", TensorProto.BFLOAT16: "bf16", TensorProto.FLOAT: "f32"}


@dataclass(frozen=True, slots=True)
class Layer:
    """A node of Stream's model and the tensor of ours that it computes."""

    name: str
    tensor: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """One workload, for both tools."""

    name: str
    theirs: bytes
    ours: bytes
    layers: tuple[Layer, ...]


def gemm_chain(length: int, dtype: int) -> Workload:
    """Return products of 256 x 512 with 512 x 512, one after the other."""
    values = ["x", *(f"y{i}" for i in range(length))]
    shapes = {"x": (M, K), **{f"w{i}": (K, N) for i in range(length)}}
    shapes |= {name: (M, N) for name in values[1:]}
    steps = [("MatMul", f"Gemm{i}", (values[i], f"w{i}"), values[i + 1]) for i in range(length)]
    name = "GEMM" if length == 1 else f"chain of {length} GEMMs"
    return _workload(f"{name} {M}x{K}x{N} {_SHORT_NAMES[dtype]}", steps, shapes, dtype)


def perceptron(dtype: int, hidden: int = 1024) -> Workload:
    """Return two products with a relu between: 256 tokens of 256 features, `hidden` inside."""
    shapes = {"x": (M, M), "w0": (M, hidden), "a": (M, hidden), "b": (M, hidden)}
    shapes |= {"w1": (hidden, M), "y": (M, M)}
    steps = [
        ("MatMul", "Gemm0", ("x", "w0"), "a"),
        ("Relu", "Relu0", ("a",), "b"),
        ("MatMul", "Gemm1", ("b", "w1"), "y"),
    ]
    return _workload(f"MLP {M}x{M}x{hidden} {_SHORT_NAMES[dtype]}", steps, shapes, dtype)


_Step = tuple[str, str, tuple[str, ...], str]
"""Operator, name, inputs and output."""


def _workload(
    name: str, steps: Sequence[_Step], shapes: Mapping[str, tuple[int, ...]], dtype: int
) -> Workload:
    return Workload(
        name=name,
        theirs=_theirs(steps, shapes, dtype),
        ours=_ours(steps, shapes, dtype),
        layers=tuple(Layer(step[1], step[3]) for step in steps),
    )


def _theirs(steps: Sequence[_Step], shapes: Mapping[str, tuple[int, ...]], dtype: int) -> bytes:
    nodes = [helper.make_node(kind, ins, [out], name=name) for kind, name, ins, out in steps]
    info = {n: helper.make_tensor_value_info(n, dtype, shape) for n, shape in shapes.items()}
    weights = [
        helper.make_tensor(n, dtype, shape, bytes(prod(shape) * _ITEMSIZES[dtype]), raw=True)
        for n, shape in shapes.items()
        if n.startswith("w")
    ]
    last = steps[-1][3]
    between = [info[step[3]] for step in steps[:-1]]
    return _model(
        helper.make_graph(nodes, "g", [info["x"]], [info[last]], weights, value_info=between)
    )


def _ours(steps: Sequence[_Step], shapes: Mapping[str, tuple[int, ...]], dtype: int) -> bytes:
    """Write the model with weights as inputs; int8 products rescale."""
    nodes, tables = [], []
    if dtype == TensorProto.INT8:
        scale = numpy_helper.from_array(np.array(2.0**-7, np.float32), "scale")
        tables = [scale, numpy_helper.from_array(np.array(0, np.int8), "zero")]
    for kind, name, ins, out in steps:
        if kind == "MatMul" and dtype == TensorProto.INT8:
            quantised = [part for n in (*ins, None) for part in ((n,) if n else ()) + _PARAMETERS]
            nodes.append(helper.make_node("QLinearMatMul", quantised, [out], name=name))
        else:
            nodes.append(helper.make_node(kind, ins, [out], name=name))
    info = {n: helper.make_tensor_value_info(n, dtype, shape) for n, shape in shapes.items()}
    inputs = [info[n] for n in shapes if n == "x" or n.startswith("w")]
    return _model(helper.make_graph(nodes, "g", inputs, [info[steps[-1][3]]], tables))


_PARAMETERS = ("scale", "zero")


def _model(graph: onnx.GraphProto) -> bytes:
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION
    )
    return bytes(model.SerializeToString())
