"""The check of rules: every rule passes it, known-bad rules do not."""

from __future__ import annotations

import pytest
from egglog import String, eq, i64

from tilewright.errors import RuleError
from tilewright.rules.checking import Purpose, check_rule, condition_purposes, instances_of
from tilewright.rules.facts import column_scale, commutes, scales
from tilewright.rules.options import builtin_rules
from tilewright.rules.registry import (
    Numerics,
    Rewrite,
    Rule,
    RuleSet,
    RuleWritingError,
    define,
)
from tilewright.rules.terms import (
    Tensor,
    has_type,
    is_constant,
    map1,
    map2,
    matmul,
    reshape,
    transpose,
)

RULES = {rule.name: rule for rule in builtin_rules()}


@pytest.mark.parametrize("name", RULES)
def test_rule_preserves_values(name: str) -> None:
    report = check_rule(RULES[name], count=60)
    assert report.matches >= 10


def test_instances_have_size_one_and_broadcast_dimensions() -> None:
    graph, leaves = instances_of(RULES["fusion.third_operand_of_matmul"], 60, seed=3)
    shapes = [array.shape for array in leaves.values()]
    assert any(1 in shape for shape in shapes)
    assert any(max(shape) > 2 for shape in shapes)
    fused = [op for op in graph.ops if op.kind == "map"]
    assert any(graph.types[op.inputs[0]].shape != graph.types[op.inputs[1]].shape for op in fused)


def made(
    function: object, numerics: Numerics = Numerics.REASSOCIATES, tolerance: float | None = None
) -> Rule:
    return define(
        "bad.rule",
        function,  # type: ignore[arg-type]
        numerics=numerics,
        source="test",
        tolerance=tolerance,
    )


def swapped_transpose(x: Tensor, p: String, d: String) -> Rewrite:
    """transpose(x, p) = x."""
    return Rewrite(transpose(x, p, d), to=x)


def unconditional_scale(a: Tensor, w: Tensor, s: Tensor, fn: String, d: String) -> Rewrite:
    """(A W) s = A (W s), without asking that s is one number a column."""
    return Rewrite(
        map2(matmul(a, w, d), s, fn, d),
        to=matmul(a, map2(w, s, fn, d), d),
        when=(is_constant(w), is_constant(s), scales(fn, d)),
    )


def sum_becomes_product(x: Tensor, y: Tensor, d: String) -> Rewrite:
    """x + y = x y."""
    return Rewrite(map2(x, y, "add", d), to=map2(x, y, "mul", d))


def commuted_anything(x: Tensor, y: Tensor, fn: String, d: String) -> Rewrite:
    """fn(x, y) = fn(y, x), whether or not fn commutes."""
    return Rewrite(map2(x, y, fn, d), to=map2(y, x, fn, d))


def dropped_map(x: Tensor, f: String, g: String, c: String, d: String) -> Rewrite:
    """g(f(x)) = g(x)."""
    return Rewrite(map1(map1(x, f, c), g, d), to=map1(x, g, d))


@pytest.mark.parametrize(
    "function",
    [swapped_transpose, unconditional_scale, sum_becomes_product, commuted_anything, dropped_map],
)
def test_wrong_rules_are_caught(function: object) -> None:
    with pytest.raises(RuleError):
        check_rule(made(function))


def test_counterexample_names_rule_equation_and_operands() -> None:
    with pytest.raises(
        RuleError, match=r"rule 'bad.rule' \(x \+ y = x y\.\) is wrong by .*: f64\["
    ):
        check_rule(made(sum_becomes_product))


def test_rounding_rule_that_claims_to_be_exact_is_caught() -> None:
    def scaled(a: Tensor, b: Tensor, d: String) -> Rewrite:
        """sqrt-like rounding: (x / y) = x (1 / y)."""
        return Rewrite(map2(a, b, "div", d), to=map2(a, map1(b, "reciprocal", d), "mul", d))

    scaled.__annotations__ = {"a": Tensor, "b": Tensor, "d": String, "return": Rewrite}
    check_rule(made(scaled, Numerics.APPROXIMATE, tolerance=1e-6))
    with pytest.raises(RuleError):
        check_rule(made(scaled, Numerics.EXACT))


def never_matches(x: Tensor, s: String, d: String, i: i64) -> Rewrite:
    """reshape(x, s) = x when its type has number -1."""
    return Rewrite(reshape(x, s, d), to=x, when=(has_type(x, i), eq(i).to(i64(-1))))


