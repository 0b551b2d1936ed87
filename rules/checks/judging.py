"""One instance of a rule judged: equal types, equal values, or a failure that can be shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from tilewright.dtypes import DType
from tilewright.errors import ProgramError, ShapeError
from tilewright.reference import AnyArray
from tilewright.rules.checks.instance import Bindings, Computed, Instance, compute, type_of
from tilewright.rules.checks.matching import Facts, ways
from tilewright.rules.checks.patterns import Apply, Condition, Pattern, Term, names_in
from tilewright.rules.checks.values import Values
from tilewright.rules.registry import Numerics

_REASSOCIATION = {DType.F64: 1e-11, DType.F32: 1e-4, DType.F16: 0.05, DType.BF16: 0.3}
"""Largest error of sums in another order, relative to the largest number on the way."""


class Kind(StrEnum):
    """How a rule can be wrong."""

    TYPES = "types"
    VALUES = "values"


@dataclass(frozen=True, slots=True)
class Failure:
    """An instance on which a rule is wrong."""

    kind: Kind
    instance: Instance
    bindings: Bindings
    left: str | AnyArray
    """Type or value of the left side."""
    right: str | AnyArray
    """The same of the right side, or why it has none."""


@dataclass(frozen=True, slots=True)
class Class:
    """Precision class of a rule."""

    numerics: Numerics
    tolerance: float | None = None

    @property
    def dtypes(self) -> tuple[DType, ...]:
        """Element types to draw, the ones that tell most more often."""
        floats = (DType.F64, DType.F32, DType.F16, DType.BF16)
        if self.numerics is Numerics.APPROXIMATE:
            return (DType.F64, DType.F64, DType.F32)
        return (DType.F64, DType.F64, *floats, DType.I32, DType.I8, DType.U8)

    def values_of(self, draw: int, count: int) -> Values:
        """Return the kind of numbers of a draw: whole ones in the first third, then all in turn."""
        kinds = (Values.WHOLE, Values.NONZERO, Values.REAL, Values.EXTREME)
        if draw < count // 3:
            return kinds[draw % 2]
        return kinds[draw % (4 if self.numerics is Numerics.EXACT else 3)]


def judge(
    pattern: Pattern, precision: Class, instance: Instance, facts: Facts, bindings: Bindings
) -> Failure | None:
    """Return how the right side differs from the left one, if it does.

    Args:
        pattern: The rule.
        precision: What it may do to floats.
        instance: Fits the left side.
        facts: Types of the left side.
        bindings: Of all variables of the right side.
    """
    left_type = facts.types[pattern.left]
    try:
        right_type = type_of(pattern.right, instance.types, bindings)
    except (ShapeError, ValueError, IndexError, KeyError) as error:
        return Failure(Kind.TYPES, instance, bindings, str(left_type), _without(error, "type"))
    if right_type != left_type:
        return Failure(Kind.TYPES, instance, bindings, str(left_type), str(right_type))
    left = compute(pattern.left, instance, bindings)
    try:
        right = compute(pattern.right, instance, bindings)
    except ShapeError as error:
        return Failure(Kind.TYPES, instance, bindings, str(left_type), _without(error, "type"))
    except ProgramError as error:
        return Failure(Kind.VALUES, instance, bindings, left.value, _without(error, "value"))
    if np.all(differing(left, right, precision) == 0):
        return None
    if _is_unspecified(pattern.left, instance) or _is_unspecified(pattern.right, instance):
        return None
    return Failure(Kind.VALUES, instance, bindings, left.value, right.value)


def _without(error: Exception, what: str) -> str:
    """Say why a side has no type or value; operators of a pattern have no names."""
    return f"has no {what}: {error}".replace(" ''", "")


def differing(left: Computed, right: Computed, precision: Class) -> AnyArray:
    """Return 1 where both values differ by more than the class allows, else 0."""
    a, b = left.value, right.value
    dtype = DType.from_numpy(a.dtype)
    with np.errstate(all="ignore"):
        wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
        equal = (a == b) | (np.isnan(wide_a) & np.isnan(wide_b))
        is_exact = precision.numerics is Numerics.EXACT or not dtype.is_float
        if is_exact or (left.is_whole and right.is_whole):
            return np.asarray(~equal).astype(np.int8)
        if precision.numerics is Numerics.REASSOCIATES:
            allowed = _REASSOCIATION[dtype] * max(left.largest, right.largest, 1e-3)
        else:
            assert precision.tolerance is not None, "approximate rules state a tolerance"
            finite = np.abs(wide_a[np.isfinite(wide_a)])
            allowed = precision.tolerance * (float(finite.max()) if finite.size else 0.0)
        error = np.abs(wide_a - wide_b)
        # where the left side divides by zero or overflows, real arithmetic says nothing
        return np.asarray(np.isfinite(wide_a) & ~equal & ~(error <= allowed)).astype(np.int8)


def _is_unspecified(term: Term, instance: Instance) -> bool:
    """Whether a float out of the range of an integer type may be cast to it."""
    names = set(names_in(term))
    texts = " ".join([*(t for name, t in instance.texts.items() if name in names), str(term)])
    if not any(f"cast({d})" in texts for d in DType if not d.is_float):
        return False
    largest = (
        np.abs(array.astype(np.float64)).max(initial=0.0) for array in instance.leaves.values()
    )
    return isinstance(term, Apply) and max(largest, default=0.0) > 20


@dataclass(slots=True)
class Tally:
    """What the instances said about a rule so far."""

    instances: int = 0
    matches: int = 0


def failures(
    pattern: Pattern,
    precision: Class,
    instance: Instance,
    facts: Facts,
    conditions: Sequence[Condition],
    tally: Tally | None = None,
) -> Failure | None:
    """Return the first failure of a rule on an instance, if any.

    Args:
        pattern: The rule.
        precision: What it may do to floats.
        instance: Fits the left side.
        facts: Of the instance.
        conditions: Those that must hold.
        tally: Counts instances and matches.
    """
    has_matched = False
    found = None
    for bindings in ways(conditions, facts, instance.texts):
        has_matched = True
        found = judge(pattern, precision, instance, facts, bindings)
        if found is not None:
            break
    if tally is not None:
        tally.instances += 1
        tally.matches += has_matched
    return found
