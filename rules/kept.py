"""Rules of this package in the engine's language, kept for the next process.

To write them takes most of a second, more than many models take to compile.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Callable
from functools import lru_cache
from itertools import chain
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from tilewright import graph
from tilewright.hwmodel import mesh
from tilewright.rules.session import ProgramText
from tilewright.user_cache import cache_folder, keep

_FOLDER = Path(__file__).resolve().parent
_TEXT = TypeAdapter(ProgramText)


def kept_text(choice: str, write: Callable[[], ProgramText]) -> ProgramText:
    """Return a program from the user's cache, or write it and keep it there.

    Args:
        choice: Tells choices among this package's rules apart, in their order.
        write: Writes the program.
    """
    digest = hashlib.sha256(f"{_sources()} {choice}".encode()).hexdigest()
    path = cache_folder("rule-texts") / f"{digest}.json"
    try:
        return _TEXT.validate_json(path.read_bytes())
    except (OSError, ValidationError):
        text = write()
        keep(path, _TEXT.dump_json(text))
        return text


@lru_cache(maxsize=1)
def _sources() -> str:
    """Return a hash of all that programs are made of: the text of rules and of what they import."""
    others = [Path(module.__file__ or "").parent.glob("*.py") for module in (graph, mesh)]
    files = sorted({*_FOLDER.rglob("*.py"), *chain(*others)})
    digest = hashlib.sha256(importlib.metadata.version("egglog").encode())
    for path in files:
        digest.update(path.read_bytes())
    return digest.hexdigest()
