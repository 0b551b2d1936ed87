# mypy: disable-error-code="empty-body"
"""Fact tables: what rules may ask about types and attributes, computed in Python before each round.

A table is a relation over type numbers and attribute texts, and a provider that lists its rows for
the types and texts that occur in the e-graph. Rules join with tables in `when`, so that the engine
never parses an attribute and no Python runs inside a rule.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from egglog import StringLike, Unit, function, i64Like

from tilewright.dtypes import DType
from tilewright.graph import PARAMETRIC_FUNCTIONS, UNARY_FUNCTIONS, TensorType, parse_pipeline
from tilewright.reference import run_pipeline
from tilewright.rules.constructors import decode_tuple, encode_value

Row = tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The types (their index is their number) and the texts of each column that occur."""

    types: tuple[TensorType, ...]
    texts: Mapping[str, tuple[str, ...]]
    siblings: tuple[tuple[int, ...], ...] = ()
    """Numbers of the constant leaves that multiply one tensor, alike but for their outputs, in order."""
    multiples: tuple[int, ...] = (4,)
    """Sizes of mesh axes, which may split what is a multiple of them; 4 where a check has no mesh."""
    least_sliced_bytes: float = 0.0
    """Size in a tile from which on a value may be made and used in slices."""

    def column(self, name: str) -> tuple[str, ...]:
        """Return the texts of a column."""
        return self.texts.get(name, ())


@dataclass(frozen=True, slots=True)
class FactTable:
    """A relation and the function that lists its rows."""

    name: str
    relation: Any
    rows: Callable[[Vocabulary], Iterable[Row]]

    @property
    def module(self) -> str:
        """The module that rules import the relation from."""
        return self.rows.__module__

    @property
    def meaning(self) -> str:
        """First line of the relation's docstring."""
        return (self.relation.__doc__ or "").strip().partition("\n")[0]


_TABLES: dict[tuple[str, str], FactTable] = {}
"""By file and name: files of rules do not see each other's tables."""


def fact_table(
    relation: Any,
) -> Callable[[Callable[[Vocabulary], Iterable[Row]]], Callable[[Vocabulary], Iterable[Row]]]:
    """Register a provider of rows for a relation whose columns are i64 and String.

    The table has the provider's name. A file of rules that is loaded again replaces its own tables;
    tables of other files stay apart, since a saturation fills only those that its rules ask.
    """

    def register(
        provider: Callable[[Vocabulary], Iterable[Row]],
    ) -> Callable[[Vocabulary], Iterable[Row]]:
        name = provider.__name__.strip("_")
        table = FactTable(name, relation, provider)
        _TABLES[provider.__code__.co_filename, name] = table
        return provider

    return register


def fact_tables() -> tuple[FactTable, ...]:
    """Return every registered table in order of registration."""
    return tuple(_TABLES.values())


@function(egg_fn="composes")
def composes(p: StringLike, q: StringLike, r: StringLike) -> Unit:
    """Hold when transposing by p, then by q, is transposing by r."""


@fact_table(composes)
def _composes(known: Vocabulary) -> Iterable[Row]:
    perms = [decode_tuple(text) for text in known.column("perm")]
    for p in perms:
        for q in perms:
            if len(p) == len(q):
                yield encode_value(p), encode_value(q), encode_value(tuple(p[i] for i in q))


@function(egg_fn="identity_perm")
def identity_perm(p: StringLike) -> Unit:
    """Hold when transposing by p changes nothing."""


@fact_table(identity_perm)
def _identity_perm(known: Vocabulary) -> Iterable[Row]:
    for text in known.column("perm"):
        perm = decode_tuple(text)
        if perm == tuple(range(len(perm))):
            yield (text,)


@function(egg_fn="commutes")
def commutes(fn: StringLike) -> Unit:
    """Hold when the first function of the pipeline takes its two values in either order."""


@fact_table(commutes)
def _commutes(known: Vocabulary) -> Iterable[Row]:
    for fn in known.column("fn"):
        if parse_pipeline(fn)[0][0] in ("add", "mul", "min", "max"):
            yield (fn,)


@function(egg_fn="scales")
def scales(fn: StringLike, dtype: StringLike) -> Unit:
    """Hold when `fn(x, s)` is linear in x: mul or div of floats."""


