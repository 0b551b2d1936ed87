"""Offline allocation of buffers in one memory: addresses from sizes and live ranges.

The problem is two-dimensional packing with fixed times: each buffer is a rectangle of known
length (its live range) and height (its size); buffers that are alive together must not overlap in
addresses. Greedy orders with lowest or tightest fit come first, then orders in which what stuck out is
promoted, then a search that finds a packing or proves that there is none (`packing_core.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from tilewright.errors import InfeasibleError
from tilewright.lowering.live_buffer import LiveBuffer
from tilewright.lowering.packing_conflict import Conflict, find_conflict, live_peak
from tilewright.lowering.packing_search import (
    Effort,
    SearchResult,
    greedy_packings,
    promoted_packings,
    search_packing,
)
from tilewright.lowering.packing_tables import Ints, PackingProblem, make_problem

SCRATCHPAD, DRAM = "scratchpad", "DRAM"
"""What errors call the memories."""
_LARGEST_NAMED = 5
"""Live buffers that an error names with their size."""

_NOTHING = SearchResult(offsets=None, is_exhausted=False, nodes=0)


class AllocationError(InfeasibleError):
    """Buffers do not fit a memory; says which, when, by how much and what would help."""

    def __init__(
        self, text: str, conflict: Conflict, memory: str, passing_bytes: tuple[int, ...]
    ) -> None:
        super().__init__(text)
        self.conflict = conflict
        self.memory = memory
        self.passing_bytes = passing_bytes
        """Sizes of the buffers of the peak that are not there throughout, the largest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """Addresses of the buffers, in the order in which they were given."""

    offsets: tuple[int, ...]
    peak_bytes: int
    """One past the highest byte in use."""
    lower_bound_bytes: int
    """Largest number of bytes alive together (sizes rounded up to the alignment)."""


