"""Weights resident or streamed, values in the scratchpad or in DRAM."""

from __future__ import annotations

from tilewright.rules.memory.ruleset import Holding, Level, memory

_LARGEST_SHARD = 0.75
"""Larger shards than this share of the scratchpad stay in DRAM."""
_SMALL_SHARD = 1 / 32
"""Smaller shards of values are not worth a trip to DRAM."""


def _is_worth_a_trip(held: Holding) -> bool:
    return held.is_movable or held.shard_bytes > held.scratchpad_bytes * _SMALL_SHARD


@memory.allows(level=Level.SRAM, source="T10 (SOSP 2024); nncase")
def weight_resident(held: Holding) -> bool:
    """W = W in the scratchpad, loaded once before the first inference."""
    return held.is_constant and held.shard_bytes <= held.scratchpad_bytes * _LARGEST_SHARD


@memory.allows(level=Level.DRAM, source="T10 (SOSP 2024); nncase")
def weight_streamed(held: Holding) -> bool:
    """W = boxes of W from DRAM as the loops reach them, fetched one box ahead."""
    return held.is_constant


@memory.allows(level=Level.SRAM, source="definition of a scratchpad")
def value_in_scratchpad(held: Holding) -> bool:
    """x = x in the scratchpad; a partial sum needs as much again to be reduced."""
    if held.is_partial:
        return not held.is_constant and 2 * held.shard_bytes <= held.scratchpad_bytes
    return not held.is_constant and held.shard_bytes <= held.scratchpad_bytes * _LARGEST_SHARD


@memory.allows(level=Level.DRAM, source="definition of a memory hierarchy")
def value_in_dram(held: Holding) -> bool:
    """x = x in DRAM, one copy for all tiles; partial sums never go there."""
    return not held.is_constant and not held.is_partial and _is_worth_a_trip(held)
