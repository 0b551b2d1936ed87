"""The written transformers are valid, computable, and their two modes agree with each other."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import transformer_writer
import write_gpt2
import write_llama
from transformer_writer import Mode, Size, Writer

LLAMA = Size(layers=3, hidden=48, heads=6, kv_heads=2, ffn=80, vocab=50, seq=7)
GPT2 = replace(LLAMA, kv_heads=6)
Build = Callable[[Size, Mode, int], onnx.ModelProto]
CASES = [
    pytest.param(write_llama.build_llama, LLAMA, id="llama"),
    pytest.param(write_gpt2.build_gpt2, GPT2, id="gpt2"),
]
GRAPHS = [
    pytest.param(write_llama.llama_graph, LLAMA, id="llama"),
    pytest.param(write_gpt2.gpt2_graph, GPT2, id="gpt2"),
]
SCRIPTS = ["write_llama", "write_gpt2"]


def run(model: onnx.ModelProto | Path, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Run a model in onnxruntime without optimisations."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def prompt(tokens: np.ndarray, start: int = 0) -> dict[str, np.ndarray]:
    """Return inputs for a row of tokens at the positions from `start` on."""
    positions = np.arange(start, start + len(tokens), dtype=np.int64)
    return {"input_ids": tokens[None], "position_ids": positions[None]}


@pytest.mark.parametrize(("build", "size"), CASES)
@pytest.mark.parametrize("mode", ["prefill", "decode"])
def test_model_is_valid_and_typed(build: Build, size: Size, mode: Mode) -> None:
    model = build(size, mode, 0)
    onnx.checker.check_model(model, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    names = [output.name for output in inferred.graph.output]
    assert names[-1] == "logits"
    assert len(names) == 2 * size.layers + 1


@pytest.mark.parametrize(("build", "size"), CASES)
def test_decode_step_continues_the_prefill(
    build: Build, size: Size, rng: np.random.Generator
) -> None:
    """A step with the cache of n tokens gives what the prefill of n + 1 gives for the last one."""
    tokens = rng.integers(0, size.vocab, size.seq + 1)
    whole = run(build(replace(size, seq=size.seq + 1), "prefill", 5), prompt(tokens))
    before = run(build(size, "prefill", 5), prompt(tokens[:-1]))
    cache = {
        name.replace("present", "past"): value
        for name, value in before.items()
        if name.startswith("present")
    }
    step = run(build(size, "decode", 5), {**prompt(tokens[-1:], start=size.seq), **cache})
    assert len(cache) == 2 * size.layers
    assert step["logits"].shape == (1, 1, size.vocab)
    np.testing.assert_allclose(step["logits"][0, 0], whole["logits"][0, -1], atol=1e-5)
    for name in step.keys() - {"logits"}:
        assert step[name].shape == (1, size.kv_heads, size.seq + 1, size.head_dim)
        np.testing.assert_allclose(step[name], whole[name], atol=1e-5)


@pytest.mark.parametrize(("build", "size"), CASES)
def test_no_token_sees_a_later_one(build: Build, size: Size, rng: np.random.Generator) -> None:
    model = build(size, "prefill", 1)
    tokens = rng.integers(0, size.vocab, size.seq)
    changed = tokens.copy()
    changed[-1] = (tokens[-1] + 1) % size.vocab
    first, second = (run(model, prompt(row))["logits"][0] for row in (tokens, changed))
    np.testing.assert_array_equal(first[:-1], second[:-1])
    assert np.abs(first[-1] - second[-1]).max() > 0.1


@pytest.mark.parametrize(("build", "size"), CASES)
def test_positions_matter(build: Build, size: Size) -> None:
    """The same token everywhere gives different logits only because positions differ."""
    model = build(size, "prefill", 1)
    logits = run(model, prompt(np.zeros(size.seq, np.int64)))["present_key_0"][0, 0]
    assert np.abs(logits[0] - logits[-1]).max() > 0.01


@pytest.mark.parametrize(("build", "size"), CASES)
@pytest.mark.parametrize("layers", [1, 12])
def test_activations_keep_their_size(
    build: Build, size: Size, layers: int, rng: np.random.Generator
) -> None:
    deep = replace(size, layers=layers)
    logits = run(build(deep, "prefill", 2), prompt(rng.integers(0, size.vocab, size.seq)))["logits"]
    assert 0.3 < logits.std() < 3


def test_llama_matches_a_direct_computation(rng: np.random.Generator) -> None:
    """One block against formulas written down independently in float64, head by head."""
    size = replace(LLAMA, layers=1)
    graph = write_llama.llama_graph(size, "prefill")
    weight = {item.name: item.values(3).astype(np.float64) for item in graph.weights}
    tokens = rng.integers(0, size.vocab, size.seq)

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * weight[f"{name}.weight"]

    def turn(x: np.ndarray) -> np.ndarray:
        half = size.head_dim // 2
        angle = np.arange(size.seq)[:, None] * 500_000.0 ** (-np.arange(half) / half)
        turned = (x[:, :half] + 1j * x[:, half:]) * np.exp(1j * angle)
        return np.hstack([turned.real, turned.imag])

    x = weight["embed_tokens.weight"][tokens]
    normed = norm(x, "layers.0.input_norm")
    q, k, v = (normed @ weight[f"layers.0.attn.{name}_proj.weight"] for name in "qkv")
    heads = []
    for head in range(size.heads):
        own = slice(head * size.head_dim, (head + 1) * size.head_dim)
        group = head // (size.heads // size.kv_heads)
        shared = slice(group * size.head_dim, (group + 1) * size.head_dim)
        scores = turn(q[:, own]) @ turn(k[:, shared]).T / np.sqrt(size.head_dim)
        weights = np.tril(np.exp(scores))
        heads.append(weights / weights.sum(-1, keepdims=True) @ v[:, shared])
    x = x + np.hstack(heads) @ weight["layers.0.attn.o_proj.weight"]
    normed = norm(x, "layers.0.post_norm")
    gate, up = (normed @ weight[f"layers.0.mlp.{name}_proj.weight"] for name in ("gate", "up"))
    x = x + gate / (1 + np.exp(-gate)) * up @ weight["layers.0.mlp.down_proj.weight"]
    expected = norm(x, "norm") @ weight["lm_head.weight"]
    found = run(write_llama.build_llama(size, "prefill", 3), prompt(tokens))["logits"][0]
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(("build", "size"), CASES)
def test_same_seed_same_bytes(build: Build, size: Size) -> None:
    first, again, other = (build(size, "prefill", seed) for seed in (0, 0, 1))
    assert first.SerializeToString() == again.SerializeToString()
    assert first.SerializeToString() != other.SerializeToString()


@pytest.mark.parametrize("script", SCRIPTS)
def test_external_data_holds_the_same_weights(script: str, tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside.onnx", tmp_path / "outside.onnx"
    module = importlib.import_module(script)
    graph = module.llama_graph if script == "write_llama" else module.gpt2_graph
    for path, flags in ((inside, []), (outside, ["--external-data"])):
        transformer_writer.run_script("m", graph, module.PRESETS, [str(path), *flags])
    onnx.checker.check_model(str(outside))
    assert outside.stat().st_size < inside.stat().st_size / 4
    loaded, reference = onnx.load(outside), onnx.load(inside)
    for ours, theirs in zip(loaded.graph.initializer, reference.graph.initializer, strict=True):
        assert ours.name == theirs.name
        np.testing.assert_array_equal(
            onnx.numpy_helper.to_array(ours), onnx.numpy_helper.to_array(theirs)
        )
    feeds = prompt(np.arange(16))
    np.testing.assert_array_equal(run(outside, feeds)["logits"], run(inside, feeds)["logits"])


@pytest.mark.parametrize(
    ("graph", "module", "preset", "parameters"),
    [
        (write_llama.llama_graph, write_llama, "llama3-8b", 8_030_261_248),
        (write_llama.llama_graph, write_llama, "llama3-70b", 70_553_706_496),
        # One row of positions more than the published 124,439,808 and 1,557,611,200.
        (write_gpt2.gpt2_graph, write_gpt2, "gpt2", 124_439_808 + 768),
        (write_gpt2.gpt2_graph, write_gpt2, "gpt2-xl", 1_557_611_200 + 1600),
    ],
)
def test_presets_have_the_published_size(
    graph: Callable[[Size, Mode], Writer],
    module: object,
    preset: str,
    parameters: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "full.onnx"
    arguments = [str(path), "--preset", preset, "--no-weights", "--mode", "decode"]
    transformer_writer.run_script("m", graph, module.PRESETS, arguments)  # type: ignore[attr-defined]
    assert f"{parameters:,} parameters" in capsys.readouterr().out
    assert [item.name for item in tmp_path.iterdir()] == ["full.onnx"]
    model = onnx.load(path, load_external_data=False)
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    assert inferred.graph.output[-1].type.tensor_type.shape.dim[1].dim_value == 1
    names = {tensor.name for tensor in model.graph.initializer}
    assert ("layers.3.attn.q_proj.weight" in names) == preset.startswith("llama")


def test_flags_change_the_size(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    arguments = "--layers 1 --hidden 32 --heads 8 --kv-heads 4 --ffn 24 --vocab 9 --seq 5".split()
    transformer_writer.run_script(
        "m", write_llama.llama_graph, write_llama.PRESETS, [str(path), *arguments]
    )
    model = onnx.load(path)
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    assert shapes["layers.0.attn.k_proj.weight"] == (32, 16)
    assert shapes["layers.0.mlp.down_proj.weight"] == (24, 32)
    assert shapes["embed_tokens.weight"] == (9, 32)
    assert "layers.1.attn.k_proj.weight" not in shapes
    assert [item.name for item in model.graph.input] == ["input_ids", "position_ids"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--heads", "5"], "hidden 64 is not a multiple of 2 x 5 heads"),
        (["--kv-heads", "3"], "kv_heads 3 does not divide heads 4"),
        (["--layers", "0"], "layers is 0, must be at least 1"),
        (["--preset", "llama3-8b"], "use --external-data or --no-weights"),
    ],
)
def test_impossible_sizes_are_errors(arguments: list[str], message: str, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    with pytest.raises(SystemExit, match=f"^error: .*{message}"):
        transformer_writer.run_script(
            "m", write_llama.llama_graph, write_llama.PRESETS, [str(path), *arguments]
        )
    assert not path.exists()


def test_gpt2_has_no_grouped_heads() -> None:
    with pytest.raises(ValueError, match="GPT-2 has as many as heads, 6"):
        write_gpt2.gpt2_graph(LLAMA, "prefill")
