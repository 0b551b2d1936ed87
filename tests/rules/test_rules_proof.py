"""Bounded proofs of rules: real rules are proved, wrong ones give numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from egglog import String
from known_bad_rules import KNOWN_BAD

from tilewright.dtypes import DType
from tilewright.errors import RuleError
from tilewright.graph import AttrValue, Op, TensorType
from tilewright.reference import evaluate_op
from tilewright.rules.checks.proof import Counterexample, NotCovered, Proof, prove_rule
from tilewright.rules.facts import is_integer
from tilewright.rules.inference import infer_type
from tilewright.rules.options import builtin_rules
from tilewright.rules.registry import Numerics, Rewrite, define
from tilewright.rules.terms import Tensor, map1, map2, matmul

RULES = {rule.name: rule for rule in builtin_rules()}


def test_without_z3_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> object:
        raise ImportError(name)

    monkeypatch.setattr("tilewright.rules.checks.proof.import_module", absent)
    with pytest.raises(RuleError, match=r"pip install 'tilewright\[proof\]'"):
        prove_rule(RULES["algebra.reshape_of_reshape"])


z3 = pytest.importorskip("z3", reason="z3-solver is not installed (extra 'proof')")

from tilewright.rules.checks.symbolic import NotSymbolicError, Symbolic  # noqa: E402


@pytest.mark.parametrize(
    "name",
    [
        "algebra.transpose_of_transpose",
        "algebra.product_of_two_weights",
        "algebra.sum_of_products",
        "algebra.scale_over_shift",
        "algebra.scale_into_conv_weight",
        "fusion.third_operand_of_matmul",
        "fusion.transposed_left_operand",
        "fusion.third_operand_before_matmul",
        "fusion.dequantised_weight",
        "algebra.product_in_columns",
        "algebra.product_in_terms",
    ],
)
def test_linear_rules_are_proved(name: str) -> None:
    found = prove_rule(RULES[name])
    assert isinstance(found, Proof), found
    assert found.choices >= 15


@pytest.mark.slow
@pytest.mark.parametrize("name", RULES)
def test_every_rule_is_proved(name: str) -> None:
    assert isinstance(prove_rule(RULES[name]), Proof)


@pytest.mark.parametrize(
    "name",
    ["relu_over_sum", "max_of_negative", "pad_before_any_map", "concat_of_sums_under_broadcasting"],
)
def test_wrong_rules_are_refuted(name: str) -> None:
    bad = KNOWN_BAD[name]
    rule = define(f"bad.{name}", bad.function, numerics=bad.numerics, source="corpus")
    found = prove_rule(rule)
    assert isinstance(found, Counterexample), found
    assert f"rule 'bad.{name}' is wrong" in found.text


@pytest.mark.parametrize(
    "name",
    [
        "algebra.softmax_in_parts",
        "algebra.rmsnorm_past_product",
        "algebra.layernorm_in_parts",
        "fusion.masked_attention_of_products",
        "fusion.map_after_ternary",
    ],
)
def test_rules_that_hold_whatever_their_functions_are_are_proved(name: str) -> None:
    assert isinstance(prove_rule(RULES[name]), Proof)


def exp_of_sum(x: Tensor, y: Tensor, d: String) -> Rewrite:
    """exp(x + y) = exp(x) exp(y)."""
    return Rewrite(
        map1(map2(x, y, "add", d), "exp", d),
        to=map2(map1(x, "exp", d), map1(y, "exp", d), "mul", d),
    )


def exp_of_exp(x: Tensor, d: String) -> Rewrite:
    """exp(exp(x)) = exp(x)."""
    return Rewrite(map1(map1(x, "exp", d), "exp", d), to=map1(x, "exp", d))


@pytest.mark.parametrize("function", [exp_of_sum, exp_of_exp])
def test_what_rests_on_a_function_is_neither_proved_nor_refuted(function: object) -> None:
    rule = define("user.rule", function, numerics=Numerics.REASSOCIATES, source="test")  # type: ignore[arg-type]
    reason = "holds, if at all, for what is special about exp"
    assert prove_rule(rule) == NotCovered("user.rule", reason)


def sum_of_bytes(x: Tensor, y: Tensor) -> Rewrite:
    """x + y = y + x, which may wrap around."""
    a, b = map1(x, "cast(i8)", "i8"), map1(y, "cast(i8)", "i8")
    return Rewrite(map2(a, b, "add", "i8"), to=map2(b, a, "add", "i8"))


def test_whole_numbers_that_may_wrap_around_are_not_covered() -> None:
    rule = define("user.rule", sum_of_bytes, numerics=Numerics.EXACT, source="test")
    assert prove_rule(rule) == NotCovered("user.rule", "not over the reals: map gives i8")


def double_of_product(x: Tensor, y: Tensor, d: String) -> Rewrite:
    """x y = x y + x y, wrong but where integers wrap around to nothing."""
    product = matmul(x, y, d)
    return Rewrite(product, to=map2(product, product, "add", d), when=(is_integer(d),))


def test_what_differs_for_reals_may_hold_for_integers() -> None:
    rule = define("user.rule", double_of_product, numerics=Numerics.EXACT, source="test")
    found = prove_rule(rule)
    assert isinstance(found, NotCovered)
    assert "wrap around" in found.reason


CONV: Mapping[str, AttrValue] = {
    "groups": 2, "strides": (2, 1), "dilations": (1, 2), "pads": (1, 0, 2, 1)
}  # fmt: skip
CASES: list[tuple[str, Mapping[str, AttrValue], list[tuple[int, ...]]]] = [
    ("matmul", {}, [(2, 1, 3), (1, 3, 2)]),
    (
        "matmul",
        {"perm_a": (1, 0, 2), "perm_b": (0, 2, 1), "perm_out": (2, 0, 1)},
        [(3, 2, 1), (2, 3, 1)],
    ),
    ("matmul", {"epilogue": "add|relu", "product_dtype": "f64"}, [(2, 3), (3, 2), (1, 2)]),
    ("conv", CONV, [(1, 4, 3, 4), (2, 2, 2, 2)]),
    ("map", {"fn": "sub|abs|clip_max(1.5)|mul_const(-2.0)"}, [(2, 1), (1, 3)]),
    ("map", {"fn": "max|square|add_const(0.5)|clip_min(1.0)|neg"}, [(2, 3), (2, 3)]),
    ("reduce", {"fn": "sum", "axes": (0, 2)}, [(2, 3, 2)]),
    ("reduce", {"fn": "max", "axes": (1,)}, [(2, 3)]),
    ("transpose", {"perm": (2, 0, 1)}, [(1, 2, 3)]),
    ("reshape", {"shape": (3, 2)}, [(2, 3)]),
    ("expand", {"shape": (2, 3)}, [(2, 1)]),
    ("concat", {"axis": 1}, [(2, 1), (2, 2)]),
    ("slice", {"starts": (1, 2), "sizes": (1, 2), "steps": (1, -2)}, [(2, 3)]),
    ("pad", {"begins": (1, 0), "ends": (0, 2), "value": 1.5}, [(2, 2)]),
    ("map", {"fn": "div|exp"}, [(2, 3), (1, 3)]),
    ("map", {"fn": "div_rms(0.5,0.25)"}, [(2, 3), (1, 3)]),
    ("softmax", {}, [(2, 3)]),
    ("layernorm", {"epsilon": 0.5}, [(2, 4)]),
    ("rmsnorm", {"epsilon": 0.5}, [(2, 3), (2, 3)]),
    ("attention", {"scale": 0.5}, [(2, 3, 2), (2, 2, 4), (2, 4, 2), (1, 3, 4)]),
]


def number(term: Any) -> Any:
    """Evaluate a term of the solver, unknown functions as those that their names say."""
    if z3.is_rational_value(term):
        return float(term.as_fraction())
    operands = [number(child) for child in term.children()]
    functions: dict[int, Any] = {
        z3.Z3_OP_ADD: lambda *x: sum(x),
        z3.Z3_OP_SUB: lambda a, b: a - b,
        z3.Z3_OP_MUL: lambda *x: math.prod(x),
        z3.Z3_OP_POWER: lambda a, b: a**b,
        z3.Z3_OP_UMINUS: lambda a: -a,
        z3.Z3_OP_ITE: lambda c, a, b: a if c else b,
        z3.Z3_OP_GE: lambda a, b: a >= b,
        z3.Z3_OP_LE: lambda a, b: a <= b,
        z3.Z3_OP_TRUE: lambda: True,
        z3.Z3_OP_FALSE: lambda: False,
    }
    unknown = {"exp": math.exp, "sqrt": math.sqrt, "reciprocal": lambda a: 1 / a}
    kind = term.decl().kind()
    function = unknown[term.decl().name()] if kind == z3.Z3_OP_UNINTERPRETED else functions[kind]
    return function(*operands)


@pytest.mark.parametrize(("kind", "attrs", "shapes"), CASES)
def test_symbolic_meanings_are_those_of_the_reference(
    kind: str, attrs: Mapping[str, AttrValue], shapes: list[tuple[int, ...]]
) -> None:
    random = np.random.default_rng(0)
    low = 1 if "div" in str(attrs) else -3
    inputs = [random.integers(low, 4, shape).astype(np.float64) for shape in shapes]
    op = Op(name="op", kind=kind, inputs=(), outputs=("result",), attrs=attrs)
    symbols = [np.frompyfunc(lambda v: z3.RealVal(repr(float(v))), 1, 1)(x) for x in inputs]
    symbolic = Symbolic(z3)
    found = symbolic.apply(op, symbols)
    numbers = [number(z3.RealVal(0) + entry) for entry in found.flat]
    if "epilogue" in attrs:
        plain = np.maximum(inputs[0] @ inputs[1] + inputs[2], 0)
    else:
        types = [TensorType(shape, DType.F64) for shape in shapes]
        result = infer_type(kind, attrs, types, DType.F64)
        (plain,) = evaluate_op(op, inputs, {"result": result})
    rounding = 1e-14 if symbolic.unknown else 0.0
    np.testing.assert_allclose(np.reshape(numbers, found.shape), plain, rtol=rounding, atol=0)


def test_other_operators_are_not_symbolic() -> None:
    op = Op(name="op", kind="pool", inputs=(), outputs=("result",), attrs={"fn": "max"})
    with pytest.raises(NotSymbolicError, match="pool"):
        Symbolic(z3).apply(op, [np.array([z3.Real("x")], dtype=object)])


def test_other_functions_are_equal_for_equal_arguments_only() -> None:
    x, y = z3.Reals("x y")
    op = Op(name="op", kind="map", inputs=(), outputs=("result",), attrs={"fn": "exp"})
    symbolic = Symbolic(z3)
    a, b, c = symbolic.apply(op, [np.array([x + y, y + x, x], dtype=object)])
    assert a.eq(b)
    assert not a.eq(c)
    assert symbolic.unknown == {"exp"}
