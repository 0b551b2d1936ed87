"""The table of matrix products on Tenstorrent's cards."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.validation.gemm import GemmOutcome, simulate_gemm, simulate_own
from benchmarks.validation.gemm_rows import GEMM_ROWS, GemmRow, NumberFormat

LEAST_MACS = 1024**3
"""Smaller products are shown, not claimed: how programs start and end, which is not modelled, shows."""
TOLERANCE = 0.15
"""By how much claimed figures may be off, of this and the other tables."""
HEADER = ("row", "measured", "simulated", "error", "cost model", "blocks", "our own plan")
TEXT = """
Device utilisation in per cent, from the "Out of Box" rows with trace of tech_reports/GEMM_FLOPS in
tenstorrent/tt-metal 06bd3735: operands and result in DRAM, 8 x 8 cores of an N150 and 13 x 10 of a P150.
*Simulated* is the schedule that was measured: the library's published rule (tt-metal 001cea9,
`benchmarks/validation/tt_matmul.py`) says how rows and columns of cores share the product, how large blocks
are and in how many steps of k; our code generation lowers it, and the timing simulator runs it on the presets
`wormhole_n150` and `blackhole_p150`, whose files say where each figure is from (that a P150 takes operands at
twice the rate is assumed). One core of a row or column, or one of all, reads an operand for the others and
then casts it, at rates that the maker measured apart from any product (`dram.relay`); the two data movers of
a core do so at the same time. No figure was fitted; what is modelled was decided with these rows in sight.
BFLOAT8_B is run as 8-bit integers, rates in bytes lower by the exponents' 6 %. *Our own plan* is what the
compiler chooses when it may, blocks of results overlapping; for the squares of 2,048 and 4,096 it is the same
scheme, boxes of the left operand to rows of tiles, of the right one to columns.

What is not modelled, and where it shows:

* On a P150 with BFLOAT16 and 1,664 in k the measured time is hardly more than what the operands and the
  result need at 92 % of the memory's bandwidth: 68.4 of 69.3 thousand cycles for 1,280 x 3,328. Here all
  cores that read do so at the same time, then all cast at the same time, and the memory rests. No public
  source says how the cores come to take turns: their readers flush a cast before they ask for the next block
  (reader_bmm_tile_layout_in0_sender_padding.cpp under ARCH_BLACKHOLE, tt-metal 0087852), as here.
* The memory rests too while the last block of k is multiplied; the library stores each sub-block of 8 tiles
  as it is done (reader_bmm_tile_layout_in1_sender_writer_padding.cpp, tt-metal 0951906), which hides 1.5 to
  3.5 % of the time of those three rows.
* On an N150 the readers do not flush: the last packet of a cast, 8 KiB, may leave while the next block is
  asked for. With that 512 x 1,024 x 2,048 is at -4.5 and -8.4 %, 1,024 x 1,024 x 1,024 at +8.1 and +21.3 %
  (BFLOAT16, BFLOAT8_B), larger ones move by less than 1 %.
* A data mover begins no more than a read of a page every 27 (P150) or 36 cycles (noc_latencies.yaml), which
  binds with BFLOAT8_B. With that no row moves by more than 1.3 %, 640 x 1,664 x 1,664 on a P150 to +15.1 %.
* Sums of 16 bits are written as they are there; here they have 32 bits and the vector unit makes them 16.
"""


def is_judged(row: GemmRow) -> bool:
    """Whether the tolerance applies."""
    return row.macs >= LEAST_MACS


def outcomes() -> list[tuple[GemmOutcome, float | None]]:
    """Return every row, and the utilisation of the compiler's own plan for N150 in BFLOAT16."""
    found: list[tuple[GemmOutcome, float | None]] = []
    for row in GEMM_ROWS:
        print(f"simulating {row.name}", flush=True)
        has_own = row.card == "N150" and row.number_format is NumberFormat.BF16
        found.append((simulate_gemm(row), simulate_own(row) if has_own else None))
    return found


def table_rows(found: Sequence[tuple[GemmOutcome, float | None]]) -> list[tuple[str, ...]]:
    """Return the cells of the table."""
    return [
        (
            outcome.row.name,
            f"{100 * outcome.row.measured_utilisation:.1f}",
            f"{100 * outcome.utilisation:.1f}",
            f"{outcome.error:+.1%}",
            f"{100 * outcome.row.ideal_cycles / outcome.predicted_cycles:.1f}",
            f"{outcome.blocks}",
            "" if own is None else f"{100 * own:.1f}",
        )
        for outcome, own in found
    ]


def missed(found: Sequence[tuple[GemmOutcome, float | None]]) -> list[str]:
    """Return the judged rows that are off."""
    return [o.row.name for o, _ in found if is_judged(o.row) and abs(o.error) > TOLERANCE]
