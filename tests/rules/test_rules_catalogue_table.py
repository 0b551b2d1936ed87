"""The table of the catalogue in rules/README.md: its rules, models and tests exist, and all are in it."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

import pytest

from tilewright.rules.options import AnyRule, SaturationOptions

TESTS = Path(__file__).parent
README = TESTS.parent.parent / "rules" / "README.md"
FILES = {
    "algebra": TESTS / "test_rules_catalogue.py",
    "fusion": TESTS / "test_rules_catalogue_fusion.py",
    "mesh": TESTS / "test_rules_catalogue_mesh.py",
    "macros": TESTS / "test_rules_macros.py",
    "stages": TESTS.parent / "extract" / "test_pipeline_plans.py",
    "branches": TESTS.parent / "extract" / "test_pipeline_side_by_side.py",
    "batches": TESTS.parent / "extract" / "test_pipeline_batches.py",
    "again": TESTS.parent / "extract" / "test_again.py",
}
WITHOUT_RULES = ("20", "22")
"""Numbers that follow from how the compiler is made."""


@dataclass(frozen=True, slots=True)
class Row:
    """A number of the catalogue, patterns of its rules, and models and tests by file."""

    number: str
    rules: tuple[str, ...]
    shown: tuple[tuple[str, str], ...]


def rows() -> tuple[Row, ...]:
    """Return the table of README.md."""
    section = README.read_text("utf-8").split("## The catalogue")[1].split("\n## ")[0]
    found = []
    for line in section.splitlines():
        if not re.match(r"\| (\d+|\+) \|", line):
            continue
        number, _, rules, shown = (cell.strip() for cell in line.strip("| ").split(" | "))
        names = []
        for part in shown.split("; "):
            file, _, listed = part.partition(": ")
            names += [(file, name) for name in re.findall("`(.+?)`", listed)]
        found.append(Row(number, tuple(re.findall("`(.+?)`", rules)), tuple(names)))
    return tuple(found)


ROWS = rows()


def matching(pattern: str) -> frozenset[str]:
    """Return the rules that a pattern names: by function, or those of a module or folder."""
    return frozenset(rule.name for rule in SaturationOptions().everything if _names(pattern, rule))


def _names(pattern: str, rule: AnyRule) -> bool:
    if "/" not in pattern:
        return fnmatchcase(rule.name.partition(".")[2], pattern)
    module = rule.function.__module__.removeprefix("tilewright.rules.").replace(".", "/")
    return fnmatchcase(f"{module}.py", pattern)


@cache
def shown_by(file: str) -> dict[str, frozenset[str]]:
    """Return which rules each model of `ENTRIES`, and each test, is about."""
    text = FILES[file].read_text("utf-8")
    tree = ast.parse(text)
    texts = {
        target.id: _texts(node.value, {})
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    found: dict[str, frozenset[str]] = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            found[node.name] = _texts(node, texts)
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name):
            if call.func.id == "Entry" and isinstance(call.args[1], ast.Name):
                model = call.args[1].id
                found[model] = found.get(model, frozenset()) | _texts(call.args[0], texts)
    return found


def _texts(node: ast.AST, known: dict[str, frozenset[str]]) -> frozenset[str]:
    """Return the texts in a part of a file, constants of the module replaced by theirs."""
    own = {n.value for n in ast.walk(node) if isinstance(n, ast.Constant)}
    named = [known[n.id] for n in ast.walk(node) if isinstance(n, ast.Name) and n.id in known]
    return frozenset(text for text in own if isinstance(text, str)).union(*named)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.number)
def test_every_rule_of_a_row_changes_a_plan_that_the_row_names(row: Row) -> None:
    unknown = [name for file, name in row.shown if name not in shown_by(file)]
    assert not unknown, "no such models or tests"
    assert row.shown
    shown = frozenset[str]().union(*(shown_by(file)[name] for file, name in row.shown))
    named = [matching(pattern) for pattern in row.rules if not pattern.endswith("facts.py")]
    assert all(named), f"a pattern of {row.rules} names no rule"
    assert bool(named) == (row.number not in WITHOUT_RULES)
    assert frozenset[str]().union(*named) <= shown


def test_the_table_has_every_number_and_every_rule() -> None:
    assert [row.number for row in ROWS] == [*map(str, range(1, 47)), "+"]
    listed = {name for row in ROWS for pattern in row.rules for name in matching(pattern)}
    assert listed == {rule.name for rule in SaturationOptions().everything}


def test_the_table_has_every_model() -> None:
    listed = {shown for row in ROWS for shown in row.shown}
    for file in ("algebra", "fusion", "mesh"):
        models = {name for name in shown_by(file) if not name.startswith("test_")}
        assert models <= {name for f, name in listed if f == file}
