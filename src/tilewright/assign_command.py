"""What `tilewright assign` does: an instance of the contest in, a list of strategies out."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console

from tilewright.errors import CompileError
from tilewright.extract.large.assign import assign
from tilewright.terminal import print_facts


def assign_and_report(
    instance: Path, seconds: float, output: Path | None, seed: int, console: Console
) -> None:
    """Write the strategies to a file and print cost and bound; without a file, print the strategies."""
    if output is not None and (output.is_dir() or not output.absolute().parent.is_dir()):
        raise CompileError(
            f"-o '{output}': expected a file in an existing folder; choose another name"
        )
    found = assign(instance, seconds, seed=seed)
    text = json.dumps(found.strategies)
    if output is None:
        print(text)
        return
    try:
        output.write_text(text + "\n")
    except OSError as error:
        raise CompileError(f"-o '{output}': cannot be written: {error.strerror}") from None
    limit = f"{found.limit:,.0f}" if found.limit < float("inf") else "none"
    print_facts(
        console,
        f"strategies of {len(found.strategies):,} nodes, {found.edges:,} edges",
        (
            ("cost", f"{found.cost:,.0f}"),
            ("bound", f"{found.bound:,.0f} (no assignment costs less)"),
            ("gap", f"{100 * found.gap:.2f} %"),
            ("peak use", f"{found.peak:,.0f} of {limit}"),
            ("written", str(output)),
        ),
    )
