"""Model outputs that are inputs, constants, views of one another or the same value."""

from __future__ import annotations

from types import MappingProxyType

import numpy as np
import pytest
from onnx import TensorProto, helper

from tilewright import api
from tilewright.dtypes import DType
from tilewright.extract.validate import validate_plan
from tilewright.graph import Graph, Op, Port, TensorType
from tilewright.reference import evaluate

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


@pytest.mark.parametrize(
    "outputs",
    [
        ("a",),
        ("v",),
        ("x",),
        ("c",),
        ("xv",),
        ("cv",),
        ("a", "a"),
        ("a", "v"),
        ("w", "v", "a"),
        ("x", "x", "c"),
        ("a", "x", "cv", "w"),
    ],
)
@pytest.mark.parametrize("target", ["toy", "gemmini"])
def test_outputs_may_share_a_value(outputs: tuple[str, ...], target: str) -> None:
    graph = graph_with(*outputs)
    done = api.compile(graph, target)
    assert done.plan is not None
    assert done.program is not None
    validate_plan(done.plan, done.target)
    x = np.linspace(-2, 2, 6, dtype=np.float32).reshape(2, 3)
    assert api.check(done.program).is_proven
    expected, found = evaluate(graph, {"x": x}), api.run(done.program, {"x": x})
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
