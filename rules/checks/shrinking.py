"""The smallest instance on which a rule is wrong, for a person to look at."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tilewright.dtypes import DType
from tilewright.graph import Array
from tilewright.rules.checks.instance import Instance, fits
from tilewright.rules.checks.judging import Failure
from tilewright.rules.checks.patterns import Pattern
from tilewright.rules.checks.sampling import Choices, Sampler
from tilewright.rules.checks.values import Values

Retry = Callable[[Instance], Failure | None]
"""Judges an instance again; returns a failure of the same kind, if it is one."""

_DRAWS = 200
_MOST_TRIALS = 600
_SMALL = (
    Choices((DType.F64,), (1, 2), (1, 2, 3)),
    Choices((DType.F64,), (1, 2, 3), (2, 3, 4)),
    Choices((DType.I8, DType.I32), (1, 2), (1, 2, 3)),
)


def size_of(instance: Instance) -> tuple[float, ...]:
    """Return how much there is to look at: elements, ranks, attributes, magnitudes, other types."""
    arrays = list(instance.leaves.values())
    texts = [text for text in instance.texts.values() if text not in [*DType]]
    numbers = [int(n) for text in texts for n in re.findall(r"-?\d+", text)]
    magnitudes = [float(np.nan_to_num(np.abs(a.astype(np.float64))).sum()) for a in arrays]
    fractions = sum(int(np.sum(a.astype(np.float64) % 1 != 0)) for a in arrays)
    return (
        sum(a.size for a in arrays),
        sum(a.ndim for a in arrays),
        sum(abs(n) for n in numbers) + sum(len(text) for text in texts),
        fractions,
        sum(magnitudes) + sum(int(np.sum(a.astype(np.float64) < 0)) for a in arrays),
        sum(a.dtype != np.float64 for a in arrays),
    )


def _measure(failure: Failure) -> tuple[float, ...]:
    """Return how hard a failure is to look at: infinities first."""
    sides = [side for side in (failure.left, failure.right) if not isinstance(side, str)]
    infinite = sum(int(np.sum(~np.isfinite(side.astype(np.float64)))) for side in sides)
    return (infinite, *size_of(failure.instance))


def shrink(pattern: Pattern, failure: Failure, retry: Retry, seed: int) -> Failure:
    """Return the smallest failure found: other draws with small sizes, then smaller parts.

    Args:
        pattern: The rule.
        failure: A failure.
        retry: Judges an instance.
        seed: Seed of the draws.
    """
    smallest = failure
    for choices in _SMALL:
        sampler = Sampler(pattern, choices, np.random.default_rng(seed))
        for number in range(_DRAWS):
            instance = sampler.draw(Values.REAL if number % 3 == 2 else Values.WHOLE)
            if instance is not None and _may_be_smaller(instance, smallest):
                smallest = _smaller_of(smallest, retry(instance))
    trials = 0
    while True:
        for candidate in _smaller(smallest.instance):
            trials += 1
            if not _may_be_smaller(candidate, smallest) or not fits(pattern.present, candidate):
                continue
            found = _smaller_of(smallest, retry(candidate))
            if found is not smallest:
                smallest = found
                break
        else:
            return smallest
        if trials > _MOST_TRIALS:
            return smallest


def _may_be_smaller(instance: Instance, smallest: Failure) -> bool:
    """Whether an instance can be easier to look at; a larger one only if it has no infinities."""
    return _measure(smallest)[0] > 0 or size_of(instance) < size_of(smallest.instance)


def _smaller_of(one: Failure, other: Failure | None) -> Failure:
    return other if other is not None and _measure(other) < _measure(one) else one


def _smaller(instance: Instance) -> Iterator[Instance]:
    """Yield instances with one thing made smaller, the largest things first."""
    sizes = {size for array in instance.leaves.values() for size in array.shape if size > 1}
    yield _as_f64(instance)
    for size in sorted(sizes, reverse=True):
        for target in range(1, size):
            yield _resized(instance, size, target, slice(target))
            yield _resized(instance, size, target, slice(-target, None))
    places = {(a, s) for array in instance.leaves.values() for a, s in enumerate(array.shape)}
    for place in sorted(places, reverse=True):
        for target in range(1, place[1]):
            yield _cut(instance, *place, slice(target))
            yield _cut(instance, *place, slice(-target, None))
    for name, array in instance.leaves.items():
        for axis, size in enumerate(array.shape):
            for kept in (slice(1), slice(-1, None)) if size > 1 else ():
                shorter = array[(slice(None),) * axis + (kept,)]
                yield Instance({**instance.leaves, name: shorter}, instance.texts)
    for name, text in instance.texts.items():
        for other in _simpler_texts(text):
            yield Instance(instance.leaves, {**instance.texts, name: other})
    for name, array in instance.leaves.items():
        for simpler in _simpler_arrays(array):
            yield Instance({**instance.leaves, name: simpler}, instance.texts)


def _resized(instance: Instance, size: int, target: int, kept: slice) -> Instance:
    """Return an instance in which every dimension of a size, and as many groups, has another one."""

    def cut(array: Array) -> Array:
        return array[tuple(kept if s == size else slice(None) for s in array.shape)]

    def renamed(text: str) -> str:
        try:
            value = json.loads(text)
        except ValueError:
            return text
        if isinstance(value, dict) and value.get("groups") == size:
            return json.dumps({**value, "groups": target})
        if not isinstance(value, list):
            return text
        return json.dumps([target if v == size else v for v in value])

    leaves = {name: cut(array) for name, array in instance.leaves.items()}
    return Instance(leaves, {name: renamed(text) for name, text in instance.texts.items()})


def _cut(instance: Instance, axis: int, size: int, kept: slice) -> Instance:
    """Return an instance in which one axis of tensors of one size is shorter."""
    leaves = {}
    for name, array in instance.leaves.items():
        is_cut = array.ndim > axis and array.shape[axis] == size
        leaves[name] = array[(slice(None),) * axis + (kept,)] if is_cut else array
    return Instance(leaves, instance.texts)


def _as_f64(instance: Instance) -> Instance:
    """Return an instance whose most frequent element type is f64."""
    dtypes = [kind.dtype for kind in instance.types.values() if kind.dtype is not DType.BOOL]
    first = max(dtypes, key=dtypes.count, default=DType.F64)
    leaves = {
        name: array.astype(np.float64) if array.dtype == first.numpy else array
        for name, array in instance.leaves.items()
    }
    texts = {n: str(DType.F64) if t == str(first) else t for n, t in instance.texts.items()}
    return Instance(leaves, texts)


def _simpler_texts(text: str) -> Iterator[str]:
    """Yield simpler attributes: shorter pipelines, smaller numbers."""
    if "|" in text:
        steps = text.split("|")
        yield from ("|".join(steps[:i] + steps[i + 1 :]) for i in range(len(steps)))
    if text.startswith("{"):
        yield from _simpler_attributes(json.loads(text))
        return
    for match in re.finditer(r"(?<![\w.-])-?\d+(\.\d+)?(?!\w)", text):
        for simpler in ("0", "1", "2"):
            number = simpler + (".0" if match.group(1) else "")
            if abs(float(number)) < abs(float(match.group())):
                yield text[: match.start()] + number + text[match.end() :]


_AT_LEAST_ONE = ("strides", "dilations", "kernel", "groups", "steps", "sizes")


def _simpler_attributes(attrs: dict[str, Any]) -> Iterator[str]:
    """Yield attributes with one number smaller, but not so small that it means nothing."""
    for key, value in attrs.items():
        least = 1 if key in _AT_LEAST_ONE else 0
        if isinstance(value, int | float):
            for number in range(least, int(abs(value))):
                yield json.dumps({**attrs, key: type(value)(number)})
        elif isinstance(value, list):
            for place, found in enumerate(value):
                for number in range(least, abs(found)):
                    changed = [*value[:place], number, *value[place + 1 :]]
                    yield json.dumps({**attrs, key: changed})


def _simpler_arrays(array: Array) -> Iterator[Array]:
    """Yield arrays with simpler elements: all 0 or 1, all whole, one element 0, 1 or 2."""
    wide = array.astype(np.float64)
    for value in (0, 1):
        yield np.full_like(array, value)
    if array.dtype.kind in "fV":
        yield np.rint(wide).astype(array.dtype)
    for index in range(array.size):
        for value in (0, 1, 2):
            if abs(wide.flat[index]) > value or wide.flat[index] == -value:
                changed = array.copy()
                changed.flat[index] = value
                yield changed
