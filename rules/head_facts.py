# mypy: disable-error-code="empty-body"
"""Fact tables about heads of attention that share keys and values: what rules that join them may ask."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from egglog import StringLike, Unit, function, i64Like

from tilewright.rules.constructors import decode_tuple, encode_value
from tilewright.rules.facts import Row, Vocabulary, fact_table
from tilewright.rules.layout_facts import last_swaps


@function(egg_fn="shared_heads")
def shared_heads(
    result: i64Like,
    left: i64Like,
    right: i64Like,
    repeated: StringLike,
    merged: StringLike,
    rows: StringLike,
    once: StringLike,
    whole: StringLike,
) -> Unit:
    """Hold when `right` [.., g, 1, a, b] expands to `repeated` [.., g, r, a, b], `merged` as [.., g r, a, b].

    A product of the types `left` [.., g r, m, a] and `merged` gives `result`, of shape `whole`. With
    `left` as `rows` [.., g, r m, a] and `right` as `once` [.., g, a, b] it gives the same elements in
    the same order. Only for fewer rows m than columns, where what is repeated is most of what is read.
    """


@fact_table(shared_heads)
def _shared_heads(known: Vocabulary) -> Iterable[Row]:
    return _products(known, is_transposed=False)


@function(egg_fn="shared_transposed_heads")
def shared_transposed_heads(
    result: i64Like,
    left: i64Like,
    right: i64Like,
    repeated: StringLike,
    merged: StringLike,
    perm: StringLike,
    rows: StringLike,
    once: StringLike,
    whole: StringLike,
) -> Unit:
    """Hold as `shared_heads` does of a product with `merged` transposed by `perm`: `left` is [.., m, b]."""


@fact_table(shared_transposed_heads)
def _shared_transposed_heads(known: Vocabulary) -> Iterable[Row]:
    swaps = list(last_swaps(known))
    for *types_and_shapes, rows, once, whole in _products(known, is_transposed=True):
        for perm in swaps:
            if len(decode_tuple(perm)) == len(decode_tuple(str(once))):
                yield (*types_and_shapes, perm, rows, once, whole)


def _products(known: Vocabulary, *, is_transposed: bool) -> Iterator[Row]:
    """Yield the rows of `shared_heads`."""
    for repeated, merged in _repeats(known):
        *outer, groups, count, height, width = decode_tuple(repeated)
        terms, columns = (width, height) if is_transposed else (height, width)
        rights = _typed(known, (*outer, groups, 1, height, width))
        for t, left in enumerate(known.types):
            if left.rank < 3 or left.shape != (*outer, groups * count, left.shape[-2], terms):
                continue
            if left.shape[-2] >= columns:
                continue
            rows = (*outer, groups, count * left.shape[-2], terms)
            whole = (*left.shape[:-1], columns)
            made = [encode_value(shape) for shape in (rows, (*outer, groups, height, width), whole)]
            for r in _typed(known, whole):
                for u in rights:
                    yield r, t, u, repeated, merged, *made


def _typed(known: Vocabulary, shape: tuple[int, ...]) -> list[int]:
    return [number for number, t in enumerate(known.types) if t.shape == shape]


def _repeats(known: Vocabulary) -> Iterator[tuple[str, str]]:
    """Yield the shapes of an expansion and of the reshape that merges what it repeats."""
    shapes = [(text, decode_tuple(text)) for text in known.column("shape")]
    for repeated, wide in shapes:
        if len(wide) < 4 or wide[-3] == 1:
            continue
        whole = (*wide[:-4], wide[-4] * wide[-3], *wide[-2:])
        yield from ((repeated, merged) for merged, shape in shapes if shape == whole)
