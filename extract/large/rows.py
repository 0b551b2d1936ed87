"""Capacity rows as flat arrays: only rows that can overflow, and of uses only what options differ in."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tilewright.extract.choice import ChoiceProblem, Costs, Indices, Usage


class Rows(NamedTuple):
    """The use of rows by variable: disjoint *segments* of rows, in each an amount for every option.

    The least amount of a segment's options is taken from the rows' room, so that some option uses 0.
    """

    first: Indices
    """First segment of each variable, and the number of all segments."""
    low: Indices
    high: Indices
    amounts_at: Indices
    """Where in `amounts` those of a segment begin, one for each option."""
    amounts: Costs
    room: Costs
    """What is left of the limit in each row."""
    original: Indices
    """The problem's row that each row stands for."""
    by_time: Indices
    """The variables by their first row."""


class _Segments(NamedTuple):
    bounds: Indices
    amounts: Costs
    """[segment, option]"""


def flatten_rows(problem: ChoiceProblem) -> Rows:
    """Return the rows in which not every choice fits, with the uses of all variables."""
    uses: list[list[Usage]] = [[] for _ in problem.costs]
    for usage in problem.usages:
        uses[usage.variable].append(usage)
    segments = [_segments(own, len(c)) for own, c in zip(uses, problem.costs, strict=True)]
    least, most = np.zeros(problem.rows + 1), np.zeros(problem.rows + 1)
    for bounds, amounts in segments:
        for total, ends in ((least, amounts.min(axis=1)), (most, amounts.max(axis=1))):
            np.add.at(total, bounds[:-1], ends)
            np.subtract.at(total, bounds[1:], ends)
    least, most = np.cumsum(least)[:-1], np.cumsum(most)[:-1]
    binding = np.flatnonzero(most > problem.limit)
    above = [_above_least(own, binding) for own in segments]
    return _numbered(above, problem.limit - least[binding], binding, problem)


def _segments(usages: list[Usage], options: int) -> _Segments:
    bounds = np.unique([row for usage in usages for row in (usage.low, usage.high)]).astype(
        np.int64
    )
    change = np.zeros((len(bounds), options))
    for usage in usages:
        change[np.searchsorted(bounds, usage.low)] += usage.amounts
        change[np.searchsorted(bounds, usage.high)] -= usage.amounts
    if not usages:
        return _Segments(np.zeros(1, dtype=np.int64), np.zeros((0, options)))
    return _Segments(bounds, np.cumsum(change, axis=0)[:-1])


def _above_least(own: _Segments, binding: Indices) -> tuple[Indices, Indices, Costs]:
    """Return (low, high, amounts) of a variable's segments in the numbering of binding rows."""
    place = np.searchsorted(binding, own.bounds)
    low, high = place[:-1], place[1:]
    amounts = own.amounts - own.amounts.min(axis=1, keepdims=True)
    kept = np.flatnonzero((low < high) & amounts.any(axis=1))
    low, high, amounts = low[kept], high[kept], amounts[kept]
    if len(kept) < 2:
        return low, high, amounts
    joins = (high[:-1] == low[1:]) & (amounts[:-1] == amounts[1:]).all(axis=1)
    starts = np.flatnonzero(np.concatenate(([True], ~joins)))
    ends = np.concatenate((starts[1:], [len(kept)])) - 1
    return low[starts], high[ends], amounts[starts]


def _numbered(
    above: list[tuple[Indices, Indices, Costs]],
    room: Costs,
    binding: Indices,
    problem: ChoiceProblem,
) -> Rows:
    """Join rows between which nothing begins or ends, and lay the segments out."""
    count = len(room)
    begins = np.zeros(count + 1, dtype=bool)
    begins[[0, count]] = True
    for low, high, _ in above:
        begins[low] = begins[high] = True
    starts = np.flatnonzero(begins[:count])
    number = np.cumsum(begins) - 1
    groups = np.split(np.arange(count), starts[1:]) if count else []
    tightest = np.array([group[room[group].argmin()] for group in groups], dtype=np.int64)
    sizes = [len(low) for low, _, _ in above]
    options = np.repeat([len(own) for own in problem.costs], sizes)
    none = np.zeros(0, dtype=np.int64)
    lows = np.concatenate([none, *(low for low, _, _ in above)])
    first = np.concatenate(([0], np.cumsum(sizes))).astype(np.int64)
    begin = [int(lows[first[v]]) if sizes[v] else count for v in range(len(sizes))]
    return Rows(
        first=first,
        low=number[lows],
        high=number[np.concatenate([none, *(high for _, high, _ in above)])],
        amounts_at=np.concatenate(([0], np.cumsum(options))).astype(np.int64)[:-1],
        amounts=np.concatenate([np.zeros(0), *(own.reshape(-1) for _, _, own in above)]),
        room=room[tightest],
        original=binding[tightest],
        by_time=np.argsort(begin, kind="stable").astype(np.int64),
    )