@fact_table(scales)
def _scales(known: Vocabulary) -> Iterable[Row]:
    return ((fn, str(d)) for fn in ("mul", "div") for d in DType if d.is_float)


@function(egg_fn="scales_by_number")
def scales_by_number(fn: StringLike) -> Unit:
    """Hold when the pipeline is one mul_const."""


@fact_table(scales_by_number)
def _scales_by_number(known: Vocabulary) -> Iterable[Row]:
    for fn in known.column("fn"):
        if "|" not in fn and fn.startswith("mul_const("):
            yield (fn,)


@function(egg_fn="scaled_by")
def scaled_by(scale: StringLike, fn: StringLike, product: StringLike) -> Unit:
    """Hold when the pipeline is one mul_const(c), and product = scale * c as text of the attribute."""


@fact_table(scaled_by)
def _scaled_by(known: Vocabulary) -> Iterable[Row]:
    factors = {
        fn: float(parse_pipeline(fn)[0][1][0])
        for fn in known.column("fn")
        if "|" not in fn and fn.startswith("mul_const(")
    }
    for scale in known.column("scale"):
        for fn, factor in factors.items():
            yield scale, fn, encode_value(float(scale) * factor)


@function(egg_fn="is_float")
def is_float(dtype: StringLike) -> Unit:
    """Hold when the element type is a floating-point type."""


@fact_table(is_float)
def _is_float(known: Vocabulary) -> Iterable[Row]:
    return ((str(d),) for d in DType if d.is_float)


@function(egg_fn="is_integer")
def is_integer(dtype: StringLike) -> Unit:
    """Hold when the element type is an integer type."""


@fact_table(is_integer)
def _is_integer(known: Vocabulary) -> Iterable[Row]:
    return ((str(d),) for d in DType if not d.is_float and d is not DType.BOOL)


@function(egg_fn="is_full_float")
def is_full_float(dtype: StringLike) -> Unit:
    """Hold when the element type is f32 or f64, which decompositions do not round more coarsely."""


@fact_table(is_full_float)
def _is_full_float(known: Vocabulary) -> Iterable[Row]:
    return ((str(d),) for d in (DType.F32, DType.F64))


@function(egg_fn="same_shape")
def same_shape(a: i64Like, b: i64Like) -> Unit:
    """Hold when both types have the same shape (the element types may differ)."""


@fact_table(same_shape)
def _same_shape(known: Vocabulary) -> Iterable[Row]:
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for number, t in enumerate(known.types):
        by_shape.setdefault(t.shape, []).append(number)
    for numbers in by_shape.values():
        yield from ((a, b) for a in numbers for b in numbers)


@function(egg_fn="single_element")
def single_element(number: i64Like) -> Unit:
    """Hold when the type has one element."""


@fact_table(single_element)
def _single_element(known: Vocabulary) -> Iterable[Row]:
    return ((number,) for number, t in enumerate(known.types) if prod(t.shape) == 1)


@function(egg_fn="column_scale")
def column_scale(scale: i64Like, weight: i64Like) -> Unit:
    """Hold when scale [*1, 1, n or 1] broadcasts over weight [*batch, k, n], one a column; same elements."""


@fact_table(column_scale)
def _column_scale(known: Vocabulary) -> Iterable[Row]:
    for i, s in enumerate(known.types):
        if s.rank < 2 or s.shape[-2] != 1:
            continue
        for j, w in enumerate(known.types):
            if w.dtype == s.dtype and w.rank == s.rank and _fits(s.shape, w.shape):
                yield i, j


def _fits(small: tuple[int, ...], large: tuple[int, ...]) -> bool:
    return all(a in (1, b) for a, b in zip(small, large, strict=True))


@function(egg_fn="channel_scale")
def channel_scale(scale: i64Like, weight: i64Like, shape: StringLike) -> Unit:
    """Hold when scale [1, o, 1, 1], as `shape` [o, 1, 1, 1], broadcasts over weight [o, c, r, s].

    Both have the same elements.
    """


@fact_table(channel_scale)
def _channel_scale(known: Vocabulary) -> Iterable[Row]:
    for i, s in enumerate(known.types):
        if s.rank != 4 or prod(s.shape) != s.shape[1]:
            continue
        for j, w in enumerate(known.types):
            if w.dtype == s.dtype and w.rank == 4 and s.shape[1] in (1, w.shape[0]):
                yield i, j, encode_value((s.shape[1], 1, 1, 1))


