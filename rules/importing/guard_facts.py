# mypy: disable-error-code="empty-body"
"""Fact tables that guards of imported rules ask."""

from __future__ import annotations

import json
from collections.abc import Iterable

from egglog import StringLike, Unit, function, i64Like

from tilewright.rules.facts import Row, Vocabulary, fact_table


@function(egg_fn="one_group")
def one_group(rest: StringLike) -> Unit:
    """Hold when the attributes are those of a convolution with one group."""


@fact_table(one_group)
def _one_group(known: Vocabulary) -> Iterable[Row]:
    for text in known.column("rest"):
        if json.loads(text).get("groups") == 1:
            yield (text,)


@function(egg_fn="has_rank")
def has_rank(number: i64Like, rank: i64Like) -> Unit:
    """Hold when the type has so many dimensions."""


@fact_table(has_rank)
def _has_rank(known: Vocabulary) -> Iterable[Row]:
    return ((number, t.rank) for number, t in enumerate(known.types))


@function(egg_fn="element_type")
def element_type(number: i64Like, dtype: StringLike) -> Unit:
    """Hold when the type has elements of this type."""


@fact_table(element_type)
def _element_type(known: Vocabulary) -> Iterable[Row]:
    return ((number, str(t.dtype)) for number, t in enumerate(known.types))
