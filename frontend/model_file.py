"""Reads model files without trusting them.

Nothing is allocated before the declared size of a tensor agrees with the bytes that are there, and
external data is read from the model's own folder only.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    NodeProto,
    SparseTensorProto,
    TensorProto,
    numpy_helper,
)
from onnx.inliner import inline_local_functions

from tilewright.errors import ModelError, UnsupportedOpError
from tilewright.graph import Array

MIN_OPSET = 7
MAX_OPSET = 23

_BITS: Mapping[int, int] = {
    TensorProto.FLOAT: 32, TensorProto.UINT8: 8, TensorProto.INT8: 8, TensorProto.UINT16: 16,
    TensorProto.INT16: 16, TensorProto.INT32: 32, TensorProto.INT64: 64, TensorProto.BOOL: 8,
    TensorProto.FLOAT16: 16, TensorProto.DOUBLE: 64, TensorProto.UINT32: 32, TensorProto.UINT64: 64,
    TensorProto.COMPLEX64: 64, TensorProto.COMPLEX128: 128, TensorProto.BFLOAT16: 16,
    TensorProto.FLOAT8E4M3FN: 8, TensorProto.FLOAT8E4M3FNUZ: 8, TensorProto.FLOAT8E5M2: 8,
    TensorProto.FLOAT8E5M2FNUZ: 8, TensorProto.UINT4: 4, TensorProto.INT4: 4, TensorProto.FLOAT4E2M1: 4,
}  # fmt: skip


def read_model(source: str | os.PathLike[str] | bytes, *, weights: bool = True) -> ModelProto:
    """Read and check a model; external data is loaded, functions are inlined.

    Args:
        source: Path of a model file, or its bytes.
        weights: Whether to load the values of the model's external initializers; else they stay
            references, which are checked but not followed.

    Raises:
        ModelError: The file is absent, broken, unsafe or of an opset that is not supported.
    """
    folder: Path | None = None
    if isinstance(source, bytes):
        where, data = "model", source
    else:
        path = Path(source)
        where, folder = f"model file '{path.name}'", path.parent
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ModelError(
                f"{where}: cannot be read: {error.strerror or error}; check the path"
            ) from None
    model = ModelProto()
    try:
        model.ParseFromString(data)
    except (DecodeError, RuntimeError, ValueError):
        raise ModelError(
            f"{where}: {len(data):_} bytes that are not a complete ONNX model; export it again"
        ) from None
    _check_header(model, where)
    referring = 0 if weights else len(model.graph.initializer)  # tensors_of yields these first
    for number, tensor in enumerate(tensors_of(model.graph)):
        check_tensor(tensor)
        if number >= referring:
            _load_external(tensor, folder)
        elif tensor.data_location == TensorProto.EXTERNAL:
            reference_of(tensor)
    return _inline_functions(model, where)


def _check_header(model: ModelProto, where: str) -> None:
    if not model.HasField("graph") or (not model.graph.node and not model.graph.output):
        raise ModelError(f"{where}: holds no graph; it is not an ONNX model")
    if not model.graph.output:
        raise ModelError(f"{where}: the graph has no outputs; export it again")
    versions = [o.version for o in model.opset_import if o.domain in ("", "ai.onnx")]
    if not versions and any(n.domain in ("", "ai.onnx") for n in model.graph.node):
        raise ModelError(f"{where}: does not say which opset it uses; add an opset_import")
    for version in versions:
        if not MIN_OPSET <= version <= onnx.defs.onnx_opset_version():
            raise ModelError(
                f"{where}: opset {version} is not supported, expected {MIN_OPSET} to {MAX_OPSET}; "
                "export it again"
            )


def _inline_functions(model: ModelProto, where: str) -> ModelProto:
    if not model.functions:
        return model
    try:
        inlined: ModelProto = inline_local_functions(model)
    except Exception as error:  # the C++ inliner raises bare exceptions
        raise ModelError(f"{where}: its functions cannot be inlined: {str(error)[:300]}") from None
    return inlined


def subgraphs_of(node: NodeProto) -> Iterator[GraphProto]:
    """Yield the graphs in a node's attributes."""
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == AttributeProto.GRAPHS:
            yield from attribute.graphs


def tensors_of(graph: GraphProto) -> Iterator[TensorProto]:
    """Yield every tensor stored in a graph, its attributes and subgraphs."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield sparse.values
        yield sparse.indices
    for node in graph.node:
        for a in node.attribute:
            if a.type == AttributeProto.TENSOR:
                yield a.t
            elif a.type == AttributeProto.TENSORS:
                yield from a.tensors
            elif a.type == AttributeProto.SPARSE_TENSOR:
                yield a.sparse_tensor.values
                yield a.sparse_tensor.indices
        for graph_attribute in subgraphs_of(node):
            yield from tensors_of(graph_attribute)


def check_tensor(tensor: TensorProto) -> None:
    """Raise ModelError unless the declared size of a tensor agrees with its stored bytes."""
    label = f"tensor '{tensor.name}'"
    if any(d < 0 for d in tensor.dims):
        raise ModelError(f"{label}: negative dimension in {tuple(tensor.dims)}")
    count = prod(tensor.dims)
    if tensor.data_type == TensorProto.STRING:
        if len(tensor.string_data) != count:
            raise ModelError(f"{label}: {len(tensor.string_data)} strings stored, {count} declared")
        return
    if tensor.data_type not in _BITS:
        raise ModelError(f"{label}: element type {tensor.data_type} is unknown")
    if tensor.data_location == TensorProto.EXTERNAL:
        return
    expected = (count * _BITS[tensor.data_type] + 7) // 8
    if tensor.HasField("raw_data"):
        if len(tensor.raw_data) != expected:
            raise ModelError(
                f"{label}: shape {tuple(tensor.dims)} needs {expected:_} bytes, "
                f"{len(tensor.raw_data):_} are stored"
            )
        return
    fields = (
        tensor.float_data,
        tensor.int32_data,
        tensor.int64_data,
        tensor.double_data,
        tensor.uint64_data,
    )
    stored = max(len(f) for f in fields)
    packed = 2 if _BITS[tensor.data_type] == 4 else 1
    if tensor.data_type in (TensorProto.COMPLEX64, TensorProto.COMPLEX128):
        count *= 2
    if stored != (count + packed - 1) // packed and not (packed == 2 and stored == count):
        raise ModelError(
            f"{label}: shape {tuple(tensor.dims)} needs {count:_} elements, {stored:_} are stored"
        )


@dataclass(frozen=True, slots=True)
class Reference:
    """Where the bytes of a tensor are: a range of a file, whose path is relative to the model's."""

    location: str
    offset_bytes: int
    length_bytes: int

    def __str__(self) -> str:
        stop = self.offset_bytes + self.length_bytes
        return f"bytes {self.offset_bytes:_} to {stop:_} of file '{self.location}'"


