"""Allocation problems as text, in the CSV format of google/minimalloc.

The header names the columns, in any order: `id`, `lower`, `upper` and `size`; optional are `alignment`,
`gaps`, `offset` (the buffer must lie there) and `hint` (ignored). Times are half-open, except that
`end` in place of `upper` names the last time itself. `start` and `begin` may stand for `lower`,
`buffer` and `buffer_id` for `id`. Gaps are separated by blanks: `4-7` for times 4 to 6 in which no
byte is in use, `4-7@0:64` when the first 64 bytes are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tilewright.errors import CompileError
from tilewright.lowering.live_buffer import Gap, LiveBuffer

_SAME_AS = {"begin": "lower", "start": "lower", "buffer": "id", "buffer_id": "id", "end": "upper"}
_REQUIRED = ("id", "lower", "upper", "size")
_KNOWN = (*_REQUIRED, "alignment", "hint", "gaps", "offset")
_LARGEST = 1 << 48
"""Times, sizes and addresses must be below, so that their sums and products cannot overflow."""


@dataclass(frozen=True, slots=True)
class _Row:
    """One line by column names, and where it is."""

    fields: Mapping[str, str]
    where: str
    is_inclusive: bool
    """Whether upper times are the last ones, not the ones after."""

    def integer(self, column: str, text: str, least: int) -> int:
        """Return a number of the row or raise an error that names its place."""
        try:
            value = int(text) if text.isascii() else None
        except ValueError:
            value = None
        if value is None or not least <= value < _LARGEST:
            raise CompileError(
                f"{self.where}: {column} is '{text[:40]}', expected an integer from {least} to below 2^48"
            )
        return value

    def number(self, column: str, least: int = 0) -> int:
        return self.integer(column, self.fields[column].strip(), least)


def parse_allocation_csv(text: str, *, name: str) -> tuple[LiveBuffer, ...]:
    """Return the buffers of a CSV text.

    Args:
        text: The file's content.
        name: What the file is called in errors.

    Raises:
        CompileError: A column is missing or unknown, or a field is not what it should be.
    """
    lines = text.splitlines()
    header = _header(lines[0] if lines else "", name)
    is_inclusive = "end" in header
    columns = [_SAME_AS.get(column, column) for column in header]
    buffers, seen = [], set()
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        fields = line.split(",")
        where = f"{name}, line {number}"
        if len(fields) != len(columns):
            raise CompileError(
                f"{where}: {len(fields)} fields, expected {len(columns)} ({', '.join(header)})"
            )
        buffer = _buffer(_Row(dict(zip(columns, fields, strict=True)), where, is_inclusive))
        if buffer.name in seen:
            raise CompileError(f"{where}: id '{buffer.name}' occurs twice; rename one of them")
        seen.add(buffer.name)
        buffers.append(buffer)
    return tuple(buffers)


def allocation_csv(buffers: Sequence[LiveBuffer], offsets: Sequence[int]) -> str:
    """Return buffers and their addresses as CSV, with the optional columns that they need."""
    has_alignment = any(b.alignment_bytes != 1 for b in buffers)
    has_gaps = any(b.gaps for b in buffers)
    optional = ["alignment"] * has_alignment + ["gaps"] * has_gaps
    lines = [",".join([*_REQUIRED, *optional, "offset"])]
    for buffer, offset in zip(buffers, offsets, strict=True):
        cells = [buffer.name, str(buffer.start), str(buffer.end), str(buffer.size_bytes)]
        cells += [str(buffer.alignment_bytes)] * has_alignment
        cells += [" ".join(_gap_text(gap) for gap in buffer.gaps)] * has_gaps
        lines.append(",".join([*cells, str(offset)]))
    return "\n".join(lines) + "\n"


def _header(line: str, name: str) -> list[str]:
    header = [column.strip() for column in line.removeprefix("\ufeff").split(",")]
    columns = [_SAME_AS.get(column, column) for column in header]
    missing = [column for column in _REQUIRED if column not in columns]
    if missing:
        raise CompileError(
            f"{name}, line 1: no column {', '.join(missing)}; expected a header like {','.join(_REQUIRED)}"
        )
    for column in header:
        if _SAME_AS.get(column, column) not in _KNOWN:
            raise CompileError(
                f"{name}, line 1: unknown column '{column[:40]}', expected {', '.join(_KNOWN)}"
            )
        if columns.count(_SAME_AS.get(column, column)) > 1:
            raise CompileError(f"{name}, line 1: column '{column}' occurs twice; leave one out")
    return header


def _buffer(row: _Row) -> LiveBuffer:
    fields = row.fields
    start, end = row.number("lower"), row.number("upper") + row.is_inclusive
    if end < start:
        raise CompileError(f"{row.where}: it ends at {end}, before it starts at {start}")
    pinned = row.number("offset", least=-1) if "offset" in fields else -1
    return LiveBuffer(
        name=fields["id"],
        size_bytes=row.number("size"),
        start=start,
        end=end,
        alignment_bytes=row.number("alignment", least=1) if "alignment" in fields else 1,
        gaps=tuple(_gap(row, gap) for gap in fields.get("gaps", "").split()),
        offset=None if pinned < 0 else pinned,
    )


def _gap(row: _Row, text: str) -> Gap:
    times, _, window = text.partition("@")
    start, dash, end = times.partition("-")
    low, colon, high = window.partition(":")
    if not dash or ("@" in text and not colon):
        raise CompileError(
            f"{row.where}: gap '{text[:40]}', expected START-END or START-END@LOW:HIGH"
        )
    return Gap(
        start=row.integer("gap start", start, 0),
        end=row.integer("gap end", end, 0) + row.is_inclusive,
        window=(row.integer("gap low", low, 0), row.integer("gap high", high, 0))
        if colon
        else None,
    )


def _gap_text(gap: Gap) -> str:
    window = "" if gap.window is None else f"@{gap.window[0]}:{gap.window[1]}"
    return f"{gap.start}-{gap.end}{window}"
