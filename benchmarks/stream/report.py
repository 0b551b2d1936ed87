"""`./tw bench stream`: the comparison with Stream as a page in docs/."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from math import exp, isinf, log
from pathlib import Path

from benchmarks.stream.compare import VERSION, Case, Row, StreamError, cases, compare
from benchmarks.tables import markdown_table

PAGE = Path(__file__).parent.parent.parent / "docs" / "stream.md"
SPEEDUP, CPU_SHARE, CHAIN_CYCLES = 1.3, 0.1, 174_844
"""What is wanted: faster in our simulator by, a share of Stream's CPU time, cycles of two products on a tile.

The last is what Stream 2.1.1 predicts for two products cut apart by hand, which its generator fuses.
"""
_HEAD = f"""# Stream {VERSION}

Written by `./tw bench stream --write`; benchmarks/README.md says what it is. The same shapes, element types
and machines for both tools: meshes of 64 x 64 arrays with 256 KiB of scratchpad each
(`benchmarks/stream/machines.py`), DRAM ports on the edge, given to Stream as its own YAML
(`benchmarks/stream/hardware.py`).
"""
_READING = """
Where Stream is ahead, and what the tables do not say:

* By Stream's prices, the plan as it is loses on meshes. Where another grain of the same split closes the gap,
  the split is not the cause: Stream's model charges for boxes of few rows what ours takes to overlap.
* On the perceptron on 2 x 2 tiles Stream splits the hidden features over both products, so that they never
  move. Ours does so with sums that are scattered box by box: they fit, but the features take half of the
  scratchpad, so that the first product reads its rows again for every box of weights. By our prices, and in
  our simulator, a split by rows is cheaper, by Stream's it is dearer.
* In our simulator most mappings are alike: what Stream's generator splits is what our planner splits. Where
  ours are faster, they have other boxes, or scatter sums.
* The chain of two on one tile, which Stream fuses, is followed with what is between the products in the
  scratchpad: our slices are of finished sums, with room for those of few rows (docs/accelforge.md).
* On one tile, Stream's tiles of 32 x 64 for the product of bf16 take our simulator what Stream's model says
  of them (361,486 and 361,598 cycles): its generator's grain is what costs it the time, not the model.
* Planning takes longer than Stream's generator and integer program on 8-bit products on meshes: most of it is
  the pricing of hundreds of ways and tiles in Python.
"""
_ASSUMPTIONS = """
## What matches and what does not

Matched: links of 128 bits a cycle in each direction; DRAM ports of the given rate, whose sum is shared by
reads and writes; no latency of hops, memory and start-ups, no bursts, no cost of issue; a scratchpad port of
1,024 bits a cycle each for reads and writes (ours: 256 bytes a cycle together); an array that takes a row a
cycle; sums of 32 bits that pass the scratchpad's port between passes over the contracting loop; inputs,
weights and results in DRAM.

Deviations:

* Stream's integer products give 8 bits for nothing. Ours are `QLinearMatMul`, which scales and rounds on the
  vector unit, 4,096 elements a cycle.
* Stream leaves the drain of the array out of all tiles but the last ones; ours fills and drains it for every
  instruction (126 cycles).
* An element of Stream's array has registers for 128 bytes of weights, one of ours for two weights.
* Stream adds up what each link carries in an iteration; our simulator shares links max-min fairly in time.
* Stream's tiles must divide their loop; ours that do not are rounded down to divisors.
* Stream has one grain of iteration for transfers, passes and all layers of a group; our boxes are that of
  transfers alone. *Plan as it is* keeps the boxes. *Plan* is the cheapest of three grains (boxes; passes of
  64; passes with all rows), with tensors in scratchpads fused or not. *Ways* adds plans of the likeliest
  other splits, as `tilewright explore` names them, of the first product alone and of all products alike. So
  Stream's cost model chooses among a handful of mappings of ours, which is what its `select_mapping` is for.
* Stream's mappings in our compiler: splits, memories and tile sizes are demanded. Loops whose tile Stream
  leaves whole, their order, where operands lie and how they travel is then our planner's choice, in Stream's
  favour. A tile that breaks a limit is left out, the others stay. Products of one group that share a loop
  run one after the other in ours, where the tiles of that loop mean more traffic than Stream counts: the
  plan with them and the one without are simulated, and the faster one counts.

Seconds are user CPU time in one process each, import and first call excluded.
"""


def main(*, python: Path | None, names: Sequence[str], repeats: int, write: bool) -> int:
    """Compare, print the page and perhaps write it; return 1 if a goal is missed or Stream is absent."""
    chosen = [case for case in cases() if all(name in _name(case) for name in names)]
    try:
        rows = compare(chosen, python or Path(sys.executable), repeats)
    except StreamError as error:
        print(f"stream: {error}", file=sys.stderr)
        return 1
    text = page(rows, repeats)
    print(text)
    if write:
        PAGE.write_text(text)
    return 0 if all(met for _, met in goals(rows)) else 1


def _name(case: Case) -> str:
    return f"{case.workload.name} on {case.machine.name}"


def geometric_mean(ratios: Iterable[float]) -> float:
    """Return the geometric mean; 1 of nothing.

    >>> geometric_mean([2.0, 8.0])
    4.0
    """
    logs = [log(ratio) for ratio in ratios]
    return exp(sum(logs) / len(logs)) if logs else 1.0


def simulated_speedups(rows: Sequence[Row]) -> list[float]:
    """Return how much faster our plans are in our simulator than Stream's mappings that we can follow."""
    return [row.follows.simulated / row.ours.simulated for row in rows if row.follows.is_followed]


