"""Tolerances of 32-bit outputs that were rounded to narrower floats before."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from tilewright import api
from tilewright.graph import Array
from tilewright.tolerances import allowed_errors
from tilewright.verification import FLOAT_TOLERANCE, reference_outputs

HALF = 4 * 2.0**-11
"""The tolerance of a half-precision output."""


def half_model() -> tuple[bytes, Array]:
    """Return a perceptron in half precision, with 32-bit outputs of several kinds, and its input."""
    rng = np.random.default_rng(3)

    def half(name: str, *shape: int) -> TensorProto:
        return numpy_helper.from_array(rng.standard_normal(shape).astype(np.float16), name)

    nodes = [
        helper.make_node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16),
        helper.make_node("MatMul", ["h", "w"], ["p"]),
        helper.make_node("LayerNormalization", ["p", "scale", "shift"], ["n"]),
        helper.make_node("Cast", ["n"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["wide"], ["turned"]),
        helper.make_node("Sigmoid", ["wide"], ["computed"]),
        helper.make_node("Tanh", ["x"], ["apart"]),
    ]
    shapes = {"wide": [5, 30], "turned": [30, 5], "computed": [5, 30], "apart": [5, 40]}
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [5, 40])
    outputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items()]
    weights = [half("w", 40, 30), half("scale", 30), half("shift", 30)]
    graph = helper.make_graph(nodes, "half", [x], outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return model.SerializeToString(), rng.standard_normal((5, 40)).astype(np.float32)


def test_casting_an_output_leaves_its_tolerance() -> None:
    """What is computed in 32 bits gets no more, whatever it reads."""
    model, x = half_model()
    exact = reference_outputs(model, {"x": x})
    allowed = allowed_errors(model, api.target("toy"), api.load(model), {"x": x}, exact)
    assert allowed == {
        "wide": HALF,
        "turned": HALF,
        "computed": FLOAT_TOLERANCE,
        "apart": FLOAT_TOLERANCE,
    }


def test_such_a_model_is_verified() -> None:
    model, x = half_model()
    checks = api.verify(model, api.compile(model, "toy"), {"x": x})
    found = {check.name: check for check in checks}
    assert found["wide"].passed
    assert found["turned"].passed
    assert found["wide"].relative_error > FLOAT_TOLERANCE, "nothing is shown"
