"""The tolerance of models that round values: as wide as onnxruntime's own spread, and no wider."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tilewright import api
from tilewright.graph import Array
from tilewright.rounding import rounds_values
from tilewright.rounding_tolerance import _nudged, rounding_tolerances
from tilewright.verification import FLOAT_TOLERANCE, compare, reference_outputs


def model(*, quantised: bool, layers: int = 6) -> bytes:
    """Return a chain of products, with 8-bit activations between them or without."""
    rng = np.random.default_rng(0)
    stored, nodes, value = [], [], "x"
    for layer in range(layers):
        weight = (rng.standard_normal((32, 32)) / 4).astype(np.float32)
        stored.append(numpy_helper.from_array(weight, f"w{layer}"))
        if quantised:
            parts = [f"{name}{layer}" for name in ("q", "s", "z", "d")]
            nodes += [
                helper.make_node("DynamicQuantizeLinear", [value], parts[:3]),
                helper.make_node("DequantizeLinear", parts[:3], parts[3:]),
            ]
            value = parts[3]
        nodes.append(helper.make_node("MatMul", [value, f"w{layer}"], [f"y{layer}"]))
        value = f"y{layer}"
    info = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [16, 32]) for n in ("x", value)]
    graph = helper.make_graph(nodes, "chain", info[:1], info[1:], stored)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return bytes(made.SerializeToString())


@pytest.fixture
def inputs() -> dict[str, Array]:
    return {"x": np.random.default_rng(1).standard_normal((16, 32)).astype(np.float32)}


def test_models_that_round_nothing_have_the_usual_tolerance(inputs: dict[str, Array]) -> None:
    source = model(quantised=False)
    graph = api.load(source)
    assert not rounds_values(graph)
    assert rounding_tolerances(source, graph, inputs, reference_outputs(source, inputs)) is None


def test_quantised_activations_widen_the_tolerance_as_far_as_they_must(
    inputs: dict[str, Array],
) -> None:
    source = model(quantised=True)
    exact = reference_outputs(source, inputs)
    allowed = rounding_tolerances(source, api.load(source), inputs, exact)
    assert allowed is not None
    (width,) = allowed.values()
    assert FLOAT_TOLERANCE < width < 0.05
    # another draw of the same
    (near,) = compare(
        reference_outputs(_nudged(onnx.load_from_string(source), 9), inputs), exact, allowed
    )
    assert near.passed
    wrong = {name: value + 2 * width * np.abs(value).max() for name, value in exact.items()}
    assert not any(check.passed for check in compare(wrong, exact, allowed))


def test_compiled_quantised_model_is_within_it(inputs: dict[str, Array]) -> None:
    source = model(quantised=True, layers=2)
    (check,) = api.verify(source, api.compile(source, "toy"), inputs)
    assert check.passed
    assert check.tolerance < 0.05


def test_weights_move_by_about_a_millionth_and_zeros_and_masks_stay() -> None:
    values = np.array([0.0, 1.0, -3.5, 3e38, -np.inf, 1e-3] * 50, np.float32)
    graph = helper.make_graph([], "weights", [], [], [numpy_helper.from_array(values, "w")])
    moved = onnx.load_from_string(_nudged(helper.make_model(graph), 0)).graph.initializer[0]
    found = numpy_helper.to_array(moved)
    special = (values == 0) | (np.abs(values) > 1e30)
    np.testing.assert_array_equal(found[special], values[special])
    changes = np.abs(found[~special] / values[~special] - 1)
    assert 3e-7 < np.median(changes) < 1e-6
    assert changes.max() < 5e-6
