"""What the commands print with: plain tables, safe text, progress."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich import box
from rich.console import Console
from rich.progress import Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.table import Table
from rich.text import Text

from tilewright.arrays import write_file

Row = tuple[str, ...]
Tell = Callable[[str], None]
"""Called with a line of text when something begins."""

PLAIN_WIDTH = 110
"""Columns where the output is no terminal and does not say how wide it is."""

WIDE_COLUMNS = 110
"""Consoles at least so wide get every column."""

_LABEL_WIDTH = 18
_STYLES = {"agrees": "green", "DIFFERS": "bold red"}


def output_console(*, record: bool = False) -> Console:
    """Return the console for results; one that records can also be written as a picture."""
    console = Console(markup=False, highlight=False, emoji=False, record=record)
    if not console.is_terminal and "COLUMNS" not in console._environ:
        console.width = PLAIN_WIDTH
    return console


def write_picture(console: Console, title: str, path: Path) -> None:
    """Write what a recording console has printed as an SVG picture of a terminal.

    The picture's fonts are the reader's own, so that it needs nothing from elsewhere.
    """
    svg = console.export_svg(title=title, unique_id="terminal")
    svg = _WEB_FONT.sub("", svg).replace("Fira Code", _FONTS)
    write_file(path, svg.encode())


_WEB_FONT = re.compile(r"\s*@font-face \{.*?\}", re.DOTALL)
_FONTS = "ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas"


def error_console() -> Console:
    """Return the console for errors and for progress on terminals."""
    return Console(stderr=True, markup=False, highlight=False, emoji=False, soft_wrap=True)


def byte_text(size: float) -> str:
    """Write a size.

    >>> byte_text(262144), byte_text(1.5e9), byte_text(12)
    ('262 kB', '1.5 GB', '12 bytes')
    """
    for factor, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= factor:
            value = size / factor
            return f"{value:.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"
    return f"{size:.0f} bytes"


def clean(text: str) -> str:
    r"""Return text without control characters, which a name in a model could steer a terminal with.

    >>> clean("conv\x1b[2J one\n")
    'conv\\x1b[2J one\\n'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shorten(name: str, width: int) -> str:
    """Return a name in at most `width` characters; the start gives way, names differ at the end.

    >>> shorten("/encoder/layer.11/attention/self/query/MatMul", 20)
    '…n/self/query/MatMul'
    """
    name = clean(name)
    return name if len(name) <= width else f"…{name[len(name) - width + 1 :]}"


def print_facts(console: Console, title: str, facts: Iterable[tuple[str, str]]) -> None:
    """Print names and values under a title; long values continue in their own column."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="cyan", width=_LABEL_WIDTH, overflow="fold")
    table.add_column(overflow="fold")
    for name, value in facts:
        label = shorten(name, _LABEL_WIDTH)
        table.add_row(Text(label), Text(clean(value)))
    _print_titled(console, title, table)


def print_table(
    console: Console, title: str, header: Sequence[str], rows: Iterable[Row], *, left: int = 1
) -> None:
    """Print rows under a header; the first `left` columns are text, the others numbers."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    for number, name in enumerate(header):
        if number < left:
            table.add_column(name, overflow="fold")
        else:
            table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        cells = [Text(clean(cell), style=_STYLES.get(cell, "")) for cell in row]
        table.add_row(*cells)
    _print_titled(console, title, table)


def _print_titled(console: Console, title: str, table: Table) -> None:
    console.print()
    console.print(Text(clean(title), style="bold"))
    console.print(table)


def print_text(console: Console, text: str, limit_lines: int | None = None) -> None:
    """Print plain text as it is, without wrapping; at most so many lines."""
    lines = text.splitlines()
    shown = lines if limit_lines is None else lines[:limit_lines]
    for line in shown:
        console.print(Text(clean(line)), soft_wrap=True)
    if len(shown) < len(lines):
        console.print(Text(f"… {len(lines) - len(shown):,} more lines", style="dim"))


class _Seconds(ProgressColumn):
    """Seconds since the task began."""

    def render(self, task: Task) -> Text:
        """Return the seconds as text."""
        return Text(f"{task.elapsed or 0.0:.0f} s", style="dim")


@contextmanager
def progress(console: Console, begin: float) -> Iterator[Tell]:
    """Show what is being done: a spinner with seconds if people watch, lines otherwise.

    The spinner goes to stderr, so that results can be piped; lines go to the console of results,
    so that stderr holds errors only.

    Args:
        console: For lines.
        begin: `time.monotonic()` when the command began, for the lines.
    """
    if not sys.stderr.isatty():
        yield lambda text: console.print(
            Text(f"[{time.monotonic() - begin:6.1f} s] {clean(text)}", style="dim"), soft_wrap=True
        )
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), _Seconds())
    with Progress(*columns, console=error_console(), transient=True) as bar:
        task = bar.add_task("starting", total=None)
        width = max(20, bar.console.width - 16)

        def tell(text: str) -> None:
            shown = clean(text)
            bar.reset(task, description=shown if len(shown) <= width else shown[: width - 1] + "…")

        yield tell
