"""Write a BERT-like or ViT-like ONNX encoder of any size with seeded random weights.

    python examples/write_encoder.py bert.onnx --preset bert-base --no-weights
    python examples/write_encoder.py vit.onnx --preset vit-b16 --batch 8 --no-weights

BERT (arXiv 1810.04805): tables of tokens, positions and kinds, post-norm blocks, the pooler; it takes
`input_ids` and `token_type_ids` [b, s] and returns `hidden` [b, s, width] and `pooled` [b, width]. ViT
(arXiv 2010.11929): patches by a convolution, a class token, pre-norm blocks; it takes `image`
[b, 3, size, size] and returns `logits` [b, 1000]. Nothing is masked.
"""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from model_writer import ModelWriter, add_file_options, embedded, linear_std, save_as_asked

CLASSES = 1000
CHANNELS = 3
KINDS = 2
"""Of tokens in BERT: first and second sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoder:
    """The size of an encoder and of a call.

    Attributes:
        family: "bert" reads tokens, "vit" an image.
        layers: Number of blocks.
        hidden: Width of the residual stream, a multiple of `heads`.
        heads: Heads of the attention.
        ffn: Width of the inner layer of the MLP.
        batch: Samples in a call.
        tokens: BERT: tokens of a sample.
        positions: BERT: rows of the table of positions.
        vocab: BERT: number of tokens that the model knows.
        image: ViT: pixels of a side of the image, a multiple of `patch`.
        patch: ViT: pixels of a side of a patch.
    """

    family: Literal["bert", "vit"]
    layers: int
    hidden: int
    heads: int
    ffn: int
    batch: int = 1
    tokens: int = 1
    positions: int = 1
    vocab: int = 1
    image: int = 1
    patch: int = 1

    def __post_init__(self) -> None:
        """Check that all are positive and that heads and patches divide."""
        for name in self.__slots__:
            value = getattr(self, name)
            if isinstance(value, int) and value < 1:
                raise ValueError(f"{name} is {value}, must be at least 1")
        if self.hidden % self.heads:
            raise ValueError(f"hidden {self.hidden} is not a multiple of {self.heads} heads")
        if self.image % self.patch:
            raise ValueError(f"image {self.image} is not a multiple of {self.patch} pixels a patch")
        if self.tokens > self.positions:
            raise ValueError(f"{self.tokens} tokens, but there are {self.positions} positions")

    @property
    def length(self) -> int:
        """Rows of a sample in the residual stream."""
        return self.tokens if self.family == "bert" else 1 + (self.image // self.patch) ** 2

    @property
    def epsilon(self) -> float:
        """Of the layer norms, as the published models have it."""
        return 1e-12 if self.family == "bert" else 1e-6


PRESETS = {
    "bert-base": Encoder(
        family="bert", layers=12, hidden=768, heads=12, ffn=3072,
        tokens=128, positions=512, vocab=30522,
    ),
    "vit-b16": Encoder(
        family="vit", layers=12, hidden=768, heads=12, ffn=3072, image=224, patch=16
    ),
}  # fmt: skip
"""The base sizes of arXiv 1810.04805 (section 3) and 2010.11929 (table 1)."""


@dataclass(slots=True, kw_only=True)
class EncoderWriter(ModelWriter):
    """Collects the parts of an encoder."""

    size: Encoder

    def linear(self, x: str, name: str, inputs: int, outputs: int) -> str:
        """[..., inputs] -> [..., outputs] with bias."""
        weight = self.weight(f"{name}.weight", inputs, outputs, std=linear_std(inputs))
        bias = self.weight(f"{name}.bias", outputs, std=0.02)
        return self.op("Add", self.op("MatMul", x, weight, out=f"{name}.product"), bias, out=name)

    def norm(self, x: str, name: str) -> str:
        """(x - mean) / sqrt(variance + epsilon) * gain + bias over the last axis."""
        gain = self.weight(f"{name}.weight", self.size.hidden, std=0.1, mean=1.0)
        bias = self.weight(f"{name}.bias", self.size.hidden, std=0.02)
        epsilon = self.size.epsilon
        return self.op("LayerNormalization", x, gain, bias, out=name, axis=-1, epsilon=epsilon)

    def add(self, x: str, y: str, name: str) -> str:
        """x + y."""
        return self.op("Add", x, y, out=name)

    def attention(self, x: str, prefix: str) -> str:
        """Let every row of a sample look at all; [b, s, width] -> [b, s, width]."""
        size = self.size
        width = size.hidden // size.heads
        split = self.ints(size.batch, size.length, size.heads, width)
        heads = {}
        for name in ("query", "key", "value"):
            rows = self.linear(x, f"{prefix}.{name}", size.hidden, size.hidden)
            apart = self.op("Reshape", rows, split, out=f"{rows}.split")
            order = (0, 2, 3, 1) if name == "key" else (0, 2, 1, 3)
            heads[name] = self.op("Transpose", apart, out=f"{rows}.heads", perm=order)
        products = self.op("MatMul", heads["query"], heads["key"], out=f"{prefix}.products")
        root = self.floats(math.sqrt(width))
        scores = self.op("Div", products, root, out=f"{prefix}.scores")
        weights = self.op("Softmax", scores, out=f"{prefix}.weights", axis=-1)
        mixed = self.op("MatMul", weights, heads["value"], out=f"{prefix}.mixed")
        mixed = self.op("Transpose", mixed, out=f"{prefix}.mixed_t", perm=(0, 2, 1, 3))
        joined = self.ints(size.batch, size.length, size.hidden)
        mixed = self.op("Reshape", mixed, joined, out=f"{prefix}.joined")
        return self.linear(mixed, f"{prefix}.output", size.hidden, size.hidden)

    def first(self, x: str) -> str:
        """Take the first row of each sample, [b, s, width] -> [b, width]."""
        row = self.op("Gather", x, self.ints(0), out="first_row", axis=1)
        shape = self.ints(self.size.batch, self.size.hidden)
        return self.op("Reshape", row, shape, out="first_token")

    def feed_forward(self, x: str, prefix: str) -> str:
        """Expand, gelu, shrink."""
        inner = self.linear(x, f"{prefix}.expand", self.size.hidden, self.size.ffn)
        inner = self.op("Gelu", inner, out=f"{prefix}.gelu")
        return self.linear(inner, f"{prefix}.shrink", self.size.ffn, self.size.hidden)


def encoder_graph(size: Encoder) -> EncoderWriter:
    """Return the graph of an encoder; its weights are declared, not drawn."""
    return _bert(size) if size.family == "bert" else _vit(size)


def _bert(size: Encoder) -> EncoderWriter:
    w = EncoderWriter(size=size)
    std = 1 / math.sqrt(3)
    ids = w.input("input_ids", size.batch, size.tokens, integer=True)
    kinds = w.input("token_type_ids", size.batch, size.tokens, integer=True)
    words = w.weight("embeddings.words.weight", size.vocab, size.hidden, std=std)
    types = w.weight("embeddings.kinds.weight", KINDS, size.hidden, std=std)
    places = w.weight("embeddings.positions.weight", size.positions, size.hidden, std=std)
    x = w.op("Gather", words, ids, out="embeddings.words", axis=0)
    x = w.add(x, w.op("Gather", types, kinds, out="embeddings.kinds", axis=0), "embeddings.typed")
    used = w.table("positions", np.arange(size.tokens, dtype=np.int64))
    x = w.add(x, w.op("Gather", places, used, out="embeddings.positions", axis=0), "embeddings.sum")
    x = w.norm(x, "embeddings.norm")
    for layer in range(size.layers):
        prefix = f"layers.{layer}"
        mixed = w.attention(x, f"{prefix}.attention")
        x = w.norm(w.add(mixed, x, f"{prefix}.attention.residual"), f"{prefix}.attention.norm")
        y = w.feed_forward(x, prefix)
        x = w.norm(w.add(y, x, f"{prefix}.residual"), f"{prefix}.norm")
    w.op("Identity", x, out="hidden")
    w.output("hidden", size.batch, size.tokens, size.hidden)
    first = w.first(x)
    w.op("Tanh", w.linear(first, "pooler", size.hidden, size.hidden), out="pooled")
    w.output("pooled", size.batch, size.hidden)
    return w


def _vit(size: Encoder) -> EncoderWriter:
    w = EncoderWriter(size=size)
    image = w.input("image", size.batch, CHANNELS, size.image, size.image)
    side = size.patch
    std = linear_std(CHANNELS * side * side)
    kernel = w.weight("patches.weight", size.hidden, CHANNELS, side, side, std=std)
    bias = w.weight("patches.bias", size.hidden, std=0.02)
    x = w.op(
        "Conv", image, kernel, bias, out="patches", kernel_shape=[side] * 2, strides=[side] * 2
    )
    rows = w.ints(size.batch, size.hidden, size.length - 1)
    x = w.op("Transpose", w.op("Reshape", x, rows, out="rows"), out="rows_t", perm=(0, 2, 1))
    token = w.weight("class_token", 1, 1, size.hidden, std=1.0)
    shape = w.ints(size.batch, 1, size.hidden)
    x = w.op("Concat", w.op("Expand", token, shape, out="class_tokens"), x, out="tokens", axis=1)
    x = w.add(x, w.weight("positions", 1, size.length, size.hidden, std=0.5), "embedded")
    for layer in range(size.layers):
        prefix = f"layers.{layer}"
        mixed = w.attention(w.norm(x, f"{prefix}.norm_1"), f"{prefix}.attention")
        x = w.add(x, mixed, f"{prefix}.attention.residual")
        y = w.feed_forward(w.norm(x, f"{prefix}.norm_2"), prefix)
        x = w.add(x, y, f"{prefix}.residual")
    x = w.norm(x, "norm")
    first = w.first(x)
    w.op("Identity", w.linear(first, "head", size.hidden, CLASSES), out="logits")
    w.output("logits", size.batch, CLASSES)
    return w


def build_encoder(size: Encoder, seed: int = 0) -> onnx.ModelProto:
    """Return a model with its weights inside."""
    writer = encoder_graph(size)
    return writer.model(size.family, embedded(writer.weights, seed))


def main(arguments: list[str] | None = None) -> None:
    """Write one model as the command line asks, and print what was written."""
    parser = argparse.ArgumentParser(description="Write an encoder as an ONNX model.")
    parser.add_argument("output", type=Path, help="the .onnx file to write")
    parser.add_argument("--preset", choices=list(PRESETS), default=next(iter(PRESETS)))
    names = ("layers", "hidden", "heads", "ffn", "batch", "tokens", "vocab", "image")
    for name in names:
        parser.add_argument(f"--{name}", type=int, help="instead of the preset's")
    add_file_options(parser)
    options = parser.parse_args(arguments)
    chosen = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    try:
        size = replace(PRESETS[options.preset], **chosen)
        parameters = save_as_asked(encoder_graph(size), size.family, options.output, options)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    print(f"{options.output}: {options.preset}, {parameters:,} parameters, batch {size.batch}")


if __name__ == "__main__":
    main()
