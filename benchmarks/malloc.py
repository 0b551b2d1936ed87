"""Packing the challenging instances of google/minimalloc, and one of 20,000 buffers made here."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log
from pathlib import Path

from benchmarks.tables import print_table
from tilewright.errors import CompileError, InfeasibleError
from tilewright.lowering.allocation import allocate
from tilewright.lowering.allocation_check import check_allocation
from tilewright.lowering.allocation_csv import parse_allocation_csv
from tilewright.lowering.live_buffer import LiveBuffer
from tilewright.lowering.packing_search import Effort, search_packing
from tilewright.lowering.packing_tables import make_problem

MINIMALLOC_SECONDS = {"A": 8.0, "B": 7.9, "C": 1.2, "D": 4.3, "E": 6.3}
"""User seconds of MiniMalloc on this kind of machine, by instance."""

RATIO_LIMIT = 3.0
TIME_LIMIT_SECONDS = 60.0
MANY = 20_000
MANY_DEPTH = 100
"""Buffers alive at one time in the mean."""
MANY_LIMIT = 1.01
"""Height over the largest number of live bytes."""

HEADER = (
    "instance",
    "buffers",
    "capacity",
    "solved",
    "peak",
    "peak / live",
    "CPU s",
    "MiniMalloc",
    "ratio",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What one instance gave."""

    name: str
    buffers: int
    capacity_bytes: int
    peak_bytes: int | None
    live_bytes: int
    seconds: float
    """Processor seconds of this process."""
    reference_seconds: float | None

    @property
    def is_met(self) -> bool:
        """Whether it was packed within its capacity in time."""
        return self.peak_bytes is not None and self.seconds <= TIME_LIMIT_SECONDS

    @property
    def ratio(self) -> float | None:
        """Seconds over MiniMalloc's."""
        if self.reference_seconds is None or self.peak_bytes is None:
            return None
        return self.seconds / self.reference_seconds

    def row(self) -> tuple[str, ...]:
        """Return the cells of the table."""
        peak, ratio, reference = self.peak_bytes, self.ratio, self.reference_seconds
        return (
            self.name,
            f"{self.buffers:,}",
            f"{self.capacity_bytes:,}",
            "yes" if peak is not None else "NO",
            f"{peak:,}" if peak is not None else "-",
            f"{peak / self.live_bytes:.4f}" if peak is not None and self.live_bytes else "-",
            f"{self.seconds:.2f}",
            f"{reference:.1f}" if reference is not None else "-",
            f"{ratio:.2f}" if ratio is not None else "-",
        )


def main(path: Path, time_limit_seconds: float) -> int:
    """Pack all instances in a folder, or one file; return 1 when a target is missed."""
    files = sorted(path.glob("*.csv")) if path.is_dir() else [path]
    if not files:
        print(f"no instance *.csv in '{path}'; name the folder of the MiniMalloc instances")
        return 1
    # the first call compiles the search or loads it from the cache of an earlier process
    warm_up = make_problem(_made_up(40, 8, seed=0), capacity_bytes=1 << 20)
    search_packing(warm_up, Effort())
    results = []
    try:
        for file in files:
            buffers = parse_allocation_csv(file.read_text(encoding="utf-8"), name=file.name)
            reference = MINIMALLOC_SECONDS.get(file.stem.split(".")[0])
            capacity = _capacity(file)
            results.append(_measure(file.stem, buffers, capacity, reference, time_limit_seconds))
    except (OSError, UnicodeDecodeError, CompileError) as error:
        print(f"failed: {error}")
        return 1
    many = _made_up(MANY, MANY_DEPTH, seed=1)
    limit = int(_live_bytes(many) * MANY_LIMIT)
    results.append(_measure("made up", many, limit, None, time_limit_seconds))
    print_table("packing", HEADER, [result.row() for result in results], left=1)
    ratios = [r.ratio for r in results if r.ratio is not None]
    mean = exp(sum(log(max(r, 1e-9)) for r in ratios) / len(ratios)) if ratios else 0.0
    if ratios:
        print(f"geometric mean of the ratios: {mean:.3f}, limit {RATIO_LIMIT:g}")
    return 0 if all(r.is_met for r in results) and mean <= RATIO_LIMIT else 1


def _capacity(file: Path) -> int:
    """Read the capacity from a name like A.1048576.csv."""
    last = file.stem.rpartition(".")[2]
    if not last.isdecimal():
        raise CompileError(f"'{file.name}': no capacity in the name, expected NAME.BYTES.csv")
    return int(last)


def _measure(
    name: str,
    buffers: Sequence[LiveBuffer],
    capacity_bytes: int,
    reference_seconds: float | None,
    limit_seconds: float,
) -> Result:
    began = time.process_time()
    try:
        found = allocate(
            buffers,
            capacity_bytes=capacity_bytes,
            alignment_bytes=1,
            effort=Effort(nodes=1 << 50, deadline_seconds=time.monotonic() + limit_seconds),
        )
    except InfeasibleError:
        found = None
    seconds = time.process_time() - began
    if found is not None:
        _check(buffers, found.offsets, capacity_bytes)
    return Result(
        name=name,
        buffers=len(buffers),
        capacity_bytes=capacity_bytes,
        peak_bytes=None if found is None else found.peak_bytes,
        live_bytes=_live_bytes(buffers),
        seconds=seconds,
        reference_seconds=reference_seconds,
    )


def _check(buffers: Sequence[LiveBuffer], offsets: Sequence[int], capacity_bytes: int) -> None:
    """Check a packing, many buffers in slices of time: the check compares all pairs."""
    order = sorted(range(len(buffers)), key=lambda n: buffers[n].start)
    alive: list[int] = []
    for first in range(0, len(order), 500):
        part = order[first : first + 500]
        start = buffers[part[0]].start
        alive = [n for n in alive if buffers[n].end > start] + part
        check_allocation(
            [buffers[n] for n in alive],
            [offsets[n] for n in alive],
            capacity_bytes=capacity_bytes,
            alignment_bytes=1,
        )


def _live_bytes(buffers: Sequence[LiveBuffer]) -> int:
    """Return the most bytes alive at one time."""
    changes: dict[int, int] = {}
    for b in buffers:
        changes[b.start] = changes.get(b.start, 0) + b.size_bytes
        changes[b.end] = changes.get(b.end, 0) - b.size_bytes
    live = most = 0
    for time_point in sorted(changes):
        live += changes[time_point]
        most = max(most, live)
    return most


def _made_up(count: int, depth: int, *, seed: int) -> tuple[LiveBuffer, ...]:
    """Return buffers at random times, of exponential lengths and uniform sizes in steps of 64 bytes."""
    source = random.Random(seed)
    lengths = [1 + int(source.expovariate(1 / 500)) for _ in range(count)]
    horizon = max(1, sum(lengths) // depth)
    starts = [source.randrange(horizon) for _ in lengths]
    return tuple(
        LiveBuffer(
            name=f"m{n}",
            size_bytes=64 * source.randint(1, 256),
            start=start,
            end=start + length,
        )
        for n, (start, length) in enumerate(zip(starts, lengths, strict=True))
    )
