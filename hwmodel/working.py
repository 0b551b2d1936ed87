"""Which tiles of a machine with broken ones plans use: whole units of the axes are left out.

Makers do the same when they harvest rows of tiles: what is left is a smaller regular mesh, so that shardings
and collectives stay regular, and routers of tiles that are left out still forward what passes them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import chain
from math import prod

Coordinates = tuple[int, ...]

_MOST_STEPS = 50_000
"""Steps of the exact search; the best found by then stands."""


def coordinates(number: int, sizes: Sequence[int]) -> Coordinates:
    """Return the coordinates of a linear number on axes of some sizes, row-major.

    >>> coordinates(7, (4, 3))
    (2, 1)
    """
    found = []
    for size in reversed(sizes):
        number, coordinate = divmod(number, size)
        found.append(coordinate)
    return tuple(reversed(found))


@lru_cache(maxsize=64)
def working_units(
    sizes: tuple[int, ...], disabled: tuple[Coordinates, ...]
) -> tuple[tuple[int, ...], ...]:
    """Return the units of each axis that are used, such that no tile of theirs is disabled.

    Args:
        sizes: Units of each axis.
        disabled: Coordinates of the disabled tiles.

    Returns:
        Of all choices one with the most tiles, the outermost axes left whole where several have as many;
        no units at all if every tile is disabled. Beyond some 15 disabled tiles that share neither row nor
        column, the best choice that a bounded search finds.

    >>> working_units((4, 4), ((1, 2), (1, 3)))
    ((0, 2, 3), (0, 1, 2, 3))
    """
    search = _Search(sizes)
    search.leave_out(disabled, [set() for _ in sizes])
    return tuple(
        tuple(unit for unit in range(size) if unit not in out)
        for size, out in zip(sizes, search.best, strict=True)
    )


class _Search:
    """Depth-first: the first disabled tile that is left costs a unit of one of the axes."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self._sizes = sizes
        self._most_tiles = 0
        self._steps = 0
        self.best: list[set[int]] = [set(range(size)) for size in sizes]

    def leave_out(self, disabled: Sequence[Coordinates], out: list[set[int]]) -> None:
        """Try all ways to leave out what is disabled, beside some units of each axis already left out."""
        self._steps += 1
        tiles = prod(size - len(units) for size, units in zip(self._sizes, out, strict=True))
        if tiles <= self._most_tiles or self._steps > _MOST_STEPS:
            return
        if not disabled:
            self._most_tiles, self.best = tiles, [set(units) for units in out]
            return
        for axis, unit in self._choices(disabled, out):
            out[axis].add(unit)
            self.leave_out([tile for tile in disabled if tile[axis] != unit], out)
            out[axis].remove(unit)

    def _choices(
        self, disabled: Sequence[Coordinates], out: Sequence[set[int]]
    ) -> Iterator[tuple[int, int]]:
        """Yield what may be left out for a tile of the unit with most disabled ones, best first."""
        covered: dict[tuple[int, int], int] = {}
        for pair in chain.from_iterable(map(enumerate, disabled)):
            covered[pair] = covered.get(pair, 0) + 1
        crowded = max(covered, key=lambda pair: (covered[pair], -pair[0], -pair[1]))
        tile = next(tile for tile in disabled if tile[crowded[0]] == crowded[1])
        left = [size - len(units) for size, units in zip(self._sizes, out, strict=True)]
        yield from sorted(
            enumerate(tile), key=lambda pair: (-covered[pair] * left[pair[0]], -pair[0])
        )
