"""Compare a program's results with onnxruntime's on the same inputs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnxruntime

from tilewright.errors import ModelError
from tilewright.graph import Array

FLOAT_TOLERANCE = 1e-4
"""Largest error of a 32-bit float output, relative to the largest magnitude of its reference."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputCheck:
    """How one output compares: `error` is max |ours - reference|, `scale` max |reference|."""

    name: str
    error: float
    scale: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether the error is within the tolerance (also when everything is 0)."""
        return self.error <= self.tolerance * self.scale or self.error == 0.0


def reference_outputs(
    model: str | os.PathLike[str] | bytes, inputs: Mapping[str, Array]
) -> dict[str, Array]:
    """Run a model in onnxruntime with optimisations off, on one thread.

    Raises:
        ModelError: onnxruntime does not take the model or the inputs.
    """
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    source = model if isinstance(model, bytes) else os.fspath(model)
    try:
        session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        known = {value.name for value in session.get_inputs()}
        values = session.run(names, {name: array for name, array in inputs.items() if name in known})
    except Exception as error:  # onnxruntime raises its own untyped exceptions
        raise ModelError(f"onnxruntime cannot run the model for comparison: {_first_line(error)}") from None
    return dict(zip(names, values, strict=True))


def compare(
    ours: Mapping[str, Array], reference: Mapping[str, Array], tolerance: float = FLOAT_TOLERANCE
) -> tuple[OutputCheck, ...]:
    """Compare outputs by name; integers and booleans must be equal, NaN and infinity must be in the same places."""
    return tuple(_compare_one(name, ours[name], expected, tolerance) for name, expected in reference.items())


def _compare_one(name: str, ours: Array, expected: Array, tolerance: float) -> OutputCheck:
    if ours.shape != expected.shape:
        raise ModelError(f"output '{name}' has shape {ours.shape}, onnxruntime gives {expected.shape}")
    a, b = ours.astype(np.float64), expected.astype(np.float64)
    finite = np.isfinite(b)
    same_specials = np.array_equal(np.isnan(a), np.isnan(b)) and np.array_equal(a[~finite & ~np.isnan(b)], b[~finite & ~np.isnan(b)])
    error = float(np.abs(a[finite] - b[finite]).max(initial=0.0)) if same_specials else float("inf")
    scale = float(np.abs(b[finite]).max(initial=0.0))
    is_float = np.issubdtype(expected.dtype, np.floating)
    return OutputCheck(name=name, error=error, scale=scale, tolerance=tolerance if is_float else 0.0)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
