"""Inputs for a model: read from a file, or made up so that the model accepts them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tilewright.dtypes import DType
from tilewright.errors import ModelError
from tilewright.graph import Array, Graph, Port

_INDEX_KINDS = ("reshape", "map", "slice", "transpose", "expand", "concat")


def example_inputs(graph: Graph, seed: int = 0) -> dict[str, Array]:
    """Return seeded random values for every model input.

    Floats are standard normal. Integers are valid row numbers where they reach a gather, ones where a
    name says mask (nothing masked), and 0 or 1 elsewhere.
    """
    rng = np.random.default_rng(seed)
    rows = _row_limits(graph)
    return {port.name: _example(port, rows.get(port.tensor), rng) for port in graph.inputs}


def read_inputs(graph: Graph, path: str | os.PathLike[str]) -> dict[str, Array]:
    """Return a model's inputs from an .npz file with one array for each input name.

    Raises:
        ModelError: The file cannot be read, or an array is missing or has another shape or type.
    """
    where = Path(path)
    try:
        with np.load(where, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except (OSError, ValueError) as error:
        raise ModelError(f"{where}: cannot be read as .npz ({error}); save inputs with numpy.savez") from None
    return check_inputs(graph.inputs, arrays)


def check_inputs(ports: tuple[Port, ...], arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Return the arrays in the ports' order; ModelError when one is missing or does not fit."""
    unknown = sorted(set(arrays) - {port.name for port in ports})
    if unknown:
        raise ModelError(f"input '{unknown[0]}' is given, the model has {', '.join(p.name for p in ports)}")
    found = {}
    for port in ports:
        if port.name not in arrays:
            raise ModelError(f"input '{port.name}' {port.dtype}{list(port.shape)} is missing; give it a value")
        array = arrays[port.name]
        if array.shape != port.shape or array.dtype != port.dtype.numpy:
            raise ModelError(
                f"input '{port.name}' is {array.dtype}{list(array.shape)}, the model takes "
                f"{port.dtype}{list(port.shape)}"
            )
        found[port.name] = array
    return found


def _example(port: Port, rows: int | None, rng: np.random.Generator) -> Array:
    if port.dtype.is_float:
        return rng.standard_normal(port.shape).astype(port.dtype.numpy)
    if "mask" in port.name.lower():
        return np.ones(port.shape, port.dtype.numpy)
    high = 2 if rows is None or port.dtype is DType.BOOL else max(rows, 1)
    return rng.integers(0, high, port.shape).astype(port.dtype.numpy)


def _row_limits(graph: Graph) -> dict[str, int]:
    """Return, for tensors that become gather indices, the fewest rows of the tables they index."""
    limits: dict[str, int] = {}
    for op in reversed(graph.ops):
        if op.kind == "gather":
            rows = graph.types[op.inputs[0]].shape[op.integer("axis")]
            limits[op.inputs[1]] = min(rows, limits.get(op.inputs[1], rows))
        elif op.kind in _INDEX_KINDS and op.output in limits:
            for name in op.inputs:
                limits[name] = min(limits[op.output], limits.get(name, limits[op.output]))
    return limits
