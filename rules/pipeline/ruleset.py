"""The pipeline family: what a model allows to be done to it between stages.

A rule claims something that the check, or anybody, can hold against the reference semantics: the values
that are enough behind a cut, the dimension of a result along which pieces of the batch lie, the
values from which a result can be computed again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from tilewright.graph import Op, TensorType
from tilewright.rules.family import FunctionRule, RuleFamily, check_written
from tilewright.rules.loopnest import LoopNest


class Form(StrEnum):
    """What a rule is about; the parameter of its function is called so."""

    CUT = "cut"
    BATCH = "batch"
    VALUE = "value"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A place between two operators of a model.

    `made` are the values computed before it, in order; `read` those of them that are read behind it.
    """

    made: tuple[str, ...]
    read: tuple[str, ...]
    types: Mapping[str, TensorType]
    is_block_boundary: bool
    """Whether one block ends and another begins."""
    is_branch_boundary: bool = False
    """Whether a branch, which does not depend on what runs beside it, begins or ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """An operator on a batch of `size` samples.

    `dims[i]` is the dimension of operand i along which the samples lie one after the other, each in so many
    indices, -1 where the operand lacks them.
    """

    op: Op
    nest: LoopNest
    dims: tuple[int, ...]
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """A result that is read far behind: by later stages, or late in its own."""

    op: Op
    types: Mapping[str, TensorType]
    is_optional: bool = False
    """Whether it may be kept as well, whichever costs less; stages have no choice."""


Carried = tuple[str, ...] | None
"""The values that cross a cut, or that computing again reads; None: not legal."""
CutFunction = Callable[[Cut], Carried]
BatchFunction = Callable[[Batch], int | None]
ValueFunction = Callable[[Value], Carried]


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineRule(FunctionRule):
    """A registered rule of pipeline legality."""

    form: Form


class PipelineRules(RuleFamily[PipelineRule]):
    """The rules of the family in order of registration."""

    def cuts(self, *, source: str) -> Callable[[CutFunction], CutFunction]:
        """Register a function (cut) of the values that have to cross a cut, None if it is not legal.

        Raises:
            RuleError: No docstring, other parameters, a bad or taken name.
        """

        def register(function: CutFunction) -> CutFunction:
            self._add(self._made(function, Form.CUT, source))
            return function

        return register

    def splits_batch(self, *, source: str) -> Callable[[BatchFunction], BatchFunction]:
        """Register a function (batch) of the dimension of the result that is the batch, None if it is mixed.

        Raises:
            RuleError: No docstring, other parameters, a bad or taken name.
        """

        def register(function: BatchFunction) -> BatchFunction:
            self._add(self._made(function, Form.BATCH, source))
            return function

        return register

    def recomputes(self, *, source: str) -> Callable[[ValueFunction], ValueFunction]:
        """Register a function (value) of the operands that computing a value again reads, None: keep it.

        Raises:
            RuleError: No docstring, other parameters, a bad or taken name.
        """

        def register(function: ValueFunction) -> ValueFunction:
            self._add(self._made(function, Form.VALUE, source))
            return function

        return register

    def _made(
        self, function: Callable[..., tuple[str, ...] | int | None], form: Form, source: str
    ) -> PipelineRule:
        name = f"{self.name}.{function.__name__}"
        check_written(name, function, form=form.value, parameters=(form.value,))
        return PipelineRule(name=name, form=form, source=source, function=function)


pipeline = PipelineRules("pipeline")
