"""What the scripts that write transformer models share: nodes, seeded weights, attention, files.

Letters in shapes: s tokens of this call, p tokens in the cache, t = p + s, h heads, g heads of keys
and values, d the size of a head. The batch is 1 everywhere.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET = 20
IR_VERSION = 9
# Weights start at page boundaries of the data file, so that a reader can map them.
ALIGNMENT_BYTES = 4096
FLOAT_BYTES = 4
PROTOBUF_LIMIT_BYTES = 2**31 - 1
# Added to the score of a token that must not be seen; exp of it is 0 in float32.
MASKED = -1e9

SIZE_FIELDS = ("layers", "hidden", "heads", "kv_heads", "ffn", "vocab", "seq")

Mode = Literal["prefill", "decode"]
Floats = NDArray[np.float32]


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Weight:
    """A tensor of normally distributed float32 values, drawn from the seed and the name.

    A tensor with more rows starts with the rows of the smaller one: a table of positions is the
    same in models of different sequence lengths.
    """

    name: str
    shape: tuple[int, ...]
    mean: float
    std: float

    @property
    def size_bytes(self) -> int:
        """Bytes of the values."""
        return FLOAT_BYTES * math.prod(self.shape)

    def values(self, seed: int) -> Floats:
        """Draw the values; they depend on nothing but seed, name, shape, mean and std."""
        rng = np.random.default_rng([seed, *self.name.encode()])
        drawn = rng.standard_normal(self.shape, dtype=np.float32)
        return drawn * np.float32(self.std) + np.float32(self.mean)


@dataclass(slots=True, kw_only=True)
class Writer:
    """Collects the parts of one ONNX graph; `model` assembles them.

    Attributes:
        size: Size of the transformer.
        mode: Whether the model reads a prompt or makes one step with a cache.
    """

    size: Size
    mode: Mode
    weights: list[Weight] = field(default_factory=list)
    _nodes: list[onnx.NodeProto] = field(default_factory=list)
    _tables: dict[str, onnx.TensorProto] = field(default_factory=dict)
    _inputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    _outputs: list[onnx.ValueInfoProto] = field(default_factory=list)

    @property
    def new_tokens(self) -> int:
        """Tokens that this call reads."""
        return self.size.seq if self.mode == "prefill" else 1

    @property
    def past_tokens(self) -> int:
        """Tokens that are in the cache before this call."""
        return 0 if self.mode == "prefill" else self.size.seq

    def op(self, kind: str, *inputs: str, out: str, **attributes: Any) -> str:
        """Add a node with one output and return the output's name."""
        self._nodes.append(helper.make_node(kind, inputs, [out], name=out, **attributes))
        return out

    def split(self, x: str, outs: Sequence[str], *, axis: int) -> Sequence[str]:
        """Add a node that cuts `x` along `axis` into equal parts and return their names."""
        node = helper.make_node(
            "Split", [x], outs, name=f"{x}.split", axis=axis, num_outputs=len(outs)
        )
        self._nodes.append(node)
        return outs

    def weight(self, name: str, *shape: int, std: float, mean: float = 0.0) -> str:
        """Declare a random weight and return its name."""
        self.weights.append(Weight(name=name, shape=shape, mean=mean, std=std))
        return name

    def table(self, name: str, values: NDArray[np.generic]) -> str:
        """Add a constant that is always in the model file, once per name."""
        if name not in self._tables:
            self._tables[name] = numpy_helper.from_array(np.ascontiguousarray(values), name)
        return name

    def ints(self, *values: int) -> str:
        """Add a constant 1-D int64 tensor."""
        return self.table("ints." + "_".join(map(str, values)), np.array(values, np.int64))

    def floats(self, value: float) -> str:
        """Add a constant float32 scalar."""
        return self.table(f"float.{value!r}", np.array(value, np.float32))

    def input(self, name: str, *shape: int, integer: bool = False) -> str:
        """Declare an input of the model, float32 unless `integer` (int64)."""
        dtype = TensorProto.INT64 if integer else TensorProto.FLOAT
        self._inputs.append(helper.make_tensor_value_info(name, dtype, shape))
        return name

    def output(self, name: str, *shape: int) -> None:
        """Declare a float32 output of the model."""
        self._outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))

    def model(self, name: str, initializers: Sequence[onnx.TensorProto]) -> onnx.ModelProto:
        """Assemble the model from what was added and the given weights."""
        graph = helper.make_graph(
            self._nodes, name, self._inputs, self._outputs, [*initializers, *self._tables.values()]
        )
        return helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="tilewright-examples",
        )


