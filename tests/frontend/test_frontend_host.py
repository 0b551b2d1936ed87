"""Host regions: what goes there, how neighbours merge, what can never leave one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from tilewright.errors import ProgramError, ShapeError, UnsupportedOpError
from tilewright.frontend import load_onnx
from tilewright.graph import Graph
from tilewright.reference import evaluate, evaluate_op

Build = Callable[..., ModelProto]
Compare = Callable[..., Graph]
RNG = np.random.default_rng(3)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def node(op_type: str, inputs: list[str], outputs: list[str], **attributes: object) -> object:
    return helper.make_node(op_type, inputs, outputs, name=f"{op_type}_{outputs[0]}", **attributes)


def kinds(graph: Graph) -> list[str]:
    return [op.kind for op in graph.ops]


def test_neighbours_form_one_region(build_model: Build, compare: Compare):
    nodes = [
        node("Relu", ["x"], ["a"]),
        node("TopK", ["a", "k"], ["v", "i"]),
        node("ArgMax", ["v"], ["m"]),
        node("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
        node("Add", ["v", "f"], ["y"]),
    ]
    x = normal(3, 8)
    graph = compare(build_model(nodes, {"x": x}, ["y", "m"], {"k": np.array([2])}), {"x": x})
    assert kinds(graph).count("host") == 1
    (region,) = graph.host_models.values()
    assert region.op_types == ("ArgMax", "TopK")
    assert "no importer" in region.reason
    assert any("TopK" in note for note in graph.notes)


def test_regions_stay_convex(build_model: Build, compare: Compare):
    """x -> host -> native -> host with a direct edge between the hosts: merging would make a cycle."""
    nodes = [
        node("Hardmax", ["x"], ["a"]),
        node("Neg", ["a"], ["b"]),
        node("Add", ["b", "x"], ["c"]),
        node("Hardmax", ["c"], ["d"]),
        node("ScatterND", ["a", "i", "d"], ["y"]),
    ]
    x = normal(4, 5)
    constants = {"i": np.arange(4).reshape(4, 1)}
    graph = compare(build_model(nodes, {"x": x}, ["y"], constants), {"x": x})
    assert kinds(graph) == ["host", "map", "map", "host"]
    assert [len(m.op_types) for m in graph.host_models.values()] == [1, 2]


def test_recurrent_layers_run_on_the_host(build_model: Build, compare: Compare):
    x = normal(5, 1, 4)
    constants = {"w": normal(1, 9, 4), "r": normal(1, 9, 3), "b": normal(1, 18)}
    nodes = [
        node("GRU", ["x", "w", "r", "b"], ["h", "last"], hidden_size=3),
        node("Squeeze", ["h", "one"], ["s"]),
        node("Relu", ["s"], ["y"]),
    ]
    constants |= {"one": np.array([1])}
    graph = compare(build_model(nodes, {"x": x}, ["y", "last"], constants), {"x": x})
    assert kinds(graph) == ["host", "reshape", "map"]
    assert not {"w", "r", "b"} & set(graph.constants)


def test_sequences_stay_inside_a_region(build_model: Build, compare: Compare):
    nodes = [
        node("SplitToSequence", ["x"], ["seq"], axis=0, keepdims=0),
        node("SequenceAt", ["seq", "one"], ["row"]),
        node("Relu", ["row"], ["y"]),
    ]
    x = normal(3, 4)
    graph = compare(build_model(nodes, {"x": x}, ["y"], {"one": np.array(1)}), {"x": x})
    assert kinds(graph) == ["host", "map"]


def test_native_nodes_join_a_region_that_sequences_span(build_model: Build, compare: Compare):
    nodes = [
        node("SplitToSequence", ["x"], ["seq"], axis=0, keepdims=0),
        node("SequenceAt", ["seq", "one"], ["row"]),
        node("Relu", ["row"], ["r"]),
        node("SequenceInsert", ["seq", "r"], ["longer"]),
        node("ConcatFromSequence", ["longer"], ["y"], axis=0),
    ]
    x = normal(3, 4)
    graph = compare(build_model(nodes, {"x": x}, ["y"], {"one": np.array(1)}), {"x": x})
    assert kinds(graph) == ["host"]
    assert "Relu" in next(iter(graph.host_models.values())).op_types


def test_shapes_that_depend_on_data_may_stay_inside(build_model: Build, compare: Compare):
    nodes = [
        node("NonZero", ["x"], ["i"]),
        node("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
        node("ReduceSum", ["f", "one"], ["s"], keepdims=0),
        node("Neg", ["s"], ["y"]),
    ]
    x = (RNG.normal(size=(3, 4)) > 0).astype(np.float32)
    graph = compare(build_model(nodes, {"x": x}, ["y"], {"one": np.array([1])}), {"x": x})
    assert kinds(graph)[0] == "host"
    assert graph.outputs[0].shape == (2,)


def test_shapes_that_depend_on_data_cannot_be_outputs(build_model: Build):
    model = build_model([node("NonZero", ["x"], ["y"])], {"x": normal(2, 3)}, ["y"])
    with pytest.raises(ShapeError, match=r"output 'y'.*depends on data"):
        load_onnx(model.SerializeToString())


def test_strings_stay_inside(build_model: Build, compare: Compare):
    words = helper.make_tensor("words", TensorProto.STRING, [3], [b"a", b"b", b"c"])
    nodes = [
        node("Gather", ["words", "i"], ["w"]),
        node("Equal", ["w", "words"], ["e"]),
        node("Cast", ["e"], ["f"], to=TensorProto.FLOAT),
        node("Neg", ["f"], ["y"]),
    ]
    i = np.array([0, 2, 2])
    model = build_model(nodes, {"i": i}, ["y"], opset=19)
    model.graph.initializer.append(words)
    graph = compare(model, {"i": i})
    assert kinds(graph)[0] == "host"
    del model.graph.output[:]
    model.graph.output.append(helper.make_empty_tensor_value_info("w"))
    with pytest.raises((UnsupportedOpError, ShapeError), match="output 'w'"):
        load_onnx(model.SerializeToString())


def branch(name: str, op_type: str, captured: str) -> object:
    out = helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, [2, 3])
    return helper.make_graph(
        [helper.make_node(op_type, [captured], [f"{name}_out"])], name, [], [out]
    )


def if_node() -> object:
    branches = {
        "then_branch": branch("then", "Relu", "a"),
        "else_branch": branch("else", "Neg", "a"),
    }
    return node("If", ["c"], ["y"], **branches)


@pytest.mark.parametrize("condition", [True, False])
def test_if_with_known_condition_is_inlined(build_model: Build, compare: Compare, condition: bool):
    x = normal(2, 3)
    nodes = [node("Abs", ["x"], ["a"]), if_node()]
    graph = compare(build_model(nodes, {"x": x}, ["y"], {"c": np.array(condition)}), {"x": x})
    assert [op.attrs["fn"] for op in graph.ops] == ["abs", "relu" if condition else "neg"]
    assert any("condition is constant" in note for note in graph.notes)


@pytest.mark.parametrize("condition", [True, False])
def test_if_with_unknown_condition_captures_outer_values(
    build_model: Build, compare: Compare, condition: bool
):
    inputs = {"x": normal(2, 3), "c": np.array(condition)}
    nodes = [node("Abs", ["x"], ["a"]), if_node()]
    graph = compare(build_model(nodes, inputs, ["y"]), inputs)
    assert kinds(graph) == ["map", "host"]
    assert graph.ops[0].output in graph.ops[1].inputs


def test_loop(build_model: Build, compare: Compare):
    body = helper.make_graph(
        [
            helper.make_node("Add", ["state", "outer"], ["next"]),
            helper.make_node("Identity", ["go"], ["on"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, [3]),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, [3]),
        ],
    )
    x = normal(3)
    nodes = [
        node("Mul", ["x", "x"], ["outer"]),
        node("Loop", ["n", "", "x"], ["r"], body=body),
        node("Relu", ["r"], ["y"]),
    ]
    graph = compare(build_model(nodes, {"x": x}, ["y"], {"n": np.array(3)}), {"x": x})
    assert kinds(graph) == ["map", "host", "map"]


def test_one_tensor_as_scalar_and_as_vector(build_model: Build, compare: Compare):
    """Inside the graph both are (1,); the region must give each node its own form."""
    nodes = [
        node("ReduceSum", ["x"], ["s"], keepdims=0),
        node("Unsqueeze", ["s", "zero"], ["v"]),
        node("Hardmax", ["v"], ["h"]),
        node("Det", ["m"], ["d"]),
        node("Sum", ["s", "d", "h"], ["y"]),
        node("Unsqueeze", ["d", "zero"], ["dv"]),
        node("Hardmax", ["dv"], ["z"]),
    ]
    inputs = {"x": normal(4), "m": normal(3, 3)}
    graph = compare(build_model(nodes, inputs, ["y", "z"], {"zero": np.array([0])}), inputs)
    assert "host" in kinds(graph)


def test_random_operators_are_not_folded(build_model: Build):
    nodes = [node("RandomNormal", [], ["r"], shape=[2, 3]), node("Add", ["x", "r"], ["y"])]
    x = np.zeros((2, 3), np.float32)
    graph = load_onnx(build_model(nodes, {"x": x}, ["y"]).SerializeToString())
    assert kinds(graph) == ["host", "map"]


def test_shapes_from_trial_runs_are_checked_at_run_time(build_model: Build):
    nodes = [node("Loop", ["n", "", "x"], ["r", "scan"], body=scan_body())]
    inputs = {"x": normal(3), "n": np.array(1)}
    model = build_model(nodes, inputs, ["r", "scan"])
    with pytest.raises(ShapeError, match="depends on data"):
        load_onnx(model.SerializeToString())
    constants = {"n": np.array(2)}
    graph = load_onnx(
        build_model(nodes, {"x": inputs["x"]}, ["r", "scan"], constants).SerializeToString()
    )
    assert graph.outputs[1].shape == (2, 3)
    assert any("trial runs" in note for note in graph.notes)


def scan_body() -> object:
    return helper.make_graph(
        [
            helper.make_node("Neg", ["state"], ["next"]),
            helper.make_node("Identity", ["go"], ["on"]),
            helper.make_node("Identity", ["state"], ["seen"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, [3]),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, [3]),
            helper.make_tensor_value_info("seen", TensorProto.FLOAT, [3]),
        ],
    )


def test_gather_checks_indices_at_run_time(build_model: Build):
    inputs = {"x": normal(3), "i": np.array([0])}
    model = build_model([node("Gather", ["x", "i"], ["y"])], inputs, ["y"])
    graph = load_onnx(model.SerializeToString())
    (gather,) = (op for op in graph.ops if op.kind == "gather")
    with pytest.raises(ProgramError, match=r"outside 0\.\.2"):
        evaluate_op(gather, [normal(3), np.array([3])], graph.types)
    assert evaluate(graph, {"x": np.float32([1, 2, 3]), "i": np.array([-1])})["y"] == 3