def speedups_at_bound(rows: Sequence[Row]) -> list[float]:
    """Return how much faster plans that simulate as cheap as the proven bound of their prices would be."""
    return [row.follows.simulated / row.ours.bound for row in rows if row.follows.is_followed]


def goals(rows: Sequence[Row]) -> list[tuple[str, bool]]:
    """Return what was wanted, with what was found, and whether it was met."""
    worse = [row for row in rows if row.refereed_best > row.stream_cycles]
    speedups = simulated_speedups(rows)
    mean = geometric_mean(speedups)
    at_bound = geometric_mean(speedups_at_bound(rows))
    shares = [row.ours.plan_seconds / row.stream_seconds for row in rows]
    share = geometric_mean(shares)
    found = [
        (
            f"Stream prices ours no higher than its own: {len(rows) - len(worse)} of {len(rows)} cases",
            not worse,
        ),
        (
            f"in our simulator at least {SPEEDUP} times as fast, geometric mean: {mean:.2f} "
            f"(plans at the bound of their prices: {at_bound:.2f})",
            mean >= SPEEDUP,
        ),
        (
            f"planning takes at most {CPU_SHARE:.0%} of Stream's CPU time, geometric mean: {share:.0%}",
            share <= CPU_SHARE,
        ),
    ]
    for row in rows:
        if "chain of 2" in row.case.workload.name and row.case.machine.tiles == 1:
            text = f"two products on one tile, priced by Stream: {row.refereed_best:,.0f} cycles"
            met = row.refereed_best <= CHAIN_CYCLES
            found.append((f"{text}, at most {CHAIN_CYCLES:,}", met))
    return found


def page(rows: Sequence[Row], repeats: int) -> str:
    """Return the page's text."""
    met = [f"* {'met' if is_met else 'MISSED'}: {text}" for text, is_met in goals(rows)]
    parts = [
        _HEAD,
        "## What was wanted\n",
        "\n".join(met),
        _READING,
        "## Priced by Stream\n",
        "Cycles by Stream's cost model: its own mapping, then ours.\n",
        *markdown_table(
            ("case", "Stream's own", "plan as it is", "plan", "ways", "Stream / best"),
            [_refereed(row) for row in rows],
        ),
        "\n## In our simulator\n",
        "Cycles: Stream's mapping as our compiler follows it, our plan, and the bound that no plan of the "
        "alternatives considered can beat. Predicted by our cost model, then simulated.\n",
        *markdown_table(
            (
                "case",
                *("Stream's, predicted", "simulated", "ours, predicted", "simulated", "bound"),
                "Stream / ours",
            ),
            [_simulated(row) for row in rows],
        ),
        "\nWhat was demanded, and what of Stream's mappings does not translate:\n",
        *[_followed(row) for row in rows],
        f"\n## CPU seconds, median of {repeats}\n",
        *markdown_table(
            ("case", "Stream's mapping", "our plan", "our plan and program", "plan / Stream"),
            [_seconds(row) for row in rows],
        ),
        _ASSUMPTIONS,
    ]
    return "\n".join(parts)


def _cycles(cycles: float | None) -> str:
    return "refused" if cycles is None or isinf(cycles) else f"{cycles:,.0f}"


def _refereed(row: Row) -> tuple[str, ...]:
    best = row.refereed_best
    ratio = "" if isinf(best) else f"{row.stream_cycles / best:.2f}"
    return (
        _name(row.case),
        *map(_cycles, (row.stream_cycles, row.plan_cycles[0], row.refereed_plan, best)),
        ratio,
    )


def _simulated(row: Row) -> tuple[str, ...]:
    ours = (row.ours.predicted, row.ours.simulated, row.ours.bound)
    if not row.follows.is_followed:
        return _name(row.case), "-", "-", *map(_cycles, ours), "-"
    ratio = f"{row.follows.simulated / row.ours.simulated:.2f}"
    theirs = (row.follows.predicted, row.follows.simulated)
    return _name(row.case), *map(_cycles, (*theirs, *ours)), ratio


def _followed(row: Row) -> str:
    demanded = ", ".join(f"`{demand}`" for demand in row.follows.demands) or "nothing"
    lost = "; lost: " + "; ".join(row.follows.lost) if row.follows.lost else ""
    return f"* {_name(row.case)}: {demanded}{lost}"


def _seconds(row: Row) -> tuple[str, ...]:
    theirs, plan, program = (
        row.stream_seconds,
        row.ours.plan_seconds,
        row.ours.compile_seconds,
    )
    return (
        _name(row.case),
        *(f"{s:.2f}" for s in (theirs, plan, program)),
        f"{plan / theirs:.0%}",
    )
