# mypy: disable-error-code="empty-body"
"""Fact tables about padding: candidates that make a dimension divisible by the mesh."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import lcm, prod

from egglog import StringLike, Unit, function, i64Like

from tilewright.graph import AttrValue, TensorType
from tilewright.rules.constructors import CONSTRUCTORS, encode
from tilewright.rules.facts import Row, Vocabulary, fact_table

LARGEST_WASTE = 1 / 3
"""Padding may add this share of a dimension; more hardly pays for the tiles that it brings in."""


def padded_size(size: int, multiples: tuple[int, ...], largest_waste: float = LARGEST_WASTE) -> int:
    """Return the size that a dimension may be padded to; `size` itself if that is not worth while.

    A dimension that every axis of the mesh can split is left alone. Another becomes a multiple of all axes
    together, else of each one.

    >>> padded_size(30, (4, 2)), padded_size(32, (4, 2)), padded_size(9, (8,))
    (32, 32, 9)
    """
    axes = [n for n in multiples if n > 1]
    if all(size % n == 0 for n in axes):
        return size
    for multiple in (prod(axes), lcm(*axes)):
        padded = -(-size // multiple) * multiple
        if padded - size <= size * largest_waste:
            return padded
    return size


def _candidates(known: Vocabulary, behind: int) -> Iterator[tuple[int, str]]:
    """Yield types and the pad of their dimension `behind` from the end."""
    for number, t in enumerate(known.types):
        if t.rank >= 2 and t.dtype.is_float:
            axis = t.rank - behind
            grown = padded_size(t.shape[axis], known.multiples) - t.shape[axis]
            if grown:
                yield number, _padding(t, axis, grown)


def _padding(t: TensorType, axis: int, grown: int) -> str:
    ends = tuple(grown if i == axis else 0 for i in range(t.rank))
    attrs: dict[str, AttrValue] = {"begins": (0,) * t.rank, "ends": ends, "value": 0.0}
    return encode(CONSTRUCTORS["pad"], attrs)[0]


@function(egg_fn="pads_last")
def pads_last(number: i64Like, padding: StringLike) -> Unit:
    """Hold for the one pad by zeros that is a candidate for the last dimension of floats of this type."""


@fact_table(pads_last)
def _pads_last(known: Vocabulary) -> Iterable[Row]:
    return _candidates(known, 1)


@function(egg_fn="pads_rows")
def pads_rows(number: i64Like, padding: StringLike) -> Unit:
    """Hold for the one pad by zeros that is a candidate for the last dimension but one."""


@fact_table(pads_rows)
def _pads_rows(known: Vocabulary) -> Iterable[Row]:
    return _candidates(known, 2)
