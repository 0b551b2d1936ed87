"""How far outputs may be off from onnxruntime's, for a model on a machine."""

from __future__ import annotations

import os
from collections.abc import Mapping

from tilewright.block_tolerance import machine_tolerance
from tilewright.dtypes import DType
from tilewright.graph import Array, Graph, Op, parse_pipeline
from tilewright.hwmodel.target import Target
from tilewright.rounding_tolerance import rounding_tolerances
from tilewright.verification import default_tolerance

_LAYOUT = ("reshape", "transpose", "slice")
"""Operators that keep numbers as they are."""


def allowed_errors(
    model: str | os.PathLike[str] | bytes,
    target: Target,
    graph: Graph,
    inputs: Mapping[str, Array],
    exact: Mapping[str, Array],
) -> dict[str, float] | None:
    """Return the tolerance of each output, relative to its largest magnitude; None for the usual ones.

    Args:
        model: The ONNX model.
        target: The machine.
        graph: The model, imported.
        inputs: Its inputs.
        exact: Its outputs in onnxruntime.
    """
    parts = [
        part
        for part in (
            machine_tolerance(target, graph, inputs, exact),
            rounding_tolerances(model, graph, inputs, exact),
        )
        if part is not None
    ]
    least = {
        port.name: default_tolerance(_rounded_to(graph, port.tensor)) for port in graph.outputs
    }
    if parts:
        return {name: max(least[name], sum(part[name] for part in parts)) for name in exact}
    usual = {port.name: default_tolerance(port.dtype) for port in graph.outputs}
    return None if least == usual else least


def _rounded_to(graph: Graph, tensor: str) -> DType:
    """Return the narrowest type that the numbers of a tensor had since they were computed.

    A half-precision model with 32-bit outputs rounds these as one with half-precision outputs does.
    """
    producers = {name: op for op in graph.ops for name in op.outputs}
    found = graph.types[tensor].dtype
    while tensor in producers and _keeps_values(producers[tensor]):
        tensor = producers[tensor].inputs[0]
        dtype = graph.types[tensor].dtype
        if not dtype.is_float:
            break
        found = max(found, dtype, key=default_tolerance)
    return found


def _keeps_values(op: Op) -> bool:
    """Whether an operator only moves numbers, or casts them."""
    if op.kind == "map":
        return all(fn == "cast" for fn, _ in parse_pipeline(op.text("fn")))
    return op.kind in _LAYOUT
