"""Write a Llama-style ONNX model of any size with seeded random weights.

    python examples/write_llama.py llama.onnx --layers 4 --hidden 256 --heads 8 --kv-heads 2
    python examples/write_llama.py step.onnx --mode decode --seq 128
    python examples/write_llama.py llama8b.onnx --preset llama3-8b --no-weights

RMSNorm in primitive operators, rotary positions, grouped-query attention, SwiGLU. The model takes
`input_ids` and `position_ids` [1, s] and, in decode mode, the cache; it returns `logits`
[1, s, vocab] and the cache with the new tokens. The presets have the dimensions that Meta
published (arXiv 2407.21783, table 3, and the Llama 3 model card).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
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
ROTARY_BASE = 500_000.0

PRESETS = {
    "tiny": Size(layers=2, hidden=64, heads=4, kv_heads=2, ffn=176, vocab=256, seq=16),
    "llama3-8b": Size(
        layers=32, hidden=4096, heads=32, kv_heads=8, ffn=14336, vocab=128256, seq=2048
    ),
    "llama3-70b": Size(
        layers=80, hidden=8192, heads=64, kv_heads=8, ffn=28672, vocab=128256, seq=2048
    ),
}


def build_llama(
    size: Size = PRESETS["tiny"], mode: Mode = "prefill", seed: int = 0
) -> onnx.ModelProto:
    """Return a Llama-style model with its weights inside.

    Args:
        size: Size of the transformer.
        mode: "prefill" reads `size.seq` tokens; "decode" reads one after `size.seq` cached ones.
        seed: Seed of the weights.
    """
    writer = llama_graph(size, mode)
    return writer.model("llama", embedded(writer.weights, seed))


def llama_graph(size: Size, mode: Mode) -> Writer:
    """Return the graph of a Llama-style model; its weights are declared, not drawn."""
    return decoder_graph(size, mode, "mlp", swiglu)


def decoder_graph(
    size: Size, mode: Mode, part: str, feed_forward: Callable[[Writer, str, str], str]
) -> Writer:
    """Return the graph of a Llama with any feed-forward layers.

    Args:
        size: Size of the transformer.
        mode: As for `build_llama`.
        part: What tensors call the feed-forward layer.
        feed_forward: Writes one, from the residual stream and the prefix of a block, and returns what is
            added to the stream.
    """
    w = Writer(size=size, mode=mode)
    x, positions = embedding(w, "embed_tokens.weight", std=1.0)
    rotate = partial(rotary, w, *rotary_tables(w, positions))
    for layer in range(size.layers):
        prefix = f"layers.{layer}"
        normed = rms_norm(w, x, f"{prefix}.input_norm")
        kv_width = size.kv_heads * size.head_dim
        widths = {"q_proj": size.hidden, "k_proj": kv_width, "v_proj": kv_width}
        qkv = [linear(w, normed, f"{prefix}.attn.{name}", width) for name, width in widths.items()]
        mixed = linear(w, attention(w, layer, qkv, rotate), f"{prefix}.attn.o_proj", size.hidden)
        x = w.op("Add", x, mixed, out=f"{prefix}.attn.residual")
        x = w.op("Add", x, feed_forward(w, x, prefix), out=f"{prefix}.{part}.residual")
    x = rms_norm(w, x, "norm")
    std = linear_std(size.hidden)
    head = w.weight("lm_head.weight", size.hidden, size.vocab, std=std)
    w.op("MatMul", x, head, out="logits")
    w.output("logits", 1, w.new_tokens, size.vocab)
    return w


def linear(w: Writer, x: str, name: str, outputs: int, inputs: int | None = None) -> str:
    """[1, s, inputs] -> [1, s, outputs], without bias; `inputs` is the hidden size by default."""
    inputs = inputs or w.size.hidden
    into_residual = name.endswith(("o_proj", "down_proj"))
    std = residual_std(w.size, inputs) if into_residual else linear_std(inputs)
    return w.op("MatMul", x, w.weight(f"{name}.weight", inputs, outputs, std=std), out=name)


def rms_norm(w: Writer, x: str, name: str) -> str:
    """x / sqrt(mean(x^2) + epsilon) * gain over the last axis, as primitive operators."""
    squares = w.op("Pow", x, w.floats(2.0), out=f"{name}.squares")
    mean = w.op("ReduceMean", squares, w.ints(-1), out=f"{name}.mean", keepdims=1)
    root = w.op(
        "Sqrt", w.op("Add", mean, w.floats(EPSILON), out=f"{name}.safe"), out=f"{name}.root"
    )
    normed = w.op("Mul", x, w.op("Reciprocal", root, out=f"{name}.factor"), out=f"{name}.normed")
    gain = w.weight(f"{name}.weight", w.size.hidden, std=0.1, mean=1.0)
    return w.op("Mul", normed, gain, out=name)


def swiglu(w: Writer, x: str, prefix: str) -> str:
    """down(silu(gate(x)) * up(x)) of the normalised x, [1, s, hidden] -> [1, s, hidden]."""
    size = w.size
    normed = rms_norm(w, x, f"{prefix}.post_norm")
    gate = linear(w, normed, f"{prefix}.mlp.gate_proj", size.ffn)
    up = linear(w, normed, f"{prefix}.mlp.up_proj", size.ffn)
    sigmoid = w.op("Sigmoid", gate, out=f"{prefix}.mlp.sigmoid")
    silu = w.op("Mul", gate, sigmoid, out=f"{prefix}.mlp.silu")
    inner = w.op("Mul", silu, up, out=f"{prefix}.mlp.inner")
    return linear(w, inner, f"{prefix}.mlp.down_proj", size.hidden, inputs=size.ffn)


def rotary_tables(w: Writer, positions: str) -> tuple[str, str]:
    """Look up cosines and sines of the positions, each [1, 1, s, d]."""
    half = w.size.head_dim // 2
    frequencies = ROTARY_BASE ** (-np.arange(half) / half)
    angles = np.outer(np.arange(w.past_tokens + w.new_tokens), np.tile(frequencies, 2))
    looked_up = []
    for name, values in (("cos", np.cos(angles)), ("sin", np.sin(angles))):
        table = w.table(f"rotary.{name}", values.astype(np.float32))
        rows = w.op("Gather", table, positions, out=f"rotary.{name}.rows", axis=0)
        looked_up.append(w.op("Unsqueeze", rows, w.ints(1), out=f"rotary.{name}.heads"))
    return looked_up[0], looked_up[1]


def rotary(w: Writer, cos: str, sin: str, x: str) -> str:
    """Rotate each pair (i, i + d / 2) of [1, heads, s, d] by the angle of its position."""
    half = w.size.head_dim // 2
    axis = w.ints(3)
    low = w.op("Slice", x, w.ints(0), w.ints(half), axis, out=f"{x}.low")
    high = w.op("Slice", x, w.ints(half), w.ints(2 * half), axis, out=f"{x}.high")
    turned = w.op("Concat", w.op("Neg", high, out=f"{x}.minus"), low, out=f"{x}.turned", axis=-1)
    along = w.op("Mul", x, cos, out=f"{x}.along")
    across = w.op("Mul", turned, sin, out=f"{x}.across")
    return w.op("Add", along, across, out=f"{x}.rotated")


if __name__ == "__main__":
    run_script("llama", llama_graph, PRESETS)
