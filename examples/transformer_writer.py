"""What the scripts that write transformer models share: sizes, attention, command line.

Letters in shapes: s tokens of this call, p tokens in the cache, t = p + s, h heads, g heads of keys
and values, d the size of a head. The batch is 1 everywhere.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from model_writer import ModelWriter, add_file_options, linear_std, save_as_asked

# Added to the score of a token that must not be seen; exp of it is 0 in float32.
MASKED = -1e9

SIZE_FIELDS = ("layers", "hidden", "heads", "kv_heads", "ffn", "vocab", "seq")

Mode = Literal["prefill", "decode"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """The size of a transformer and of the call that the model describes.

    Attributes:
        layers: Number of blocks.
        hidden: Width of the residual stream, a multiple of `heads`.
        heads: Heads of the queries.
        kv_heads: Heads of the keys and values; divides `heads`.
        ffn: Width of the inner layer of the MLP.
        vocab: Number of tokens that the model knows.
        seq: Prefill: tokens of the prompt. Decode: tokens in the cache before the step.
    """

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    ffn: int
    vocab: int
    seq: int

    def __post_init__(self) -> None:
        """Check that all are positive and that the heads divide."""
        for name in SIZE_FIELDS:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, must be at least 1")
        if self.hidden % (2 * self.heads):
            raise ValueError(f"hidden {self.hidden} is not a multiple of 2 x {self.heads} heads")
        if self.heads % self.kv_heads:
            raise ValueError(f"kv_heads {self.kv_heads} does not divide heads {self.heads}")

    @property
    def head_dim(self) -> int:
        """Elements per head."""
        return self.hidden // self.heads


@dataclass(slots=True, kw_only=True)
class Writer(ModelWriter):
    """Collects the parts of a transformer.

    Attributes:
        size: Size of the transformer.
        mode: Whether the model reads a prompt or makes one step with a cache.
    """

    size: Size
    mode: Mode

    @property
    def new_tokens(self) -> int:
        """Tokens that this call reads."""
        return self.size.seq if self.mode == "prefill" else 1

    @property
    def past_tokens(self) -> int:
        """Tokens that are in the cache before this call."""
        return 0 if self.mode == "prefill" else self.size.seq


def residual_std(size: Size, inputs: int) -> float:
    """Return the spread of weights whose outputs, summed over all blocks, have a spread of 1."""
    return linear_std(inputs) / math.sqrt(2 * size.layers)


def embedding(w: Writer, name: str, *, std: float) -> tuple[str, str]:
    """Add the inputs and the table of tokens; return [1, s, hidden] and the positions [1, s]."""
    tokens = w.input("input_ids", 1, w.new_tokens, integer=True)
    positions = w.input("position_ids", 1, w.new_tokens, integer=True)
    table = w.weight(name, w.size.vocab, w.size.hidden, std=std)
    return w.op("Gather", table, tokens, out="embedding", axis=0), positions


def attention(
    w: Writer,
    layer: int,
    qkv: Sequence[str],
    rotate: Callable[[str], str] = lambda x: x,
) -> str:
    """Add causal attention with a cache of keys and values.

    Args:
        w: The graph to add to; gains the inputs `past_key_<layer>`, `past_value_<layer>`
            [1, g, p, d] when decoding, and the outputs `present_key_<layer>`,
            `present_value_<layer>` [1, g, t, d].
        layer: Number of the block.
        qkv: Queries [1, s, h d], keys and values [1, s, g d].
        rotate: Encodes positions in queries and keys [1, h or g, s, d].

    Returns:
        The heads' results side by side, [1, s, h d].
    """
    size, s, total = w.size, w.new_tokens, w.new_tokens + w.past_tokens
    prefix = f"layers.{layer}.attn"
    q, k, v = (
        _split_heads(w, x, heads)
        for x, heads in zip(qkv, (size.heads, size.kv_heads, size.kv_heads), strict=True)
    )
    keys = _cached(w, f"key_{layer}", rotate(k))
    values = _cached(w, f"value_{layer}", v)
    keys_t = w.op("Transpose", _repeat_heads(w, keys), out=f"{prefix}.keys_t", perm=(0, 1, 3, 2))
    scores = w.op("MatMul", rotate(q), keys_t, out=f"{prefix}.products")
    scores = w.op("Mul", scores, w.floats(1 / math.sqrt(size.head_dim)), out=f"{prefix}.scaled")
    if w.mode == "prefill":
        # A step with a cache sees everything and needs no mask.
        mask = np.triu(np.full((1, 1, s, total), MASKED, np.float32), k=1)
        scores = w.op("Add", scores, w.table("causal_mask", mask), out=f"{prefix}.masked")
    weights = w.op("Softmax", scores, out=f"{prefix}.weights", axis=-1)
    mixed = w.op("MatMul", weights, _repeat_heads(w, values), out=f"{prefix}.mixed")
    mixed = w.op("Transpose", mixed, out=f"{prefix}.mixed_t", perm=(0, 2, 1, 3))
    return w.op("Reshape", mixed, w.ints(1, s, size.hidden), out=f"{prefix}.heads")


def _split_heads(w: Writer, x: str, heads: int) -> str:
    """[1, s, heads d] -> [1, heads, s, d]."""
    shape = w.ints(1, w.new_tokens, heads, w.size.head_dim)
    split = w.op("Reshape", x, shape, out=f"{x}.split")
    return w.op("Transpose", split, out=f"{x}.heads", perm=(0, 2, 1, 3))


def _cached(w: Writer, name: str, new: str) -> str:
    """[1, g, s, d] -> [1, g, t, d], the cache followed by what is new, also a model output."""
    size, total = w.size, w.past_tokens + w.new_tokens
    present = f"present_{name}"
    if w.mode == "prefill":
        w.op("Identity", new, out=present)
        w.output(present, 1, size.kv_heads, total, size.head_dim)
        return new
    past = w.input(f"past_{name}", 1, size.kv_heads, w.past_tokens, size.head_dim)
    w.op("Concat", past, new, out=present, axis=2)
    w.output(present, 1, size.kv_heads, total, size.head_dim)
    return present


def _repeat_heads(w: Writer, x: str) -> str:
    """[1, g, t, d] -> [1, h, t, d], each head h / g times in a row."""
    size, total = w.size, w.past_tokens + w.new_tokens
    repeats = size.heads // size.kv_heads
    if repeats == 1:
        return x
    apart = w.op("Unsqueeze", x, w.ints(2), out=f"{x}.apart")
    shape = w.ints(1, size.kv_heads, repeats, total, size.head_dim)
    repeated = w.op("Expand", apart, shape, out=f"{x}.repeated")
    flat = w.ints(1, size.heads, total, size.head_dim)
    return w.op("Reshape", repeated, flat, out=f"{x}.all_heads")


def run_script(
    name: str,
    graph: Callable[[Size, Mode], Writer],
    presets: dict[str, Size],
    arguments: Sequence[str] | None = None,
    *,
    grouped: bool = True,
) -> None:
    """Write one model as the command line asks, and print what was written.

    Args:
        name: Name of the graph, for the model and the help text.
        graph: Builds the graph of a size and mode.
        presets: Named sizes; the first is the default.
        arguments: The command line; `sys.argv` when None.
        grouped: Whether heads may share keys and values (--kv-heads).
    """
    names = tuple(name for name in SIZE_FIELDS if grouped or name != "kv_heads")
    parser = argparse.ArgumentParser(description=f"Write a {name} ONNX model with seeded weights.")
    parser.add_argument("output", type=Path, help="the .onnx file to write")
    parser.add_argument("--preset", choices=list(presets), default=next(iter(presets)))
    for size_field in names:
        flag = f"--{size_field.replace('_', '-')}"
        parser.add_argument(flag, type=int, help="instead of the preset's")
    parser.add_argument("--mode", choices=["prefill", "decode"], default="prefill")
    add_file_options(parser)
    options = parser.parse_args(arguments)
    chosen = {key: getattr(options, key) for key in names if getattr(options, key) is not None}
    if not grouped and "heads" in chosen:
        chosen["kv_heads"] = chosen["heads"]
    try:
        size = replace(presets[options.preset], **chosen)
        writer = graph(size, options.mode)
        parameters = save_as_asked(writer, name, options.output, options)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    print(f"{options.output}: {size.layers} layers, {parameters:,} parameters, {options.mode}")