def reference_of(tensor: TensorProto) -> Reference:
    """Return the checked reference of an external tensor; the file is not looked at.

    Raises:
        ModelError: The path leaves the model's folder, or the range does not fit the tensor.
    """
    label = f"tensor '{tensor.name}'"
    entries = {e.key: e.value for e in tensor.external_data}
    location = entries.get("location", "")
    if (
        not location
        or os.path.isabs(location)
        or ".." in Path(location).parts
        or "\\" in location
        or "\0" in location
    ):
        raise ModelError(
            f"{label}: external data path '{location}' leaves the model's folder; refused"
        )
    expected = (prod(tensor.dims) * _BITS[tensor.data_type] + 7) // 8
    try:
        offset = int(entries.get("offset", "0"))
        length = int(entries.get("length", str(expected)))
    except ValueError:
        raise ModelError(f"{label}: external offset or length is not a number") from None
    found = Reference(location, offset, length)
    if length != expected or offset < 0:
        raise ModelError(f"{label}: {found} do not hold {expected:_} bytes")
    return found


def _load_external(tensor: TensorProto, folder: Path | None) -> None:
    """Replace a tensor's external reference by the bytes."""
    if tensor.data_location != TensorProto.EXTERNAL:
        return
    label = f"tensor '{tensor.name}'"
    if folder is None:
        raise ModelError(
            f"{label}: stored in another file, but the model came as bytes; pass its path, or "
            "compile without its values (--shapes-only, weights=False)"
        )
    found = reference_of(tensor)
    path = _inside(folder, found.location, label)
    size = path.stat().st_size
    if found.offset_bytes + found.length_bytes > size:
        raise ModelError(
            f"{label}: {found} ({size:_} bytes) do not hold {found.length_bytes:_} bytes"
        )
    with path.open("rb") as file:
        file.seek(found.offset_bytes)
        tensor.raw_data = file.read(found.length_bytes)
    del tensor.external_data[:]
    tensor.data_location = TensorProto.DEFAULT


def _inside(folder: Path, location: str, label: str) -> Path:
    """Return the path of an external file; it must lie in the model's folder, links resolved."""
    root = folder.resolve()
    path = (root / location).resolve()
    if not path.is_relative_to(root):
        raise ModelError(
            f"{label}: external data path '{location}' is a link out of the model's folder; refused"
        )
    if not path.is_file():
        raise ModelError(
            f"{label}: external data file '{location}' is missing; put it beside the model, or "
            "compile without its values (--shapes-only, weights=False)"
        )
    return path


def decode(tensor: TensorProto) -> Array:
    """Return the array of a tensor that passed `check_tensor`."""
    try:
        return np.asarray(numpy_helper.to_array(tensor))
    except (ValueError, TypeError, KeyError) as error:
        raise ModelError(f"tensor '{tensor.name}': cannot be decoded: {error}") from None


def decode_sparse(sparse: SparseTensorProto, limit_bytes: int) -> Array:
    """Return the dense array of a COO sparse tensor.

    Raises:
        ModelError: Its indices are inconsistent, or the dense form exceeds the limit.
        UnsupportedOpError: Its elements are strings.
    """
    name = sparse.values.name
    if sparse.values.data_type == TensorProto.STRING:
        raise UnsupportedOpError(f"sparse tensor '{name}': strings are not supported")
    values, indices = decode(sparse.values), decode(sparse.indices).astype(np.int64)
    shape = tuple(sparse.dims)
    size_bytes = prod(shape) * values.dtype.itemsize
    if any(d < 0 for d in shape) or size_bytes > limit_bytes:
        raise ModelError(
            f"sparse tensor '{name}': dense shape {shape} needs {size_bytes:_} bytes, allowed {limit_bytes:_}"
        )
    if indices.ndim == 2 and indices.shape == (values.size, len(shape)):
        strides = np.cumprod((1, *shape[:0:-1]))[::-1]
        indices = indices @ strides
    if indices.shape != (values.size,) or (
        values.size and (indices.min() < 0 or indices.max() >= prod(shape))
    ):
        raise ModelError(f"sparse tensor '{name}': indices do not fit shape {shape}")
    dense = np.zeros(prod(shape), values.dtype)
    dense[indices] = values
    return dense.reshape(shape)
