"""Packages import in one direction only, by absolute names."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BASE = frozenset({"errors", "dtypes", "graph", "constants", "jit", "reference", "user_cache"})
FOLDERS = ("frontend", "hwmodel", "rules", "extract", "lowering", "simulator")

# Each part of the compiler and the parts it may import, besides itself.
ALLOWED: dict[str, frozenset[str]] = {
    "base": frozenset(),
    "frontend": frozenset({"base"}),
    "hwmodel": frozenset({"base"}),
    "rules": frozenset({"base", "hwmodel"}),
    "extract": frozenset({"base", "hwmodel", "rules"}),
    "lowering": frozenset({"base", "hwmodel", "rules", "extract"}),
    "simulator": frozenset({"base", "hwmodel", "rules", "extract", "lowering"}),
    "top": frozenset({"base", *FOLDERS}),
}


def modules() -> tuple[tuple[str, Path], ...]:
    """Every module of the project with the part it belongs to."""
    top = sorted((ROOT / "src" / "tilewright").glob("*.py"))
    parts = [("base" if path.stem in BASE else "top", path) for path in top]
    for folder in FOLDERS:
        parts += [(folder, path) for path in sorted((ROOT / folder).rglob("*.py"))]
    return tuple(parts)


def part_of(module: str) -> str:
    """The part that a dotted module name under tilewright belongs to."""
    name = module.split(".")[1] if "." in module else ""
    return "base" if name in BASE else name if name in FOLDERS else "top"


def imported_modules(tree: ast.AST) -> list[str]:
    """Dotted names of the project's modules that a syntax tree imports; '.' for a relative one."""
    found: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                found.append(".")
            elif node.module == "tilewright":
                # `from tilewright import graph` names a module in the list of names.
                found += [f"tilewright.{alias.name}" for alias in node.names]
            elif node.module:
                found.append(node.module)
    return [name for name in found if name == "." or name.split(".")[0] == "tilewright"]


def violations(part: str, source: str) -> list[str]:
    """What a module of this part imports against the table."""
    allowed = ALLOWED[part] | {part}
    imports = imported_modules(ast.parse(source))
    return [name for name in imports if name == "." or part_of(name) not in allowed]


@pytest.mark.parametrize("part", sorted(ALLOWED))
def test_imports_go_in_one_direction(part: str) -> None:
    paths = [path for owner, path in modules() if owner == part]
    wrong = {str(path): bad for path in paths if (bad := violations(part, path.read_text("utf-8")))}
    assert paths, f"no module belongs to '{part}'"
    assert wrong == {}


def test_no_folder_imports_in_a_circle() -> None:
    """The table itself is one-directional: nothing that a part may import may import that part."""
    for part, allowed in ALLOWED.items():
        assert all(part not in ALLOWED[other] for other in allowed)


@pytest.mark.parametrize(
    ("part", "source"),
    [
        ("hwmodel", "from tilewright.rules.terms import Term"),
        ("frontend", "import tilewright.hwmodel"),
        ("base", "from tilewright import extract"),
        ("rules", "def f() -> None:\n    from tilewright.lowering import isa"),
        ("lowering", "from tilewright.api import load"),
        ("simulator", "from . import timing"),
    ],
)
def test_the_check_catches(part: str, source: str) -> None:
    assert len(violations(part, source)) == 1


def test_the_check_allows_what_it_should() -> None:
    assert violations("extract", "import numpy\nfrom tilewright.rules import loopnest") == []
    assert violations("top", "from tilewright.simulator import timing, functional") == []
