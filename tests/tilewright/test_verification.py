"""What counts as agreement, and how onnxruntime is asked."""

from __future__ import annotations

import math
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from tilewright import api
from tilewright.compiler import Compilation, Stage
from tilewright.errors import CompileError, ModelError
from tilewright.report import verdict
from tilewright.verification import (
    FLOAT_TOLERANCE,
    OutputCheck,
    compare,
    evaluator_differences,
    reference_outputs,
)


def check(
    ours: object, reference: object, dtype: object = np.float32, **options: float
) -> OutputCheck:
    """Compare two arrays."""
    a, b = np.asarray(ours, dtype), np.asarray(reference, dtype)  # type: ignore[call-overload]
    (result,) = compare({"y": a}, {"y": b}, **options)
    return result


def test_error_is_relative_to_the_largest_reference() -> None:
    assert check([1.0, 1000.05], [1.0, 1000.0]).passed
    assert check([1.05, 1000.0], [1.0, 1000.0]).passed
    assert not check([1.0, 1000.2], [1.0, 1000.0]).passed
    result = check([3.0, -4.0], [3.0, -5.0])
    assert (result.error, result.scale, result.tolerance) == (1.0, 5.0, FLOAT_TOLERANCE)
    assert result.relative_error == 0.2


@given(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=5),
    st.floats(0, 1),
    st.floats(0, 2),
)
def test_passes_exactly_within_the_tolerance(
    reference: list[float], tolerance: float, factor: float
) -> None:
    expected = np.asarray(reference, np.float64)
    scale = np.abs(expected).max()
    ours = expected.copy()
    ours[0] += factor * tolerance * scale
    result = check(ours, expected, np.float64, tolerance=tolerance)
    assert result.passed == (abs(ours[0] - expected[0]) <= tolerance * scale)


def test_zeros_must_be_zeros() -> None:
    assert check([0.0, 0.0], [0.0, -0.0]).passed
    tiny = check([0.0, 1e-30], [0.0, 0.0])
    assert not tiny.passed
    assert tiny.relative_error == math.inf


@pytest.mark.parametrize(
    ("ours", "reference", "passes"),
    [
        ([math.nan, 1], [math.nan, 1], True),
        ([1, 1], [math.nan, 1], False),
        ([math.nan, 1], [1, 1], False),
        ([math.inf, 1], [math.inf, 1], True),
        ([-math.inf, 1], [math.inf, 1], False),
        ([math.inf, 1], [3e38, 1], False),
        ([math.nan, 1], [math.inf, 1], False),
        ([math.inf, 2], [math.inf, 1], False),
    ],
)
def test_nan_and_infinity_have_their_places(
    ours: list[float], reference: list[float], passes: bool
) -> None:
    assert check(ours, reference).passed == passes


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int64, np.uint64, np.bool_])
def test_integers_are_exact(dtype: type) -> None:
    assert check([1, 0], [1, 0], dtype).passed
    assert not check([1, 0], [1, 1], dtype).passed
    assert not check([1, 0], [1, 1], dtype, tolerance=10.0).passed


def test_large_integers_are_not_rounded() -> None:
    result = check([2**60 + 1], [2**60], np.int64)
    assert not result.passed
    assert result.error >= 1


@pytest.mark.parametrize(("dtype", "bits"), [(np.float16, 11), (ml_dtypes.bfloat16, 8)])
def test_narrow_floats_get_a_few_roundings(dtype: type, bits: int) -> None:
    assert check([1.0 + 2.0 ** (1 - bits)], [1.0], dtype).passed
    assert not check([1.0 + 2.0 ** (4 - bits)], [1.0], dtype).passed


def test_empty_outputs_agree() -> None:
    assert check(np.zeros((0, 3)), np.zeros((0, 3))).passed


