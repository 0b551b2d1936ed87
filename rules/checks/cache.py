"""Reports of checks, kept by content: a rule is checked again when it or what it rests on changes."""

from __future__ import annotations

import hashlib
import importlib.metadata
import inspect
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from tilewright import dtypes, graph, reference
from tilewright.hwmodel import mesh
from tilewright.rules.checks.reading import pattern
from tilewright.rules.family import FunctionRule
from tilewright.rules.registry import Rule
from tilewright.user_cache import cache_folder, keep

_OF_REWRITES: tuple[str, ...] = ("", "checks")
_OF_OTHERS: tuple[str, ...] = ("", "partition", "tiling", "collectives", "memory", "pipeline")
"""Folders of this package whose text a check rests on, besides the reference semantics."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Passed:
    """What is kept of a check whose report nobody reads again."""

    rule: str


def cache_dir() -> Path:
    """Return the folder of reports: $TILEWRIGHT_RULE_CHECKS, else one in the user's cache."""
    if chosen := os.environ.get("TILEWRIGHT_RULE_CHECKS"):
        return Path(chosen)
    return cache_folder("rule-checks")


def content_key(made: FunctionRule) -> str:
    """Return a hash of a rule of any family and of everything that its check rests on.

    These are the rule's text and equation, the text of the tables that it asks, what the compiler's checks
    and meanings of operators are, and the releases of numpy and egglog.
    """
    folders, parts = _OF_OTHERS, _function_parts(made)
    if isinstance(made, Rule):
        folders, parts = _OF_REWRITES, _rewrite_parts(made)
    digest = hashlib.sha256()
    for part in (_checkers(folders), type(made).__name__, *parts):
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()


def _function_parts(made: FunctionRule) -> Iterator[str]:
    """Yield what a rule that is an ordinary function is: its fields, its text, what it closes over."""
    for field in fields(made):
        if field.name != "function":
            yield f"{field.name}={getattr(made, field.name)!r}"
    yield _text(made.function)
    plain = inspect.unwrap(made.function)
    yield repr(plain.__defaults__) + repr([c.cell_contents for c in plain.__closure__ or ()])


def _rewrite_parts(made: Rule) -> Iterator[str]:
    yield from (made.name, made.numerics.value, str(made.tolerance), made.source)
    yield _text(made.function)
    data = pattern(made)
    yield repr((str(data.left), str(data.right), [str(c) for c in data.conditions]))
    yield repr(data.left) + repr(data.right)
    for condition in data.conditions:
        if condition.table is not None:
            yield _text(condition.table.rows)


def _text(function: Any) -> str:
    """Return the text of a function's module, on whose other functions it may rest."""
    plain = inspect.unwrap(function)
    try:
        return inspect.getsource(plain) + Path(plain.__code__.co_filename).read_text("utf-8")
    except (OSError, TypeError):
        return repr(plain.__code__.co_code) + repr(plain.__code__.co_consts)


@lru_cache(maxsize=2)
def _checkers(folders: tuple[str, ...]) -> str:
    """Return a hash of the texts of the checker and of the meanings of operators."""
    rules = Path(__file__).resolve().parent.parent
    files = sorted(path for folder in folders for path in (rules / folder).glob("*.py"))
    files += [Path(inspect.getfile(module)) for module in (dtypes, graph, mesh, reference)]
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.name.encode() + path.read_bytes())
    for package in ("egglog", "numpy", "ml_dtypes"):
        digest.update(importlib.metadata.version(package).encode())
    return digest.hexdigest()


def cached[Report](made: FunctionRule, kind: type[Report]) -> Report | None:
    """Return the report of an equal rule; None when there is none or its file is broken."""
    path = cache_dir() / f"{content_key(made)}.json"
    try:
        return TypeAdapter(kind).validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def remember(made: FunctionRule, report: Any) -> None:
    """Keep a report; a folder that cannot be written is no error, the next check takes longer."""
    keep(cache_dir() / f"{content_key(made)}.json", json.dumps(asdict(report)).encode())
