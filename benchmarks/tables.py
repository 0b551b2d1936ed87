"""Tables as plain text and in Markdown."""

from __future__ import annotations

from collections.abc import Sequence


def print_table(
    title: str, header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1
) -> None:
    """Print rows under a header; the first `left` columns are text, the others numbers."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    print(f"\n{title}")
    for row in (header, ["-" * width for width in widths], *rows):
        cells = [
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())


def markdown_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1
) -> list[str]:
    """Return the lines of a table in Markdown; the first `left` columns are text, the others numbers."""
    return [
        "| " + " | ".join(header) + " |",
        "|" + "---|" * left + "--:|" * (len(header) - left),
        *("| " + " | ".join(row) + " |" for row in rows),
    ]
