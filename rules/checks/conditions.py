"""What each condition of a rule is needed for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from tilewright.rules.checks.instance import Instance
from tilewright.rules.checks.judging import Class, Kind, judge
from tilewright.rules.checks.matching import Facts, ways
from tilewright.rules.checks.patterns import Condition, Pattern

_ENOUGH = 10
"""So often must a condition fail alone before it is called needless."""


_MEANT_FOR = frozenset({"is_float", "is_full_float", "is_integer", "single_element"})
"""Conditions that say what a rule is meant for: floats, or a scalar operand."""


class Purpose(StrEnum):
    """What a condition of a rule is needed for."""

    BINDS = "binds"  # the right side or another condition uses its variables
    VALUES = "values"  # without it both sides have different values
    TYPES = "types"  # without it the right side has another type, or none
    BOUNDS = "bounds"  # equality does not need it: it is in `bounds`, or asks what is constant
    NOTHING = "nothing"  # it failed alone on some instances, and both sides were equal there
    UNTRIED = "untried"  # no instance failed it alone, so nothing is known


@dataclass(frozen=True, slots=True)
class ConditionReport:
    """A condition and what it is needed for."""

    condition: str
    purposes: tuple[Purpose, ...]


def required(pattern: Pattern) -> tuple[Condition, ...]:
    """Return the conditions under which both sides must be equal.

    Conditions of `bounds` are left out unless they bind a variable.
    """
    return (*pattern.when, *(c for c in pattern.bounds if pattern.binds(c)))


@dataclass(slots=True)
class Necessity:
    """Finds out what conditions are needed for, instance by instance."""

    pattern: Pattern
    precision: Class
    _open: tuple[Condition, ...] = ()
    _found: dict[Condition, set[Purpose]] = field(default_factory=dict)
    _tried: dict[Condition, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._open = tuple(
            c for c in self.pattern.when if not c.is_about_constness and not self.pattern.binds(c)
        )

    def try_without(self, instance: Instance, facts: Facts) -> None:
        """Judge an instance without each condition that fails alone on it."""
        everything = required(self.pattern)
        for condition in self._open:
            if self.tried(condition) >= _ENOUGH and condition in self._found:
                continue
            others = [c for c in everything if c is not condition]
            for bindings in ways(others, facts, instance.texts):
                if any(True for _ in ways([condition], facts, bindings)):
                    continue
                self._tried[condition] = self._tried.get(condition, 0) + 1
                failure = judge(self.pattern, self.precision, instance, facts, bindings)
                if failure is not None:
                    is_type = failure.kind is Kind.TYPES
                    purpose = Purpose.TYPES if is_type else Purpose.VALUES
                    self._found.setdefault(condition, set()).add(purpose)

    def tried(self, condition: Condition) -> int:
        """Return how often a condition failed alone."""
        return self._tried.get(condition, 0)

    def needless(self) -> Sequence[Condition]:
        """Return the conditions that were needed for nothing.

        A rule may always be meant for floats only, or for a scalar: imported rules say so word for word.
        """
        nothing = [c for c in self._open if self.purposes(c) == (Purpose.NOTHING,)]
        return [c for c in nothing if c.name not in _MEANT_FOR]

    def purposes(self, condition: Condition) -> tuple[Purpose, ...]:
        """Return what a condition is needed for."""
        if self.pattern.binds(condition):
            return (Purpose.BINDS,)
        if condition.is_about_constness or condition in self.pattern.bounds:
            return (Purpose.BOUNDS,)
        found = tuple(sorted(self._found.get(condition, ())))
        if found:
            return found
        return (Purpose.NOTHING,) if self.tried(condition) >= _ENOUGH else (Purpose.UNTRIED,)

    def report(self) -> tuple[ConditionReport, ...]:
        """Return the purposes of all conditions in order of writing."""
        return tuple(ConditionReport(str(c), self.purposes(c)) for c in self.pattern.conditions)
