"""How far outputs may be off from onnxruntime's, for a model on a machine."""

from __future__ import annotations

import os
from collections.abc import Mapping

from tilewright.block_tolerance import machine_tolerance
from tilewright.graph import Array, Graph
from tilewright.hwmodel.target import Target
from tilewright.rounding_tolerance import rounding_tolerances


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
    return {name: sum(part[name] for part in parts) for name in exact} if parts else None
