"""The one place that touches numba: compile a function to machine code, cached outside the package."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, cast

import numba


@cache
def _cache_directory(folder: Path, family: str) -> str:
    """Return a folder in the user's cache for the machine code of one family of files.

    Numba invalidates an entry when the file of the function changes, not when that of a callee does;
    so the folder's name holds a digest of all files of the family.
    """
    digest = hashlib.sha256()
    for path in sorted(folder.glob(f"{family}_*.py")):
        digest.update(path.read_bytes())
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    chosen = root / "tilewright" / f"numba-{digest.hexdigest()[:16]}"
    try:
        chosen.mkdir(parents=True, exist_ok=True)
    except OSError:  # no home to write to: compile anew in each process
        chosen = Path(tempfile.mkdtemp(prefix="tilewright-numba-"))
    return str(chosen)


def _choose_cache_directory(function: Callable[..., Any]) -> None:
    """Point numba's cache at the folder of the function's family, unless the user chose one.

    A family are the files of one package whose names begin alike: timing_*.py, packing_*.py. Compiled
    functions call only those of their own family.
    """
    if os.environ.get("NUMBA_CACHE_DIR"):
        return
    path = Path(function.__code__.co_filename)
    config: Any = numba.config
    config.CACHE_DIR = _cache_directory(path.parent, path.stem.split("_")[0])


_OPTIONS: dict[str, Any] = {"error_model": "numpy", "_nrt": False}
"""Without numba's runtime a function cannot allocate, and does not count references.

Counting would take most of the time: each call counts all the arrays of its arguments up and down.
"""


def compiled[F: Callable[..., Any]](function: F) -> F:
    """Compile a function with numba on its first call; the machine code is kept for the next process."""
    _choose_cache_directory(function)
    return cast(F, numba.njit(cache=True, **_OPTIONS)(function))


def compiled_part[F: Callable[..., Any]](function: F) -> F:
    """Compile a function that only compiled ones call, without entry points for Python and into its callers.

    A call would copy the dozens of array headers in its arguments.
    """
    options = _OPTIONS | {
        "no_cpython_wrapper": True,
        "no_cfunc_wrapper": True,
        "forceinline": True,
    }
    return cast(F, numba.njit(**options)(function))
