"""Made-up inputs are ones that a model accepts; given ones are checked."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
import write_gpt2
from onnx import TensorProto, helper, numpy_helper
from transformer_writer import Size

from tilewright import api
from tilewright.arrays import npz_bytes, read_arrays, write_file
from tilewright.dtypes import DType
from tilewright.errors import ModelError
from tilewright.graph import Port
from tilewright.inputs import check_inputs, example_inputs, made_up, read_inputs
from tilewright.verification import reference_outputs


def port(name: str, dtype: DType, *shape: int) -> Port:
    return Port(name=name, tensor=name, shape=shape, dtype=dtype)


def test_examples_follow_the_seed() -> None:
    ports = (port("x", DType.F32, 4, 5), port("i", DType.I64, 9))
    first, again, other = made_up(ports, 1), made_up(ports, 1), made_up(ports, 2)
    for name in ("x", "i"):
        np.testing.assert_array_equal(first[name], again[name])
        assert not np.array_equal(first[name], other[name])


@pytest.mark.parametrize("dtype", list(DType))
def test_examples_have_shape_and_type(dtype: DType) -> None:
    value = made_up((port("x", dtype, 2, 0, 3), port("y", dtype), port("z", dtype, 50)))
    assert [a.shape for a in value.values()] == [(2, 0, 3), (), (50,)]
    assert all(a.dtype == dtype.numpy for a in value.values())
    assert len(np.unique(value["z"])) > 1


def test_names_decide_what_integers_mean() -> None:
    ports = (
        port("input_ids", DType.I64, 2, 7),
        port("attention_mask", DType.I64, 2, 7),
        port("token_type_ids", DType.I64, 2, 7),
        port("position_ids", DType.I64, 2, 7),
        port("input_lengths", DType.I64, 2),
        port("sr", DType.I64),
        port("key_padding_mask", DType.BOOL, 2, 7),
    )
    value = made_up(ports, 0, {"input_ids": 30})
    assert set(np.unique(value["input_ids"])) <= set(range(30))
    assert (value["attention_mask"] == 1).all()
    assert (value["token_type_ids"] == 0).all()
    np.testing.assert_array_equal(value["position_ids"], [list(range(7))] * 2)
    np.testing.assert_array_equal(value["input_lengths"], [7, 7])
    assert value["sr"] == 16_000
    assert value["key_padding_mask"].all()


def test_positions_stay_within_their_table() -> None:
    value = made_up((port("position_ids", DType.I64, 1, 9),), 0, {"position_ids": 4})
    assert value["position_ids"].max() == 3


@pytest.mark.parametrize("rows", [1, 2, 11])
def test_row_numbers_are_in_range(rows: int) -> None:
    """They reach the table through a cast and a reshape; onnxruntime refuses wrong ones."""
    table = np.arange(rows * 3, dtype=np.float32).reshape(rows, 3)
    nodes = [
        helper.make_node("Cast", ["ids"], ["long"], to=TensorProto.INT64),
        helper.make_node("Reshape", ["long", "flat"], ["list"]),
        helper.make_node("Gather", ["table", "list"], ["y"]),
    ]
    ids = helper.make_tensor_value_info("ids", TensorProto.INT32, [5, 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [40, 3])
    constants = [numpy_helper.from_array(table, "table")]
    constants.append(numpy_helper.from_array(np.array([-1]), "flat"))
    graph = helper.make_graph(nodes, "rows", [ids], [y], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    data = model.SerializeToString()
    value = example_inputs(api.load(data), 3)
    assert value["ids"].dtype == np.int32
    assert len(np.unique(value["ids"])) == min(rows, len(np.unique(value["ids"])))
    assert value["ids"].max() == rows - 1
    reference_outputs(data, value)


@pytest.mark.parametrize("mode", ["prefill", "decode"])
def test_transformers_accept_their_examples(mode: str) -> None:
    size = Size(layers=1, hidden=16, heads=2, kv_heads=2, ffn=32, vocab=20, seq=6)
    model = write_gpt2.build_gpt2(size, mode)  # type: ignore[arg-type]
    data = model.SerializeToString()
    outputs = reference_outputs(data, example_inputs(api.load(data)))
    assert all(np.isfinite(value).all() for value in outputs.values())


def test_given_inputs_come_back_in_order() -> None:
    ports = (port("a", DType.F32, 2), port("b", DType.BF16, 2), port("c", DType.BOOL))
    arrays = {"c": np.array(True), "b": np.ones(2, ml_dtypes.bfloat16), "a": np.ones(2, np.float32)}
    found = check_inputs(ports, arrays)
    assert list(found) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, r"^file: 'a' is missing; add an array float32\[2\]$"),
        (
            {"a": np.ones(3, np.float32)},
            r"^file: 'a' is float32\[3\], the model takes float32\[2\]; ",
        ),
        ({"a": np.ones(2)}, r"^file: 'a' is float64\[2\], the model takes float32\[2\]; "),
        (
            {"a": np.ones(2, np.float32), "z": np.ones(1)},
            r"^file: found 'z', the model takes 'a'; ",
        ),
    ],
)
def test_wrong_inputs_are_refused(arrays: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        check_inputs((port("a", DType.F32, 2),), arrays, "file")


def test_files_keep_every_name_and_type(tmp_path: Path) -> None:
    arrays = {
        "file": np.arange(3),
        "a/b": np.array(1.5, np.float32),
        "allow_pickle": np.zeros((0, 2), np.int8),
        "half": np.array([1, 2], ml_dtypes.bfloat16),
    }
    write_file(tmp_path / "x.npz", npz_bytes(arrays))
    assert npz_bytes(arrays) == npz_bytes(arrays)
    stored = read_arrays(tmp_path / "x.npz")
    assert list(stored) == list(arrays)
    for name in ("file", "a/b", "allow_pickle"):
        np.testing.assert_array_equal(stored[name], arrays[name])
        assert stored[name].dtype == arrays[name].dtype
    ports = (
        port("file", DType.I64, 3),
        port("a/b", DType.F32),
        port("allow_pickle", DType.I8, 0, 2),
        port("half", DType.BF16, 2),
    )
    found = read_inputs(ports, tmp_path / "x.npz")
    np.testing.assert_array_equal(found["half"].astype(float), [1, 2])


def test_models_without_inputs_take_none() -> None:
    assert made_up(()) == {}
    assert check_inputs((), {}) == {}
    with pytest.raises(ModelError, match="the model takes no inputs"):
        check_inputs((), {"x": np.zeros(1)})


def test_onnx_is_not_asked_for_more_than_it_has(tmp_path: Path) -> None:
    """An input that no op uses stays part of the interface."""
    x, unused = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [2]) for n in ("x", "unused"))
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x, unused], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, tmp_path / "m.onnx")
    checks = api.verify(tmp_path / "m.onnx", api.compile(tmp_path / "m.onnx", "toy"))
    assert all(check.passed for check in checks)
