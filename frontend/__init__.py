"""Reads ONNX models into graphs of core operators."""

from __future__ import annotations

from tilewright.frontend.load import load_onnx

__all__ = ["load_onnx"]
