# mypy: disable-error-code="empty-body"
"""Fact tables about parts of tensors: slices, also of joints and pads."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from egglog import StringLike, Unit, function, i64Like

from tilewright.graph import TensorType
from tilewright.rules.constructors import CONSTRUCTORS, encode
from tilewright.rules.facts import Row, Vocabulary, fact_table


@dataclass(frozen=True, slots=True)
class Part:
    """The attributes of a slice: out[i] = x[starts + i * steps]."""

    starts: tuple[int, ...]
    sizes: tuple[int, ...]
    steps: tuple[int, ...]

    @property
    def text(self) -> str:
        """Text of the attributes."""
        return _text(self)

    @property
    def rank(self) -> int:
        """Number of dimensions."""
        return len(self.sizes)

    def along(self, axis: int, start: int, size: int, step: int = 1) -> Part:
        """Return the part with another range along an axis."""

        def changed(values: tuple[int, ...], value: int) -> tuple[int, ...]:
            return (*values[:axis], value, *values[axis + 1 :])

        return Part(
            changed(self.starts, start), changed(self.sizes, size), changed(self.steps, step)
        )

    def takes(self, axis: int, size: int) -> bool:
        """Whether the part takes a whole dimension of some size as it is."""
        return (self.starts[axis], self.sizes[axis], self.steps[axis]) == (0, size, 1)

    def ends(self, axis: int) -> tuple[int, int]:
        """Return the lowest and the highest index that is taken along an axis."""
        first = self.starts[axis]
        last = first + (self.sizes[axis] - 1) * self.steps[axis]
        return min(first, last), max(first, last)


@lru_cache(maxsize=1 << 14)  # every round asks for the same parts
def _text(part: Part) -> str:
    attrs = {"starts": part.starts, "sizes": part.sizes, "steps": part.steps}
    return encode(CONSTRUCTORS["slice"], attrs)[0]


def front(shape: Sequence[int]) -> Part:
    """Return the slice of this shape that begins at the first element."""
    return Part((0,) * len(shape), tuple(shape), (1,) * len(shape))


def _parts(known: Vocabulary) -> Iterator[tuple[str, Part]]:
    """Yield text and attributes of every slice that occurs and takes something."""
    for text in known.column("rest"):
        attrs = json.loads(text)
        if set(attrs) == {"starts", "sizes", "steps"} and all(attrs["sizes"]):
            yield (
                text,
                Part(tuple(attrs["starts"]), tuple(attrs["sizes"]), tuple(attrs["steps"])),
            )


def _axes(known: Vocabulary) -> list[int]:
    return [int(text) for text in known.column("axis")]


@function(egg_fn="composes_slices")
def composes_slices(inner: StringLike, outer: StringLike, both: StringLike) -> Unit:
    """Hold when slice `outer` of slice `inner` is slice `both`."""


@fact_table(composes_slices)
def _composes_slices(known: Vocabulary) -> Iterable[Row]:
    parts = list(_parts(known))
    for inner_text, inner in parts:
        for outer_text, outer in parts:
            fits = inner.rank == outer.rank and all(
                0 <= outer.ends(i)[0] and outer.ends(i)[1] < size
                for i, size in enumerate(inner.sizes)
            )
            if fits:
                rows = list(zip(inner.starts, inner.steps, outer.starts, outer.steps, strict=True))
                starts = tuple(a + b * c for a, b, c, _ in rows)
                steps = tuple(b * d for _, b, _, d in rows)
                yield inner_text, outer_text, Part(starts, outer.sizes, steps).text


@function(egg_fn="takes_all")
def takes_all(number: i64Like, part: StringLike) -> Unit:
    """Hold when the slice of a tensor of this type is the tensor."""


@fact_table(takes_all)
def _takes_all(known: Vocabulary) -> Iterable[Row]:
    for number, t in enumerate(known.types):
        yield number, front(t.shape).text


@function(egg_fn="part_of_operand")
def part_of_operand(number: i64Like, part: StringLike, own: StringLike, dtype: StringLike) -> Unit:
    """Hold when `own` is what a map's operand of this type gives to slice `part` of the result.

    A dimension of size 1 is kept: it is broadcast, or the result's is of size 1 too.
    """


@fact_table(part_of_operand)
def _part_of_operand(known: Vocabulary) -> Iterable[Row]:
    for text, part in _parts(known):
        for number, t in enumerate(known.types):
            if t.rank != part.rank or not _reaches(part, t):
                continue
            own = part
            for axis, size in enumerate(t.shape):
                own = own.along(axis, 0, 1) if size == 1 else own
            yield number, text, own.text, str(t.dtype)


def _reaches(part: Part, t: TensorType) -> bool:
    """Whether a slice stays inside of the dimensions that are not of size 1."""
    return all(size == 1 or part.ends(axis)[1] < size for axis, size in enumerate(t.shape))


@function(egg_fn="within_first")
def within_first(part: StringLike, axis: StringLike, first: i64Like) -> Unit:
    """Hold when a slice of a joint along `axis` takes from its first operand only."""


@fact_table(within_first)
def _within_first(known: Vocabulary) -> Iterable[Row]:
    for text, part, axis, number, size in _cuts(known):
        if part.ends(axis)[1] < size:
            yield text, str(axis), number


@function(egg_fn="behind_first")
def behind_first(part: StringLike, axis: StringLike, first: i64Like, rest: StringLike) -> Unit:
    """Hold when a slice of a joint takes nothing from its first operand: it is slice `rest` of the rest."""


@fact_table(behind_first)
def _behind_first(known: Vocabulary) -> Iterable[Row]:
    for text, part, axis, number, size in _cuts(known):
        if part.ends(axis)[0] >= size:
            start, step = part.starts[axis] - size, part.steps[axis]
            yield text, str(axis), number, part.along(axis, start, part.sizes[axis], step).text


def _cuts(known: Vocabulary) -> Iterator[tuple[str, Part, int, int, int]]:
    """Yield slices (text, part) with an axis, and a type with its size along it."""
    axes = _axes(known)
    for text, part in _parts(known) if axes else ():
        for number, t in enumerate(known.types):
            for axis in axes if t.rank == part.rank else ():
                if axis < t.rank:
                    yield text, part, axis, number, t.shape[axis]


@function(egg_fn="adjacent")
def adjacent(first: StringLike, second: StringLike, axis: StringLike, both: StringLike) -> Unit:
    """Hold when two slices of one tensor joined along `axis` are the slice `both`."""


@fact_table(adjacent)
def _adjacent(known: Vocabulary) -> Iterable[Row]:
    axes, parts = _axes(known), list(_parts(known))
    for first_text, first in parts:
        for second_text, second in parts if axes else ():
            for axis in axes if first.rank == second.rank else ():
                if axis >= first.rank:
                    continue
                step = first.steps[axis]
                start = first.starts[axis] + first.sizes[axis] * step
                if second == first.along(axis, start, second.sizes[axis], step):
                    size = first.sizes[axis] + second.sizes[axis]
                    both = first.along(axis, first.starts[axis], size, step)
                    yield first_text, second_text, str(axis), both.text


@function(egg_fn="within_pad")
def within_pad(number: i64Like, padding: StringLike, part: StringLike, own: StringLike) -> Unit:
    """Hold when slice `part` of a padded tensor of this type is its slice `own`: nothing of the padding."""


@fact_table(within_pad)
def _within_pad(known: Vocabulary) -> Iterable[Row]:
    parts = list(_parts(known))
    for padding in _pads(known):
        begins = tuple(json.loads(padding)["begins"])
        fitting = [(n, t.shape) for n, t in enumerate(known.types) if t.rank == len(begins)]
        for text, part in parts:
            if part.rank != len(begins):
                continue
            starts = tuple(a - b for a, b in zip(part.starts, begins, strict=True))
            own = Part(starts, part.sizes, part.steps)
            ends = [own.ends(axis) for axis in range(own.rank)]
            if min(low for low, _ in ends) < 0:
                continue
            own_text = own.text
            for number, shape in fitting:
                if all(high < size for (_, high), size in zip(ends, shape, strict=True)):
                    yield number, padding, text, own_text


def _pads(known: Vocabulary) -> list[str]:
    """Return the attributes of every pad that occurs."""
    return [
        text
        for text in known.column("rest")
        if set(json.loads(text)) == {"begins", "ends", "value"}
    ]


@function(egg_fn="flat_along")
def flat_along(number: i64Like, axis: StringLike) -> Unit:
    """Hold when the type has size 1 along an axis that is not the last one.

    Weights joined by columns with a gain for each row: the compiler works that out anyway, in any order.
    """


@fact_table(flat_along)
def _flat_along(known: Vocabulary) -> Iterable[Row]:
    for axis in _axes(known):
        for number, t in enumerate(known.types):
            if axis < t.rank - 1 and t.shape[axis] == 1:
                yield number, str(axis)


@function(egg_fn="part_of_columns")
def part_of_columns(
    product: i64Like, weight: i64Like, part: StringLike, columns: StringLike
) -> Unit:
    """Hold when slice `part` of a product takes whole rows of some columns: `columns` of the weight."""


@fact_table(part_of_columns)
def _part_of_columns(known: Vocabulary) -> Iterable[Row]:
    for text, part in _parts(known):
        last = part.rank - 1
        if last < 1:
            continue
        fitting = [
            (number, t)
            for number, t in enumerate(known.types)
            if t.rank == part.rank and part.ends(last)[1] < t.shape[last]
        ]
        products = [
            (number, t.shape[last])
            for number, t in fitting
            if all(part.takes(axis, size) for axis, size in enumerate(t.shape[:last]))
        ]
        for product, size in products:
            for weight, t in fitting:
                if t.shape[last] == size:
                    own = front(t.shape).along(
                        last, part.starts[last], part.sizes[last], part.steps[last]
                    )
                    yield product, weight, text, own.text
