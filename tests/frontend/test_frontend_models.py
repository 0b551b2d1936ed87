"""Whole models: the nine classic networks inside the onnx package, and real ones from a folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, numpy_helper

from tilewright.frontend import load_onnx
from tilewright.graph import Graph
from tilewright.reference import evaluate

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
QUICK = {"light_squeezenet", "light_shufflenet", "light_resnet50", "light_inception_v1"}
"""The others have hundreds of megabytes of weights, or seconds of arithmetic."""
Compare = Callable[..., Graph]
AssertClose = Callable[..., None]


def light_models() -> list[object]:
    return [
        pytest.param(p.stem, marks=[] if p.stem in QUICK else [pytest.mark.slow])
        for p in sorted(LIGHT.glob("*.onnx"))
    ]


@pytest.mark.parametrize("name", light_models())
def test_classic_networks(name: str, assert_close: AssertClose):
    """Their weights are uniform, so that all outputs are equal: this tests import, not arithmetic."""
    graph = load_onnx(LIGHT / f"{name}.onnx")
    assert not graph.host_models
    (port,) = graph.inputs
    # the input that ONNX's runner made the expected outputs with
    count = np.prod(port.shape)
    ramp = (np.arange(count).reshape(port.shape) / count).astype(np.float32)
    (found,) = evaluate(graph, {port.name: ramp}).values()
    expected = TensorProto.FromString((LIGHT / f"{name}_output_0.pb").read_bytes())
    assert_close(found, numpy_helper.to_array(expected))


def with_random_weights(model: ModelProto) -> ModelProto:
    """Replace uniform weights by random ones that keep activations of order one."""
    rng = np.random.default_rng(0)
    shapes = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    kept = []
    for node in model.graph.node:
        if node.op_type != "ConstantOfShape":
            kept.append(node)
            continue
        shape = tuple(int(d) for d in shapes[node.input[0]])
        if len(shape) > 1:
            data = rng.normal(size=shape) * np.sqrt(2 / np.prod(shape[1:]))
        else:
            data = rng.uniform(0.5, 1.5, shape)
        model.graph.initializer.append(
            numpy_helper.from_array(data.astype(np.float32), node.output[0])
        )
    del model.graph.node[:]
    model.graph.node.extend(kept)
    return model


@pytest.mark.parametrize("name", light_models())
def test_classic_networks_with_random_weights(name: str, compare: Compare):
    model = with_random_weights(onnx.load(LIGHT / f"{name}.onnx"))
    constant = {t.name for t in model.graph.initializer}
    (port,) = (i for i in model.graph.input if i.name not in constant)
    shape = [d.dim_value for d in port.type.tensor_type.shape.dim]
    x = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    graph = compare(model, {port.name: x})
    assert not graph.host_models


REAL: dict[str, tuple[dict[str, int], set[str]]] = {
    "basic_pitch": ({"unk__749": 1}, set()),
    "bilstm_int8": ({"batch": 1, "seq_len": 16}, {"DynamicQuantizeLSTM"}),
    "eeg_unet1d": ({"batch_size": 1}, set()),
    "kws_embed": ({"unk__316": 1}, set()),
    "magika": ({"unk__214": 1}, set()),
    "minilm_int8w": ({"batch": 1, "sequence": 64}, set()),
    "mtcnn_p": ({"N": 1, "M1": 96, "M2": 128}, set()),
    "ppocr_cls": ({"x.0": 1, "x.2": 48, "x.3": 192}, set()),
    "ppocrv4_det": (
        {f"p2o.DynamicDimension.{i}": d for i, d in enumerate((1, 320, 320))},
        set(),
    ),
    "ppocrv4_rec": (
        {"p2o.DynamicDimension.0": 1, "x.2": 48, "p2o.DynamicDimension.1": 320},
        set(),
    ),
    "resnet50thin": ({"batch": 1}, set()),
    "silero_if": ({"input.0": 1, "input.1": 512, "state.1": 1}, {"If"}),
    "silero_seq": ({"sequence_length": 1}, {"LSTM"}),
    "silero_v6": ({"seq_len": 1}, {"LSTM"}),
    "smart_turn_qdq": ({"s6": 1}, set()),
}
"""Key -> (dimensions, operator types left to the host)."""

QUANTISED = {"smart_turn_qdq": 5e-3}
"""Activations that are rounded to 8 bits: a last-bit difference moves a value by a whole step.

onnxruntime with and without its optimisations differ by 2e-3 here.
"""


def sample(
    name: str, shape: tuple[int, ...], dtype: np.dtype, rng: np.random.Generator
) -> np.ndarray:
    """Return an input in the range that models expect."""
    if name == "sr":
        return np.full(shape, 16000, dtype)
    if dtype.kind in "iu":
        return rng.integers(0, 2, shape).astype(dtype)
    if shape == (1, 3, 320, 320):
        return lines_of_text(rng)
    return (rng.normal(size=shape) * 0.1).astype(dtype)


def lines_of_text(rng: np.random.Generator) -> np.ndarray:
    """Return an image of dark marks in lines; a detector's outputs vanish on noise."""
    image = np.full((1, 3, 320, 320), 2.0, np.float32)
    for top in range(40, 300, 60):
        for left in range(30, 280, 14):
            image[..., top : top + 20, left : left + 10] -= 4 * rng.integers(0, 2, (20, 10))
    return image


@pytest.mark.parametrize("key", REAL)
def test_real_models(key: str, compare: Compare):
    folder = os.environ.get("TILEWRIGHT_MODELS")
    if not folder:
        pytest.skip("TILEWRIGHT_MODELS does not name a folder of models")
    path = Path(folder) / f"{key}.onnx"
    if not path.is_file():
        pytest.skip(f"{path.name} is not in the folder of models")
    dims, expected_host = REAL[key]
    ports = load_onnx(path, dims=dims).inputs
    rng = np.random.default_rng(0)
    inputs = {p.name: sample(p.name, p.shape, p.dtype.numpy, rng) for p in ports}
    graph = compare(onnx.load(path), inputs, QUANTISED.get(key, 1e-4), dims=dims)
    assert {t for m in graph.host_models.values() for t in m.op_types} == expected_host
