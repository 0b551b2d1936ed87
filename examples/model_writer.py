"""What the scripts that write models share: nodes, seeded weights, files."""

from __future__ import annotations

import argparse
import math
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

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

Floats = NDArray[np.float32]


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
class ModelWriter:
    """Collects the parts of one ONNX graph; `model` assembles them."""

    weights: list[Weight] = field(default_factory=list)
    _nodes: list[onnx.NodeProto] = field(default_factory=list)
    _tables: dict[str, onnx.TensorProto] = field(default_factory=dict)
    _inputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    _outputs: list[onnx.ValueInfoProto] = field(default_factory=list)

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


def save(
    writer: ModelWriter, name: str, path: Path, *, seed: int, external: bool, data: bool
) -> None:
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
        _write_whole(side, lambda stream: write_data(writer.weights, seed, stream))
    tensors = referenced(writer.weights, side.name) if external else embedded(writer.weights, seed)
    model = writer.model(name, tensors).SerializeToString(deterministic=True)
    _write_whole(path, lambda stream: stream.write(model))


def _write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file that appears whole or not at all."""
    handle, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as stream:
            write(stream)
        os.chmod(part, 0o644)  # mkstemp makes files that only their owner can read
        os.replace(part, path)
    except BaseException:
        os.unlink(part)
        raise


def add_file_options(parser: argparse.ArgumentParser) -> None:
    """Add the options on weights and where they go."""
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--external-data", action="store_true", help="weights in a file beside it")
    parser.add_argument("--no-weights", action="store_true", help="refer to weights, write none")


def save_as_asked(writer: ModelWriter, name: str, path: Path, options: argparse.Namespace) -> int:
    """Write the model as the options of `add_file_options` ask; return its parameters."""
    external = options.external_data or options.no_weights
    save(writer, name, path, seed=options.seed, external=external, data=not options.no_weights)
    return sum(math.prod(weight.shape) for weight in writer.weights)
