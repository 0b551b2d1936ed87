"""The partition family: rules that say what one axis of the mesh may do to an operator.

A rule is a documented function, registered by a decorator. Its form says what it is a function of:

* `splits`: of an operator and one of its loops; true when an axis may split that loop. What operands must
  look like then, and how the result comes out, follows from the loop nest (`tilewright.rules.splitting`).
* `passes`: of an operator; true when it is linear, so that partial sums may pass through it.
* `macro`: of an operator, its nest and the size of the axis; returns what the axis does in full, with a
  named way (`AxisUse.macro`) by which a tile gets what it does not hold.

A loop belongs to the first `splits` rule that claims it: leaving that rule out forbids the split.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from tilewright.graph import Op
from tilewright.rules.family import FunctionRule, RuleFamily, check_written
from tilewright.rules.loopnest import LoopDim, LoopNest

NOT_SPLIT = -1
"""Entry of `split_dims` of an axis that splits no loop dimension."""


class Form(StrEnum):
    """What a partition rule is a function of."""

    SPLITS = "splits"
    PASSES = "passes"
    MACRO = "macro"


@dataclass(frozen=True, slots=True, kw_only=True)
class AxisUse:
    """What one mesh axis does to an operator.

    States are those of a sharding on this axis: replicated, the split tensor dimension, or partial.
    `macro` names how a tile comes by what its own pieces do not hold; "" when they hold everything.
    """

    rule: str
    split_dim: int
    """The loop dimension that the axis splits, or NOT_SPLIT."""
    operands: tuple[int, ...]
    result: int
    macro: str = ""


Splits = Callable[[Op, LoopDim], bool]
Passes = Callable[[Op], bool]
MacroUses = Callable[[Op, LoopNest, int], Iterable[AxisUse]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionRule(FunctionRule):
    """A registered partition rule."""

    form: Form
    is_for_large: bool = False
    """Whether it runs only for results of `SaturationOptions.least_scattered_bytes` or more."""


class PartitionRules(RuleFamily[PartitionRule]):
    """The rules of the family in order of registration."""

    def splits(self, *, source: str) -> Callable[[Splits], Splits]:
        """Register a function (op, loop) that is true when an axis may split the loop."""
        return self._registered(Form.SPLITS, source, ("op", "loop"))

    def passes(self, *, source: str) -> Callable[[Passes], Passes]:
        """Register a function (op) that is true when partial sums may pass through the operator."""
        return self._registered(Form.PASSES, source, ("op",))

    def macro(self, *, source: str, is_for_large: bool = False) -> Callable[[MacroUses], MacroUses]:
        """Register a function (op, nest, size) that yields what an axis of `size` tiles may do."""
        parameters = ("op", "nest", "size")
        return self._registered(Form.MACRO, source, parameters, is_for_large=is_for_large)

    def _registered(
        self, form: Form, source: str, parameters: tuple[str, ...], *, is_for_large: bool = False
    ) -> Callable[[Any], Any]:
        def register(function: Callable[..., Any]) -> Callable[..., Any]:
            name = f"{self.name}.{function.__name__}"
            made = define_partition(name, form, function, source, parameters)
            made = replace(made, is_for_large=is_for_large)
            self._add(made)
            return function

        return register


def define_partition(
    name: str,
    form: Form,
    function: Callable[..., Any],
    source: str,
    parameters: tuple[str, ...],
) -> PartitionRule:
    """Return a checked rule.

    Raises:
        RuleError: A bad name, no docstring, or other parameters than its form takes.
    """
    check_written(name, function, form=form, parameters=parameters)
    return PartitionRule(name=name, form=form, source=source, function=function)


partition = PartitionRules("partition")
