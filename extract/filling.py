"""Which instances of a repeated block keep which constants in the scratchpad.

A choice is for all instances of a block: a weight that all layers have stays in the scratchpad in all of
them or in none, so that a large part of it may stay empty. Here instances differ. Options of a variable
that need and give the same, and differ only in what they keep and how they tile, are interchangeable in
each instance: a knapsack problem with classes of alike items. Room goes to those that save most for each
byte, as many instances as it holds; where that may leave something to gain, an integer program has the
last word.

Sources:
    Dantzig, "Discrete-variable extremum problems", Operations Research 5 (1957) (the greedy order); Sinha,
    Zoltners, "The multiple-choice knapsack problem", Operations Research 27 (1979) (convex options, and the
    bound that the last step, taken in part, gives).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import scipy

from tilewright.extract.option import Option
from tilewright.extract.origins import Variable

Replaced = Mapping[tuple[int, Variable], int]
"""Numbers of options by instance and variable, where they are not what the choice says."""

Point = tuple[float, float, int]
"""Bytes kept, units and number of an option."""

_GAIN = 1e-4
"""Of all units, relative: what the greedy order may leave is not worth an integer program."""

_NODES = 2000
"""Of branch and bound for one knapsack."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fillable:
    """A variable in its instances, with the options that its choice may be exchanged for.

    `row_bytes` is the largest use of the scratchpad while one of the instances computes it with the
    chosen option, residents apart.
    """

    variable: Variable
    instances: tuple[int, ...]
    options: Sequence[Option]
    chosen: int
    row_bytes: int

    def alike(self) -> tuple[int, ...]:
        """Return the options that need and give what the chosen one does."""
        own = self.options[self.chosen]
        return tuple(
            number
            for number, option in enumerate(self.options)
            if number == self.chosen
            or (
                option.node is own.node
                and option.implementation is own.implementation
                and option.operands == own.operands
                and option.result == own.result
                and option.late == own.late
            )
        )

    def needed_bytes(self, number: int) -> int:
        """Return what an instance may need with an option, residents apart."""
        more = self.options[number].working_bytes - self.options[self.chosen].working_bytes
        return self.row_bytes + max(0, more)


def filled(fillables: Sequence[Fillable], capacity_bytes: int) -> Replaced:
    """Return which instances take other options so that all together cost least.

    The result is the best to within `_GAIN`, unless branch and bound ends early.

    Args:
        fillables: All variables that are computed, those with a single option too.
        capacity_bytes: The scratchpad of a tile.
    """
    alike = [one.alike() for one in fillables]
    least = max((one.row_bytes for one in fillables), default=0)
    rows = {
        one.needed_bytes(number)
        for one, numbers in zip(fillables, alike, strict=True)
        for number in numbers
    }
    knapsacks = [
        _knapsack(fillables, alike, row, capacity_bytes - row)
        for row in sorted(row for row in rows if least <= row <= capacity_bytes)
    ]
    found = [
        (_greedy(knapsack), knapsack)
        for knapsack in knapsacks
        if _least_bytes(knapsack) <= knapsack.room_bytes
    ]
    found.sort(key=lambda pair: pair[0].least_units)
    best: tuple[_Taken, _Knapsack] | None = None
    for taken, knapsack in found:
        if best is None or taken.units < best[0].units:
            best = taken, knapsack
    for taken, knapsack in found:
        assert best is not None, "there is one"
        if taken.least_units >= (1 - _GAIN) * best[0].units:
            break
        exact = _exact(knapsack)
        if exact is not None and exact.units < best[0].units:
            best = exact, knapsack
    return {} if best is None else _replaced(fillables, *best)


@dataclass(frozen=True, slots=True)
class _Knapsack:
    """Points of each variable, more bytes and fewer units one after the other, how often, and the room."""

    points: tuple[tuple[Point, ...], ...]
    times: tuple[int, ...]
    room_bytes: float


@dataclass(frozen=True, slots=True)
class _Taken:
    """How many instances take each point, what they cost, and what all choices cost at least."""

    counts: tuple[tuple[int, ...], ...]
    units: float
    least_units: float


def _knapsack(
    fillables: Sequence[Fillable],
    alike: Sequence[tuple[int, ...]],
    row_bytes: int,
    room_bytes: float,
) -> _Knapsack:
    """Return the choice that is left for a largest row, and the room for residents beside it."""
    points = tuple(
        _undominated(
            (float(one.options[n].resident_bytes), one.options[n].units, n)
            for n in numbers
            if one.needed_bytes(n) <= row_bytes
        )
        for one, numbers in zip(fillables, alike, strict=True)
    )
    return _Knapsack(points, tuple(len(one.instances) for one in fillables), room_bytes)


