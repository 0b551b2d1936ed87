"""Small and trained models, end to end: valid plans, right numbers, timing above its bound."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path

import onnxruntime
import pytest
from benchmarks.models import case_of, model_of
from end_to_end import EndToEnd, check_end_to_end

from tilewright import api
from tilewright.errors import ModelError
from tilewright.graph import Array
from tilewright.inputs import example_inputs
from tilewright.verification import compare, evaluator_differences, reference_outputs

Check = Callable[[str, str], EndToEnd]

TRANSFORMERS = ("llama_prefill", "llama_decode", "gpt2_prefill", "gpt2_decode")
TARGETS = ("toy", "corsair", "gemmini", "mesh_2x3")
QUICK = {
    ("llama_prefill", "toy"),
    ("llama_prefill", "gemmini"),
    ("llama_decode", "mesh_2x3"),
    ("llama_decode", "corsair"),
    ("gpt2_prefill", "corsair"),
    ("gpt2_prefill", "mesh_2x3"),
    ("gpt2_decode", "toy"),
    ("gpt2_decode", "gemmini"),
}
"""Every model on two targets, every target with two models."""


@pytest.mark.parametrize(
    ("name", "target"),
    [
        pytest.param(*pair, marks=() if pair in QUICK else pytest.mark.slow)
        for pair in product(TRANSFORMERS, TARGETS)
    ],
)
def test_transformers(end_to_end: Check, name: str, target: str) -> None:
    done = end_to_end(name, target).compilation
    assert done.rolled is not None
    assert len(done.rolled.instances) > len(done.rolled.blocks), "layers are not rolled up"
    assert not done.graph.host_models


@pytest.mark.parametrize("name", ["kws_embed", "mtcnn_r"])
def test_trained_networks_without_host(end_to_end: Check, name: str) -> None:
    assert not end_to_end(name, "toy").compilation.graph.host_models


def test_lstm_runs_on_the_host(end_to_end: Check) -> None:
    done = end_to_end("silero_v6", "toy").compilation
    assert [m.op_types for m in done.graph.host_models.values()] == [("LSTM",)]
    assert done.program is not None
    assert len(done.program.host_regions) == 1


@pytest.mark.slow
def test_int8_weights(fetched: Callable[[str], Path]) -> None:
    """MiniLM with int8 weights and float arithmetic.

    Its tolerance is what onnxruntime's CPU provider (optimisations off and on) and the onnx reference
    evaluator differ by on the same inputs. Where they agree to a few roundings, we need not be
    closer than float32 outputs of other models: 1e-4.
    """
    check_int8(fetched, "minilm_int8w_s16", ("toy",))


def check_int8(fetched: Callable[[str], Path], name: str, targets: Sequence[str]) -> None:
    """Check a quantised model within what evaluators that are all right differ by."""
    case = case_of(name)
    model = model_of(case, fetched)
    inputs = example_inputs(api.load(model, dims=case.dims))
    tolerance = {
        output: max(difference, 1e-4) for output, difference in spread(model, inputs).items()
    }
    assert all(allowed < 0.1 for allowed in tolerance.values()), "the oracles disagree"
    for target in targets:
        check_end_to_end(model, target, dims=case.dims, inputs=inputs, tolerance=tolerance)


def spread(model: Path | bytes, inputs: Mapping[str, Array]) -> dict[str, float]:
    """Return by output how far onnxruntime without optimisations is from the other evaluators.

    They are the onnx reference evaluator and onnxruntime with all optimisations. The first cannot
    run every model (it has no DequantizeLinear of opset 18, say); then the second counts alone.
    """
    optimised = _optimised_outputs(model, inputs)
    checks = compare(optimised, reference_outputs(model, inputs))
    found = {check.name: check.relative_error for check in checks}
    try:
        other = evaluator_differences(model, inputs)
    except ModelError as error:
        if "No implementation for operator" not in str(error):
            raise
        return found
    return {name: max(value, other[name]) for name, value in found.items()}


def _optimised_outputs(model: Path | bytes, inputs: Mapping[str, Array]) -> dict[str, Array]:
    source = model if isinstance(model, bytes) else str(model)
    session = onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(inputs)), strict=True))
