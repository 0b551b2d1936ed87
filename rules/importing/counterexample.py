"""The smallest instance on which a foreign rule is wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tilewright.graph import Array
from tilewright.rules.importing.pattern import Pattern, Shape, Typing
from tilewright.rules.importing.sampling import Instance, Sampler
from tilewright.rules.importing.trial import (
    Outcome,
    Trial,
    compare_types,
    is_equal,
    random_leaves,
    run_trial,
)

_VALUE_DRAWS = 8
_SMALL_DRAWS = 200
_MOST_DRAWS = 1000
_SHOWN_ELEMENTS = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Counterexample:
    """An instance on which both sides differ, in words."""

    outcome: Outcome
    inputs: tuple[tuple[str, str], ...]
    """Name of each variable and its value, as ``[1,2] = [[1, 3]]``."""
    left: str
    right: str

    def __str__(self) -> str:
        inputs = ", ".join(f"{name} {value}" for name, value in self.inputs)
        return f"{self.outcome}: {inputs}; left side {self.left}; right side {self.right}"


def smallest_counterexample(
    pattern: Pattern, sampler: Sampler, trials: Sequence[Trial], random: np.random.Generator
) -> Counterexample:
    """Return the smallest disagreement of the worst outcome among those found and others near.

    Args:
        pattern: The rule.
        sampler: Draws instances of the domain that the trials are of.
        trials: Instances with at least one disagreement.
        random: Source of randomness.
    """
    outcome = worst(trials)
    found = [trial for trial in trials if trial.outcome is outcome]
    for _ in range(_SMALL_DRAWS):
        instance = sampler.draw(random, small=True)
        if instance is not None and instance.elements <= found[0].instance.elements:
            trial = run_trial(pattern, instance, random, draws=_VALUE_DRAWS)
            if trial.outcome is outcome:
                found.append(trial)
    smallest = min(found, key=_size)
    trial = _shrunk(pattern, sampler, smallest, random)
    _, typing = compare_types(pattern, trial.instance)
    leaves: list[Array] = [np.ones(shape) for shape in trial.instance.shapes]
    if trial.outcome is Outcome.VALUE:
        leaves = _simple_leaves(pattern, trial.instance, typing, random)
    arrays = pattern.evaluate(leaves, typing)
    number = 0 if trial.outcome is Outcome.UNTYPED else _first_difference(pattern, arrays)
    return Counterexample(
        outcome=trial.outcome,
        inputs=tuple(
            (name, _array_text(leaf)) for name, leaf in zip(pattern.names, leaves, strict=True)
        ),
        left=_array_text(arrays[pattern.left[number]]),
        right=trial.reason or _array_text(arrays[pattern.right[number]]),
    )


def _size(trial: Trial) -> tuple[int, int]:
    shapes = trial.instance.shapes
    return trial.instance.elements, sum(len(shape) for shape in shapes)


def worst(trials: Sequence[Trial]) -> Outcome:
    """Return the worst outcome: wrong values, which no compiler would notice, come first."""
    order = (Outcome.VALUE, Outcome.SHAPE, Outcome.UNTYPED, Outcome.AGREES)
    return min((trial.outcome for trial in trials), key=order.index, default=Outcome.AGREES)


def _first_difference(pattern: Pattern, arrays: Sequence[Array]) -> int:
    for number, (left, right) in enumerate(zip(pattern.left, pattern.right, strict=True)):
        if not np.array_equal(arrays[left], arrays[right]):
            return number
    return 0


def _shrunk(pattern: Pattern, sampler: Sampler, trial: Trial, random: np.random.Generator) -> Trial:
    """Make sizes smaller, one value at a time everywhere or on one axis, while both sides differ."""
    is_smaller = True
    while is_smaller:
        is_smaller = False
        for shapes in dict.fromkeys(_smaller(trial.instance.shapes)):
            if shapes == trial.instance.shapes:
                continue
            instance = sampler.fitted(shapes, random)
            if instance is None:
                continue
            found = run_trial(pattern, instance, random, draws=_VALUE_DRAWS)
            if found.outcome is trial.outcome:
                trial, is_smaller = found, True
                break
    return trial


def _smaller(shapes: tuple[Shape, ...]) -> Iterator[tuple[Shape, ...]]:
    """Yield shapes in which a size is smaller in any subset that is likely to belong together."""
    sizes = sorted({size for shape in shapes for size in shape if size > 1}, reverse=True)
    for size in sizes:
        for less in range(1, size):
            yield tuple(tuple(less if s == size else s for s in shape) for shape in shapes)
            for axis in range(max(map(len, shapes))):
                yield tuple(
                    tuple(less if s == size and i == axis else s for i, s in enumerate(shape))
                    for shape in shapes
                )
    places = [(n, i) for n, shape in enumerate(shapes) for i, s in enumerate(shape) if s > 1]
    for first, (n, i) in enumerate(places):
        yield _with_smaller(shapes, ((n, i),))
        for other in places[first + 1 :]:
            yield _with_smaller(shapes, ((n, i), other))


def _with_smaller(
    shapes: tuple[Shape, ...], places: Sequence[tuple[int, int]]
) -> tuple[Shape, ...]:
    return tuple(
        tuple(s - 1 if (n, i) in places else s for i, s in enumerate(shape))
        for n, shape in enumerate(shapes)
    )


def _simple_leaves(
    pattern: Pattern, instance: Instance, typing: Typing, random: np.random.Generator
) -> list[Array]:
    """Return values on which both sides differ, as many of them 0 and 1 as possible."""
    leaves = random_leaves(instance, random)
    for _ in range(_MOST_DRAWS):  # the instance is one on which they differ
        if not is_equal(pattern, typing, leaves):
            break
        leaves = random_leaves(instance, random)
    divides = any(node.call and node.call.operator == "ewdiv" for node in pattern.nodes)
    for number, leaf in enumerate(leaves):
        for place in np.ndindex(*leaf.shape):
            for simple in (1.0,) if divides else (0.0, 1.0):
                changed = leaf.copy()
                changed[place] = simple
                tried = [*leaves[:number], changed, *leaves[number + 1 :]]
                if not is_equal(pattern, typing, tried):
                    leaves, leaf = tried, changed
                    break
    return leaves


def _array_text(array: Array) -> str:
    """Write shape and, if there are few, elements; whole numbers without a point."""
    shape = f"[{','.join(map(str, array.shape))}]"
    if array.size > _SHOWN_ELEMENTS:
        return shape
    return f"{shape} = {_nested(array)}"


def _nested(array: Array) -> str:
    if array.ndim == 0:
        return f"{array.item():.6g}"
    return f"[{', '.join(_nested(np.asarray(part)) for part in array)}]"
