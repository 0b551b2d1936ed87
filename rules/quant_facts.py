# mypy: disable-error-code="empty-body"
"""Fact tables about quantised weights and their scales."""

from __future__ import annotations

from collections.abc import Iterable

from egglog import Unit, function, i64Like

from tilewright.dtypes import DType
from tilewright.rules.facts import Row, Vocabulary, fact_table

_QUANTISED = frozenset({DType.I8, DType.U8, DType.I16, DType.U16})


@function(egg_fn="is_quantised")
def is_quantised(number: i64Like) -> Unit:
    """Hold when the type is one of integers of 8 or 16 bits, which are smaller than what they stand for."""


@fact_table(is_quantised)
def _is_quantised(known: Vocabulary) -> Iterable[Row]:
    return ((number,) for number, t in enumerate(known.types) if t.dtype in _QUANTISED)


@function(egg_fn="broadcasts_onto")
def broadcasts_onto(small: i64Like, large: i64Like) -> Unit:
    """Hold when the first type, of one or several elements, broadcasts to the shape of the second."""


@fact_table(broadcasts_onto)
def _broadcasts_onto(known: Vocabulary) -> Iterable[Row]:
    for j, large in enumerate(known.types):
        if large.dtype not in _QUANTISED:
            continue
        for i, small in enumerate(known.types):
            sizes = zip(small.shape, large.shape, strict=False)
            if small.rank == large.rank and all(a in (1, b) for a, b in sizes):
                yield i, j
