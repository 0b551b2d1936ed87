"""Write a GPT-2-style ONNX model of any size with seeded random weights.

    python examples/write_gpt2.py gpt2.onnx --layers 4 --hidden 256 --heads 8
    python examples/write_gpt2.py step.onnx --mode decode --seq 128
    python examples/write_gpt2.py full.onnx --preset gpt2 --external-data

LayerNormalization, learned positions, Gemm with bias, Gelu (tanh), the token table as output layer.
The model takes `input_ids` and `position_ids` [1, s] and, in decode mode, the cache; it returns
`logits` [1, s, vocab] and the cache with the new tokens.
"""

from __future__ import annotations

import onnx
from model_writer import embedded, linear_std
from transformer_writer import (
    Mode,
    Size,
    Writer,
    attention,
    embedding,
    residual_std,
    run_script,
)

EPSILON = 1e-5

PRESETS = {
    "tiny": Size(layers=2, hidden=64, heads=4, kv_heads=4, ffn=256, vocab=256, seq=16),
    "gpt2": Size(layers=12, hidden=768, heads=12, kv_heads=12, ffn=3072, vocab=50257, seq=1024),
    "gpt2-xl": Size(layers=48, hidden=1600, heads=25, kv_heads=25, ffn=6400, vocab=50257, seq=1024),
}


def build_gpt2(
    size: Size = PRESETS["tiny"], mode: Mode = "prefill", seed: int = 0
) -> onnx.ModelProto:
    """Return a GPT-2-style model with its weights inside.

    Args:
        size: Size of the transformer.
        mode: "prefill" reads `size.seq` tokens; "decode" reads one after `size.seq` cached ones.
        seed: Seed of the weights.
    """
    writer = gpt2_graph(size, mode)
    return writer.model("gpt2", embedded(writer.weights, seed))


def gpt2_graph(size: Size, mode: Mode) -> Writer:
    """Return the graph of a GPT-2-style model; its weights are declared, not drawn."""
    if size.kv_heads != size.heads:
        raise ValueError(f"kv_heads is {size.kv_heads}, GPT-2 has as many as heads, {size.heads}")
    w = Writer(size=size, mode=mode)
    # The table of tokens is the output layer, too, and its spread is right for that.
    std = linear_std(size.hidden)
    tokens, positions = embedding(w, "wte.weight", std=std)
    # One row more than the prompt: the step after it has a position, too, and so the same table.
    table = w.weight("wpe.weight", size.seq + 1, size.hidden, std=std / 2)
    learned = w.op("Gather", table, positions, out="positions", axis=0)
    x = w.op("Add", tokens, learned, out="embedded")
    for layer in range(size.layers):
        prefix = f"layers.{layer}"
        normed = layer_norm(w, x, f"{prefix}.ln_1")
        qkv = linear(w, normed, f"{prefix}.attn.c_attn", size.hidden, 3 * size.hidden)
        parts = w.split(qkv, [f"{prefix}.attn.{name}" for name in "qkv"], axis=2)
        heads = attention(w, layer, parts)
        mixed = linear(w, heads, f"{prefix}.attn.c_proj", size.hidden, size.hidden)
        x = w.op("Add", x, mixed, out=f"{prefix}.attn.residual")
        normed = layer_norm(w, x, f"{prefix}.ln_2")
        inner = linear(w, normed, f"{prefix}.mlp.c_fc", size.hidden, size.ffn)
        inner = w.op("Gelu", inner, out=f"{prefix}.mlp.gelu", approximate="tanh")
        outer = linear(w, inner, f"{prefix}.mlp.c_proj", size.ffn, size.hidden)
        x = w.op("Add", x, outer, out=f"{prefix}.mlp.residual")
    x = layer_norm(w, x, "ln_f")
    flat = w.op("Reshape", x, w.ints(w.new_tokens, size.hidden), out="lm_head.flat")
    scores = w.op("Gemm", flat, "wte.weight", out="lm_head", transB=1)
    w.op("Reshape", scores, w.ints(1, w.new_tokens, size.vocab), out="logits")
    w.output("logits", 1, w.new_tokens, size.vocab)
    return w


def linear(w: Writer, x: str, name: str, inputs: int, outputs: int) -> str:
    """[1, s, inputs] -> [1, s, outputs] with bias, as a Gemm between two reshapes."""
    std = residual_std(w.size, inputs) if name.endswith("c_proj") else linear_std(inputs)
    weight = w.weight(f"{name}.weight", inputs, outputs, std=std)
    bias = w.weight(f"{name}.bias", outputs, std=0.02)
    flat = w.op("Reshape", x, w.ints(w.new_tokens, inputs), out=f"{name}.flat")
    product = w.op("Gemm", flat, weight, bias, out=f"{name}.gemm")
    return w.op("Reshape", product, w.ints(1, w.new_tokens, outputs), out=name)


def layer_norm(w: Writer, x: str, name: str) -> str:
    """(x - mean) / sqrt(variance + epsilon) * gain + bias over the last axis."""
    gain = w.weight(f"{name}.weight", w.size.hidden, std=0.1, mean=1.0)
    bias = w.weight(f"{name}.bias", w.size.hidden, std=0.02)
    return w.op("LayerNormalization", x, gain, bias, out=name, axis=-1, epsilon=EPSILON)


if __name__ == "__main__":
    run_script("gpt2", gpt2_graph, PRESETS, grouped=False)
