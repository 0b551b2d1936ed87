"""Sizes that a dimension may be padded to so that axes of the mesh divide it."""

from __future__ import annotations

from itertools import combinations
from math import prod

_MOST_SIZES = 4
"""That are offered, the one given among them."""

_LARGEST_GROWTH, _LARGEST_GROWTH_OF_DIVIDED = 1.0, 1 / 3
"""A dimension grows by this share at most; less if each axis divides it as it is."""

_LITTLE = 1 / 8
"""Growth that is worth more ways of splitting in any case."""


def useful_sizes(size: int, axes: tuple[int, ...]) -> tuple[int, ...]:
    """Return the sizes that a dimension may get, from the one given upwards.

    Each is the next multiple of the product of some axes. One is left out if a smaller one can be split in
    all its ways, or another one that is little larger in these and more.

    Args:
        size: Of the dimension.
        axes: Sizes of the axes of the mesh.

    >>> useful_sizes(197, (8, 16, 16)), useful_sizes(197, (8, 9)), useful_sizes(128, (8, 16, 16))
    ((197, 208, 256), (197, 216), (128,))
    """
    longer = [n for n in axes if n > 1]
    multiples = {
        prod(some) for count in range(1, len(longer) + 1) for some in combinations(longer, count)
    }
    is_divided = all(size % n == 0 for n in longer)
    largest = size * (1 + (_LARGEST_GROWTH_OF_DIVIDED if is_divided else _LARGEST_GROWTH))
    ways = {
        rounded: frozenset(n for n in multiples if rounded % n == 0)
        for rounded in sorted({size, *(-(-size // n) * n for n in multiples)})
        if rounded <= largest
    }
    useful = [
        own
        for own in ways
        if own == size
        or not any(
            ways[other] >= ways[own] if other < own else ways[other] > ways[own]
            for other in ways
            if other != own and other <= own * (1 + _LITTLE)
        )
    ]
    # the rows that the most tiles would have are a guess at what a size costs
    useful[1:] = sorted(useful[1:], key=lambda own: own / max(ways[own]))[: _MOST_SIZES - 1]
    return tuple(sorted(useful))
