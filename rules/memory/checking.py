"""Registration check of memory rules: what they allow fits and is never a partial sum in DRAM."""

from __future__ import annotations

from itertools import product

from tilewright.errors import RuleError
from tilewright.rules.memory.ruleset import Holding, Level, MemoryRule

_SIZES = (1, 100, 1000, 32_768, 262_144, 786_432, 1_048_576, 1_048_577, 1 << 30)
_SCRATCHPADS = (1024, 1 << 20)


def check_memory_rule(rule: MemoryRule) -> int:
    """Check a rule on tensors small and large; return how many it allows.

    Raises:
        RuleError: It allows a shard larger than the scratchpad in it, a partial sum in DRAM, or nothing.
    """
    allowed = 0
    flags = tuple(product((False, True), repeat=3))
    for scratchpad, shard, (constant, partial, movable) in product(_SCRATCHPADS, _SIZES, flags):
        held = Holding(
            is_constant=constant,
            is_partial=partial,
            is_movable=movable,
            shard_bytes=shard,
            scratchpad_bytes=scratchpad,
        )
        try:
            does_allow = bool(rule.function(held))
        except Exception as error:  # whatever a user's rule raises
            raise RuleError(rule.raised(error)) from error
        if not does_allow:
            continue
        allowed += 1
        if rule.level is Level.SRAM and shard > scratchpad:
            raise RuleError(
                f"{rule.where} holds {shard} bytes in a scratchpad of {scratchpad}; compare "
                "held.shard_bytes with held.scratchpad_bytes"
            )
        if rule.level is Level.DRAM and partial and not constant:
            raise RuleError(
                f"{rule.where} puts a partial sum in DRAM, of which there is one copy for all tiles; "
                "ask for not held.is_partial"
            )
    if not allowed:
        raise RuleError(f"{rule.where} allows nothing")
    return allowed
