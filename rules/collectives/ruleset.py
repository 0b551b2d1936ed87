"""The collective family: two steps of a resharding chain that are one.

Resharding is no e-node but an edge of extraction: the cheapest chain of steps between two shardings.
All-gather, all-reduce and slice are the steps that every chain can be made of; a rule of this family adds
the step that does the work of two.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from tilewright.errors import RuleError
from tilewright.rules.family import RuleFamily


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
class CollectiveRule:
    """A registered rule; `function` gives what does the work of two steps, None where it does not apply."""

    name: str
    source: str
    function: Fuses

    @property
    def ruleset(self) -> str:
        """Name of the family."""
        return self.name.partition(".")[0]

    @property
    def equation(self) -> str:
        """First line of the docstring."""
        return (inspect.getdoc(self.function) or "").splitlines()[0]


class CollectiveRules(RuleFamily[CollectiveRule]):
    """The rules of the family in order of registration."""

    def rule(self, *, source: str) -> Callable[[Fuses], Fuses]:
        """Register a function (first, second) of two steps, the second right after the first.

        Raises:
            RuleError: No docstring, other parameters, a bad or taken name.
        """

        def register(function: Fuses) -> Fuses:
            name = f"{self.name}.{function.__name__}"
            code = function.__code__
            where = f"{code.co_filename}:{code.co_firstlineno}: rule '{name}'"
            if not re.fullmatch(r"[a-z0-9_]+\.[a-z0-9_]+", name):
                raise RuleError(f"{where}: expected a name like family.snake_case")
            if not inspect.getdoc(function):
                raise RuleError(f"{where} has no docstring; write its equation there")
            if tuple(inspect.signature(function).parameters) != ("first", "second"):
                raise RuleError(f"{where}: a collective rule takes (first, second)")
            self._add(CollectiveRule(name=name, source=source, function=function))
            return function

        return register


collective = CollectiveRules("collective")
