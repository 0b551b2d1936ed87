"""Which instances of a repeated block keep which constants in the scratchpad.

A choice is for all instances of a block: a weight that all layers have stays in the scratchpad in all of
them or in none, so that a large part of it may stay empty. Here instances differ. Options of a variable
that need and give the same, and differ only in what they keep and how they tile, are interchangeable in
each instance; room goes to those that save most for each byte, as many instances as it holds.

Source:
    Dantzig, "Discrete-variable extremum problems", Operations Research 5 (1957) (the greedy order); Sinha,
    Zoltners, "The multiple-choice knapsack problem", Operations Research 27 (1979) (convex options).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from tilewright.extract.options import Option
from tilewright.extract.origins import Variable

Replaced = Mapping[tuple[int, Variable], int]
"""Numbers of options by instance and variable, where they are not what the choice says."""

Point = tuple[float, float, int]
"""Bytes kept, units and number of an option."""


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
    """Return which instances take other options so that all together cost least, by the greedy order.

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
    best: tuple[float, dict[tuple[int, Variable], int]] | None = None
    for row_bytes in sorted(row for row in rows if least <= row <= capacity_bytes):
        found = _within(fillables, alike, row_bytes, capacity_bytes - row_bytes)
        if found is not None and (best is None or found[0] < best[0]):
            best = found
    return {} if best is None else best[1]


def _within(
    fillables: Sequence[Fillable],
    alike: Sequence[tuple[int, ...]],
    row_bytes: int,
    room_bytes: float,
) -> tuple[float, dict[tuple[int, Variable], int]] | None:
    """Return units and exchanged options for a largest row, and the room for residents beside it."""
    hulls, units = [], 0.0
    for one, numbers in zip(fillables, alike, strict=True):
        points = [
            (float(one.options[n].resident_bytes), one.options[n].units, n)
            for n in numbers
            if one.needed_bytes(n) <= row_bytes
        ]
        hulls.append(_convex(points))
        room_bytes -= len(one.instances) * hulls[-1][0][0]
        units += len(one.instances) * hulls[-1][0][1]
    if room_bytes < 0:
        return None
    steps = sorted(
        (-(before[1] - after[1]) / (after[0] - before[0]), place, step)
        for place, hull in enumerate(hulls)
        for step, (before, after) in enumerate(pairwise(hull))
    )
    taken = [[len(one.instances)] + [0] * (len(hulls[p]) - 1) for p, one in enumerate(fillables)]
    for rate, place, step in steps:
        size = hulls[place][step + 1][0] - hulls[place][step][0]
        count = min(taken[place][step], int(room_bytes // size))
        taken[place][step + 1] = count
        room_bytes -= count * size
        units += count * size * rate
    replaced = {}
    for one, hull, counts in zip(fillables, hulls, taken, strict=True):
        for position, instance in enumerate(one.instances):
            number = hull[sum(position < count for count in counts) - 1][2]
            if number != one.chosen:
                replaced[instance, one.variable] = number
    return units, replaced


def _convex(points: Sequence[Point]) -> list[Point]:
    """Return the points of the lower convex hull from the one of fewest bytes on, as units fall."""
    hull: list[Point] = []
    for point in sorted(points):
        if hull and point[1] >= hull[-1][1]:
            continue
        while len(hull) > 1 and _slope(hull[-2], hull[-1]) >= _slope(hull[-1], point):
            hull.pop()
        hull.append(point)
    return hull


def _slope(first: Point, second: Point) -> float:
    return (second[1] - first[1]) / (second[0] - first[0])
