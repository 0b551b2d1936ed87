"""The one place that touches numba: compile a function to machine code, cached outside the package.

A folder of compiled functions takes its decorators from here by a small module of its own, so that
the cache of one folder does not go stale with the files of another.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numba

from tilewright.user_cache import cache_folder

_OPTIONS: dict[str, Any] = {"error_model": "numpy", "_nrt": False}
"""Without numba's runtime a function cannot allocate, and does not count references.

Counting would take most of the time: each call counts all the arrays of its arguments up and down.
"""


class Compiler:
    """Decorators for the functions of some files; their machine code is kept for the next process."""

    def __init__(self, paths: Sequence[Path], **options: Any) -> None:
        """Choose the cache folder for these files; `options` are numba's."""
        self._folder = _cache_folder(paths)
        self._options = _OPTIONS | options

    def compiled[F: Callable[..., Any]](self, function: F) -> F:
        """Compile a function with numba on its first call."""
        if self._folder is not None:
            config: Any = numba.config
            config.CACHE_DIR = str(self._folder)
        return cast(F, numba.njit(cache=True, **self._options)(function))

    def compiled_part[F: Callable[..., Any]](self, function: F) -> F:
        """Compile a function that only compiled ones call, into these and without entry points.

        A call would copy the dozens of array headers in its arguments.
        """
        options = self._options | {
            "no_cpython_wrapper": True,
            "no_cfunc_wrapper": True,
            "forceinline": True,
        }
        return cast(F, numba.njit(**options)(function))


def _cache_folder(paths: Sequence[Path]) -> Path | None:
    """Return the folder for numba's cache; None if the user chose one.

    Numba invalidates an entry when the file of the function changes, not when that of a callee does;
    so the folder's name holds a digest of all compiled files.
    """
    if os.environ.get("NUMBA_CACHE_DIR"):
        return None
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(path.read_bytes())
    folder = cache_folder(f"numba-{digest.hexdigest()[:16]}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:  # no home to write to: compile anew in each process
        folder = Path(tempfile.mkdtemp(prefix="tilewright-numba-"))
    return folder
