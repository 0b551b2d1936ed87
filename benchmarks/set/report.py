"""`./tw bench set`: the comparison with SET as a page in docs/."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.set.compare import CELLS, Row, SetError, compare
from benchmarks.tables import markdown_table

PAGE = Path(__file__).parent.parent.parent / "docs" / "set.md"
_HEAD = """# SET (ISCA 2023)

Written by `./tw bench set --write`; benchmarks/README.md says what it is. SET's three-term cost as a
metric of a user (`benchmarks/set/compare.py`), its networks as ONNX models
(`benchmarks/set/models.py`), the machine of its program with `polar 4 4 4 24`
(`benchmarks/set/machine.yaml`): 4 x 4 tiles of 1,024 8-bit multipliers and 1 MiB.
"""
_READING = """
*Cost* is the sum, over all kernels and all moves, of the most of core time, DRAM time and the busiest
link's time. *As one segment* is SET's own price of the same plan as one segment whose layers run one
after the other: layers at the most of core and DRAM time, links checked once for all. It is never more.
The verdict is on the cost. The *bound* holds for all plans among the alternatives considered.
*Simulated* is the plan's program in the timing simulator, which knows neither: instructions wait for
each other, loads do not all run ahead of what needs them.
"""
_ASSUMPTIONS = """
## What matches and what does not

Matched: multipliers, scratchpads and their port of 256 bytes a cycle, 64 lanes for what is
element-wise, DRAM of 16 bytes a cycle behind 8 ports, links of 24 bytes a cycle in each direction,
dimension-order routes, multicast; no latency of hops, memory and start-ups, no bursts, no cost of
issue. All weights come from DRAM in every run: the rule that keeps them in scratchpads is left out.
Inputs and outputs are in DRAM. The layers are those of SET's networks: no activations and norms, one
operation an element for a softmax, four times the tokens (not the width) as the inner width of the
feed-forward layers.

In SET's favour:

* Results of products and convolutions have 8 bits for nothing in SET. Ours are scaled and rounded on
  the vector unit.
* SET's port serves reads alone at its rate, ours reads and writes together, those of transfers too;
  sums pass it.
* SET picks one of six shapes of its array for each layer, ours is 32 x 32.
* SET transposes and joins heads by addresses of its convolutions; ours are operators where a product
  cannot absorb them.
* A segment of SET overlaps what a sum of kernels and moves does not.

In ours:

* SET keeps a layer's whole input and weights in the scratchpads of the tiles that run it, beside those
  of the next layer. Ours may stream operands in boxes. What the scratchpads hold is counted exactly,
  and the program fits them.
* SET reads the cache of keys and values into scratchpads where it joins it with what is new. Ours
  splits the products (rules `algebra.product_in_columns` and `algebra.product_in_terms`) and never
  joins.
* SET pads the 3 channels of the first convolution to 8; ours puts positions of the window beside each
  other.

Neither: SET's ports are on two sides of the mesh, ours all around it; SET fills the mesh in strips 4
wide.

SET's searches are seeded by the time, so that delays differ from run to run (GoogLeNet: 894,910 to
1,166,138); the least that any run gave counts, and its seconds just now where they were measured. Seconds
are user CPU time, SET's of all its searches on 4 threads, ours of one process from the model to the plan,
after a plan that is not measured.
"""


def main(*, program: Path | None, names: Sequence[str], write: bool) -> int:
    """Compare, print the page and perhaps write it; return 1 if a goal is missed or SET's program fails."""
    chosen = [cell for cell in CELLS if not names or cell.name in names]
    try:
        rows = compare(chosen, program)
    except SetError as error:
        print(f"set: {error}", file=sys.stderr)
        return 1
    text = page(rows)
    print(text)
    if write:
        PAGE.write_text(text)
    return 0 if all(met for _, met in goals(rows)) else 1


def goals(rows: Sequence[Row]) -> list[tuple[str, bool]]:
    """Return what was wanted, with what was found, and whether it was met."""
    found = []
    for row in rows:
        delay, seconds = row.ours.cost, row.ours.seconds
        found += [
            (
                f"{row.cell.title}: less than SET's best delay: {delay:,.0f} of {row.delay_cycles:,}",
                delay < row.delay_cycles,
            ),
            (
                f"{row.cell.title}: in less CPU time: {seconds:.1f} s of {row.seconds:.1f} s",
                seconds < row.seconds,
            ),
        ]
    return found


def page(rows: Sequence[Row]) -> str:
    """Return the page."""
    lines = [_HEAD, "## What was wanted", ""]
    lines += [f"* {'met' if met else 'MISSED'}: {text}" for text, met in goals(rows)]
    lines += ["", "## Cycles", ""]
    header = (
        "cell",
        "SET's best",
        "our cost",
        "bound",
        "as one segment",
        "simulated",
        "SET / ours",
    )
    lines += markdown_table(header, [_delays(row) for row in rows])
    lines += ["", "## User CPU seconds", ""]
    lines += markdown_table(("cell", "SET", "measured", "ours"), [_seconds(row) for row in rows])
    return "\n".join(lines) + "\n" + _READING + _ASSUMPTIONS


def _delays(row: Row) -> tuple[str, ...]:
    ours = row.ours
    numbers = (row.delay_cycles, ours.cost, ours.bound, ours.segment_cycles, ours.simulated_cycles)
    return (
        row.cell.title,
        *(f"{n:,.0f}" for n in numbers),
        f"{row.delay_cycles / ours.cost:.2f}",
    )


def _seconds(row: Row) -> tuple[str, ...]:
    when = "just now" if row.fresh is not None else "before"
    return (row.cell.title, f"{row.seconds:.1f}", when, f"{row.ours.seconds:.1f}")
