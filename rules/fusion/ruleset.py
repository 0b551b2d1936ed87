"""The rule set that the modules of this folder fill, and a condition that several share."""

from __future__ import annotations

from egglog import Unit, i64

from tilewright.rules.facts import same_shape
from tilewright.rules.registry import RuleSet
from tilewright.rules.terms import Tensor, has_type

fusion = RuleSet("fusion")


def of_one_shape(product: Tensor, root: Tensor, i: i64, j: i64) -> tuple[Unit, ...]:
    """Return the facts that product and result have one shape: the third operand enlarges nothing."""
    return (has_type(product, i), has_type(root, j), same_shape(i, j))
