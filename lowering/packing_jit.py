"""The decorators of the compiled functions that search for packings."""

from __future__ import annotations

from pathlib import Path

from tilewright.jit import Compiler

_COMPILER = Compiler(tuple(Path(__file__).parent.glob("packing_*.py")))

compiled = _COMPILER.compiled
compiled_part = _COMPILER.compiled_part
