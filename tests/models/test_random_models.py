"""Random small models compile, run and agree with onnxruntime on several meshes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from end_to_end import FUZZ_TARGETS, check_end_to_end
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from random_models import random_models

from tilewright.graph import Array
from tilewright.verification import reference_outputs

CHECKS = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]


def drawn_inputs(model: bytes) -> dict[str, Array]:
    """Return seeded inputs for a random model, small integers included."""
    rng = np.random.default_rng(7)
    inputs: dict[str, Array] = {}
    for port in onnx.load_from_string(model).graph.input:
        kind = port.type.tensor_type
        shape = tuple(d.dim_value for d in kind.shape.dim)
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
        values = rng.standard_normal(shape) if dtype.kind == "f" else rng.integers(0, 2, shape)
        inputs[port.name] = np.asarray(values).astype(dtype)
    return inputs


def nudged(array: Array, rng: np.random.Generator) -> Array:
    """Return floats changed by about a millionth; other types as they are."""
    if array.dtype.kind != "f":
        return array
    factors = 1 + 1e-6 * rng.standard_normal(array.shape)
    return np.asarray(array.astype(np.float64) * factors, array.dtype)


def is_well_conditioned(model: bytes, inputs: dict[str, Array]) -> bool:
    """Tell whether a relative change of the inputs by a rounding or two hardly matters.

    Where it does (differences of equals, say), no two correct evaluators need to agree.
    """
    base = reference_outputs(model, inputs)
    rng = np.random.default_rng(8)
    for _ in range(2):
        moved = {name: nudged(array, rng) for name, array in inputs.items()}
        for name, other in reference_outputs(model, moved).items():
            a, b = (v.astype(np.float64) for v in (base[name], other))
            if not (np.isfinite(a).all() and np.isfinite(b).all()):
                return False
            if np.abs(a - b).max(initial=0) > 5e-5 * np.abs(a).max(initial=0):
                return False
    return True


def check(model: bytes, target: str) -> None:
    inputs = drawn_inputs(model)
    assume(is_well_conditioned(model, inputs))
    check_end_to_end(model, target, inputs=inputs)


@settings(max_examples=20, suppress_health_check=CHECKS)
@given(random_models(), st.sampled_from(FUZZ_TARGETS))
def test_random_models(model: bytes, target: str) -> None:
    check(model, target)


@pytest.mark.slow
@settings(max_examples=300, suppress_health_check=CHECKS)
@given(random_models(most_steps=16), st.sampled_from(FUZZ_TARGETS))
def test_many_random_models(model: bytes, target: str) -> None:
    check(model, target)
