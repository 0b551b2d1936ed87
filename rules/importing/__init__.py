"""Rule files of TASO and TENSAT: read, mapped to the term language, checked.

`import_rules(path)` judges every rule of a file; see `Verdict` for what may become of one.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tilewright.errors import RuleError
from tilewright.rules.importing.foreign import LARGEST_FILE_BYTES
from tilewright.rules.importing.judging import judge
from tilewright.rules.importing.report import Assumed, ImportedRule, ImportReport, Verdict
from tilewright.rules.importing.taso import read_taso
from tilewright.rules.importing.tensat import read_tensat

__all__ = ["Assumed", "ImportReport", "ImportedRule", "Verdict", "import_rules"]


def import_rules(
    path: Path, *, seed: int = 0, progress: Callable[[str], None] | None = None
) -> ImportReport:
    """Read, map and check every rule of a file.

    Args:
        path: TENSAT's rule text, or TASO's rules if the name ends in ``.pb``.
        seed: Seed of the random instances that rules are checked on.
        progress: Called with a line of text before each rule.

    Raises:
        RuleError: The file cannot be read or is no rule file; says where and what was expected.
    """
    data = _content(path)
    if path.suffix == ".pb":
        source, rules = "TASO", read_taso(path.name, data)
    else:
        source, rules = "TENSAT", read_tensat(path.name, _text(path, data))
    entries = []
    for number, rule in enumerate(rules, start=1):
        if progress is not None:
            progress(f"rule {number} of {len(rules)}")
        entries.append(judge(rule, seed=seed))
    return ImportReport(path=str(path), source=source, entries=tuple(entries))


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_FILE_BYTES + 1)
    except OSError as error:
        raise RuleError(f"{path}: {error.strerror or error}; name a readable rule file") from error
    if len(data) > LARGEST_FILE_BYTES:
        raise RuleError(f"{path}: more than {LARGEST_FILE_BYTES:,} bytes; split the file")
    return data


def _text(path: Path, data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise RuleError(
            f"{path.name}: byte {error.start} is no UTF-8 text; expected TENSAT's rules, "
            "or a name that ends in .pb for TASO's"
        ) from error
