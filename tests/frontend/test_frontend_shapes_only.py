"""Models whose weights are known by type only: compiled up to a plan, loud where values are needed."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import write_llama
from model_writer import save
from onnx import ModelProto, TensorProto, helper, numpy_helper

from tilewright import api
from tilewright.constants import Constants
from tilewright.errors import CompileError, ModelError
from tilewright.frontend import load_onnx
from tilewright.graph import Graph
from tilewright.reference import evaluate

Build = Callable[..., ModelProto]
TINY = write_llama.PRESETS["tiny"]


def with_external(nodes: list, weights: dict[str, np.ndarray], **entries: str) -> bytes:
    """Return a model y = f(x [2, 3]) whose weights lie in a file that is not there."""
    tensors = []
    offset = 0
    for name, array in weights.items():
        tensor = numpy_helper.from_array(array, name)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        where = {"location": "w.bin", "offset": offset, "length": array.nbytes} | entries
        for key, value in where.items():
            tensor.external_data.add(key=key, value=str(value))
        offset += array.nbytes
        tensors.append(tensor)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "g", [x], [y], tensors)
    opset = [helper.make_opsetid("", 20)]
    return helper.make_model(graph, opset_imports=opset, ir_version=9).SerializeToString()


def llama_file(folder: Path, **changes: bool) -> Path:
    path = folder / "llama.onnx"
    options = {"seed": 0, "external": True, "data": False} | changes
    save(write_llama.llama_graph(TINY, "decode"), "llama", path, **options)
    return path


@pytest.fixture
def weightless(tmp_path: Path) -> Path:
    return llama_file(tmp_path)


def summary(graph: Graph) -> tuple:
    """Everything of a graph but values."""
    return graph.inputs, graph.outputs, dict(graph.types), set(graph.constants), graph.ops


def test_the_graph_is_the_one_with_weights(tmp_path: Path, weightless: Path) -> None:
    found = load_onnx(weightless, weights=False)
    whole = tmp_path / "whole"
    whole.mkdir()
    expected = load_onnx(llama_file(whole, data=True))
    assert summary(found) == summary(expected)


def test_present_weights_are_not_read_either(tmp_path: Path) -> None:
    path = llama_file(tmp_path, data=True)
    graph = load_onnx(path, weights=False)
    assert isinstance(graph.constants, Constants)
    assert len(graph.constants.absent) == len(write_llama.llama_graph(TINY, "decode").weights)
    assert summary(graph) == summary(load_onnx(path))


def test_a_missing_file_names_the_option(weightless: Path) -> None:
    with pytest.raises(ModelError, match=r"'llama.onnx.data' is missing.*--shapes-only"):
        load_onnx(weightless)


def test_plans_are_the_same(tmp_path: Path, weightless: Path) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    found = api.compile(weightless, "mesh_1x2", weights=False, stop_after="extract")
    expected = api.compile(llama_file(whole, data=True), "mesh_1x2", stop_after="extract")
    assert found.plan is not None
    assert expected.plan is not None
    assert found.plan.ops == expected.plan.ops
    for a, b in zip(found.alternatives, expected.alternatives, strict=True):
        assert a.nodes == b.nodes
        assert a.implementations == b.implementations


def test_lowering_says_what_is_missing(weightless: Path) -> None:
    with pytest.raises(CompileError, match=r"llama.onnx.data.*stop after extract"):
        api.compile(weightless, "toy", weights=False)


def test_reading_a_value_says_what_is_missing(weightless: Path) -> None:
    graph = load_onnx(weightless, weights=False)
    with pytest.raises(
        ModelError, match=r"constant 'logits.*'lm_head.weight'.*bytes .* of file 'llama.onnx.data'"
    ):
        _ = graph.constants[graph.ops[-1].inputs[1]]
    with pytest.raises(ModelError, match=r"llama\.onnx\.data"):
        dict(graph.constants)


def test_nothing_is_allocated(tmp_path: Path) -> None:
    shape = (1 << 14, 1 << 14)  # 1 GB
    tensor = TensorProto(name="w", dims=shape, data_type=TensorProto.FLOAT)
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="w.bin")
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, shape[0]])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    nodes = [
        helper.make_node("Transpose", ["w"], ["t"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "t"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "g", [x], [y], [tensor])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    tracemalloc.start()
    found = load_onnx(model.SerializeToString(), weights=False)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 1 << 24
    assert [op.kind for op in found.ops] == ["transpose", "matmul"]


@pytest.mark.parametrize(
    "location", ["../secret.bin", "/etc/hostname", "a/../../secret.bin", "", "a\\b"]
)
def test_paths_outside_are_refused_all_the_same(location: str) -> None:
    nodes = [helper.make_node("Add", ["x", "w"], ["y"])]
    model = with_external(nodes, {"w": np.zeros(3, np.float32)}, location=location)
    with pytest.raises(ModelError, match="refused"):
        load_onnx(model, weights=False)


@pytest.mark.parametrize("entries", [{"length": "4"}, {"offset": "-4"}, {"offset": "x"}])
def test_ranges_are_checked_all_the_same(entries: dict[str, str]) -> None:
    nodes = [helper.make_node("Add", ["x", "w"], ["y"])]
    model = with_external(nodes, {"w": np.zeros(3, np.float32)}, **entries)
    with pytest.raises(ModelError, match="tensor 'w'"):
        load_onnx(model, weights=False)


@pytest.mark.parametrize(
    ("nodes", "weights"),
    [
        pytest.param(
            [helper.make_node("Reshape", ["x", "w"], ["y"])],
            {"w": np.array([3, 2])},
            id="shape",
        ),
        pytest.param(
            [
                helper.make_node("Cast", ["w"], ["c"], to=TensorProto.INT64),
                helper.make_node("Reshape", ["x", "c"], ["y"]),
            ],
            {"w": np.array([3, 2], np.int32)},
            id="computed shape",
        ),
        pytest.param(
            [helper.make_node("Det", ["w"], ["d"]), helper.make_node("Add", ["x", "d"], ["y"])],
            {"w": np.eye(3, dtype=np.float32)},
            id="folding",
        ),
        pytest.param(
            [helper.make_node("Relu", ["w"], ["y"])], {"w": np.ones(3, np.float32)}, id="output"
        ),
    ],
)
def test_what_needs_values_says_so(nodes: list, weights: dict[str, np.ndarray]) -> None:
    model = with_external(nodes, weights)
    with pytest.raises(ModelError, match=r"'w'.*file 'w.bin'"):
        api.compile(model, "toy", weights=False, stop_after="extract")


def test_small_operands_may_be_absent() -> None:
    """Operands that import could write into functions stay operands."""
    nodes = [
        helper.make_node("Mul", ["x", "s"], ["m"]),
        helper.make_node("BatchNormalization", ["m", "a", "b", "c", "d"], ["y"]),
    ]
    vector = np.ones(3, np.float32)
    weights = {"s": np.ones(1, np.float32)} | dict.fromkeys("abcd", vector)
    done = api.compile(with_external(nodes, weights), "toy", weights=False, stop_after="extract")
    assert done.plan is not None


def test_transposes_sink_below_absent_operands() -> None:
    """What import does to the layout is right for the values, whatever they are."""
    rng = np.random.default_rng(0)
    w = rng.standard_normal((3, 2)).astype(np.float32)
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0]),
        helper.make_node("Add", ["t", "w"], ["a"]),
        helper.make_node("Transpose", ["a"], ["y"], perm=[1, 0]),
    ]
    graph = load_onnx(with_external(nodes, {"w": w}), weights=False)
    (moved,) = (op for op in graph.ops if op.kind == "transpose")
    assert moved.inputs == ("w",), "only the constant is transposed, by the compiler"
    x = rng.standard_normal((2, 3)).astype(np.float32)
    found = evaluate(replace(graph, constants={"w": w}), {"x": x})["y"]
    np.testing.assert_array_equal(found, (x.T + w).T)


def test_a_weight_read_twice_is_one_constant() -> None:
    """Import makes a [1, 3] of the [3] for each reader; these are merged again."""
    nodes = [
        helper.make_node("Add", ["x", "a"], ["s"]),
        helper.make_node("Add", ["s", "a"], ["t"]),
        helper.make_node("Add", ["t", "b"], ["y"]),
    ]
    vector = np.ones(3, np.float32)
    graph = load_onnx(with_external(nodes, {"a": vector, "b": vector}), weights=False)
    assert len(graph.constants) == 2