def _least_bytes(knapsack: _Knapsack) -> float:
    return sum(own[0][0] * n for own, n in zip(knapsack.points, knapsack.times, strict=True))


def _greedy(knapsack: _Knapsack) -> _Taken:
    """Take the steps that save most for each byte, as long as they fit; a part of the next one bounds."""
    hulls = [_convex(own) for own in knapsack.points]
    room = knapsack.room_bytes - _least_bytes(knapsack)
    units = sum(hull[0][1] * n for hull, n in zip(hulls, knapsack.times, strict=True))
    steps = sorted(
        (-(before[1] - after[1]) / (after[0] - before[0]), place, step)
        for place, hull in enumerate(hulls)
        for step, (before, after) in enumerate(pairwise(hull))
    )
    taken = [[n] + [0] * (len(hull) - 1) for n, hull in zip(knapsack.times, hulls, strict=True)]
    least_units = None
    for rate, place, step in steps:
        size = hulls[place][step + 1][0] - hulls[place][step][0]
        count = min(taken[place][step], int(room // size))
        if count < knapsack.times[place] and least_units is None:
            least_units = units + min(room, knapsack.times[place] * size) * rate
        taken[place][step + 1] = count
        room -= count * size
        units += count * size * rate
    counts = []
    for own, hull, reached in zip(knapsack.points, hulls, taken, strict=True):
        exactly = [here - after for here, after in pairwise((*reached, 0))]
        by_number = {point[2]: count for point, count in zip(hull, exactly, strict=True)}
        counts.append(tuple(by_number.get(point[2], 0) for point in own))
    return _Taken(tuple(counts), units, units if least_units is None else least_units)


def _exact(knapsack: _Knapsack) -> _Taken | None:
    """Return the best choice to within `_GAIN`, by branch and bound; None if none was found."""
    sizes = np.array([point[0] for own in knapsack.points for point in own])
    units = np.array([point[1] for own in knapsack.points for point in own])
    times = np.array(knapsack.times)
    owner = np.repeat(np.arange(len(times)), [len(own) for own in knapsack.points])
    each = np.equal.outer(np.arange(len(times)), owner).astype(float)
    found = scipy.optimize.milp(
        units,
        constraints=[
            scipy.optimize.LinearConstraint(each, times, times),
            scipy.optimize.LinearConstraint(sizes[None, :], -np.inf, knapsack.room_bytes),
        ],
        integrality=np.ones(len(units)),
        bounds=scipy.optimize.Bounds(0, np.inf),
        options={"node_limit": _NODES, "mip_rel_gap": _GAIN / 2},
    )
    if found.x is None:
        return None
    whole = np.rint(found.x).astype(int)
    ends = np.cumsum([len(own) for own in knapsack.points])
    counts = tuple(tuple(part.tolist()) for part in np.split(whole, ends[:-1]))
    is_whole = all(sum(own) == n for own, n in zip(counts, knapsack.times, strict=True))
    if not is_whole or sizes @ whole > knapsack.room_bytes:
        return None  # by what the solver tolerates
    total = float(units @ whole)
    return _Taken(counts, total, total)


def _replaced(fillables: Sequence[Fillable], taken: _Taken, knapsack: _Knapsack) -> Replaced:
    """Return the options that differ from the chosen ones; first instances take most bytes."""
    replaced = {}
    for one, points, counts in zip(fillables, knapsack.points, taken.counts, strict=True):
        numbers = [p[2] for p, count in zip(points, counts, strict=True) for _ in range(count)]
        for instance, number in zip(one.instances, reversed(numbers), strict=True):
            if number != one.chosen:
                replaced[instance, one.variable] = number
    return replaced


def _undominated(points: Iterable[Point]) -> tuple[Point, ...]:
    """Return the points of which none has as few bytes and units, the one of fewest bytes first."""
    kept: list[Point] = []
    for point in sorted(points):
        if not kept or point[1] < kept[-1][1]:
            kept.append(point)
    return tuple(kept)


def _convex(points: Sequence[Point]) -> list[Point]:
    """Return those of undominated points that are on the lower convex hull."""
    hull: list[Point] = []
    for point in points:
        while len(hull) > 1 and _slope(hull[-2], hull[-1]) >= _slope(hull[-1], point):
            hull.pop()
        hull.append(point)
    return hull


def _slope(first: Point, second: Point) -> float:
    return (second[1] - first[1]) / (second[0] - first[0])
