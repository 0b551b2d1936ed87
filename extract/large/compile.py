"""The decorator of compiled functions, which stand in `*_core.py`; they let other threads run."""

from __future__ import annotations

from pathlib import Path

from tilewright.jit import Compiler

_FOLDER = Path(__file__).parent

compiled = Compiler((_FOLDER / "flat.py", *_FOLDER.glob("*_core.py")), nogil=True).compiled
