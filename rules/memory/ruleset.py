"""The memory family: in which levels a tensor may be held while an operator runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from tilewright.rules.family import FunctionRule, RuleFamily, check_written


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
class MemoryRule(FunctionRule):
    """A registered memory rule; `function` tells whether it allows `level` for a tensor."""

    level: Level


class MemoryRules(RuleFamily[MemoryRule]):
    """The rules of the family in order of registration."""

    def allows(self, *, level: Level, source: str) -> Callable[[Allows], Allows]:
        """Register a function (held) that is true when a tensor may lie in `level`.

        Raises:
            RuleError: No docstring, other parameters, a bad or taken name.
        """

        def register(function: Allows) -> Allows:
            name = f"{self.name}.{function.__name__}"
            check_written(name, function, form="memory", parameters=("held",))
            self._add(MemoryRule(name=name, level=level, source=source, function=function))
            return function

        return register


memory = MemoryRules("memory")
