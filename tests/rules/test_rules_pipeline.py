"""Rules of pipeline legality: what they claim holds; wrong ones are refused for the right reason."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tilewright.errors import RuleError
from tilewright.rules.pipeline.checking import check_pipeline_rule
from tilewright.rules.pipeline.family import pipeline_rules
from tilewright.rules.pipeline.ruleset import (
    Batch,
    Carried,
    Cut,
    Form,
    PipelineRule,
    PipelineRules,
    Value,
    pipeline,
)

RULES = {rule.name: rule for rule in pipeline_rules()}


@pytest.mark.parametrize("name", RULES)
def test_every_rule_is_sound(name: str) -> None:
    assert check_pipeline_rule(RULES[name]) >= 10
    assert "=" in RULES[name].equation


def last_value_only(cut: Cut) -> Carried:
    """g(f(x), h(x)) = send the last value, whatever else is read."""
    return cut.made[-1:]


def value_from_behind(cut: Cut) -> Carried:
    """g(f(x)) = send everything, and something that nobody makes."""
    return (*cut.read, "nothing")


def never(cut: Cut) -> Carried:
    """g(f(x)) = g(f(x)) on the same tiles."""
    return None


def any_dimension(batch: Batch) -> int | None:
    """f(x) = concat(f(x_1), f(x_2)), whatever f does along the dimension."""
    return batch.dims[0] if batch.dims[0] >= 0 else None


def same_place(batch: Batch) -> int | None:
    """transpose(x) = concat(transpose(x_1), transpose(x_2)) along the operand's dimension."""
    return batch.dims[0] if batch.op.kind == "transpose" and batch.dims[0] >= 0 else None


def parts_of_sums(batch: Batch) -> int | None:
    """sum(x) = concat(sum(x_1), sum(x_2)) although the sum runs over the batch."""
    return batch.dims[0] if batch.op.kind == "reduce" and batch.dims[0] >= 0 else None


def no_such_dimension(batch: Batch) -> int | None:
    """f(x) = concat(f(x_1), f(x_2)) along a dimension that f(x) lacks."""
    return 9


def first_operand_only(value: Value) -> Carried:
    """use(keep f(x, y)) = use(f(x) again)."""
    return value.op.inputs[:1]


def everything_again(value: Value) -> Carried:
    """use(keep f(x)) = use(f(x) again), on the host too."""
    return value.op.inputs


BAD: tuple[tuple[Form, Callable[..., object], str], ...] = (
    (Form.CUT, last_value_only, "is read, but only .* cross"),
    (Form.CUT, value_from_behind, "is not made before the cut"),
    (Form.CUT, never, "allows nothing"),
    (Form.BATCH, any_dimension, "is not its value on everything|cannot run on"),
    (Form.BATCH, same_place, "is not its value on everything|cannot run on"),
    (Form.BATCH, parts_of_sums, "is not its value on everything|cannot run on"),
    (Form.BATCH, no_such_dimension, "name one of its dimensions"),
    (Form.VALUE, first_operand_only, "cannot be computed again from"),
    (Form.VALUE, everything_again, "host region again"),
)


@pytest.mark.parametrize(("form", "function", "reason"), BAD, ids=[f.__name__ for _, f, _ in BAD])
def test_wrong_rules_are_refused(form: Form, function: Callable[..., object], reason: str) -> None:
    family = PipelineRules("bad")
    register: dict[Form, Callable[..., Callable[[object], object]]] = {
        Form.CUT: family.cuts,
        Form.BATCH: family.splits_batch,
        Form.VALUE: family.recomputes,
    }
    register[form](source="test")(function)
    (rule,) = family.rules
    with pytest.raises(
        RuleError, match=rf"(?s)test_rules_pipeline\.py:\d+: rule 'bad\..*({reason})"
    ):
        check_pipeline_rule(rule)


def test_a_rule_that_raises_is_named() -> None:
    family = PipelineRules("bad")

    @family.cuts(source="test")
    def broken(cut: Cut) -> Carried:
        """g(f(x)) = an error."""
        raise ValueError(f"nothing is at {cut.made[0]}")

    rule: PipelineRule = family.rules[0]
    with pytest.raises(RuleError, match=r"rule 'bad\.broken' raises ValueError"):
        check_pipeline_rule(rule)


def test_registration_refuses_what_is_incomplete() -> None:
    family = PipelineRules("family")

    def no_docstring(cut: Cut) -> None:
        pass

    def other_parameter(place: Cut) -> None:
        """f = f."""

    with pytest.raises(RuleError, match="has no docstring"):
        family.cuts(source="test")(no_docstring)  # type: ignore[arg-type]
    with pytest.raises(RuleError, match=r"a 'cut' rule takes \(cut\)"):
        family.cuts(source="test")(other_parameter)  # type: ignore[arg-type]
    with pytest.raises(RuleError, match="belongs to tilewright"):
        pipeline.cuts(source="test")(never)