def round_up(value: int, multiple: int) -> int:
    """Return the smallest multiple that is not below the value."""
    return -(-value // multiple) * multiple


def rested(buffers: Sequence[LiveBuffer], rest: int) -> list[LiveBuffer]:
    """Return buffers whose memory is not reused for some micros after the end of a live range."""
    if not rest:
        return list(buffers)
    last = max((b.end for b in buffers), default=0)
    return [replace(b, end=min(b.end + rest, last)) for b in buffers]


def allocate(
    buffers: Sequence[LiveBuffer],
    *,
    capacity_bytes: int,
    alignment_bytes: int,
    rest: int = 0,
    memory: str = SCRATCHPAD,
    describe: Callable[[int], str] = "micro {}".format,
    lever: str = "shard over more tiles, use smaller kernel tiles or stream weights",
    is_quick: bool = False,
    effort: Effort | None = None,
) -> Allocation:
    """Return addresses such that buffers alive together do not overlap.

    Deterministic: the first packing that fits is taken.

    Args:
        buffers: What to place.
        capacity_bytes: Size of the memory.
        alignment_bytes: Every address is a multiple of it.
        rest: Micros for which memory is not reused after the end of a live range.
        memory: What the memory is called in the error.
        describe: Names a point in the program (a micro's position) in the error.
        lever: What the user can do about it, for the error.
        is_quick: Try only two greedy orders and no search.
        effort: How long to search.

    Returns:
        The addresses and the bytes in use.

    Raises:
        AllocationError: No packing within the capacity was found, or there is none.
        CompileError: A buffer's gaps, alignment or fixed address make no sense.
    """
    chosen = [n for n, b in enumerate(buffers) if b.start < b.end and b.size_bytes]
    lasting = rested(buffers, rest)
    problem = make_problem(
        [lasting[n] for n in chosen], capacity_bytes=capacity_bytes, alignment_bytes=alignment_bytes
    )
    live, _ = live_peak(problem)
    search = effort or Effort()
    result, best = _NOTHING, None
    if clash := problem.fixed_clash():
        result = replace(_NOTHING, is_exhausted=True, component=clash)
    elif live <= problem.capacity:
        best = _best_packing(problem, search, is_quick=is_quick)
        if not is_quick and not _fits(problem, best):
            result = search_packing(problem, search)
            best = best if result.offsets is None else result.offsets
    if best is None or not _fits(problem, best):
        packed = None if best is None else _peak_bytes(problem, best)
        conflict = find_conflict(
            problem,
            packed_bytes=packed,
            suspects=result.component if result.is_exhausted else (),
            effort=search,
        )
        text = _explain(problem, conflict, packed, memory, describe)
        raise AllocationError(
            f"{text}; {lever}", conflict, memory, _passing_bytes(problem, conflict.peak)
        )
    offsets = [b.offset or 0 for b in buffers]
    for n, grains in zip(chosen, best.tolist(), strict=True):
        offsets[n] = grains * problem.grain_bytes
    return Allocation(
        offsets=tuple(offsets),
        peak_bytes=min(_peak_bytes(problem, best), capacity_bytes),
        lower_bound_bytes=min(live * problem.grain_bytes, capacity_bytes),
    )


def _best_packing(problem: PackingProblem, effort: Effort, *, is_quick: bool) -> Ints:
    """Return the first packing within the capacity, or else the lowest."""
    best: Ints | None = None
    for offsets in _packings(problem, effort, is_quick=is_quick):
        if best is None or _sticking_out(problem, offsets) < _sticking_out(problem, best):
            best = offsets
        if _fits(problem, best):
            break
    assert best is not None, "there is always a greedy packing"
    return best


def _packings(problem: PackingProblem, effort: Effort, *, is_quick: bool) -> Iterator[Ints]:
    yield from greedy_packings(problem, is_quick=is_quick)
    if not is_quick:
        yield from promoted_packings(problem, effort)


def _fits(problem: PackingProblem, offsets: Ints) -> bool:
    return not (offsets > problem.shapes.latest).any()


def _sticking_out(problem: PackingProblem, offsets: Ints) -> tuple[int, int]:
    """Return how far a packing exceeds the capacity, and how many buffers do."""
    over = offsets - problem.shapes.latest
    return max(0, int(over.max(initial=0))), int((over > 0).sum())


def _peak_bytes(problem: PackingProblem, offsets: Ints) -> int:
    return int((offsets + problem.shapes.size).max(initial=0)) * problem.grain_bytes


def _passing_bytes(problem: PackingProblem, peak: int) -> tuple[int, ...]:
    """Return the sizes of buffers that are alive at a time, but not always, the largest first."""
    last = max(b.end for b in problem.buffers)
    return tuple(
        sorted(
            (
                b.size_bytes
                for b in problem.buffers
                if b.start <= peak < b.end and (b.start, b.end) != (0, last)
            ),
            reverse=True,
        )
    )


def _explain(
    problem: PackingProblem,
    conflict: Conflict,
    packed_bytes: int | None,
    memory: str,
    describe: Callable[[int], str],
) -> str:
    live = [b for b in problem.buffers if b.start <= conflict.peak < b.end]
    live.sort(key=lambda b: (-b.size_bytes, b.name))
    largest = ", ".join(f"'{b.name}' {b.size_bytes:_}" for b in live[:_LARGEST_NAMED])
    packed = "" if packed_bytes is None else f" (best packing found {packed_bytes:_} bytes)"
    short, may_stream = conflict.shortfall_bytes, memory != DRAM
    lack = f"short by {short:_} bytes" if short else "enough, but fixed addresses are in the way"
    return (
        f"{memory}: {conflict.live_bytes:_} bytes alive at {describe(conflict.peak)}{packed}, "
        f"capacity {conflict.capacity_bytes:_} bytes, {lack}; "
        f"largest of {len(live)} live buffers: {largest}; {conflict.describe(with_relief=may_stream)}"
    )
