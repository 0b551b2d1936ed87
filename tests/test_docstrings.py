"""Every module imports by itself, and the examples in its docstrings hold."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("extract", "frontend", "hwmodel", "lowering", "rules", "simulator")


def module_names() -> list[str]:
    """Return the dotted names of all modules, sorted."""
    names = [f"tilewright.{path.stem}" for path in (ROOT / "src" / "tilewright").glob("*.py")]
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*.py"):
            names.append(".".join(("tilewright", *path.relative_to(ROOT).with_suffix("").parts)))
    return sorted(name.removesuffix(".__init__") for name in names)


@pytest.mark.parametrize("name", module_names())
def test_examples_hold(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0
