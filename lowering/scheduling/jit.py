"""The decorators of the scheduler's compiled functions."""

from __future__ import annotations

from pathlib import Path

from tilewright.jit import Compiler

_COMPILER = Compiler(tuple(Path(__file__).parent.glob("*_core.py")))

compiled = _COMPILER.compiled
compiled_part = _COMPILER.compiled_part
