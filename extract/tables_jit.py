"""The decorator of the compiled loops over tables of choice problems."""

from __future__ import annotations

from pathlib import Path

from tilewright.jit import Compiler

compiled = Compiler(tuple(Path(__file__).parent.glob("*_core.py"))).compiled
