"""`./tw bench validation`: the simulators against figures of others, as a page in docs/."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.tables import markdown_table, print_table
from benchmarks.validation import gemm_report, nvdla
from benchmarks.validation.gemm_report import TOLERANCE
from benchmarks.validation.wormhole import ROWS, Mode, Outcome, Row, simulate_row

PAGE = Path(__file__).parent.parent.parent / "docs" / "validation.md"
QUEUE_PACKETS = 1
OTHERS = """
## What cannot be compared yet

* Groq TSP, ResNet-50 at batch 1, 20,400 images/s: 44,118 cycles an image, of which multiply-adds fill 9,985.
  Published are units and streams, not how long arrays take to install weights, how windows are gathered nor
  the layers' schedule: four fifths of the time have no public source.
* IBM NorthPole, ResNet-50, 42,460 images/s: with 2,048 operations a core and cycle at 400 MHz that is 83 % of
  the peak if an operation is a multiply-add and 166 % if it is half of one; which it is, and the precision of
  each layer, is not public.
* AMD XDNA, GEMM of 6.8 and 38 Tops (int8), 3.1 and 14.7 Tflops (bf16): neither sizes, clock nor memory
  bandwidth come with the figures; sources for the clock differ by a factor of 1.8, with which a preset could
  fit any of them.
"""
HEADER = ("row", "measured", "packet mode", "range", "error", "with a queue", "its error")


def is_judged(row: Row) -> bool:
    """Whether the tolerance applies: dynamic virtual channels are shown, not claimed."""
    return row.mode is not Mode.WRITE_DYNAMIC


def outcomes(rows: Sequence[Row], packets: int, count: int) -> list[tuple[Outcome, Outcome]]:
    """Return each row as published figures say, and with a queue of one packet at the DRAM controllers."""
    found = []
    for row in rows:
        print(f"simulating {row.name}", flush=True)
        plain = simulate_row(row, packets=packets, count=count)
        queued = plain
        if row.mode is Mode.WRITE_STATIC:
            queued = simulate_row(row, packets=packets, count=count, queue_packets=QUEUE_PACKETS)
        found.append((plain, queued))
    return found


def table_rows(found: Sequence[tuple[Outcome, Outcome]]) -> list[tuple[str, ...]]:
    """Return the cells of a table."""
    return [
        (
            plain.row.name,
            f"{plain.row.measured_gbs:.1f}",
            f"{plain.mean_gbs:.1f}",
            f"{plain.least_gbs:.0f}-{plain.most_gbs:.0f}",
            f"{plain.error:+.1%}",
            "" if queued is plain else f"{queued.mean_gbs:.1f}",
            "" if queued is plain else f"{queued.error:+.1%}",
        )
        for plain, queued in found
    ]


def page(
    rows: Sequence[tuple[str, ...]], products: Sequence[tuple[str, ...]], packets: int, count: int
) -> str:
    """Return the page's text."""
    lines = [
        "# The simulators against published measurements",
        "",
        "Written by `./tw bench validation`; benchmarks/README.md says what it is.",
        "",
        "## Matrix products on Wormhole and Blackhole",
        gemm_report.TEXT,
        *markdown_table(gemm_report.HEADER, products),
        "",
        "## The packet network against Wormhole's DRAM",
        "",
        "Bandwidth between tiles and DRAM in GB/s, from DRAMTile/README.md of",
        "tenstorrent/tt-isa-documentation 3930471, against packet mode",
        f"({packets} packets of 8 KiB a tile; mean and range of {count} random placements).",
        "Every number but the credits' time is published; where the dateline is and in which order routers",
        "serve packets is assumed. *With a queue*: DRAM controllers take in one packet of 8 KiB before the",
        "memory is ready. Nobody publishes that: it is a single constant, chosen after the fact. Rows with",
        "dynamic virtual channels are shown, not claimed.",
        "",
        *markdown_table(HEADER, rows),
        "",
        "## NVDLA's ResNet-50",
        nvdla.TEXT,
        *markdown_table(nvdla.HEADER, nvdla.table_rows()),
        OTHERS.rstrip(),
    ]
    return "\n".join(lines) + "\n"


def main(*, packets: int, count: int, write: bool) -> int:
    """Simulate all rows, print and perhaps write the table; return 1 if a judged row is off."""
    start = time.process_time()
    found = outcomes(ROWS, packets, count)
    seconds = time.process_time() - start
    events = sum(
        plain.events + (queued.events if queued is not plain else 0) for plain, queued in found
    )
    rows = table_rows(found)
    print_table("bandwidth of Wormhole's DRAM (GB/s)", HEADER, rows)
    print(f"{events:,} events, {events / seconds / 1e6:.1f} million a CPU second")
    products = gemm_report.outcomes()
    print_table(
        "device utilisation of matrix products (%)",
        gemm_report.HEADER,
        gemm_report.table_rows(products),
    )
    if write:
        text = page(rows, gemm_report.table_rows(products), packets, count)
        PAGE.write_text(text, encoding="utf-8")
        print(f"wrote {PAGE.name}")
    missed = [p.row.name for p, _ in found if is_judged(p.row) and abs(p.error) > TOLERANCE]
    missed += gemm_report.missed(products)
    for name in missed:
        print(f"off by more than {TOLERANCE:.0%}: {name}")
    return 1 if missed else 0
