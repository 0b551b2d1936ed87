"""The written encoders are as large as published and compute what their papers say."""

from __future__ import annotations

from dataclasses import replace
from math import erf, prod
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import write_encoder
from write_encoder import PRESETS, Encoder

BERT = replace(
    PRESETS["bert-base"], layers=1, hidden=24, heads=3, ffn=40, batch=2, tokens=5, vocab=11
)
VIT = replace(PRESETS["vit-b16"], layers=2, hidden=24, heads=3, ffn=40, batch=2, image=8, patch=4)


def run(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Run a model in onnxruntime without optimisations."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    found: list[np.ndarray] = session.run(None, feeds)
    return found


@pytest.mark.parametrize(
    ("preset", "parameters"),
    # transformers' BertModel with pooler; torchvision's vit_b_16
    [("bert-base", 109_482_240), ("vit-b16", 86_567_656)],
)
def test_presets_have_the_published_size(preset: str, parameters: int) -> None:
    weights = write_encoder.encoder_graph(PRESETS[preset]).weights
    assert sum(prod(weight.shape) for weight in weights) == parameters


def test_bert_matches_a_direct_computation(rng: np.random.Generator) -> None:
    """One post-norm block and the pooler against formulas in float64, head by head."""
    weight = {
        w.name: w.values(3).astype(np.float64) for w in write_encoder.encoder_graph(BERT).weights
    }
    ids, kinds = rng.integers(0, BERT.vocab, (2, 5)), rng.integers(0, 2, (2, 5))

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return x @ weight[f"{name}.weight"] + weight[f"{name}.bias"]

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12)
        return scaled * weight[f"{name}.weight"] + weight[f"{name}.bias"]

    x = weight["embeddings.words.weight"][ids] + weight["embeddings.kinds.weight"][kinds]
    x = norm(x + weight["embeddings.positions.weight"][:5], "embeddings.norm")
    prefix = "layers.0.attention"
    q, k, v = (linear(x, f"{prefix}.{name}") for name in ("query", "key", "value"))
    heads = []
    for head in range(3):
        own = slice(8 * head, 8 * head + 8)
        scores = np.exp(q[..., own] @ k[..., own].swapaxes(1, 2) / np.sqrt(8))
        heads.append(scores / scores.sum(-1, keepdims=True) @ v[..., own])
    x = norm(linear(np.concatenate(heads, -1), f"{prefix}.output") + x, f"{prefix}.norm")
    inner = linear(x, "layers.0.expand")
    inner = inner * (1 + np.vectorize(erf)(inner / np.sqrt(2))) / 2
    x = norm(linear(inner, "layers.0.shrink") + x, "layers.0.norm")
    hidden, pooled = run(
        write_encoder.build_encoder(BERT, 3), {"input_ids": ids, "token_type_ids": kinds}
    )
    np.testing.assert_allclose(hidden, x, atol=1e-5)
    np.testing.assert_allclose(pooled, np.tanh(linear(x[:, 0], "pooler")), atol=1e-5)


def test_vit_sees_the_patches_in_any_order(rng: np.random.Generator) -> None:
    """Without positions, exchanging two patches changes nothing, and every sample is by itself."""
    model = write_encoder.build_encoder(VIT, 1)
    onnx.checker.check_model(model, full_check=True)
    image = rng.standard_normal((2, 3, 8, 8)).astype(np.float32)
    exchanged = np.concatenate([image[:, :, 4:], image[:, :, :4]], axis=2)
    (first,), (other,) = run(model, {"image": image}), run(model, {"image": exchanged})
    assert first.shape == (2, 1000)
    assert np.abs(first - other).max() > 1e-3
    for tensor in model.graph.initializer:
        if tensor.name == "positions":
            zeros = np.zeros(tuple(tensor.dims), np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(zeros, tensor.name))
    (first,), (other,) = run(model, {"image": image}), run(model, {"image": exchanged})
    np.testing.assert_allclose(first, other, atol=1e-4)
    (swapped,) = run(model, {"image": image[::-1].copy()})
    np.testing.assert_allclose(swapped, first[::-1], atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--heads", "7"], "hidden 768 is not a multiple of 7 heads"),
        (["--tokens", "513"], "513 tokens, but there are 512 positions"),
        (["--batch", "0"], "batch is 0, must be at least 1"),
        (["--preset", "vit-b16", "--image", "100"], "image 100 is not a multiple of 16 pixels"),
    ],
)
def test_impossible_sizes_are_errors(arguments: list[str], message: str, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    with pytest.raises(SystemExit, match=f"^error: .*{message}"):
        write_encoder.main([str(path), "--no-weights", *arguments])
    assert not path.exists()


def test_flags_change_the_size(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    write_encoder.main([str(path), "--no-weights", "--batch", "3", "--layers", "1"])
    model = onnx.load(path, load_external_data=False)
    assert [d.dim_value for d in model.graph.output[1].type.tensor_type.shape.dim] == [3, 768]


def test_sizes_are_checked() -> None:
    with pytest.raises(ValueError, match="layers is 0"):
        Encoder(family="bert", layers=0, hidden=8, heads=2, ffn=8)
