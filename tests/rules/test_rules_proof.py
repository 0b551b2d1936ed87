"""Bounded proofs of rules: real rules are proved, wrong ones give numbers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from known_bad_rules import KNOWN_BAD

from tilewright.dtypes import DType
from tilewright.errors import RuleError
from tilewright.graph import AttrValue, Op, TensorType
from tilewright.reference import evaluate_op
from tilewright.rules.checks.proof import Counterexample, NotCovered, Proof, prove_rule
from tilewright.rules.inference import infer_type
from tilewright.rules.options import builtin_rules
from tilewright.rules.registry import define

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
    ],
)
def test_linear_rules_are_proved(name: str) -> None:
    found = prove_rule(RULES[name])
    assert isinstance(found, Proof), found
    assert found.choices >= 15


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


def test_what_is_not_piecewise_linear_is_not_covered() -> None:
    found = prove_rule(RULES["algebra.softmax_in_parts"])
    assert found == NotCovered("algebra.softmax_in_parts", "not piecewise linear: softmax")


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
]


@pytest.mark.parametrize(("kind", "attrs", "shapes"), CASES)
def test_symbolic_meanings_are_those_of_the_reference(
    kind: str, attrs: Mapping[str, AttrValue], shapes: list[tuple[int, ...]]
) -> None:
    random = np.random.default_rng(0)
    inputs = [random.integers(-3, 4, shape).astype(np.float64) for shape in shapes]
    op = Op(name="op", kind=kind, inputs=(), outputs=("result",), attrs=attrs)
    symbols = [np.frompyfunc(lambda v: z3.RealVal(repr(float(v))), 1, 1)(x) for x in inputs]
    found = Symbolic(z3).apply(op, symbols)
    numbers = [float(z3.simplify(z3.RealVal(0) + entry).as_fraction()) for entry in found.flat]
    if "epilogue" in attrs:
        plain = np.maximum(inputs[0] @ inputs[1] + inputs[2], 0)
    else:
        types = [TensorType(shape, DType.F64) for shape in shapes]
        result = infer_type(kind, attrs, types, DType.F64)
        (plain,) = evaluate_op(op, inputs, {"result": result})
    np.testing.assert_array_equal(np.reshape(numbers, found.shape), plain)


def test_other_functions_are_not_symbolic() -> None:
    op = Op(name="op", kind="map", inputs=(), outputs=("result",), attrs={"fn": "exp"})
    with pytest.raises(NotSymbolicError, match="exp"):
        Symbolic(z3).apply(op, [np.array([z3.Real("x")], dtype=object)])
