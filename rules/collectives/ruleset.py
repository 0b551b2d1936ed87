"""The collective family: two steps of a resharding chain that are one.

Resharding is no e-node but an edge of extraction: the cheapest chain of steps between two shardings.
All-gather, all-reduce and slice are the steps that every chain can be made of; a rule of this family adds
the step that does the work of two.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from tilewright.rules.family import FunctionRule, RuleFamily, check_written


class StepKind(StrEnum):
    """What one step does to the sharding of a tensor on one mesh axis."""

    ALL_GATHER = "all_gather"  # split on `dim` -> replicated
    SLICE = "slice"  # replicated -> split on `dim`; local
    ALL_REDUCE = "all_reduce"  # partial -> replicated
    ALL_TO_ALL = "all_to_all"  # split on `dim` -> split on `to_dim`
    REDUCE_SCATTER = "reduce_scatter"  # partial -> split on `dim`


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step on one mesh axis."""

    kind: StepKind
    axis: int
    dim: int = -1
    to_dim: int = -1


Fuses = Callable[[Step, Step], tuple[Step, ...] | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectiveRule(FunctionRule):
    """A registered rule; `function` gives what does the work of two steps, None where it does not apply."""


class CollectiveRules(RuleFamily[CollectiveRule]):
    """The rules of the family in order of registration."""

    def rule(self, *, source: str) -> Callable[[Fuses], Fuses]:
        """Register a function (first, second) of two steps, the second right after the first.

        Raises:
            RuleError: No docstring, other parameters, a bad or taken name.
        """

        def register(function: Fuses) -> Fuses:
            name = f"{self.name}.{function.__name__}"
            check_written(name, function, form="collective", parameters=("first", "second"))
            self._add(CollectiveRule(name=name, source=source, function=function))
            return function

        return register


collective = CollectiveRules("collective")
