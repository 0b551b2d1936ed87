"""The memory rules of this package."""

from __future__ import annotations

from importlib import import_module

from tilewright.rules.memory.ruleset import MemoryRule, memory


def memory_rules() -> tuple[MemoryRule, ...]:
    """Return every memory rule of this package, in order."""
    import_module("tilewright.rules.memory.levels")
    memory.close()
    return memory.rules
