"""What `tilewright rules import` prints: how many rules of a file hold, each verdict, why not."""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path

from rich.console import Console

from tilewright.rules.importing import Assumed, ImportedRule, ImportReport, Verdict, import_rules
from tilewright.terminal import (
    Row,
    Tell,
    output_console,
    print_facts,
    print_table,
    print_text,
    progress,
)

IMPORT_HEADER = ("rule", "verdict", "as meant", "runs", "condition or reason")

_LOG_SECONDS = 10.0

_MEANING = {
    Verdict.ACCEPTED: "right wherever the left side has a meaning",
    Verdict.GUARDED: "right under a condition that the rule does not state",
    Verdict.REFUSED: "wrong, and no condition known here makes it right",
    Verdict.VACUOUS: "says nothing",
    Verdict.NOT_COVERED: "uses what the language cannot say",
}

_LABELS = {Verdict.GUARDED: "with guard"}


def import_command(path: Path, *, verbose: bool = False, console: Console | None = None) -> int:
    """Import a rule file of TASO or TENSAT and print what became of its rules.

    Args:
        path: The file.
        verbose: Also print each rule, and what each guard keeps out.
        console: Where to print; standard output if there is none.

    Returns:
        0 if no rule was refused, 1 otherwise.

    Raises:
        RuleError: The file cannot be read or is no rule file.
    """
    console = console or output_console()
    with progress(console, time.monotonic()) as tell:
        # a line for each rule is for people who wait, not for logs
        report = import_rules(path, progress=tell if sys.stderr.isatty() else _seldom(tell))
    print_import(report, console, verbose=verbose)
    return int(report.counts[Verdict.REFUSED] > 0)


def _seldom(tell: Tell) -> Tell:
    """Return a function that passes on what it is told at most once in `_LOG_SECONDS`."""
    last = time.monotonic()

    def told(text: str) -> None:
        nonlocal last
        if time.monotonic() - last >= _LOG_SECONDS:
            last = time.monotonic()
            tell(text)

    return told


def print_import(report: ImportReport, console: Console, *, verbose: bool) -> None:
    """Print a summary, a row for each rule, and counterexamples below."""
    print_facts(console, f"{report.source} rules of {Path(report.path).name}", import_facts(report))
    rows = [import_row(entry) for entry in report.entries]
    print_table(console, "rules", IMPORT_HEADER, rows, left=len(IMPORT_HEADER))
    for entry in report.entries:
        if verbose or entry.verdict is Verdict.REFUSED:
            console.print()
            for line in entry_lines(entry):
                print_text(console, line)
    if not verbose and report.counts[Verdict.GUARDED]:
        console.print()
        print_text(console, "--verbose prints each rule and what its condition keeps out")


def import_facts(report: ImportReport) -> list[tuple[str, str]]:
    """Count verdicts, how rules do as their authors meant them, and what may run."""
    total = len(report.entries)
    facts = [
        ("rules", f"{total}, each on up to {max(e.instances for e in report.entries)} instances")
    ]
    for verdict, count in report.counts.items():
        if count:
            facts.append((_LABELS.get(verdict, verdict.value), f"{count}: {_MEANING[verdict]}"))
    assumed = Counter(entry.assumed for entry in report.entries)
    counts = [f"{count} {a.value}" for a in Assumed if a.value and (count := assumed[a])]
    if counts:
        facts.append(("as meant", ", ".join(counts)))
    reduce, grow = len(report.rules), len(report.expansive_rules)
    facts.append(
        ("can run", f"{reduce} that make terms smaller, {grow} that only rearrange or grow")
    )
    return facts


def import_row(entry: ImportedRule) -> Row:
    """Return the row of a rule."""
    runs = "no" if entry.rule is None else "grows" if entry.is_expansive else "yes"
    guard = ", and ".join(entry.conditions)
    reason = "; ".join(text for text in (guard, entry.note) if text)
    if entry.verdict is Verdict.REFUSED and entry.counterexample is not None:
        reason = f"{entry.counterexample.outcome}, see below"
    return entry.name, entry.verdict.value, entry.assumed.value, runs, reason


def entry_lines(entry: ImportedRule) -> list[str]:
    """Write a rule, its condition, and an instance on which it is wrong without."""
    lines = [f"{entry.name} ({entry.place}): {entry.verdict.value}"]
    lines += [f"  {equation}" for equation in entry.equations or (entry.text,)]
    lines += [f"  if {condition}" for condition in entry.conditions]
    if entry.note:
        lines.append(f"  {entry.note}")
    found = entry.counterexample
    if found is not None:
        lines.append(f"  {'otherwise ' if entry.conditions else ''}{found.outcome}:")
        lines += [f"    {name} {value}" for name, value in found.inputs]
        lines += [f"    left side  {found.left}", f"    right side {found.right}"]
    return lines
