"""Reports of checks, kept by content: a rule is checked again when it or what it rests on changes."""

from __future__ import annotations

import hashlib
import importlib.metadata
import inspect
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from tilewright import graph, reference
from tilewright.rules.checks.reading import pattern
from tilewright.rules.registry import Rule

_SOURCES = ("", "checks")
"""Folders of this package whose text a check rests on, besides the reference semantics."""


def cache_dir() -> Path:
    """Return the folder of reports: $TILEWRIGHT_RULE_CHECKS, else one in the user's cache."""
    if chosen := os.environ.get("TILEWRIGHT_RULE_CHECKS"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "tilewright" / "rule-checks"


def content_key(made: Rule) -> str:
    """Return a hash of a rule and of everything that its check rests on.

    These are the rule's text and equation, the text of the tables that it asks, what the compiler's checks
    and meanings of operators are, and the releases of numpy and egglog.
    """
    digest = hashlib.sha256()
    for part in (_checkers(), *_parts(made)):
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()


def _parts(made: Rule) -> Iterator[str]:
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


@lru_cache(maxsize=1)
def _checkers() -> str:
    """Return a hash of the texts of the checker and of the meanings of operators."""
    rules = Path(__file__).resolve().parent.parent
    files = sorted(path for folder in _SOURCES for path in (rules / folder).glob("*.py"))
    files += [Path(graph.__file__), Path(reference.__file__)]
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.name.encode() + path.read_bytes())
    for package in ("egglog", "numpy", "ml_dtypes"):
        digest.update(importlib.metadata.version(package).encode())
    return digest.hexdigest()


def cached[Report](made: Rule, kind: type[Report]) -> Report | None:
    """Return the report of an equal rule; None when there is none or its file is broken."""
    path = cache_dir() / f"{content_key(made)}.json"
    try:
        return TypeAdapter(kind).validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def remember(made: Rule, report: Any) -> None:
    """Keep a report; a folder that cannot be written is no error, the next check takes longer."""
    folder = cache_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", dir=folder, prefix=".report-", delete=False, encoding="utf-8"
        ) as out:
            json.dump(asdict(report), out)
        Path(out.name).replace(folder / f"{content_key(made)}.json")
    except OSError:
        return
