"""The one place that touches numba: compile a function to machine code, cached outside the package."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, cast

import numba


@cache
def _choose_cache_directory() -> None:
    """Point numba's cache at the user's cache folder, unless the user chose one.

    Numba invalidates an entry when the file of the function changes, not when that of a callee does;
    so the folder's name holds a digest of all compiled files.
    """
    if os.environ.get("NUMBA_CACHE_DIR"):
        return
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("timing_*.py")):
        digest.update(path.read_bytes())
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    numba.config.CACHE_DIR = str(root / "tilewright" / f"numba-{digest.hexdigest()[:16]}")


def compiled[F: Callable[..., Any]](function: F) -> F:
    """Compile a function with numba on its first call."""
    _choose_cache_directory()
    return cast(F, numba.njit(cache=True, inline="always")(function))
