"""Offline allocation of buffers in one memory: addresses from sizes and live ranges.

The problem is two-dimensional packing with fixed times: each buffer is a rectangle of known
length (its live range) and height (its size); buffers that are alive together must not overlap in
addresses. Greedy orders with lowest or tightest fit come first, then a local search that moves the buffers
at the top of the packing to the front of the order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tilewright.errors import InfeasibleError

_SEARCH_STEPS = 100_000
"""Buffers placed by the local search before it gives up (about 20 microseconds each)."""

_SEARCH_ROUNDS = 60
"""Packings that the local search makes from each order it starts with."""

_BUFFERS_PER_SLICE = 64
"""Slices of time are as many as make this the mean number of buffers in one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveBuffer:
    """A buffer to place: alive from `start` (included) to `end` (excluded), in micros."""

    name: str
    size_bytes: int
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """Addresses of the buffers, in the order in which they were given."""

    offsets: tuple[int, ...]
    peak_bytes: int
    """One past the highest byte in use."""
    lower_bound_bytes: int
    """Largest number of bytes alive together (sizes rounded up to the alignment)."""


@dataclass(frozen=True, slots=True)
class _Problem:
    sizes: NDArray[np.int64]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]


def round_up(value: int, multiple: int) -> int:
    """Return the smallest multiple that is not below the value."""
    return -(-value // multiple) * multiple


def allocate(
    buffers: Sequence[LiveBuffer],
    *,
    capacity_bytes: int,
    alignment_bytes: int,
    rest: int = 0,
    memory: str = "scratchpad",
    describe: Callable[[int], str] = "micro {}".format,
    lever: str = "shard over more tiles, use smaller kernel tiles or stream weights",
    is_quick: bool = False,
) -> Allocation:
    """Return addresses such that buffers alive together do not overlap.

    Deterministic: the first order that fits is taken.

    Args:
        buffers: What to place.
        capacity_bytes: Size of the memory.
        alignment_bytes: Every address is a multiple of it.
        rest: Micros for which memory is not reused after the end of a live range.
        memory: What the memory is called in the error.
        describe: Names a point in the program (a micro's position) in the error.
        lever: What the user can do about it, for the error.
        is_quick: Try only two greedy orders and no search.

    Returns:
        The addresses and the bytes in use.

    Raises:
        InfeasibleError: No packing within the capacity was found.
    """
    starts = np.array([b.start for b in buffers], dtype=np.int64)
    ends = np.array([b.end for b in buffers], dtype=np.int64)
    sizes = np.array([round_up(b.size_bytes, alignment_bytes) for b in buffers], dtype=np.int64)
    rested = np.minimum(ends + rest, ends.max(initial=0))
    # buffers that never live take no room
    sizes[ends <= starts] = 0
    problem = _Problem(sizes, starts, np.where(ends > starts, rested, ends))
    live_bytes, point = _peak_of_live_bytes(problem)
    best: NDArray[np.int64] | None = None
    best_peak = 0
    if live_bytes <= capacity_bytes:
        for offsets in _candidates(problem, is_quick=is_quick):
            peak = int((offsets + problem.sizes).max(initial=0))
            if best is None or peak < best_peak:
                best, best_peak = offsets, peak
            if best_peak <= capacity_bytes:
                break
    if best is None or best_peak > capacity_bytes:
        packed = None if best is None else best_peak
        raise InfeasibleError(
            _explain(buffers, live_bytes, packed, point, capacity_bytes, memory, describe)
            + f"; {lever}"
        )
    return Allocation(
        offsets=tuple(int(offset) for offset in best),
        peak_bytes=best_peak,
        lower_bound_bytes=live_bytes,
    )


def _peak_of_live_bytes(problem: _Problem) -> tuple[int, int]:
    """Return the most bytes alive together and the first point where that is so."""
    alive = problem.ends > problem.starts
    if not alive.any():
        return 0, 0
    times = np.concatenate([problem.starts[alive], problem.ends[alive]])
    changes = np.concatenate([problem.sizes[alive], -problem.sizes[alive]])
    order = np.lexsort((changes, times))  # ends (negative) before starts at equal times
    running = np.cumsum(changes[order])
    top = int(running.argmax())
    return int(running[top]), int(times[order][top])


def _candidates(problem: _Problem, *, is_quick: bool) -> Iterator[NDArray[np.int64]]:
    sizes, lengths = problem.sizes, problem.ends - problem.starts
    position = np.arange(len(sizes))
    by_size = np.lexsort((position, problem.starts, -lengths, -sizes))
    by_length = np.lexsort((position, problem.starts, -sizes, -lengths))
    by_area = np.lexsort((position, -(sizes * lengths)))
    by_start = np.lexsort((position, -sizes, -lengths, problem.starts))
    by_end = np.lexsort((position, -sizes, -lengths, -problem.ends))
    yield _place(problem, by_length, is_tightest=False)
    yield _place(problem, by_size, is_tightest=False)
    if is_quick:
        return
    for order in (by_area, by_start, by_end):
        yield _place(problem, order, is_tightest=False)
    for order in (by_size, by_length, by_area, by_start):
        yield _place(problem, order, is_tightest=True)
    yield from _search(problem, (by_length, by_size, by_area))


def _search(
    problem: _Problem, orders: tuple[NDArray[np.int64], ...]
) -> Iterator[NDArray[np.int64]]:
    """Yield packings, each time with the topmost buffers moved to the front of the order."""
    if not len(problem.sizes):
        return
    rounds = min(_SEARCH_ROUNDS, _SEARCH_STEPS // (len(problem.sizes) * len(orders)))
    for start in orders:
        order = start
        seen = set()
        for _ in range(rounds):
            offsets = _place(problem, order, is_tightest=False)
            yield offsets
            tops = offsets + problem.sizes
            is_top = (tops == tops.max())[order]
            order = np.concatenate([order[is_top], order[~is_top]])
            key = order.tobytes()
            if key in seen:
                # the promotion cycles: break it by swapping halves of the order
                order = np.concatenate([order[1::2], order[::2]])
            seen.add(key)


def _place(problem: _Problem, order: NDArray[np.int64], *, is_tightest: bool) -> NDArray[np.int64]:
    """Place buffers in the given order, each in the lowest or the tightest gap.

    Placed buffers are listed by slices of time, so that one buffer looks only at those near it.
    """
    count = len(order)
    offsets = np.zeros(count, dtype=np.int64)
    starts, ends, sizes = problem.starts, problem.ends, problem.sizes
    slices = max(1, count // _BUFFERS_PER_SLICE)
    width = max(1, -(-int(ends.max(initial=0)) // slices))
    placed: list[list[int]] = [[] for _ in range(slices)]
    for number in order.tolist():
        size, start, end = int(sizes[number]), int(starts[number]), int(ends[number])
        if size == 0 or end <= start:
            continue
        span = range(start // width, (end - 1) // width + 1)
        if len(span) == 1:
            near = np.array(placed[span[0]], dtype=np.int64)
        else:
            near = np.array(sorted({n for at in span for n in placed[at]}), dtype=np.int64)
        near = near[(starts[near] < end) & (ends[near] > start)]
        lows = offsets[near]
        by_address = lows.argsort(kind="stable")
        lows, highs = lows[by_address], (lows + sizes[near])[by_address]
        offsets[number] = _find_gap(lows, highs, size, is_tightest)
        for at in span:
            placed[at].append(number)
    return offsets


def _find_gap(
    lows: NDArray[np.int64], highs: NDArray[np.int64], size: int, is_tightest: bool
) -> int:
    """Return the start of the lowest (or smallest) gap that holds `size` bytes; `lows` is sorted."""
    if not len(lows):
        return 0
    floors = np.maximum.accumulate(highs)
    gaps = lows.copy()
    gaps[1:] -= floors[:-1]
    fits = np.flatnonzero(gaps >= size)
    if not len(fits):
        return int(floors[-1])
    chosen = int(fits[gaps[fits].argmin()]) if is_tightest else int(fits[0])
    return int(floors[chosen - 1]) if chosen else 0


def _explain(
    buffers: Sequence[LiveBuffer],
    live_bytes: int,
    packed_bytes: int | None,
    point: int,
    capacity_bytes: int,
    memory: str,
    describe: Callable[[int], str],
) -> str:
    live = [b for b in buffers if b.start <= point < b.end]
    live.sort(key=lambda b: (-b.size_bytes, b.name))
    largest = ", ".join(f"'{b.name}' {b.size_bytes:_}" for b in live[:5])
    demand = live_bytes if packed_bytes is None else packed_bytes
    packed = "" if packed_bytes is None else f" (best packing found {packed_bytes:_} bytes)"
    return (
        f"{memory}: {live_bytes:_} bytes alive at {describe(point)}{packed}, capacity "
        f"{capacity_bytes:_} bytes, short by {demand - capacity_bytes:_} bytes; largest of {len(live)} "
        f"live buffers: {largest}"
    )
