"""Positions and dimension-order routing in a one- or two-dimensional mesh or torus."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod


@dataclass(frozen=True, slots=True)
class Grid:
    """A mesh, or with `wraps` a torus; positions are row-major.

    Direction 2 * a steps to a larger coordinate of axis a, direction 2 * a + 1 to a smaller one.
    """

    shape: tuple[int, ...]
    wraps: bool

    def neighbours(self, position: int) -> tuple[tuple[int, int], ...]:
        """Return (direction, neighbour) for each link that leaves a position."""
        found = []
        for axis, size in enumerate(self.shape):
            coord = self._coord(position, axis)
            for sign, step in enumerate((1, -1)):
                inside = 0 <= coord + step < size
                if size > 1 and (inside or self.wraps):
                    found.append((2 * axis + sign, self._move(position, axis, step)))
        return tuple(found)

    def steps(
        self, start: int, end: int, *, first_axis_first: bool = False
    ) -> tuple[tuple[int, int], ...]:
        """Return (position, direction) of each link on the way, last axis first unless said otherwise.

        >>> Grid((2, 3), wraps=False).steps(0, 5)
        ((0, 2), (1, 2), (2, 0))
        >>> Grid((2, 3), wraps=False).steps(0, 5, first_axis_first=True)
        ((0, 0), (3, 2), (4, 2))
        """
        taken = []
        place = start
        axes = range(len(self.shape))
        for axis in axes if first_axis_first else reversed(axes):
            size, stride = self.shape[axis], prod(self.shape[axis + 1 :])
            coord = place // stride % size
            distance = self._distance(coord, end // stride % size, size)
            direction, step = (2 * axis, 1) if distance >= 0 else (2 * axis + 1, -1)
            line = place - coord * stride
            for _ in range(abs(distance)):
                taken.append((line + coord * stride, direction))
                coord = (coord + step) % size
            place = line + coord * stride
        return tuple(taken)

    def _distance(self, start: int, end: int, size: int) -> int:
        """Return the signed number of steps; on a torus the shorter way, ties to larger coordinates."""
        if not self.wraps:
            return end - start
        forward = (end - start) % size
        backward = size - forward
        return forward if forward <= backward else -backward

    def _coord(self, position: int, axis: int) -> int:
        return position // prod(self.shape[axis + 1 :]) % self.shape[axis]

    def _move(self, position: int, axis: int, step: int) -> int:
        stride = prod(self.shape[axis + 1 :])
        coord = self._coord(position, axis)
        return position + ((coord + step) % self.shape[axis] - coord) * stride


def perimeter(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the positions on the edge of a grid, clockwise from position 0.

    >>> perimeter((3, 3))
    (0, 1, 2, 5, 8, 7, 6, 3)
    """
    if len(shape) == 1:
        return (0,) if shape[0] == 1 else (0, shape[0] - 1)
    rows, columns = shape
    top = [(0, column) for column in range(columns)]
    right = [(row, columns - 1) for row in range(1, rows)]
    bottom = [(rows - 1, column) for column in reversed(range(columns - 1))] if rows > 1 else []
    left = [(row, 0) for row in reversed(range(1, rows - 1))] if columns > 1 else []
    return tuple(row * columns + column for row, column in (*top, *right, *bottom, *left))
