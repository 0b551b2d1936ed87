"""Inputs for a model: read from a file, or made up so that the model accepts them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from tilewright.arrays import read_arrays
from tilewright.constants import known
from tilewright.dtypes import DType
from tilewright.errors import ModelError
from tilewright.graph import Array, Graph, Port

SAMPLE_RATE_HZ = 16_000

_INDEX_KINDS = ("reshape", "map", "slice", "transpose", "expand", "concat")
_SHOWN_NAMES = 5


def example_inputs(graph: Graph, seed: int = 0) -> dict[str, Array]:
    """Return seeded values for every model input, ones that the model is likely to accept.

    Floats are standard normal. Integers are valid row numbers where they reach a gather. Otherwise the
    name decides: masks are 1, positions count up, lengths are the time dimension of the other
    inputs, token types are 0, sample rates 16 000; the rest is 0 or 1.
    """
    return made_up(graph.inputs, seed, _row_limits(graph))


def made_up(
    ports: Sequence[Port], seed: int = 0, row_limits: Mapping[str, int] | None = None
) -> dict[str, Array]:
    """Return seeded values for ports.

    Args:
        ports: The inputs; an input's values depend on all ports before it.
        seed: Seed of the random values.
        row_limits: For tensors that are row numbers, how many rows there are.
    """
    rng = np.random.default_rng(seed)
    limits = row_limits or {}
    length = next((port.shape[1] for port in ports if len(port.shape) > 1), 1)
    return {port.name: _example(port, limits.get(port.tensor), length, rng) for port in ports}


def read_inputs(ports: Sequence[Port], path: str | os.PathLike[str]) -> dict[str, Array]:
    """Return inputs from an .npz file with one array for each input name.

    Raises:
        ModelError: The file cannot be read, or an array is missing or has another shape or type.
    """
    return check_inputs(ports, read_arrays(Path(path)), f"input file '{path}'")


def check_inputs(
    ports: Sequence[Port], arrays: Mapping[str, Array], where: str = "inputs"
) -> dict[str, Array]:
    """Return the arrays in the ports' order; ModelError when one is missing or does not fit."""
    unknown = sorted(set(arrays) - {port.name for port in ports})
    if unknown:
        known = _some(port.name for port in ports)
        raise ModelError(
            f"{where}: found '{unknown[0]}', the model takes {known}; rename or drop the array"
        )
    found: dict[str, Array] = {}
    for port in ports:
        wanted = f"{port.dtype.numpy}{list(port.shape)}"
        if port.name not in arrays:
            raise ModelError(f"{where}: '{port.name}' is missing; add an array {wanted}")
        array = np.asarray(arrays[port.name])
        if array.dtype.kind == "V" and port.dtype is DType.BF16 and array.dtype.itemsize == 2:
            array = array.view(port.dtype.numpy)  # numpy's files do not know this type's name
        if array.shape != port.shape or array.dtype != port.dtype.numpy:
            raise ModelError(
                f"{where}: '{port.name}' is {array.dtype}{list(array.shape)}, the model takes "
                f"{wanted}; convert the array, or compile for other dimensions"
            )
        found[port.name] = array
    return found


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    more = len(listed) - _SHOWN_NAMES
    text = ", ".join(f"'{name}'" for name in listed[:_SHOWN_NAMES]) or "no inputs"
    return text + (f" and {more} more" if more > 0 else "")


def _example(port: Port, rows: int | None, length: int, rng: np.random.Generator) -> Array:
    if port.dtype.is_float:
        return rng.standard_normal(port.shape).astype(port.dtype.numpy)
    fixed = _by_name(port, length)
    if fixed is not None:
        if rows is not None:
            fixed = np.minimum(fixed, max(rows, 1) - 1)
        return fixed.astype(port.dtype.numpy)
    high = 2 if rows is None or port.dtype is DType.BOOL else max(rows, 1)
    return rng.integers(0, high, port.shape).astype(port.dtype.numpy)


def _by_name(port: Port, length: int) -> Array | None:
    """Return the values that an integer input's name asks for."""
    words = port.name.lower()
    shape = port.shape
    if "mask" in words:
        return np.ones(shape, np.int64)
    if "token_type" in words or "segment_id" in words:
        return np.zeros(shape, np.int64)
    if port.dtype is DType.BOOL:
        return None
    if "position" in words:
        return np.broadcast_to(np.arange(shape[-1] if shape else 1), shape or (1,)).reshape(shape)
    if "length" in words or words.endswith(("_len", "_lens")):
        return np.full(shape, length, np.int64)
    if words == "sr" or "sample_rate" in words or "sampling_rate" in words:
        return np.full(shape, SAMPLE_RATE_HZ, np.int64)
    return None


def _row_limits(graph: Graph) -> dict[str, int]:
    """Return, for tensors that become gather indices, the fewest rows of the tables they index.

    A comparison with 0, 1, ... n - 1 is a one-hot encoding, the same as a table of n rows.
    """
    limits: dict[str, int] = {}
    for op in reversed(graph.ops):
        if op.kind == "gather":
            rows = graph.types[op.inputs[0]].shape[op.integer("axis")]
            limits[op.inputs[1]] = min(rows, limits.get(op.inputs[1], rows))
        elif op.kind == "map" and op.text("fn").split("|")[0] == "eq":
            for name, other in zip(op.inputs, reversed(op.inputs), strict=True):
                classes = _consecutive(known(graph.constants).get(other))
                if classes:
                    limits[name] = min(classes, limits.get(name, classes))
        elif op.kind in _INDEX_KINDS and op.output in limits:
            for name in op.inputs:
                limits[name] = min(limits[op.output], limits.get(name, limits[op.output]))
    return limits


def _consecutive(constant: Array | None) -> int:
    """Return n if a constant is 0, 1, ... n - 1 in some shape, else 0."""
    if constant is None or constant.size < 2:
        return 0
    is_range = np.array_equal(constant.ravel(), np.arange(constant.size))
    return constant.size if is_range else 0
