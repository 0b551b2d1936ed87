"""One foreign rule on one instance: do both sides have one value?"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from tilewright.graph import Array
from tilewright.rules.importing.mapping import Value
from tilewright.rules.importing.pattern import Pattern, Typing
from tilewright.rules.importing.sampling import Instance

_ROUNDING = 1e-9
_LARGEST_VALUE = 3


class Outcome(StrEnum):
    """How the right side compares with the left side."""

    AGREES = "agrees"
    UNTYPED = "the right side has no meaning"
    SHAPE = "the right side has another shape"
    VALUE = "the right side has other values"


@dataclass(frozen=True, slots=True)
class Trial:
    """An instance, the types of its left side and what came out."""

    instance: Instance
    values: tuple[Value, ...]
    """Types of the nodes of the left side."""
    outcome: Outcome
    reason: str = ""

    @property
    def agrees(self) -> bool:
        """Whether both sides are equal."""
        return self.outcome is Outcome.AGREES


def random_leaves(instance: Instance, random: np.random.Generator) -> list[Array]:
    """Return small whole numbers other than 0, on which sums and products are exact."""
    leaves: list[Array] = []
    for shape in instance.shapes:
        values = random.integers(-_LARGEST_VALUE, _LARGEST_VALUE, shape)
        leaves.append((values + (values >= 0)).astype(np.float64))
    return leaves


def compare_types(pattern: Pattern, instance: Instance) -> tuple[Trial, Typing]:
    """Return the outcome as far as types decide it, and the types of both sides."""
    typing = pattern.infer(instance.shapes, instance.windows)
    left_side = typing.values[: pattern.left_count]
    if typing.failed is not None:
        assert typing.failed >= pattern.left_count, "instances have a left side"
        reason = f"{pattern.nodes[typing.failed].text}: {typing.reason}"
        return Trial(instance, left_side, Outcome.UNTYPED, reason), typing
    pairs = zip(pattern.left, pattern.right, strict=True)
    if any(typing.values[left].type != typing.values[right].type for left, right in pairs):
        return Trial(instance, left_side, Outcome.SHAPE), typing
    return Trial(instance, left_side, Outcome.AGREES), typing


def is_equal(pattern: Pattern, typing: Typing, leaves: list[Array]) -> bool:
    """Whether both sides, of one type, have equal values on these leaves."""
    arrays = pattern.evaluate(leaves, typing)
    for left, right in zip(pattern.left, pattern.right, strict=True):
        a, b = arrays[left].astype(np.float64), arrays[right].astype(np.float64)
        if pattern.is_exact:
            if not np.array_equal(a, b, equal_nan=True):
                return False
        elif not np.allclose(a, b, rtol=_ROUNDING, atol=_ROUNDING, equal_nan=True):
            return False
    return True


def run_trial(
    pattern: Pattern, instance: Instance, random: np.random.Generator, *, draws: int = 1
) -> Trial:
    """Compare both sides of a rule on an instance with random values, drawn up to `draws` times."""
    trial, typing = compare_types(pattern, instance)
    for _ in range(draws if trial.agrees else 0):
        if not is_equal(pattern, typing, random_leaves(instance, random)):
            return replace(trial, outcome=Outcome.VALUE)
    return trial
