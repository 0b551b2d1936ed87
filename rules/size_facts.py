# mypy: disable-error-code="empty-body"
"""Fact tables about the size of values: what rules may ask of the machine's scratchpads."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

from egglog import Unit, function, i64Like

from tilewright.rules.facts import Row, Vocabulary, fact_table


@function(egg_fn="worth_slicing")
def worth_slicing(number: i64Like) -> Unit:
    """Hold when values of the type are so large that making and using them in slices may pay."""


@fact_table(worth_slicing)
def _worth_slicing(known: Vocabulary) -> Iterable[Row]:
    least = known.least_sliced_bytes * prod(known.multiples)  # of all tiles together
    for number, t in enumerate(known.types):
        if t.size_bytes >= least:
            yield (number,)
