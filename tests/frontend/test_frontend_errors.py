"""Broken, unsafe and absurd models: each gives one of our errors, quickly and without a result."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper

from tilewright.errors import CompileError, ModelError, ShapeError, UnsupportedOpError
from tilewright.frontend import load_onnx
from tilewright.reference import evaluate

Build = Callable[..., ModelProto]
X = np.zeros((2, 3), np.float32)


def relu_model(build_model: Build) -> ModelProto:
    return build_model([helper.make_node("Relu", ["x"], ["y"], name="act")], {"x": X}, ["y"])


def with_dims(model: ModelProto, *dims: int | str | None) -> bytes:
    shape = model.graph.input[0].type.tensor_type.shape
    del shape.dim[:]
    for d in dims:
        new = shape.dim.add()
        if isinstance(d, int):
            new.dim_value = d
        elif d is not None:
            new.dim_param = d
    return model.SerializeToString()


def add_relu(build_model: Build) -> ModelProto:
    w = np.arange(3, dtype=np.float32)
    nodes = [helper.make_node("Add", ["x", "w"], ["s"]), helper.make_node("Relu", ["s"], ["y"])]
    return build_model(nodes, {"x": X}, ["y"], {"w": w})


@pytest.mark.parametrize("data", [b"", b"\0", b"not a model at all", b"\x08\x07" * 50])
def test_garbage_is_refused(data: bytes):
    with pytest.raises(ModelError):
        load_onnx(data)


def test_every_truncation_is_refused(build_model: Build):
    data = add_relu(build_model).SerializeToString()
    accepted = []
    for length in range(len(data)):
        try:
            load_onnx(data[:length])
            accepted.append(length)
        except CompileError:
            pass
    assert not accepted


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_flipped_bytes_never_crash(build_model: Build, data: st.DataObject):
    model = bytearray(add_relu(build_model).SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        model[data.draw(st.integers(0, len(model) - 1))] = data.draw(st.integers(0, 255))
    try:
        graph = load_onnx(bytes(model))
    except CompileError:
        return
    graph.validate()


def test_missing_file(tmp_path: Path):
    with pytest.raises(ModelError, match="cannot be read"):
        load_onnx(tmp_path / "absent.onnx")


@pytest.mark.parametrize("opset", [1, 6, 99])
def test_unsupported_opset(build_model: Build, opset: int):
    model = relu_model(build_model)
    model.opset_import[0].version = opset
    with pytest.raises(ModelError, match=f"opset {opset} is not supported"):
        load_onnx(model.SerializeToString())


def test_wrong_arity_names_node(build_model: Build):
    model = build_model([helper.make_node("Add", ["x"], ["y"], name="broken")], {"x": X}, ["y"])
    with pytest.raises(ModelError, match="Add 'broken': 1 inputs, expected 2"):
        load_onnx(model.SerializeToString())


def test_wrong_attribute_type(build_model: Build):
    node = helper.make_node("Softmax", ["x"], ["y"], name="s", axis=1.5)
    with pytest.raises(ModelError, match="attribute 'axis' has the wrong type"):
        load_onnx(build_model([node], {"x": X}, ["y"]).SerializeToString())


def test_missing_attribute(build_model: Build):
    node = helper.make_node("Cast", ["x"], ["y"], name="c")
    with pytest.raises(ModelError, match="attribute 'to' is missing"):
        load_onnx(build_model([node], {"x": X}, ["y"]).SerializeToString())


def test_unbound_dimensions_are_listed_with_levers(build_model: Build):
    data = with_dims(relu_model(build_model), "batch", None)
    with pytest.raises(ShapeError) as caught:
        load_onnx(data)
    assert "--dim batch=value --dim x.1=value" in str(caught.value)
    graph = load_onnx(data, dims={"batch": 4, "x.1": 5})
    assert graph.inputs[0].shape == (4, 5)


def test_sums_of_dimensions_are_computed(build_model: Build):
    data = with_dims(relu_model(build_model), "past", "past + 1")
    assert load_onnx(data, dims={"past": 4}).inputs[0].shape == (4, 5)


@pytest.mark.parametrize("dims", [{"batch": 0}, {"batch": -3}, {"batch": 2, "other": 1}])
def test_bad_bindings(build_model: Build, dims: dict[str, int]):
    with pytest.raises(ShapeError):
        load_onnx(with_dims(relu_model(build_model), "batch", 3), dims=dims)


def test_absurd_input_shape(build_model: Build):
    with pytest.raises(ShapeError, match="limit"):
        load_onnx(with_dims(relu_model(build_model), 1 << 40, 1 << 40))


def test_ten_gigabyte_claim_in_a_small_file(build_model: Build):
    model = add_relu(build_model)
    model.graph.initializer[0].dims[:] = [2_500_000_000]
    with pytest.raises(ModelError, match="10_000_000_000 bytes"):
        load_onnx(model.SerializeToString())


def test_typed_data_of_wrong_length(build_model: Build):
    model = add_relu(build_model)
    tensor = helper.make_tensor("w", TensorProto.FLOAT, [3], [1.0, 2.0, 3.0])
    tensor.dims[:] = [1 << 33]
    model.graph.initializer[0].CopyFrom(tensor)
    with pytest.raises(ModelError, match="elements"):
        load_onnx(model.SerializeToString())


@pytest.mark.parametrize(
    ("op_type", "known"),
    [
        ("ConstantOfShape", [np.array([1 << 20, 1 << 19], np.int64)]),
        ("Range", [np.int64(0), np.int64(1 << 40), np.int64(1)]),
    ],
)
def test_folding_is_bounded(build_model: Build, op_type: str, known: list[np.ndarray]):
    names = [f"k{i}" for i in range(len(known))]
    nodes = [helper.make_node(op_type, names, ["big"])]
    model = build_model(nodes, {"x": X}, ["big"], dict(zip(names, known, strict=True)))
    with pytest.raises((ModelError, ShapeError)):
        load_onnx(model.SerializeToString())


def test_large_expand_stays_an_operator(build_model: Build):
    nodes = [helper.make_node("Expand", ["c", "shape"], ["y"])]
    shape = np.array([1 << 12, 1 << 12], np.int64)
    model = build_model(nodes, {"x": X}, ["y"], {"c": np.float32([1.0]), "shape": shape})
    graph = load_onnx(model.SerializeToString())
    assert [op.kind for op in graph.ops] == ["expand"]


def test_constant_budget_is_a_lever(build_model: Build):
    nodes = [helper.make_node("ConstantOfShape", ["shape"], ["y"])]
    model = build_model(nodes, {"x": X}, ["y"], {"shape": np.array([1000], np.int64)})
    with pytest.raises(ModelError, match="max_constant_bytes"):
        load_onnx(model.SerializeToString(), max_constant_bytes=100)
    assert load_onnx(model.SerializeToString(), max_constant_bytes=4000).outputs[0].shape == (1000,)


def test_cycle(build_model: Build):
    nodes = [helper.make_node("Add", ["x", "b"], ["a"]), helper.make_node("Relu", ["a"], ["b"])]
    with pytest.raises(ModelError, match="cycle"):
        load_onnx(build_model(nodes, {"x": X}, ["b"]).SerializeToString())


def test_unsorted_nodes_are_sorted(build_model: Build):
    nodes = [helper.make_node("Neg", ["a"], ["y"]), helper.make_node("Relu", ["x"], ["a"])]
    graph = load_onnx(build_model(nodes, {"x": X}, ["y"]).SerializeToString())
    assert [op.attrs["fn"] for op in graph.ops] == ["relu", "neg"]


def test_duplicate_output_name(build_model: Build):
    nodes = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Neg", ["x"], ["y"])]
    with pytest.raises(ModelError, match="already defined"):
        load_onnx(build_model(nodes, {"x": X}, ["y"]).SerializeToString())


def test_duplicate_initializer(build_model: Build):
    model = add_relu(build_model)
    model.graph.initializer.append(model.graph.initializer[0])
    with pytest.raises(ModelError, match="defined twice"):
        load_onnx(model.SerializeToString())


def test_undefined_names(build_model: Build):
    nodes = [helper.make_node("Add", ["x", "ghost"], ["y"], name="n")]
    with pytest.raises(ModelError, match="'ghost' is not defined"):
        load_onnx(build_model(nodes, {"x": X}, ["y"]).SerializeToString())
    with pytest.raises(ModelError, match="'nowhere' is not defined"):
        load_onnx(
            build_model(
                [helper.make_node("Relu", ["x"], ["y"])], {"x": X}, ["nowhere"]
            ).SerializeToString()
        )


def test_unknown_operator_and_domain(build_model: Build):
    node = helper.make_node("NoSuchOp", ["x"], ["y"], name="odd")
    with pytest.raises(UnsupportedOpError, match="odd"):
        load_onnx(build_model([node], {"x": X}, ["y"]).SerializeToString())
    node = helper.make_node("NoSuchOp", ["x"], ["y"], name="odd", domain="my.domain")
    with pytest.raises(ModelError, match=r"my\.domain"):
        load_onnx(build_model([node], {"x": X}, ["y"]).SerializeToString())
    model = build_model([node], {"x": X}, ["y"], domains=["my.domain"])
    with pytest.raises(UnsupportedOpError, match="NoSuchOp: neither the target nor the host"):
        load_onnx(model.SerializeToString())


def test_shapes_that_do_not_fit(build_model: Build):
    w = np.zeros((4, 5), np.float32)
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="fc")
    with pytest.raises(ShapeError, match=r"MatMul fc: cannot multiply \(2, 3\) by \(4, 5\)"):
        load_onnx(build_model([node], {"x": X}, ["y"], {"w": w}).SerializeToString())


def test_string_and_sequence_inputs(build_model: Build):
    model = relu_model(build_model)
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.STRING
    with pytest.raises(UnsupportedOpError, match="element type"):
        load_onnx(model.SerializeToString())
    model.graph.input[0].CopyFrom(
        helper.make_tensor_sequence_value_info("x", TensorProto.FLOAT, None)
    )
    with pytest.raises(UnsupportedOpError, match="sequence"):
        load_onnx(model.SerializeToString())


def test_evaluate_checks_inputs(build_model: Build):
    graph = load_onnx(relu_model(build_model).SerializeToString())
    with pytest.raises(ShapeError, match="missing"):
        evaluate(graph, {})
    with pytest.raises(ShapeError, match="expected f32"):
        evaluate(graph, {"x": np.zeros((3, 2), np.float32)})


def external(model: ModelProto, location: str, **entries: int) -> bytes:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=str(value))
    return model.SerializeToString()


def test_external_data_is_read(build_model: Build, tmp_path: Path):
    (tmp_path / "weights.bin").write_bytes(b"\0" * 8 + np.float32([1, 2, 3]).tobytes())
    path = tmp_path / "m.onnx"
    path.write_bytes(external(add_relu(build_model), "weights.bin", offset=8, length=12))
    found = evaluate(load_onnx(path), {"x": X})["y"]
    np.testing.assert_array_equal(found, np.tile(np.float32([1, 2, 3]), (2, 1)))


@pytest.mark.parametrize(
    "location", ["../secret.bin", "/etc/hostname", "a/../../secret.bin", "", "absent.bin"]
)
def test_external_paths_outside_are_refused(build_model: Build, tmp_path: Path, location: str):
    (tmp_path / "secret.bin").write_bytes(b"\0" * 12)
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "m.onnx").write_bytes(external(add_relu(build_model), location))
    with pytest.raises(ModelError, match=r"refused|missing"):
        load_onnx(folder / "m.onnx")


def test_external_links_out_are_refused(build_model: Build, tmp_path: Path):
    (tmp_path / "secret.bin").write_bytes(b"\0" * 12)
    folder = tmp_path / "model"
    folder.mkdir()
    os.symlink(tmp_path / "secret.bin", folder / "weights.bin")
    (folder / "m.onnx").write_bytes(external(add_relu(build_model), "weights.bin"))
    with pytest.raises(ModelError, match="link out"):
        load_onnx(folder / "m.onnx")


@pytest.mark.parametrize(
    "entries", [{"offset": 5}, {"length": 4}, {"offset": -4}, {"offset": 1 << 60}]
)
def test_external_ranges_are_checked(build_model: Build, tmp_path: Path, entries: dict[str, int]):
    (tmp_path / "w.bin").write_bytes(b"\0" * 12)
    (tmp_path / "m.onnx").write_bytes(external(add_relu(build_model), "w.bin", **entries))
    with pytest.raises(ModelError, match="do not hold"):
        load_onnx(tmp_path / "m.onnx")


def test_external_data_needs_a_path(build_model: Build):
    with pytest.raises(ModelError, match="pass its path"):
        load_onnx(external(add_relu(build_model), "w.bin"))


def test_sparse_claims_are_bounded(build_model: Build):
    model = add_relu(build_model)
    del model.graph.initializer[:]
    sparse = model.graph.sparse_initializer.add()
    sparse.values.CopyFrom(numpy_helper.from_array(np.float32([5.0]), "w"))
    sparse.indices.CopyFrom(numpy_helper.from_array(np.array([1], np.int64), "i"))
    sparse.dims[:] = [3]
    found = evaluate(load_onnx(model.SerializeToString()), {"x": X})["y"]
    np.testing.assert_array_equal(found, np.tile(np.float32([0, 5, 0]), (2, 1)))
    sparse.dims[:] = [1 << 40]
    with pytest.raises(ModelError, match="dense shape"):
        load_onnx(model.SerializeToString())
