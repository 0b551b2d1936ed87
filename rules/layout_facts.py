# mypy: disable-error-code="empty-body"
"""Fact tables about permutations: what rules that move data or absorb moves may ask."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from egglog import StringLike, Unit, function, i64Like

from tilewright.rules.constructors import decode_tuple
from tilewright.rules.facts import Row, Vocabulary, fact_table

_PERMS = ("perm_a", "perm_b", "perm_out")

_MOST_DIMENSIONS = 3
"""Of operands whose transposes are absorbed. Attention heads have more: with queries, keys and values in
two or three orders each, the forms of their two products would outnumber the rest of a block."""


def _products(known: Vocabulary) -> list[dict[str, list[int]]]:
    """Return the attributes of every matmul that occurs: permutations by name."""
    found = [json.loads(text) for text in known.column("rest")]
    return [attrs for attrs in found if set(attrs) <= set(_PERMS)]


def _absorbing(known: Vocabulary, key: str) -> Iterable[Row]:
    """Yield (attributes, permutation, attributes with it) where both have one rank."""
    perms = [decode_tuple(text) for text in known.column("perm")]
    if key != "perm_out":
        perms = [perm for perm in perms if len(perm) <= _MOST_DIMENSIONS]
    for attrs in _products(known):
        if key in attrs:
            continue
        for perm in perms:
            if all(len(p) == len(perm) for p in attrs.values()) and perm != tuple(sorted(perm)):
                grown = dict(sorted({**attrs, key: list(perm)}.items()))
                yield json.dumps(attrs), json.dumps(perm), json.dumps(grown)


@function(egg_fn="absorbs_left")
def absorbs_left(rest: StringLike, perm: StringLike, grown: StringLike) -> Unit:
    """Hold when matmul attributes `grown` are `rest` with the left operand (rank <= 3) transposed."""


@fact_table(absorbs_left)
def _absorbs_left(known: Vocabulary) -> Iterable[Row]:
    return _absorbing(known, "perm_a")


@function(egg_fn="absorbs_right")
def absorbs_right(rest: StringLike, perm: StringLike, grown: StringLike) -> Unit:
    """Hold when matmul attributes `grown` are `rest` with the right operand (rank <= 3) transposed."""


@fact_table(absorbs_right)
def _absorbs_right(known: Vocabulary) -> Iterable[Row]:
    return _absorbing(known, "perm_b")


@function(egg_fn="absorbs_result")
def absorbs_result(rest: StringLike, perm: StringLike, grown: StringLike) -> Unit:
    """Hold when matmul attributes `grown` are `rest` with the result transposed by `perm`."""


@fact_table(absorbs_result)
def _absorbs_result(known: Vocabulary) -> Iterable[Row]:
    return _absorbing(known, "perm_out")


@function(egg_fn="swaps_last")
def swaps_last(perm: StringLike) -> Unit:
    """Hold when the permutation exchanges the last two dimensions and keeps the others."""


def last_swaps(known: Vocabulary) -> Iterator[str]:
    """Yield the permutations that exchange the last two dimensions."""
    for text in known.column("perm"):
        perm = decode_tuple(text)
        rank = len(perm)
        if rank >= 2 and perm == (*range(rank - 2), rank - 1, rank - 2):
            yield text


@fact_table(swaps_last)
def _swaps_last(known: Vocabulary) -> Iterable[Row]:
    return ((text,) for text in last_swaps(known))


@function(egg_fn="dtype_of")
def dtype_of(number: i64Like, dtype: StringLike) -> Unit:
    """Hold when the type has this element type."""


@fact_table(dtype_of)
def _dtype_of(known: Vocabulary) -> Iterable[Row]:
    return ((number, str(t.dtype)) for number, t in enumerate(known.types))


def _convolutions(known: Vocabulary) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield text and attributes of every convolution that occurs."""
    for text in known.column("rest"):
        attrs = json.loads(text)
        if "groups" in attrs:
            yield text, attrs


@function(egg_fn="without_groups")
def without_groups(rest: StringLike) -> Unit:
    """Hold when a convolution has one group."""


@fact_table(without_groups)
def _without_groups(known: Vocabulary) -> Iterable[Row]:
    return ((text,) for text, attrs in _convolutions(known) if attrs["groups"] == 1)


@function(egg_fn="two_groups")
def two_groups(rest: StringLike, grouped: StringLike) -> Unit:
    """Hold when `grouped` has twice as many groups as `rest` and is else the same convolution."""


@fact_table(two_groups)
def _two_groups(known: Vocabulary) -> Iterable[Row]:
    for text, attrs in _convolutions(known):
        yield text, json.dumps({**attrs, "groups": 2 * attrs["groups"]})
