"""The model of the demo: a real network topology that the onnx package ships."""

from __future__ import annotations

from pathlib import Path

from tilewright.fetch import onnx_light_models

DEMO_MODEL = "light_squeezenet"


def demo_model() -> Path:
    """Return the path of the demo's model inside the installed onnx package."""
    return next(path for path in onnx_light_models() if path.stem == DEMO_MODEL)
