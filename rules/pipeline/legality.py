"""What the rules of pipeline legality allow, asked by those who cut, split and compute again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tilewright.graph import Op, TensorType
from tilewright.rules.annotations import annotate
from tilewright.rules.pipeline.ruleset import Batch, Carried, Cut, Form, PipelineRule, Value


@dataclass(frozen=True, slots=True, kw_only=True)
class Legality:
    """The rules that run."""

    rules: tuple[PipelineRule, ...]

    def carried(self, cut: Cut) -> Carried:
        """Return the values that cross a cut, as the first rule says that allows it; None: not legal."""
        return self._claim(Form.CUT, cut)

    def again(self, op: Op, types: Mapping[str, TensorType]) -> Carried:
        """Return what computing an operator's result again reads, None if it has to be kept."""
        return self._claim(Form.VALUE, Value(op=op, types=types))

    def rule_of_again(self, op: Op, types: Mapping[str, TensorType]) -> str:
        """Return the rule that lets an operator run again whose result may be kept as well, "" for none."""
        value = Value(op=op, types=types, is_optional=True)
        return next((r.name for r in self.rules if r.form is Form.VALUE and r.function(value)), "")

    def batch_dim(
        self, op: Op, types: Mapping[str, TensorType], dims: tuple[int, ...], size: int
    ) -> int | None:
        """Return the dimension of an operator's result that is the batch, None if the batch is mixed.

        Args:
            op: The operator.
            types: Types of its tensors.
            dims: The batch among each operand's dimensions, -1 where it is none of them.
            size: Samples in the batch.
        """
        if op.kind == "host":
            return None
        nest = annotate(op, tuple(types[name] for name in op.inputs), types[op.output])
        if nest is None:
            return None
        batch = Batch(op=op, nest=nest, dims=dims, size=size)
        for rule in self.rules:
            if rule.form is Form.BATCH:
                found = rule.function(batch)
                if found is not None:
                    assert isinstance(found, int), "the check holds rules to it"
                    return found
        return None

    def _claim(self, form: Form, asked: Cut | Value) -> Carried:
        for rule in self.rules:
            if rule.form is form:
                found = rule.function(asked)
                if found is not None:
                    assert isinstance(found, tuple), "the check holds rules to it"
                    return found
        return None


def rebatched(op: Op, dim: int, pieces: int) -> Op:
    """Return an operator for one of so many pieces of the batch, dimension `dim` of its result."""
    attrs = dict(op.attrs)
    for key in ("shape", "sizes"):
        if key in attrs:
            sizes = list(op.ints(key))
            sizes[dim] //= pieces
            attrs[key] = tuple(sizes)
    return replace(op, attrs=attrs)