@function(egg_fn="last_axis")
def last_axis(number: i64Like, axes: StringLike) -> Unit:
    """Hold when `axes` is the text of the attribute that reduces the last dimension."""


@fact_table(last_axis)
def _last_axis(known: Vocabulary) -> Iterable[Row]:
    for number, t in enumerate(known.types):
        yield number, encode_value((t.rank - 1,))


_WIDER: dict[DType, frozenset[DType]] = {
    DType.BF16: frozenset({DType.F32, DType.F64}),
    DType.F16: frozenset({DType.F32, DType.F64}),
    DType.F32: frozenset({DType.F64}),
    DType.I8: frozenset(
        {DType.I16, DType.I32, DType.I64, DType.F16, DType.BF16, DType.F32, DType.F64}
    ),
    DType.U8: frozenset(
        {
            *(DType.I16, DType.U16, DType.I32, DType.U32, DType.I64, DType.U64),
            *(DType.F16, DType.BF16, DType.F32, DType.F64),
        }
    ),
    DType.I16: frozenset({DType.I32, DType.I64, DType.F32, DType.F64}),
    DType.U16: frozenset({DType.I32, DType.U32, DType.I64, DType.U64, DType.F32, DType.F64}),
    DType.I32: frozenset({DType.I64, DType.F64}),
    DType.U32: frozenset({DType.I64, DType.U64, DType.F64}),
}
"""Element types that hold every value of another one exactly."""


@function(egg_fn="keeps_pad_value")
def keeps_pad_value(rest: StringLike, fn: StringLike, dtype: StringLike) -> Unit:
    """Hold when `fn` maps the value that the pad `rest` fills into a tensor of `dtype` to itself."""


@fact_table(keeps_pad_value)
def _keeps_pad_value(known: Vocabulary) -> Iterable[Row]:
    attrs = {text: json.loads(text) for text in known.column("rest")}
    pads = {text: float(a["value"]) for text, a in attrs.items() if "value" in a}
    dtypes = dict.fromkeys(t.dtype for t in known.types)
    one_operand = (*UNARY_FUNCTIONS, *PARAMETRIC_FUNCTIONS)
    for fn in (fn for fn in known.column("fn") if parse_pipeline(fn)[0][0] in one_operand):
        for d in dtypes:
            yield from ((t, fn, str(d)) for t, v in pads.items() if _maps_to_itself(fn, v, d))


def _maps_to_itself(fn: str, value: float, dtype: DType) -> bool:
    """Return whether both are the same bits: the negative of 0 is not 0."""
    try:
        with np.errstate(all="ignore"):
            filled = np.array([value]).astype(dtype.numpy)
            result = run_pipeline(fn, (filled,))
            expected = np.array([value]).astype(result.dtype)
    except (ArithmeticError, TypeError):
        return False  # the pipeline does not take this element type
    return result.tobytes() == expected.tobytes()


@function(egg_fn="lossless_cast")
def lossless_cast(number: i64Like, fn: StringLike) -> Unit:
    """Hold when the pipeline `fn` is one cast that keeps every value of the type."""


@fact_table(lossless_cast)
def _lossless_cast(known: Vocabulary) -> Iterable[Row]:
    for number, t in enumerate(known.types):
        for wide in sorted(_WIDER.get(t.dtype, ())):
            yield number, f"cast({wide})"


@function(egg_fn="is_cast")
def is_cast(fn: StringLike) -> Unit:
    """Hold when the pipeline is one cast."""


@fact_table(is_cast)
def _is_cast(known: Vocabulary) -> Iterable[Row]:
    return ((f"cast({d})",) for d in DType)


@function(egg_fn="keeps_values")
def keeps_values(number: i64Like, fn: StringLike) -> Unit:
    """Hold when the pipeline does nothing to the type: identity, or a cast to its own elements."""


@fact_table(keeps_values)
def _keeps_values(known: Vocabulary) -> Iterable[Row]:
    for number, t in enumerate(known.types):
        yield number, "identity"
        yield number, f"cast({t.dtype})"
