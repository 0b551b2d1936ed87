# mypy: disable-error-code="empty-body"
"""Fact tables about joints: what may be joined, where its parts lie, which weights to merge."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise

from egglog import StringLike, Unit, function, i64Like

from tilewright.graph import TensorType
from tilewright.rules.facts import Row, Vocabulary, fact_table
from tilewright.rules.part_facts import front


@function(egg_fn="joins_columns")
def joins_columns(first: i64Like, second: i64Like, axis: StringLike) -> Unit:
    """Hold when types differ at most in their last dimension, which is `axis`; at least rank 2."""


@fact_table(joins_columns)
def _joins_columns(known: Vocabulary) -> Iterable[Row]:
    return _joining(known, 1)


@function(egg_fn="joins_rows")
def joins_rows(first: i64Like, second: i64Like, axis: StringLike) -> Unit:
    """Hold when types differ at most in their last but one dimension, which is `axis`."""


@fact_table(joins_rows)
def _joins_rows(known: Vocabulary) -> Iterable[Row]:
    return _joining(known, 2)


def _joining(known: Vocabulary, behind: int) -> Iterator[tuple[int, int, str]]:
    """Yield pairs of types that differ at most in the dimension `behind` from the end, and that axis."""
    groups: dict[TensorType, list[int]] = {}
    for number, t in enumerate(known.types):
        if t.rank >= max(behind, 2):
            axis = t.rank - behind
            shape = (*t.shape[:axis], 1, *t.shape[axis + 1 :])
            groups.setdefault(TensorType(shape, t.dtype), []).append(number)
    for t, numbers in groups.items():
        yield from ((i, j, str(t.rank - behind)) for i in numbers for j in numbers)


@function(egg_fn="multiplies")
def multiplies(first: i64Like, second: i64Like) -> Unit:
    """Hold when the first of two types has as many columns as the second has rows; at least rank 2."""


@fact_table(multiplies)
def _multiplies(known: Vocabulary) -> Iterable[Row]:
    matrices = [(number, t) for number, t in enumerate(known.types) if t.rank >= 2]
    rows: dict[int, list[int]] = {}
    for number, t in matrices:
        rows.setdefault(t.shape[-2], []).append(number)
    return ((i, j) for i, t in matrices for j in rows.get(t.shape[-1], ()))


@function(egg_fn="joins_kernels")
def joins_kernels(first: i64Like, second: i64Like) -> Unit:
    """Hold when two types of convolution weights [o, c, r, s] differ at most in their outputs."""


@fact_table(joins_kernels)
def _joins_kernels(known: Vocabulary) -> Iterable[Row]:
    return ((i, j) for i, j, axis in _joining(known, 4) if axis == "0")


@function(egg_fn="columns_behind")
def columns_behind(first: i64Like, second: i64Like, part: StringLike) -> Unit:
    """Hold when `part` takes the second of two types joined on their last dimension."""


@fact_table(columns_behind)
def _columns_behind(known: Vocabulary) -> Iterable[Row]:
    for first, second, axis in _joining(known, 1):
        yield first, second, _behind(known, first, second, int(axis))


@function(egg_fn="channels_behind")
def channels_behind(first: i64Like, second: i64Like, part: StringLike) -> Unit:
    """Hold when `part` takes the second of two images [n, c, h, w] joined on their channels."""


@fact_table(channels_behind)
def _channels_behind(known: Vocabulary) -> Iterable[Row]:
    for first, second, axis in _joining(known, 3):
        if axis == "1":
            yield first, second, _behind(known, first, second, 1)


def _behind(known: Vocabulary, first: int, second: int, axis: int) -> str:
    start, shape = known.types[first].shape[axis], known.types[second].shape
    return front(shape).along(axis, start, shape[axis]).text


@function(egg_fn="neighbours")
def neighbours(first: i64Like, second: i64Like) -> Unit:
    """Hold for two weights (numbers of tensors) of one tensor's products that follow each other by number."""


@fact_table(neighbours)
def _neighbours(known: Vocabulary) -> Iterable[Row]:
    return (pair for numbers in known.siblings for pair in pairwise(numbers))