def linear_std(inputs: int) -> float:
    """Return the spread of weights that keeps the spread of what they are applied to."""
    return 1 / math.sqrt(inputs)


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


def embedded(weights: Sequence[Weight], seed: int) -> list[onnx.TensorProto]:
    """Return the weights as tensors with their values inside."""
    return [numpy_helper.from_array(weight.values(seed), weight.name) for weight in weights]


def referenced(weights: Sequence[Weight], location: str) -> list[onnx.TensorProto]:
    """Return the weights as tensors whose values are in the file `location` beside the model."""
    tensors = []
    offset_bytes = 0
    for weight in weights:
        tensor = TensorProto(name=weight.name, dims=weight.shape, data_type=TensorProto.FLOAT)
        tensor.data_location = TensorProto.EXTERNAL
        entries = {"location": location, "offset": offset_bytes, "length": weight.size_bytes}
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=str(value))
        tensors.append(tensor)
        offset_bytes += _aligned(weight.size_bytes)
    return tensors


def write_data(weights: Sequence[Weight], seed: int, stream: BinaryIO) -> None:
    """Write the values where `referenced` says they are; one weight is in memory at a time."""
    for weight in weights:
        padding = bytes(_aligned(weight.size_bytes) - weight.size_bytes)
        stream.write(weight.values(seed).astype("<f4").tobytes())
        stream.write(padding)


def _aligned(size_bytes: int) -> int:
    return -(-size_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


def save(writer: Writer, name: str, path: Path, *, seed: int, external: bool, data: bool) -> None:
    """Write the model to a file.

    Args:
        writer: The finished graph.
        name: Name of the graph.
        path: The model file; the weights go to `<path>.data` when external.
        seed: Seed of the weights.
        external: Keep the weights in a file of their own.
        data: Write that file; without it the model only says how large the weights are.

    Raises:
        ValueError: The weights are inside the model and too many for one protobuf message.
    """
    weights_bytes = sum(weight.size_bytes for weight in writer.weights)
    if not external and weights_bytes >= PROTOBUF_LIMIT_BYTES:
        raise ValueError(
            f"the weights have {weights_bytes} bytes, a model file holds {PROTOBUF_LIMIT_BYTES}; "
            "use --external-data or --no-weights"
        )
    side = path.with_name(path.name + ".data")
    if external and data:
        with side.open("wb") as stream:
            write_data(writer.weights, seed, stream)
    tensors = referenced(writer.weights, side.name) if external else embedded(writer.weights, seed)
    model = writer.model(name, tensors)
    path.write_bytes(model.SerializeToString(deterministic=True))


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
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--external-data", action="store_true", help="weights in a file beside it")
    parser.add_argument("--no-weights", action="store_true", help="refer to weights, write none")
    options = parser.parse_args(arguments)
    chosen = {key: getattr(options, key) for key in names if getattr(options, key) is not None}
    if not grouped and "heads" in chosen:
        chosen["kv_heads"] = chosen["heads"]
    try:
        size = replace(presets[options.preset], **chosen)
        writer = graph(size, options.mode)
        external = options.external_data or options.no_weights
        data = not options.no_weights
        save(writer, name, options.output, seed=options.seed, external=external, data=data)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    parameters = sum(math.prod(weight.shape) for weight in writer.weights)
    print(f"{options.output}: {size.layers} layers, {parameters:,} parameters, {options.mode}")
