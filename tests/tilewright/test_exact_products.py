"""Integer products in onnxruntime are those of numpy, also where sums of two products exceed 16 bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from tilewright import api
from tilewright.exact_products import with_exact_products
from tilewright.graph import Array
from tilewright.verification import reference_outputs

ONE = np.float32(1)
COARSE = np.float32(4096)
"""Scale of the results that are stored in 8 bits."""


def activations() -> Array:
    return np.random.default_rng(0).integers(200, 256, (4, 16)).astype(np.uint8)


def weights() -> Array:
    return np.random.default_rng(1).integers(100, 128, (16, 6)).astype(np.int8)


def product_model(kind: str, x: Array, known: list[Array | None]) -> bytes:
    """Return a model of one product of x; None stands for an input that is left out."""
    names = [f"k{i}" if k is not None else "" for i, k in enumerate(known)]
    is_wide = kind.endswith("Integer")
    node = helper.make_node(kind, ["x", *names], ["y"])
    stored = [
        numpy_helper.from_array(np.asarray(k), n) for k, n in zip(known, names, strict=True) if n
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.UINT8, x.shape)]
    result = TensorProto.INT32 if is_wide else TensorProto.UINT8
    outputs = [helper.make_tensor_value_info("y", result, None)]
    graph = helper.make_graph([node], "product", inputs, outputs, stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return bytes(model.SerializeToString())


def coarse(total: Array) -> Array:
    """Return sums in units of `COARSE`, rounded to even."""
    quotients = np.rint(total.astype(np.float64) / float(COARSE))
    return np.asarray(quotients.clip(0, 255), np.uint8)


def cases() -> list[Any]:
    x, w = activations(), weights()
    total = x.astype(np.int64) @ w.astype(np.int64)
    shifted = (x.astype(np.int64) - 3) @ (w.astype(np.int64) + 2)
    three, minus, none = np.uint8(3), np.int8(-2), np.uint8(0)
    quantised = [ONE, none, w, ONE, np.int8(0), COARSE, none]
    filters = w.T.reshape(6, 16, 1, 1)
    signed = np.zeros(6, np.int8)
    per_channel = [ONE, none, filters, np.full(6, ONE), signed, COARSE, none]
    pixels = x.reshape(4, 16, 1, 1)
    return [
        ("MatMulInteger", x, [w, none], total),
        ("MatMulInteger", x, [w, three, minus], shifted),
        ("QLinearMatMul", x, quantised, coarse(total)),
        ("ConvInteger", pixels, [filters, three, minus], shifted),
        ("QLinearConv", pixels, per_channel, coarse(total)),
    ]


@pytest.mark.parametrize(("kind", "x", "known", "expected"), cases())
def test_products_are_exact(
    kind: str, x: Array, known: list[Array | None], expected: Array
) -> None:
    model = product_model(kind, x, known)
    assert with_exact_products(model) != model, "nothing is shown"
    found = reference_outputs(model, {"x": x})["y"]
    np.testing.assert_array_equal(found.reshape(expected.shape), expected)


def test_what_is_not_signed_stays() -> None:
    model = product_model("MatMulInteger", activations(), [weights().astype(np.uint8)])
    graph = helper.make_graph([], "empty", [], [])
    for other in (model, helper.make_model(graph).SerializeToString()):
        assert with_exact_products(other) == other


def test_a_dynamically_quantised_model_is_verified() -> None:
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"]),
        helper.make_node("MatMulInteger", ["q", "w", "zero"], ["sums"]),
        helper.make_node("Cast", ["sums"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["real", "scale"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 16])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, 6])
    graph = helper.make_graph(nodes, "dynamic", [x], [y], [numpy_helper.from_array(weights(), "w")])
    opset = [helper.make_opsetid("", 13)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()
    image = np.random.default_rng(2).uniform(0.5, 1, (4, 16)).astype(np.float32)
    (check,) = api.verify(model, api.compile(model, "toy"), {"x": image})
    assert check.passed
