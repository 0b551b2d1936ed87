"""Tile sizes worth considering: the relation that bounds the tiling rules."""

from __future__ import annotations

from math import isqrt

MOST_SIZES = 8
"""At most so many tile sizes for one loop."""


def _divisors(extent: int) -> set[int]:
    small = {d for d in range(1, isqrt(extent) + 1) if extent % d == 0}
    return small | {extent // d for d in small}


def _rounded_parts(extent: int, quantum: int) -> set[int]:
    """Return the sizes of 2^i and 3 * 2^i equal parts, rounded up to the quantum."""
    sizes, parts = set(), 1
    while parts <= extent:
        for count in (parts, 3 * parts):
            size = -(-extent // count)
            sizes.add(-(-size // quantum) * quantum)
        parts *= 2
    return sizes


def tile_sizes(extent: int, quantum: int) -> tuple[int, ...]:
    """Return candidate tile sizes of a loop, largest first, the whole loop included.

    They are divisors of the extent and rounded equal parts; all but the whole loop are multiples of
    the quantum. Of more than MOST_SIZES, those nearest to a geometric series stay.

    Args:
        extent: Indices of the loop, at least 1.
        quantum: Preferred multiple (rows or columns of the matrix unit); 1 for none.

    >>> tile_sizes(384, 64)
    (384, 192, 128, 64)
    """
    found = _divisors(extent) | _rounded_parts(extent, quantum)
    sizes = sorted({s for s in found if s < extent and s % quantum == 0} | {extent}, reverse=True)
    if len(sizes) <= MOST_SIZES:
        return tuple(sizes)
    ratio = (sizes[-1] / sizes[0]) ** (1 / (MOST_SIZES - 1))
    targets = [sizes[0] * ratio**i for i in range(MOST_SIZES)]
    # an exact divisor wastes nothing, so it wins over a rounded part at the same distance
    nearest = [min(sizes, key=lambda s: (abs(s - t) / t, extent % s != 0, s)) for t in targets]
    return tuple(sorted({*nearest, sizes[0], sizes[-1]}, reverse=True))
