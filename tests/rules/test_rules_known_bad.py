"""The checker is checked: every known-bad rule is refused, for the right reason."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from egglog import String, i64
from known_bad_rules import KNOWN_BAD, joined_convolutions_with_groups, relu_over_sum

from tilewright.dtypes import DType
from tilewright.graph import TensorType
from tilewright.rules.checking import (
    CheckReport,
    ConditionReport,
    IllTypedRuleError,
    NeedlessConditionError,
    Purpose,
    UnsoundRuleError,
    check_rule,
)
from tilewright.rules.facts import Vocabulary, column_scale, fact_tables, keeps_pad_value
from tilewright.rules.registry import Numerics, Rewrite, define
from tilewright.rules.terms import Tensor, has_type, map1, map2, pad, transpose


def check(
    function: Callable[..., Rewrite], numerics: Numerics = Numerics.REASSOCIATES
) -> CheckReport:
    return check_rule(define("user.rule", function, numerics=numerics, source="test"))


def refusal(function: Callable[..., Rewrite], error: type[Exception]) -> str:
    """Return the message without the folder of this file and with a fixed line."""
    with pytest.raises(error) as caught:
        check(function)
    folder = re.escape(str(Path(__file__).parent))
    return re.sub(rf"{folder}/(\w+\.py):\d+", r"\1:LINE", str(caught.value))


@pytest.mark.parametrize("name", KNOWN_BAD)
def test_known_bad_rules_are_refused_for_the_right_reason(name: str) -> None:
    bad = KNOWN_BAD[name]
    with pytest.raises(bad.error, match=bad.phrase) as caught:
        check_rule(
            define(
                f"bad.{name}",
                bad.function,
                numerics=bad.numerics,
                source="corpus",
                tolerance=bad.tolerance,
            )
        )
    assert type(caught.value) is bad.error
    assert re.match(rf".*known_bad_rules\.py:\d+: rule 'bad\.{name}'", str(caught.value))


def test_a_counterexample_of_values_is_small_and_complete() -> None:
    assert refusal(relu_over_sum, UnsoundRuleError) == (
        "known_bad_rules.py:LINE: rule 'user.rule' is wrong: its sides have different values\n"
        "  relu(x + y) = relu(x) + relu(y).\n"
        "  for\n"
        "    x = f64[1] [1]\n"
        "    y = f64[1] [-1]\n"
        "    d = f64\n"
        "  left:  map1(map2(x, y, 'add'), 'relu') is f64[1] [0]\n"
        "  right: map2(map1(x, 'relu'), map1(y, 'relu'), 'add') is f64[1] [1]\n"
        "  first difference at [0]: 0.0 and 1.0"
    )


def test_a_counterexample_of_types_needs_three_dimensions() -> None:
    def twice(x: Tensor, p: String, d: String) -> Rewrite:
        """transpose(transpose(x, p), p) = x."""
        return Rewrite(transpose(transpose(x, p, d), p, d), to=x)

    assert refusal(twice, IllTypedRuleError) == (
        "test_rules_known_bad.py:LINE: rule 'user.rule' is wrong: its sides have different types\n"
        "  transpose(transpose(x, p), p) = x.\n"
        "  for\n"
        "    x = f64[2,1,1] [[[0]], [[0]]]\n"
        "    p = [2, 0, 1]\n"
        "    d = f64\n"
        "  left:  transpose(transpose(x, p), p) is f64[1,1,2]\n"
        "  right: x is f64[2,1,1]"
    )


def test_a_merge_of_convolutions_needs_groups_to_fail() -> None:
    text = refusal(joined_convolutions_with_groups, UnsoundRuleError)
    assert "x = f64[1,2,1,1]" in text
    assert '"groups": 2' in text


# -- the story of CONTRIBUTING: refused, mended, accepted


def pad_first(x: Tensor, rest: String, fn: String, c: String, d: String) -> Rewrite:
    """f(pad(x)) = pad(f(x))."""
    return Rewrite(map1(pad(x, rest, c), fn, d), to=pad(map1(x, fn, d), rest, d))


def pad_first_mended(x: Tensor, rest: String, fn: String, c: String, d: String) -> Rewrite:
    """f(pad(x)) = pad(f(x)) when f keeps the value that the pad fills in."""
    return Rewrite(
        map1(pad(x, rest, c), fn, d),
        to=pad(map1(x, fn, d), rest, d),
        when=(keeps_pad_value(rest, fn, c),),
    )


def test_pad_commutes_with_a_map_only_if_it_keeps_the_pad_value() -> None:
    text = refusal(pad_first, UnsoundRuleError)
    assert re.search(r'rest = {"begins": \[.*"value": 1\.0}', text)
    assert text.endswith("first difference at [1]: -1.0 and 1.0")  # f(1) is not 1
    with pytest.raises(UnsoundRuleError):
        check(pad_first, Numerics.EXACT)
    report = check(pad_first_mended, Numerics.EXACT)
    assert report.matches >= 50
    assert report.conditions == (
        ConditionReport("keeps_pad_value(rest, fn, c)", (Purpose.VALUES,)),
    )


def test_a_pad_value_is_kept_bit_by_bit() -> None:
    """The negative of 0 is another 0; what a cast makes of the value, the pad makes of it, too."""
    pads = {v: f'{{"begins": [0], "ends": [1], "value": {v}}}' for v in (0.0, 0.5, 1.0)}
    texts = {
        "rest": (*pads.values(),),
        "fn": ("neg", "relu", "floor", "cast(i32)", "exp", "abs|exp"),
    }
    known = Vocabulary((TensorType((1,), DType.F32),), texts)
    (table,) = (t for t in fact_tables() if t.name == "keeps_pad_value")
    assert {
        (value, fn)
        for value, text in pads.items()
        for rest, fn, _ in table.rows(known)
        if rest == text
    } == {
        *((value, fn) for value in pads for fn in ("relu", "cast(i32)")),
        (0.0, "floor"),
        (1.0, "floor"),
    }


def test_a_condition_too_many_may_stay_as_a_bound() -> None:
    def bounded(a: Tensor, b: Tensor, d: String, i: i64, j: i64) -> Rewrite:
        """a + b = b + a, only where a scale fits."""
        return Rewrite(
            map2(a, b, "add", d),
            to=map2(b, a, "add", d),
            when=(has_type(a, i), has_type(b, j)),
            bounds=(column_scale(i, j),),
        )

    with pytest.raises(NeedlessConditionError, match=r"delete it, or move it to `bounds`"):
        check(KNOWN_BAD["needless"].function)
    assert check(bounded).conditions[-1].purposes == (Purpose.BOUNDS,)
