"""The model of the demo: a real network topology that the onnx package ships."""

from __future__ import annotations

import onnx

from tilewright.fetch import onnx_light_models
from tilewright.light_models import seeded_weights

DEMO_MODEL = "light_squeezenet"
DEMO_SEED = 0
DEMO_TEXT = """\
SqueezeNet 1.0: the topology comes with the onnx package; the weights are
seeded random numbers, for that file has none of its own. No download."""


def demo_model() -> bytes:
    """Return the demo's model: SqueezeNet from the installed onnx package with seeded weights."""
    path = next(path for path in onnx_light_models() if path.stem == DEMO_MODEL)
    model = seeded_weights(onnx.load(path), DEMO_SEED)
    model.graph.name = "squeezenet"
    data: bytes = model.SerializeToString(deterministic=True)
    return data
