"""Compare a program's results with onnxruntime's on the same inputs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from tilewright.dtypes import DType
from tilewright.errors import ModelError
from tilewright.exact_products import with_exact_products
from tilewright.graph import Array

FLOAT_TOLERANCE = 1e-4
"""Largest error of a 32-bit float output, relative to the largest magnitude of its reference."""

NARROW_ROUNDINGS = 4
"""Outputs of narrower float types may be off by so many roundings of their largest magnitude."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputCheck:
    """How one output compares: `error` is max |ours - reference|, `scale` max |reference|.

    `tolerance` is relative to the scale. Integers and booleans have tolerance 0. The error is
    infinite where NaN or infinity is not in the same places.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    error: float
    scale: float
    tolerance: float

    @property
    def relative_error(self) -> float:
        """The error relative to the scale."""
        return 0.0 if self.error == 0.0 else self.error / self.scale if self.scale else float("inf")

    @property
    def passed(self) -> bool:
        """Whether the error is within the tolerance (also when everything is 0)."""
        return self.error == 0.0 or self.error <= self.tolerance * self.scale


def reference_outputs(
    model: str | os.PathLike[str] | bytes, inputs: Mapping[str, Array]
) -> dict[str, Array]:
    """Run a model in onnxruntime with optimisations off and exact integer products, on one thread.

    Args:
        model: The model; a file with external data must come as a path.
        inputs: Arrays by input name; names that the model does not take are left out.

    Raises:
        ModelError: onnxruntime does not take the model or the inputs.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what goes wrong comes back as an exception
    try:
        exact = with_exact_products(model)
        source = exact if isinstance(exact, bytes) else os.fspath(exact)
        session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        known = {value.name for value in session.get_inputs()}
        feeds = {name: array for name, array in inputs.items() if name in known}
        values = session.run(names, feeds)
    except Exception as error:  # onnxruntime raises its own untyped exceptions
        raise ModelError(
            f"onnxruntime cannot run the model for comparison: {_first_line(error)}; "
            "leave out the verification"
        ) from None
    return dict(zip(names, values, strict=True))


def evaluator_differences(
    model: str | os.PathLike[str] | bytes, inputs: Mapping[str, Array]
) -> dict[str, float]:
    """Return how far onnxruntime and onnx's reference evaluator differ on the same inputs.

    Models with quantised values round to integers, where the last bit of a sum decides between two
    neighbours: two correct evaluators then differ by far more than a float tolerance. What these
    two differ by is the tolerance that such a model deserves; pass it on to `compare`.

    Returns:
        max |reference - onnxruntime| / max |onnxruntime| of each output, 0 when both are 0.
    """
    from onnx.reference import ReferenceEvaluator

    proto = onnx.load_from_string(model) if isinstance(model, bytes) else onnx.load(model)
    expected = reference_outputs(model, inputs)
    try:
        values = ReferenceEvaluator(proto).run(list(expected), dict(inputs))
    except Exception as error:  # the evaluator raises whatever numpy does
        raise ModelError(
            f"onnx's reference evaluator cannot run the model: {_first_line(error)}; "
            "give a tolerance as a number"
        ) from None
    other = dict(zip(expected, (np.asarray(value) for value in values), strict=True))
    return {check.name: check.relative_error for check in compare(other, expected)}


def compare(
    ours: Mapping[str, Array],
    reference: Mapping[str, Array],
    tolerance: float | Mapping[str, float] | None = None,
) -> tuple[OutputCheck, ...]:
    """Compare outputs by name.

    Integers and booleans must be equal. Of floats, NaN and infinity must be in the same places,
    and the rest may be off by the tolerance times the largest finite |reference| of the output.

    Args:
        ours: Our outputs.
        reference: The outputs to compare with; all of them must be in `ours`.
        tolerance: For all floats, or by output name. Without it `FLOAT_TOLERANCE` holds, and
            `NARROW_ROUNDINGS` roundings for types narrower than 32 bits.

    Raises:
        ModelError: An output is missing or has another shape or element type.
    """
    checks = []
    for name, expected in reference.items():
        if name not in ours:
            raise ModelError(f"output '{name}' is missing, found {', '.join(ours) or 'none'}")
        chosen = tolerance.get(name) if isinstance(tolerance, Mapping) else tolerance
        checks.append(_compare_one(name, ours[name], np.asarray(expected), chosen))
    return tuple(checks)


def default_tolerance(dtype: DType) -> float:
    """Return the tolerance of an element type, relative to the largest magnitude of an output."""
    if not dtype.is_float:
        return 0.0
    bits = {DType.F16: 11, DType.BF16: 8}.get(dtype, 24)
    return max(FLOAT_TOLERANCE, NARROW_ROUNDINGS * 2.0**-bits)


def _compare_one(name: str, ours: Array, expected: Array, tolerance: float | None) -> OutputCheck:
    if ours.shape != expected.shape or ours.dtype != expected.dtype:
        raise ModelError(
            f"output '{name}' is {ours.dtype}{list(ours.shape)}, "
            f"onnxruntime gives {expected.dtype}{list(expected.shape)}"
        )
    if expected.dtype.kind in "OSU":
        equal = np.array_equal(ours, expected)
        error, scale, allowed = (0.0 if equal else float("inf")), 1.0, 0.0
    else:
        dtype = DType.from_numpy(expected.dtype)
        default = default_tolerance(dtype)
        allowed = default if tolerance is None or not dtype.is_float else tolerance
        error, scale = _float_error(ours, expected) if dtype.is_float else _exact(ours, expected)
    return OutputCheck(
        name=name,
        shape=expected.shape,
        dtype=str(expected.dtype),
        error=error,
        scale=scale,
        tolerance=allowed,
    )


def _float_error(ours: Array, expected: Array) -> tuple[float, float]:
    a, b = ours.astype(np.float64), expected.astype(np.float64)
    finite = np.isfinite(b)
    # Equal where it is infinite (sign included), NaN where it is NaN.
    special = ~finite
    scale = float(np.abs(b[finite]).max(initial=0.0))
    if (
        not np.array_equal(a[special], b[special], equal_nan=True)
        or not np.isfinite(a[finite]).all()
    ):
        return float("inf"), scale
    with np.errstate(over="ignore"):
        return float(np.abs(a[finite] - b[finite]).max(initial=0.0)), scale


def _exact(ours: Array, expected: Array) -> tuple[float, float]:
    """Compare without a detour over floats, which do not tell large integers apart."""
    scale = float(np.abs(expected.astype(np.float64)).max(initial=0.0))
    if np.array_equal(ours, expected):
        return 0.0, scale
    differs = ours != expected
    distance = np.abs(ours[differs].astype(np.float64) - expected[differs].astype(np.float64))
    return max(1.0, float(distance.max())), scale


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