@pytest.mark.parametrize(
    ("ours", "message"),
    [
        ({}, "output 'y' is missing, found none"),
        (
            {"y": np.zeros((1, 2), np.float32)},
            r"'y' is float32\[1, 2\], onnxruntime gives float32\[2\]",
        ),
        ({"y": np.zeros(2, np.float64)}, r"'y' is float64\[2\], onnxruntime gives float32\[2\]"),
    ],
)
def test_other_outputs_are_refused(ours: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        compare(ours, {"y": np.zeros(2, np.float32)})


def test_tolerance_by_name() -> None:
    ours = {"a": np.array([1.1]), "b": np.array([1.1])}
    reference = {"a": np.array([1.0]), "b": np.array([1.0])}
    assert [c.passed for c in compare(ours, reference, {"a": 0.2})] == [True, False]


def test_verdict_names_the_worst() -> None:
    good, bad = check([1.0], [1.0]), check([2.0], [1.0])
    assert (
        verdict([good])
        == "verified: 1 output agrees with onnxruntime, worst error 0 of max |reference|"
    )
    assert verdict([good, bad]).startswith(
        "FAILED: 1 of 2 outputs differ from onnxruntime, most 'y': 1 of"
    )


def test_external_data_is_read_by_onnxruntime(tmp_path: Path) -> None:
    weight = np.arange(12, dtype=np.float32).reshape(3, 4)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 4])
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = helper.make_graph([node], "outer", [x], [y], [numpy_helper.from_array(weight, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path = tmp_path / "outer.onnx"
    onnx.save(model, path, save_as_external_data=True, location="w.bin", size_threshold=0)
    assert path.stat().st_size < 300
    assert (tmp_path / "w.bin").stat().st_size >= weight.nbytes
    compilation = api.compile(path, "toy")
    (result,) = api.verify(path, compilation)
    assert result.passed
    given_x = np.ones((2, 3), np.float32)
    np.testing.assert_array_equal(reference_outputs(path, {"x": given_x})["y"], given_x @ weight)


def test_verify_takes_inputs_and_tolerance(
    cnn: Path, compiled: Compilation, image: np.ndarray
) -> None:
    checks = api.verify(cnn, compiled, {"image": image})
    assert [c.name for c in checks] == ["logits", "[red]probability"]
    assert all(c.passed and c.error > 0 for c in checks), "close, but not by being the same code"
    assert not any(c.passed for c in api.verify(cnn, compiled, {"image": image}, tolerance=0.0))
    with pytest.raises(ModelError, match="'image' is missing"):
        api.verify(cnn, compiled, {})
    stopped = api.compile(cnn, "toy", dims={"batch": 1}, stop_after=Stage.EXTRACT)
    with pytest.raises(CompileError, match="no program to verify"):
        api.verify(cnn, stopped)


def test_models_that_onnxruntime_refuses_are_named(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ModelError, match="onnxruntime cannot run the model for comparison"):
        reference_outputs(b"no model", {})
    assert capfd.readouterr().err == ""


def quantised_model() -> bytes:
    """Return x -> quantise -> MatMulInteger -> rescale.

    The weights have 7 bits: onnxruntime saturates 16-bit pair sums of wider ones on some processors.
    """
    rng = np.random.default_rng(0)
    weight = rng.integers(-64, 64, (64, 8)).astype(np.int8)
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"]),
        helper.make_node("MatMulInteger", ["q", "w", "zero"], ["sums"]),
        helper.make_node("Cast", ["sums"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["real", "scale"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 64])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, 8])
    graph = helper.make_graph(nodes, "quantised", [x], [y], [numpy_helper.from_array(weight, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    data: bytes = model.SerializeToString()
    return data


def test_evaluator_differences_are_a_tolerance_for_verify() -> None:
    model = quantised_model()
    x = np.random.default_rng(5).standard_normal((4, 64)).astype(np.float32)
    differences = evaluator_differences(model, {"x": x})
    assert set(differences) == {"y"}
    assert 0 <= differences["y"] < 0.05
    allowed = {name: max(value, FLOAT_TOLERANCE) for name, value in differences.items()}
    (result,) = api.verify(model, api.compile(model, "toy"), {"x": x}, tolerance=allowed)
    assert result.passed
    assert result.tolerance == allowed["y"]