def test_purposes_of_conditions() -> None:
    scale = condition_purposes(RULES["algebra.scale_into_matmul_weight"])
    assert ("scales", Purpose.VALUES) in scale
    assert ("column_scale", Purpose.TYPES) in scale
    assert condition_purposes(RULES["algebra.transpose_of_transpose"]) == (
        ("composes", Purpose.BINDS),
    )
    commuted = condition_purposes(RULES["algebra.constant_second"])
    assert commuted == (("is_constant", Purpose.NOTHING), ("commutes", Purpose.VALUES))


def test_vacuous_checks_are_refused() -> None:
    with pytest.raises(RuleError, match="matched 0 of 600 random instances"):
        check_rule(made(never_matches))


def test_registration_refuses_incomplete_rules() -> None:
    family = RuleSet("family")

    def no_docstring(x: Tensor) -> Rewrite:
        return Rewrite(x, to=x)

    def no_sort(x) -> Rewrite:  # type: ignore[no-untyped-def]
        """x = x."""
        return Rewrite(x, to=x)

    no_docstring.__annotations__ = {"x": Tensor, "return": Rewrite}
    no_sort.__annotations__ = {"return": Rewrite}
    register = family.rule(numerics=Numerics.EXACT, source="test")
    with pytest.raises(RuleError, match=r"family\.no_docstring' has no docstring"):
        register(no_docstring)
    with pytest.raises(RuleError, match="parameter 'x' has no sort"):
        register(no_sort)
    with pytest.raises(RuleError, match=r"expected a name like family\.snake_case"):
        define("family.Camel", sum_becomes_product, numerics=Numerics.EXACT, source="test")
    register(sum_becomes_product)
    with pytest.raises(RuleError, match="registered twice"):
        register(sum_becomes_product)


def test_every_builtin_rule_states_equation_and_source() -> None:
    for rule in RULES.values():
        assert "=" in rule.equation, rule.name
        assert rule.source, rule.name
    assert {rule.ruleset for rule in RULES.values()} == {"algebra", "fusion"}


def unbound(x: Tensor, y: Tensor, d: String) -> Rewrite:
    """relu(x) = y for any y."""
    return Rewrite(map1(x, "relu", d), to=y)


def test_unbound_variables_are_refused_where_they_are_written() -> None:
    line = unbound.__code__.co_firstlineno
    with pytest.raises(RuleWritingError, match=rf"test_rules_soundness.py:{line}: .*uses 'y'"):
        check_rule(made(unbound))


def test_a_tolerance_goes_with_approximate_rules_only() -> None:
    with pytest.raises(RuleWritingError, match="is approximate with tolerance None"):
        made(sum_becomes_product, Numerics.APPROXIMATE)
    with pytest.raises(RuleWritingError, match=r"is exact with tolerance 0\.1"):
        made(sum_becomes_product, Numerics.EXACT, tolerance=0.1)


def boolean_condition(x: Tensor, s: String, d: String) -> Rewrite:
    """reshape(x, s) = x when s is [1]."""
    return Rewrite(reshape(x, s, d), to=x, when=(s == "[1]",))


def test_a_condition_that_python_decides_is_refused() -> None:
    with pytest.raises(RuleWritingError, match="condition 1 is the Python bool False"):
        check_rule(made(boolean_condition))


def raising(x: Tensor, s: String, d: String) -> Rewrite:
    """reshape(x, s) = x when s is short."""
    if len(s) == 1:  # type: ignore[arg-type]
        return Rewrite(x, to=x)
    return Rewrite(reshape(x, s, d), to=x)


def test_a_rule_that_raises_is_refused_with_the_line_that_raised() -> None:
    line = raising.__code__.co_firstlineno + 2
    with pytest.raises(RuleWritingError, match=rf"soundness.py:{line}: .*raises AttributeError"):
        check_rule(made(raising))


def needless(a: Tensor, b: Tensor, d: String, i: i64, j: i64) -> Rewrite:
    """a + b = b + a when a scale fits, although nothing needs that."""
    return Rewrite(
        map2(a, b, "add", d),
        to=map2(b, a, "add", d),
        when=(commutes("add"), has_type(a, i), has_type(b, j), column_scale(i, j)),
    )


def test_sound_rule_with_a_needless_condition_still_passes() -> None:
    assert check_rule(made(needless)).matches >= 10
