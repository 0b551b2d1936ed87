"""The memory family: in which levels a tensor may be held while an operator runs."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from tilewright.errors import RuleError
from tilewright.rules.family import RuleFamily


class Level(StrEnum):
    """A memory level."""

    SRAM = "sram"
    DRAM = "dram"


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """A tensor that an operator reads or makes, as one tile sees it.

    `is_partial`: a sum that is still to be reduced over the mesh. `is_movable`: another level is open to
    it even when it is small (results, which others may want elsewhere, and constants).
    """

    is_constant: bool
    is_partial: bool
    is_movable: bool
    shard_bytes: int
    scratchpad_bytes: int


Allows = Callable[[Holding], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryRule:
    """A registered memory rule; `function` tells whether it allows `level` for a tensor."""

    name: str
    level: Level
    source: str
    function: Allows

    @property
    def ruleset(self) -> str:
        """Name of the family."""
        return self.name.partition(".")[0]

    @property
    def equation(self) -> str:
        """First line of the docstring."""
        return (inspect.getdoc(self.function) or "").splitlines()[0]


class MemoryRules(RuleFamily[MemoryRule]):
    """The rules of the family in order of registration."""

    def allows(self, *, level: Level, source: str) -> Callable[[Allows], Allows]:
        """Register a function (held) that is true when a tensor may lie in `level`.

        Raises:
            RuleError: No docstring, other parameters, a bad or taken name.
        """

        def register(function: Allows) -> Allows:
            name = f"{self.name}.{function.__name__}"
            code = function.__code__
            where = f"{code.co_filename}:{code.co_firstlineno}: rule '{name}'"
            if not re.fullmatch(r"[a-z0-9_]+\.[a-z0-9_]+", name):
                raise RuleError(f"{where}: expected a name like family.snake_case")
            if not inspect.getdoc(function):
                raise RuleError(f"{where} has no docstring; write its equation there")
            if tuple(inspect.signature(function).parameters) != ("held",):
                raise RuleError(f"{where}: a memory rule takes one parameter, held")
            self._add(MemoryRule(name=name, level=level, source=source, function=function))
            return function

        return register


memory = MemoryRules("memory")
