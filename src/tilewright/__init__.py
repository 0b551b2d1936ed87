"""Compile ONNX models for spatial accelerators; the public API.

The functions live in `tilewright.api` and are looked up when first used, so that
`import tilewright` and `tilewright --version` stay instant.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tilewright.api import (
        UserMetric,
        check,
        compile,
        explore,
        front,
        load,
        load_rules,
        run,
        save,
        simulate,
        target,
        targets,
        verify,
    )

__version__ = "0.1.0"

__all__ = [
    "UserMetric",
    "__version__",
    "check",
    "compile",
    "explore",
    "front",
    "load",
    "load_rules",
    "run",
    "save",
    "simulate",
    "target",
    "targets",
    "verify",
]


def __getattr__(name: str) -> Any:
    """Import a public name from `tilewright.api` on first use (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module 'tilewright' has no attribute {name!r}")
    return getattr(importlib.import_module("tilewright.api"), name)


def __dir__() -> list[str]:
    """List the public names, imported or not."""
    return sorted({*globals(), *__all__})
