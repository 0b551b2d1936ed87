# mypy: disable-error-code="empty-body"
"""Fact tables about quantised weights and their scales."""

from __future__ import annotations

from collections.abc import Iterable

from egglog import Unit, function, i64Like

from tilewright.dtypes import DType
from tilewright.rules.facts import Row, Vocabulary, fact_table

_QUANTISED = frozenset({DType.I8, DType.U8, DType.I16, DType.U16})
"""Integers that take less memory than the floats that they stand for."""


@function(egg_fn="scales_integers")
def scales_integers(scale: i64Like, weight: i64Like) -> Unit:
    """Hold when the first type broadcasts to the shape of the second, one of integers of 8 or 16 bits."""


@fact_table(scales_integers)
def _scales_integers(known: Vocabulary) -> Iterable[Row]:
    for j, weight in enumerate(known.types):
        if weight.dtype not in _QUANTISED:
            continue
        for i, scale in enumerate(known.types):
            sizes = zip(scale.shape, weight.shape, strict=False)
            if scale.rank == weight.rank and all(a in (1, b) for a, b in sizes):
                yield i, j
