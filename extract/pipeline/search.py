"""Where to cut and which tiles to give each stage: dynamic programming over priced stages.

A stage is a run of consecutive items on a sub-rectangle of the machine. Stages lie on the tiles in the order
of the model, each behind the one before it. With the price of every stage given, the search is exact for

* throughput: the slowest stage;
* latency of m micro-batches: the sum of the stages and m - 1 times the slowest;
* throughput with a limit of that latency.

The slowest stage is enumerated for the last two: for each price that could be the slowest, the least sum
without dearer stages. Items and sub-rectangles are numbers here; `planner.py` says what they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from math import inf

import numpy as np
from numpy.typing import NDArray

Prices = NDArray[np.float64]
"""Price of the stage of items `first <= i < last` on a sub-rectangle: [first, last, shape], inf if illegal.

Items are numbered from 0; the array is [items, items + 1, shapes]."""

Permitted = NDArray[np.bool_]
"""Whether stage `number`, from 0, may be such a stage: [number, first, last, shape]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Items `first <= i < last` on the sub-rectangle `shape` that begins at `first_tile`."""

    first: int
    last: int
    shape: int
    first_tile: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """The tiles: their number, how many each sub-rectangle has, and where each may begin."""

    tiles: int
    sizes: tuple[int, ...]
    fits_at: Callable[[int, int], bool]
    """Whether sub-rectangle `shape` may begin at a tile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What to minimise: `sum_weight` times the sum of the stages and `slowest_weight` times the slowest."""

    sum_weight: float
    slowest_weight: float
    counts: tuple[int, ...]
    """Numbers of stages to choose from."""
    latency_limit: float = inf
    """What an inference may take: the sum of the stages and `waits` times the slowest."""
    waits: float = 0.0

    def keeps_limit(self, prices: tuple[float, ...]) -> bool:
        """Return whether stages with these prices are within the limit."""
        return sum(prices) + self.waits * max(prices) <= self.latency_limit

    def value(self, prices: tuple[float, ...]) -> float:
        """Return the value of stages with these prices."""
        return self.sum_weight * sum(prices) + self.slowest_weight * max(prices)


@dataclass(frozen=True, slots=True, kw_only=True)
class Division:
    """The best stages and their value."""

    value: float
    stages: tuple[Stage, ...]


def divide(
    prices: Prices, room: Room, goal: Goal, permitted: Permitted | None = None
) -> Division | None:
    """Return the best division of all items into stages, None if there is none.

    Ties go to fewer stages, then to earlier cuts.

    Args:
        prices: What stages cost.
        room: The tiles.
        goal: What to minimise.
        permitted: Which stages may be the first, the second and so on, up to the largest count; None: all.
    """
    finite = np.unique(prices[np.isfinite(prices)])
    best: Division | None = None
    is_limited = goal.latency_limit < inf
    if goal.sum_weight == 0.0 and not is_limited:
        found = _least(prices, room, goal, permitted, inf, np.maximum)
        return _valued(found, prices, goal)
    thresholds = finite if goal.slowest_weight or is_limited else finite[-1:]
    for slowest in thresholds:
        if best is not None and goal.slowest_weight * slowest >= best.value:
            break
        found = _least(prices, room, goal, permitted, float(slowest), np.add)
        division = _valued(found, prices, goal)
        if division is not None and (best is None or division.value < best.value):
            best = division
    return best


def _valued(stages: tuple[Stage, ...] | None, prices: Prices, goal: Goal) -> Division | None:
    if stages is None:
        return None
    paid = tuple(float(prices[s.first, s.last, s.shape]) for s in stages)
    if not goal.keeps_limit(paid):
        return None
    return Division(value=goal.value(paid), stages=stages)


def _least(
    prices: Prices,
    room: Room,
    goal: Goal,
    permitted: Permitted | None,
    slowest: float,
    join: np.ufunc,
) -> tuple[Stage, ...] | None:
    """Return the stages whose joined price is least, none of them above `slowest`.

    `value[k, i, t]`: the best k stages of the first i items on tiles before t.
    """
    items = prices.shape[0]
    wanted = [count for count in goal.counts if count <= items]
    if not wanted:
        return None
    counts = max(wanted)
    cheap = np.where(prices <= slowest, prices, inf)
    begins = [
        [tile for tile in range(room.tiles - size + 1) if room.fits_at(shape, tile)]
        for shape, size in enumerate(room.sizes)
    ]
    value = np.full((counts + 1, items + 1, room.tiles + 1), inf)
    value[0, 0, :] = 0.0
    came: dict[tuple[int, int, int], Stage] = {}
    for k in range(1, counts + 1):
        allowed = cheap if permitted is None else np.where(permitted[k - 1], cheap, inf)
        for last in range(k, items + 1):
            for shape, size in enumerate(room.sizes):
                column = allowed[:last, last, shape]
                for tile in begins[shape]:
                    joined = join(value[k - 1, :last, tile], column)
                    first = int(joined.argmin())
                    if joined[first] < value[k, last, tile + size]:
                        value[k, last, tile + size] = joined[first]
                        came[k, last, tile + size] = Stage(
                            first=first, last=last, shape=shape, first_tile=tile
                        )
            for end in range(1, room.tiles + 1):  # tiles may stay empty
                if value[k, last, end - 1] <= value[k, last, end]:
                    value[k, last, end] = value[k, last, end - 1]
                    came.pop((k, last, end), None)
    chosen = min(wanted, key=lambda k: (value[k, items, room.tiles], k))
    if not np.isfinite(value[chosen, items, room.tiles]):
        return None
    return _traced(chosen, items, room.tiles, came)


def _traced(
    count: int, last: int, tile: int, came: dict[tuple[int, int, int], Stage]
) -> tuple[Stage, ...]:
    stages = []
    for k in range(count, 0, -1):
        while (k, last, tile) not in came:
            tile -= 1
        stage = came[k, last, tile]
        stages.append(stage)
        last, tile = stage.first, stage.first_tile
    found = tuple(reversed(stages))
    assert all(a.last == b.first for a, b in pairwise(found)), "stages follow each other"
    return found
