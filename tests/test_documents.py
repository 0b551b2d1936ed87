"""Documents name files that there are, and their tables of files leave none out."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = (
    *("benchmarks", "docs", "examples", "extract", "frontend", "hwmodel", "lowering", "rules"),
    *("simulator", "src/tilewright", "tests"),
)
FILES = [
    path.relative_to(ROOT).as_posix()
    for path in (*ROOT.glob("*.*"), *(p for f in FOLDERS for p in (ROOT / f).rglob("*.*")))
]
DOCUMENTS = [name for name in FILES if name.endswith(".md") and name != "CHANGELOG.md"]
TABLES = ("frontend/README.md", "rules/README.md")
FILE_NAME = re.compile(r"`(?:tilewright\.)?([\w/*]+\.(?:py|md|yaml))`")


def named_files(document: str) -> set[str]:
    """Return the names, perhaps with folders and stars, of the files that a document speaks of."""
    return set(FILE_NAME.findall((ROOT / document).read_text()))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_named_files_exist(document: str) -> None:
    missing = [
        name
        for name in sorted(named_files(document))
        if not any(fnmatch(f"/{file}", f"*/{name}") for file in FILES)
    ]
    assert not missing


@pytest.mark.parametrize("document", TABLES)
def test_tables_of_files_are_complete(document: str) -> None:
    modules = {path.name for path in (ROOT / document).parent.glob("*.py")} - {"__init__.py"}
    patterns = {name.rpartition("/")[2] for name in named_files(document)}
    assert {m for m in modules if not any(fnmatch(m, pattern) for pattern in patterns)} == set()
