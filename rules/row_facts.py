# mypy: disable-error-code="empty-body"
"""Facts that the rules of softmax and norms ask for: rows of tensors, and the steps that normalise them."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

from egglog import StringLike, Unit, function, i64Like

from tilewright.graph import TensorType, parse_pipeline
from tilewright.rules.constructors import decode_tuple, encode_value
from tilewright.rules.facts import Row, Vocabulary, fact_table


@function(egg_fn="row_scalar")
def row_scalar(number: i64Like) -> Unit:
    """Hold when the type has size 1 in its last dimension: one number for each row."""


@fact_table(row_scalar)
def _row_scalar(known: Vocabulary) -> Iterable[Row]:
    return ((i,) for i, t in enumerate(known.types) if t.rank >= 2 and t.shape[-1] == 1)


@function(egg_fn="root_mean_square")
def root_mean_square(number: i64Like, epsilon: StringLike, fn: StringLike) -> Unit:
    """Hold when `fn(x, s)` divides x by sqrt(s / length of a row + epsilon)."""


@fact_table(root_mean_square)
def _root_mean_square(known: Vocabulary) -> Iterable[Row]:
    for number, t in enumerate(known.types):
        if not t.dtype.is_float or t.shape[-1] == 0:
            continue
        for epsilon in known.column("epsilon"):
            yield number, epsilon, f"div_rms({1.0 / t.shape[-1]!r},{float(epsilon)!r})"


@function(egg_fn="root_of_mean")
def root_of_mean(number: i64Like, epsilon: StringLike, fn: StringLike) -> Unit:
    """Hold when pipeline `fn` turns a sum over the last axis into sqrt(mean + epsilon)."""


@fact_table(root_of_mean)
def _root_of_mean(known: Vocabulary) -> Iterable[Row]:
    for number, epsilon, fn in _root_mean_square(known):
        ((_, (scale, shift)),) = parse_pipeline(str(fn))
        yield number, epsilon, f"mul_const({scale})|add_const({shift})|sqrt"


@function(egg_fn="mean_from_sum")
def mean_from_sum(number: i64Like, fn: StringLike) -> Unit:
    """Hold when pipeline `fn` turns a sum over the last axis into a mean."""


@fact_table(mean_from_sum)
def _mean_from_sum(known: Vocabulary) -> Iterable[Row]:
    for number, t in enumerate(known.types):
        if t.dtype.is_float and t.shape[-1]:
            yield number, f"mul_const({1.0 / t.shape[-1]!r})"


@function(egg_fn="row_scale")
def row_scale(scale: i64Like, weight: i64Like, shape: StringLike) -> Unit:
    """Hold when scale [*1, k or 1], as `shape` [*1, k or 1, 1], broadcasts over weight [*batch, k, n].

    Both have the same elements.
    """


@fact_table(row_scale)
def _row_scale(known: Vocabulary) -> Iterable[Row]:
    for i, s in enumerate(known.types):
        if s.rank < 2 or prod(s.shape) != s.shape[-1]:
            continue
        for j, w in enumerate(known.types):
            if w.dtype == s.dtype and w.rank == s.rank and s.shape[-1] in (1, w.shape[-2]):
                yield i, j, encode_value((*s.shape[:-2], s.shape[-1], 1))


@function(egg_fn="layernorm_steps")
def layernorm_steps(
    number: i64Like,
    epsilon: StringLike,
    last: StringLike,
    rows: StringLike,
    mean: StringLike,
    fn: StringLike,
) -> Unit:
    """Hold when the texts are the steps of a layer norm of the type and of its product with a weight.

    `last` and `rows` are the axes of the last dimension and the one before it; `mean` makes a mean of a sum
    over a row, and `fn(x, s)` divides x by sqrt(s / length of a row + epsilon).
    """


@fact_table(layernorm_steps)
def _layernorm_steps(known: Vocabulary) -> Iterable[Row]:
    means = {number: mean for number, mean in _mean_from_sum(known)}
    for number, epsilon, fn in _root_mean_square(known):
        rank = known.types[int(number)].rank
        if rank >= 2:
            last, rows = encode_value((rank - 1,)), encode_value((rank - 2,))
            yield number, epsilon, last, rows, means[number], fn


@function(egg_fn="affine_layernorm_steps")
def affine_layernorm_steps(
    number: i64Like,
    row: i64Like,
    epsilon: StringLike,
    last: StringLike,
    rows: StringLike,
    mean: StringLike,
    fn: StringLike,
    column: StringLike,
) -> Unit:
    """Hold for `layernorm_steps` when the type `row` is a row of the type, and a column as `column`."""


@fact_table(affine_layernorm_steps)
def _affine_layernorm_steps(known: Vocabulary) -> Iterable[Row]:
    for number, *steps in _layernorm_steps(known):
        t = known.types[int(number)]
        for i in _rows_of(known, t):
            yield number, i, *steps, encode_value((*known.types[i].shape[:-2], t.shape[-1], 1))


@function(egg_fn="flattened_layernorm_steps")
def flattened_layernorm_steps(
    number: i64Like,
    row: i64Like,
    epsilon: StringLike,
    shape: StringLike,
    last: StringLike,
    rows: StringLike,
    mean: StringLike,
    fn: StringLike,
    column: StringLike,
    reshaped: StringLike,
    single: StringLike,
) -> Unit:
    """Hold for the steps of a layer norm of the type when reshaping it to `shape` keeps its rows.

    `last` is an axis of the type, `rows` of `shape`. The type `row` is a row of the type; as
    `reshaped` it is one of `shape`, as `column` a column that scales the rows of a weight. `single`
    is `shape` with rows of one value.
    """


@fact_table(flattened_layernorm_steps)
def _flattened_layernorm_steps(known: Vocabulary) -> Iterable[Row]:
    shapes = [(text, decode_tuple(text)) for text in known.column("shape")]
    for number, epsilon, last, _, mean, fn in _layernorm_steps(known):
        t = known.types[int(number)]
        for text, shape in shapes:
            if len(shape) < 2 or shape[-1] != t.shape[-1] or prod(shape) != prod(t.shape):
                continue
            rows, ones = encode_value((len(shape) - 2,)), (1,) * (len(shape) - 2)
            made = ((*ones, shape[-1], 1), (*ones, 1, shape[-1]), (*shape[:-1], 1))
            for i in _rows_of(known, t):
                yield number, i, epsilon, text, last, rows, mean, fn, *map(encode_value, made)


def _rows_of(known: Vocabulary, t: TensorType) -> list[int]:
    """Return the types of the same elements and rank that are one row of a type."""
    return [
        i
        for i, row in enumerate(known.types)
        if row.dtype == t.dtype
        and row.rank == t.rank
        and prod(row.shape) == row.shape[-1]
        and row.shape[-1] == t.shape[-1]
    ]
