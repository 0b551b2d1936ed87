"""The written mixture of experts is as large as published; each token takes its two best experts."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import write_mixtral
from transformer_writer import Size, Writer
from write_mixtral import PRESETS

SIZE = Size(layers=1, hidden=16, heads=2, kv_heads=1, ffn=24, vocab=9, seq=6)


def test_the_preset_has_the_published_size() -> None:
    """46.7 B parameters (arXiv 2401.04088, section 2.1: 47B)."""
    weights = write_mixtral.mixtral_graph(PRESETS["mixtral-8x7b"], "decode").weights
    assert sum(prod(weight.shape) for weight in weights) == 46_702_792_704


def test_tokens_take_their_two_best_experts(rng: np.random.Generator) -> None:
    w = Writer(size=SIZE, mode="prefill")
    x = w.input("x", 1, 6, 16)
    write_mixtral.experts(w, x, "moe", 5)
    w.output("moe.joined", 1, 6, 16)
    values = {weight.name: weight.values(4) for weight in w.weights}
    tensors = [onnx.numpy_helper.from_array(v, name) for name, v in values.items()]
    model = w.model("experts", tensors).SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    tokens = rng.standard_normal((1, 6, 16)).astype(np.float32)
    (found,) = session.run(None, {"x": tokens})
    gates, ups, downs = (values[f"moe.{name}_proj.weight"] for name in ("gate", "up", "down"))
    for number, token in enumerate(tokens[0].astype(np.float64)):
        ratings = token @ values["moe.router.weight"]
        best = np.argsort(ratings)[-2:]
        shares = np.exp(ratings[best]) / np.exp(ratings[best]).sum()
        mixed = np.zeros(16)
        for share, expert in zip(shares, best, strict=True):
            gate = token @ gates[expert]
            mixed += share * (gate / (1 + np.exp(-gate)) * (token @ ups[expert])) @ downs[expert]
        np.testing.assert_allclose(found[0, number], mixed, atol=1e-5)


def test_decoding_is_valid_and_flags_change_the_size(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    write_mixtral.main([str(path), "--mode", "decode", "--experts", "3", "--layers", "1"])
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    assert shapes["layers.0.moe.gate_proj.weight"] == (3, 64, 96)
    assert [port.name for port in model.graph.input][2:] == ["past_key_0", "past_value_0"]


def test_one_expert_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"^error: experts is 1"):
        write_mixtral.main([str(tmp_path / "m.onnx"), "--experts", "1"])
    with pytest.raises(ValueError, match="experts is 1"):
        replace(PRESETS["tiny"], experts=1)
