"""The partition rules of this package."""

from __future__ import annotations

from importlib import import_module

from tilewright.rules.partition.ruleset import PartitionRule, partition

_MODULES = (
    *("products", "attention", "chains", "tensors"),
    *("gathered", "ring_attention", "scattered", "halo", "vocabulary"),
)
"""In order: a loop belongs to the first rule that claims it."""


def partition_rules() -> tuple[PartitionRule, ...]:
    """Return every partition rule of this package, in order."""
    for module in _MODULES:
        import_module(f"tilewright.rules.partition.{module}")
    partition.close()
    return partition.rules
