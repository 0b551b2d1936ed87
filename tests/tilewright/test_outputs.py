"""After `separate_outputs` every output owns a tensor, and has the value it had."""

from __future__ import annotations

from types import MappingProxyType

import numpy as np
import pytest
from onnx import TensorProto, helper

from tilewright import api
from tilewright.dtypes import DType
from tilewright.graph import Graph, Op, Port, TensorType
from tilewright.inputs import example_inputs
from tilewright.outputs import separate_outputs
from tilewright.reference import evaluate
from tilewright.verification import reference_outputs

SHAPES = {"x": (2, 3), "c": (2, 3), "a": (2, 3), "v": (3, 2), "w": (6,), "xv": (6,), "cv": (6,)}


def graph_with(*outputs: str) -> Graph:
    """Return a graph of relu and reshapes with these tensors as outputs.

    a = relu(x), v = reshape(a), w = reshape(v); xv and cv are views of the input and the constant.
    """

    def reshape(source: str, result: str) -> Op:
        attrs = MappingProxyType({"shape": SHAPES[result]})
        return Op(name=result, kind="reshape", inputs=(source,), outputs=(result,), attrs=attrs)

    relu = Op(
        name="a", kind="map", inputs=("x",), outputs=("a",), attrs=MappingProxyType({"fn": "relu"})
    )
    views = (("a", "v"), ("v", "w"), ("x", "xv"), ("c", "cv"))
    graph = Graph(
        name="g",
        inputs=(Port(name="x", tensor="x", shape=(2, 3), dtype=DType.F32),),
        outputs=tuple(
            Port(name=f"out{i}", tensor=t, shape=SHAPES[t], dtype=DType.F32)
            for i, t in enumerate(outputs)
        ),
        types={name: TensorType(shape, DType.F32) for name, shape in SHAPES.items()},
        constants={"c": np.arange(6, dtype=np.float32).reshape(2, 3)},
        ops=(relu, *(reshape(*view) for view in views)),
    )
    graph.validate()
    return graph


def storage(graph: Graph, name: str) -> str:
    """Return the tensor whose memory a tensor shares."""
    views = {op.output: op.inputs[0] for op in graph.ops if op.kind == "reshape"}
    while name in views:
        name = views[name]
    return name


@pytest.mark.parametrize(
    ("outputs", "copies"),
    [
        (("a",), 0),
        (("v",), 0),
        (("x",), 1),
        (("c",), 1),
        (("xv",), 1),
        (("cv",), 1),
        (("a", "a"), 1),
        (("a", "a", "a"), 2),
        (("a", "v"), 1),
        (("v", "w"), 1),
        (("w", "v", "a"), 2),
        (("x", "x", "c"), 3),
        (("a", "x", "cv", "w"), 3),
        ((), 0),
    ],
)
def test_every_output_owns_its_memory(outputs: tuple[str, ...], copies: int) -> None:
    before = graph_with(*outputs)
    after = separate_outputs(before)
    after.validate()
    owners = [storage(after, port.tensor) for port in after.outputs]
    assert len(set(owners)) == len(owners)
    assert not set(owners) & ({"x"} | set(after.constants))
    assert len(after.ops) - len(before.ops) == copies
    assert [(p.name, p.shape, p.dtype) for p in after.outputs] == [
        (p.name, p.shape, p.dtype) for p in before.outputs
    ]
    x = np.linspace(-2, 2, 6, dtype=np.float32).reshape(2, 3)
    expected, found = evaluate(before, {"x": x}), evaluate(after, {"x": x})
    assert list(found) == list(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)


@pytest.mark.parametrize(
    ("nodes", "outputs"),
    [
        ([("Identity", "x", "y")], ["y"]),
        ([("Identity", "c", "y"), ("Relu", "x", "z")], ["y", "z"]),
        ([("Relu", "x", "z"), ("Identity", "z", "y")], ["y", "z"]),
        ([("Relu", "x", "z"), ("Relu", "x", "y")], ["y", "z"]),
        ([("Relu", "x", "z"), ("Identity", "x", "y")], ["y", "z"]),
    ],
    ids=["input", "constant", "same", "equal", "input and other"],
)
def test_such_models_compile_and_verify(
    nodes: list[tuple[str, str, str]], outputs: list[str]
) -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 8])
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, 8]) for name in outputs]
    c = helper.make_tensor("c", TensorProto.FLOAT, [4, 8], range(32))
    made = [helper.make_node(kind, [source], [result]) for kind, source, result in nodes]
    graph = helper.make_graph(made, "g", [x], ports, [c])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    data = model.SerializeToString()
    checks = api.verify(data, api.compile(data, "toy"))
    assert [check.name for check in checks] == outputs
    assert all(check.error == 0 for check in checks)


def test_twice_is_once() -> None:
    once = separate_outputs(graph_with("a", "x", "cv", "w"))
    assert separate_outputs(once) == once


def test_names_that_are_taken_stay_apart() -> None:
    graph = graph_with("x", "x")
    taken = Op(
        name="t",
        kind="map",
        inputs=("x",),
        outputs=("x.output",),
        attrs=MappingProxyType({"fn": "neg"}),
    )
    types = dict(graph.types) | {"x.output": TensorType((2, 3), DType.F32)}
    from dataclasses import replace

    after = separate_outputs(replace(graph, ops=(*graph.ops, taken), types=types))
    after.validate()
    assert [port.tensor for port in after.outputs] == ["x.output_", "x.output__"]


def hosted_model() -> bytes:
    """Return a model whose outputs are a host region's result, a view of it, and an input."""
    nodes = [
        helper.make_node("TopK", ["x", "k"], ["top", "order"], axis=1),
        helper.make_node("Flatten", ["top"], ["flat"], axis=0),
        helper.make_node("Identity", ["top"], ["again"]),
        helper.make_node("Identity", ["x"], ["same"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 8])
    floats = {"top": [4, 3], "flat": [1, 12], "again": [4, 3], "same": [4, 8]}
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in floats.items()]
    ports.append(helper.make_tensor_value_info("order", TensorProto.INT64, [4, 3]))
    k = helper.make_tensor("k", TensorProto.INT64, [1], [3])
    graph = helper.make_graph(nodes, "hosted", [x], ports, [k])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    data: bytes = model.SerializeToString()
    return data


def test_outputs_of_host_regions() -> None:
    data = hosted_model()
    graph = api.load(data)
    inputs = example_inputs(graph)
    expected = reference_outputs(data, inputs)
    found = evaluate(separate_outputs(graph), inputs)
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)
    checks = api.verify(data, api.compile(data, "toy"), inputs)
    assert len(checks) == 5
    assert all(check.error == 0 for check in checks)
