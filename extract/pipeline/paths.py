"""Where to cut and which tiles to give each stage if stages that do not wait for each other run side by side.

The latency of one inference is the longest path: a stage needs a result of another one only when it comes to
the first item that reads it, and has it when the other one has ended. Stages are runs of consecutive items
and lie on the tiles in their order, as in `search.py`. For given prices the search is exact: it goes through
the items once and keeps, for each number of stages and of tiles, every combination of times at which the
results that are still to be read are there, unless another one has all of them as early. (Jeon et al.,
"GraphPipe", ASPLOS 2025, divides along a series-parallel decomposition instead.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf

from tilewright.extract.pipeline.search import Division, Goal, Prices, Room, Stage

Left = Callable[[int, int, int, int], float]
"""Cycles left of a stage (first, last, shape) when it comes to an item; at its first one, its price."""


@dataclass(frozen=True, slots=True)
class _Partial:
    """Stages of the first items: when each result that others will read is there, and the last stage."""

    ready: tuple[float, ...]
    end: float
    stage: Stage | None = None
    before: _Partial | None = None

    def is_as_good_as(self, other: _Partial) -> bool:
        """Whether nothing is later than in another one."""
        return self.end <= other.end and all(
            a <= b for a, b in zip(self.ready, other.ready, strict=True)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """Items `first <= i < last`: where in `ready` each item stands that they read, and its first reader."""

    first: int
    last: int
    reads: tuple[tuple[int, int], ...]
    kept: tuple[int, ...]
    """For each result that others will read: where it stands in `ready`, -1 if it is made here."""


def divide_into_paths(
    prices: Prices, left: Left, reads: Sequence[Sequence[int]], room: Room, goal: Goal
) -> Division | None:
    """Return the division of all items into stages with the shortest longest path, None if there is none.

    Args:
        prices: Price of each stage, without what it waits for.
        left: What is left of it from an item on.
        reads: For each item, the items before it whose results it reads.
        room: The tiles.
        goal: Gives the numbers of stages and the limit of latency.
    """
    items = len(reads)
    runs = _runs(reads)
    begins = [
        [tile for tile in range(room.tiles - size + 1) if room.fits_at(shape, tile)]
        for shape, size in enumerate(room.sizes)
    ]
    fronts = [[[_Partial((), 0.0)]] * (room.tiles + 1)] + [[[]] * (room.tiles + 1)] * items
    best: _Partial | None = None
    for count in range(1, min(max(goal.counts, default=0), items) + 1):
        limit = inf if best is None else best.end
        following: list[list[list[_Partial]]] = [[[]] * (room.tiles + 1)]
        for last in range(1, items + 1):
            found: list[list[_Partial]] = [[] for _ in range(room.tiles + 1)]
            for run in runs[last]:
                for shape, size in enumerate(room.sizes):
                    price = float(prices[run.first, last, shape])
                    if price >= limit:
                        continue
                    waits = [
                        (place, left(run.first, last, shape, item)) for place, item in run.reads
                    ]
                    for tile in begins[shape]:
                        stage = Stage(first=run.first, last=last, shape=shape, first_tile=tile)
                        for before in fronts[run.first][tile]:
                            made = _with_stage(before, stage, price, waits, run.kept)
                            if made.end < limit:
                                _keep(found[tile + size], made)
            for end in range(1, room.tiles + 1):  # tiles may stay empty
                for partial in found[end - 1]:
                    _keep(found[end], partial)
            following.append(found)
        fronts = following
        if count in goal.counts:
            best = min(
                (*fronts[items][room.tiles], *((best,) if best else ())), key=_end, default=None
            )
    if best is None or best.end > goal.latency_limit:
        return None
    return Division(value=best.end, stages=_traced(best))


def _end(partial: _Partial) -> float:
    return partial.end


def _runs(reads: Sequence[Sequence[int]]) -> list[list[_Run]]:
    """Return the runs of items by where they end."""
    items = len(reads)
    last_read = [max((i for i in range(items) if j in reads[i]), default=-1) for j in range(items)]
    still_read = [[j for j in range(at) if last_read[j] >= at] for at in range(items + 1)]
    found: list[list[_Run]] = [[] for _ in range(items + 1)]
    for last in range(1, items + 1):
        for first in range(last):
            place = {j: n for n, j in enumerate(still_read[first])}
            readers = {j: i for i in reversed(range(first, last)) for j in reads[i] if j < first}
            run = _Run(
                first=first,
                last=last,
                reads=tuple((place[j], readers[j]) for j in sorted(readers)),
                kept=tuple(place.get(j, -1) for j in still_read[last]),
            )
            found[last].append(run)
    return found


def _with_stage(
    before: _Partial,
    stage: Stage,
    price: float,
    waits: Sequence[tuple[int, float]],
    kept: Sequence[int],
) -> _Partial:
    """Return some stages and one more, which `waits` for results and has so much left to do with each."""
    end = max((before.ready[place] + cycles for place, cycles in waits), default=0.0)
    end = max(end, price)
    ready = tuple(before.ready[place] if place >= 0 else end for place in kept)
    return _Partial(ready, max(before.end, end), stage, before)


def _keep(front: list[_Partial], made: _Partial) -> None:
    """Add to those of which none is as good as another, unless one is as good."""
    if any(other.is_as_good_as(made) for other in front):
        return
    front[:] = [other for other in front if not made.is_as_good_as(other)]
    front.append(made)


def _traced(partial: _Partial) -> tuple[Stage, ...]:
    stages: list[Stage] = []
    while partial.stage is not None and partial.before is not None:
        stages.append(partial.stage)
        partial = partial.before
    return tuple(reversed(stages))
