"""What `tilewright allocate` does: pack the buffers of a CSV file, whoever made it."""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console

from tilewright.arrays import write_file
from tilewright.errors import CompileError
from tilewright.lowering.allocation import allocate
from tilewright.lowering.allocation_check import check_allocation
from tilewright.lowering.allocation_csv import allocation_csv, parse_allocation_csv
from tilewright.lowering.packing_search import Effort
from tilewright.terminal import print_text

_NODES = 1 << 50
"""Decisions of the search: the time limit ends it first."""

_PLACEMENTS = 1_000_000

_LARGEST_CHECK = 4000
"""Buffers up to which the quadratic check runs in a second or so."""


def allocate_and_report(
    file: Path,
    capacity_bytes: int,
    alignment_bytes: int,
    output: Path | None,
    seconds: float,
    console: Console,
) -> None:
    """Pack the buffers of a file and print or write their addresses.

    Raises:
        CompileError: The file is not in the format, or cannot be read or written.
        AllocationError: The buffers do not fit, or no packing was found in time.
    """
    if output is not None and (output.is_dir() or not output.absolute().parent.is_dir()):
        raise CompileError(
            f"-o '{output}': expected a file in an existing folder; choose another name"
        )
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CompileError(f"'{file}': cannot be read as text ({error})") from None
    buffers = parse_allocation_csv(text, name=file.name)
    began = time.process_time()
    found = allocate(
        buffers,
        capacity_bytes=capacity_bytes,
        alignment_bytes=alignment_bytes,
        memory=file.name,
        describe="time {}".format,
        lever="raise --capacity or --time-limit",
        effort=Effort(
            placements=_PLACEMENTS, nodes=_NODES, deadline_seconds=time.monotonic() + seconds
        ),
    )
    spent = time.process_time() - began
    if len(buffers) <= _LARGEST_CHECK:
        check_allocation(
            buffers,
            found.offsets,
            capacity_bytes=capacity_bytes,
            alignment_bytes=alignment_bytes,
        )
    rows = allocation_csv(buffers, found.offsets)
    if output is None:
        print(rows, end="")
        return
    write_file(output, rows.encode())
    print_text(
        console,
        f"{len(buffers):,} buffers in {found.peak_bytes:,} of {capacity_bytes:,} bytes; at most "
        f"{found.lower_bound_bytes:,} are alive together; {spent:.1f} s; written to {output}",
    )
