"""All models of the project's list and a sweep of others, on small and large targets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from benchmarks.models import LIGHT, SWEEP, TRAINED
from end_to_end import EndToEnd
from test_quick_models import check_int8

pytestmark = pytest.mark.slow

Check = Callable[[str, str], EndToEnd]

QUANTISED = ("minilm_int8w", "smart_turn_qdq")
FLOAT = tuple(case.name for case in (*TRAINED, *SWEEP) if case.name not in QUANTISED)
DEEPER = ("llama_prefill_32x64", "llama_decode_8x128", "gpt2_prefill_8x128", "gpt2_decode_32x64")


@pytest.mark.parametrize("target", ["toy", "corsair"])
@pytest.mark.parametrize("name", [*FLOAT, *LIGHT])
def test_networks(end_to_end: Check, name: str, target: str) -> None:
    end_to_end(name, target)


@pytest.mark.parametrize("target", ["toy", "corsair"])
@pytest.mark.parametrize("name", DEEPER)
def test_deeper_transformers(end_to_end: Check, name: str, target: str) -> None:
    done = end_to_end(name, target).compilation
    assert done.rolled is not None
    assert len(done.rolled.blocks) <= 5, "layers are not rolled up"


@pytest.mark.parametrize(
    "name", ["kws_embed", "mtcnn_p", "llama_prefill", "gpt2_decode", "silero_v6"]
)
def test_wormhole(end_to_end: Check, name: str) -> None:
    end_to_end(name, "wormhole_n150")


@pytest.mark.parametrize("target", ["toy", "corsair"])
@pytest.mark.parametrize("name", QUANTISED)
def test_quantised(fetched: Callable[[str], Path], name: str, target: str) -> None:
    """The tolerance is what onnxruntime, off and optimised, and the onnx evaluator differ by."""
    check_int8(fetched, name, (target,))
