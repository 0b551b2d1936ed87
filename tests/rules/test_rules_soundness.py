"""The check of rules: every shipped rule passes it, and it looks where rules go wrong."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from egglog import String
from hypothesis import given, settings
from hypothesis import strategies as st
from known_bad_rules import commuted_anything, pair, sum_becomes_product, undocumented, untyped

from tilewright.dtypes import DType
from tilewright.graph import TensorType
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.reference import evaluate
from tilewright.rules.checking import Purpose, UnsoundRuleError, check_rule, condition_purposes
from tilewright.rules.checks.growth import graph_of
from tilewright.rules.checks.instance import Instance, compute
from tilewright.rules.checks.judging import Class, Tally, failures
from tilewright.rules.checks.matching import facts_of
from tilewright.rules.checks.patterns import Pattern
from tilewright.rules.checks.reading import pattern
from tilewright.rules.checks.sampling import Choices, Sampler
from tilewright.rules.checks.values import Values, random_values
from tilewright.rules.checks.zoo import zoo
from tilewright.rules.engine import saturate
from tilewright.rules.options import SaturationOptions, builtin_rules
from tilewright.rules.registry import (
    Numerics,
    Rewrite,
    Rule,
    RuleSet,
    RuleWritingError,
    define,
    pattern_of,
)
from tilewright.rules.terms import Tensor, concat, gather, map1, map2, matmul, pad, pool, slice_

RULES = {rule.name: rule for rule in builtin_rules()}


@pytest.mark.parametrize("name", RULES)
def test_rule_is_accepted(name: str) -> None:
    report = check_rule(RULES[name])
    assert report.rule == name
    assert report.instances >= report.matches >= 10
    assert len(report.conditions) == len(pattern_of(RULES[name]).conditions)


def test_every_builtin_rule_states_equation_and_source() -> None:
    for rule in RULES.values():
        assert "=" in rule.equation, rule.name
        assert rule.source, rule.name
    assert {rule.ruleset for rule in RULES.values()} == {"algebra", "fusion"}


def test_a_check_is_repeatable() -> None:
    rule = RULES["algebra.constant_second"]
    assert check_rule(rule, seed=3) == check_rule(rule, seed=3)


def made(
    function: object, numerics: Numerics = Numerics.REASSOCIATES, tolerance: float | None = None
) -> Rule:
    return define(
        "user.rule",
        function,  # type: ignore[arg-type]
        numerics=numerics,
        source="test",
        tolerance=tolerance,
    )


def instances(rule: Rule, count: int = 300, values: Values = Values.WHOLE) -> list[Instance]:
    data = pattern(rule)
    dtypes = Class(rule.numerics, rule.tolerance).dtypes
    sampler = Sampler(data, Choices(dtypes), np.random.default_rng(0))
    return [found for _ in range(count) if (found := sampler.draw(values)) is not None]


# -- where the instances are


def test_products_have_one_addend_broadcast_batches_and_primes() -> None:
    found = instances(RULES["fusion.third_operand_of_matmul"])
    a = [i.leaves["a"].shape for i in found]
    b = [i.leaves["b"].shape for i in found]
    third = [i.leaves["third"].shape for i in found]
    assert {shape[-1] for shape in a} >= {1, 2, 3, 5, 7}
    assert any(x[:-2] != y[:-2] for x, y in zip(a, b, strict=True))
    assert any(1 in shape and max(shape) > 1 for shape in third)
    assert {len(shape) for shape in a} >= {2, 3, 4}


def test_convolutions_have_groups_of_one_and_more_channels() -> None:
    found = instances(RULES["fusion.map_after_conv"])
    shapes = [(i.leaves["x"].shape, i.leaves["w"].shape) for i in found]
    groups = {(x[1] // w[1], w[0] // (x[1] // w[1])) for x, w in shapes}
    assert {(1, 1), (1, 3), (2, 2), (3, 1)} <= groups


def test_instances_have_every_element_type_that_the_class_permits() -> None:
    exact = {i.leaves["x"].dtype for i in instances(RULES["fusion.map_after_map"])}
    wanted = (DType.F64, DType.F32, DType.F16, DType.BF16, DType.I32, DType.I8, DType.U8)
    assert {dtype.numpy for dtype in wanted} <= exact


@given(st.integers(0, 2**32), st.sampled_from([*DType]), st.sampled_from([*Values]))
@settings(max_examples=80, deadline=None)
def test_values_are_of_their_kind(seed: int, dtype: DType, values: Values) -> None:
    array = random_values(np.random.default_rng(seed), TensorType((3, 5), dtype), values, None)
    assert array.dtype == dtype.numpy
    wide = array.astype(np.float64)
    assert np.all(np.isfinite(wide))
    if dtype.is_float and values in (Values.WHOLE, Values.NONZERO):
        assert np.all(np.abs(wide) <= 3)
        assert np.all(wide == np.rint(wide))
    if dtype.is_float and values is not Values.WHOLE:
        assert np.all(wide != 0)


def moved(x: Tensor, y: Tensor, i: Tensor, s: String, p: String, a: String, d: String) -> Rewrite:
    """concat(slice(x), pad(gather(y, i))) = itself."""
    both = concat(pair(slice_(x, s, d), pad(gather(y, i, a, d), p, d)), a, d)
    return Rewrite(both, to=both)


def pooled(x: Tensor, rest: String, f: String, d: String) -> Rewrite:
    """f(pool(x)) = itself."""
    term = map1(pool(x, rest, d), f, d)
    return Rewrite(term, to=term)


@pytest.mark.parametrize("function", [moved, pooled])
def test_every_operator_can_be_on_a_left_side(function: object) -> None:
    rule = made(function)
    assert len(instances(rule)) >= 30
    for instance in instances(rule, 60):
        graph = graph_of(pattern(rule), instance)
        (value,) = evaluate(graph, {}).values()
        computed = compute(pattern(rule).left, instance, instance.texts)
        np.testing.assert_array_equal(value, computed.value)


# -- the interpreter against the engine


def readings(data: Pattern, instance: Instance) -> Iterator[Instance]:
    """Yield an instance as written, and with the operator beside the left side taken for the left side."""
    yield instance
    for term in data.present[1:]:
        pairs = {(str(a), str(b)) for a, b in zip(data.left.operands, term.operands, strict=True)}
        names = dict(pairs) | {b: a for a, b in pairs}
        yield Instance({names.get(k, k): v for k, v in instance.leaves.items()}, instance.texts)


@pytest.mark.parametrize("name", RULES)
def test_instances_match_where_the_engine_matches(name: str) -> None:
    """Conditions are run here without the engine; on single instances both must agree."""
    rule, data = RULES[name], pattern(RULES[name])
    options = SaturationOptions(
        rules=(rule,), partition=(), rounds=1, multiples=(4,), least_sliced_bytes=0
    )
    for instance in instances(rule, 8)[:3]:
        tally = Tally()
        for reading in readings(data, instance):
            facts = facts_of(data, reading)
            failures(data, Class(rule.numerics), reading, facts, data.conditions, tally)
        found = saturate(graph_of(data, instance), LogicalMesh((), ()), options=options)
        fired = any(stats.rule == name for stats in found.rule_stats)
        assert fired == bool(tally.matches)


# -- precision classes


def reciprocal(a: Tensor, b: Tensor, d: String) -> Rewrite:
    """x / y = x (1 / y)."""
    return Rewrite(map2(a, b, "div", d), to=map2(a, map1(b, "reciprocal", d), "mul", d))


def test_rounding_needs_its_class() -> None:
    check_rule(made(reciprocal, Numerics.APPROXIMATE, tolerance=1e-6))
    with pytest.raises(UnsoundRuleError, match="first difference"):
        check_rule(made(reciprocal, Numerics.EXACT))


def test_whole_numbers_are_compared_exactly_in_every_class() -> None:
    def nearly(a: Tensor, b: Tensor, d: String) -> Rewrite:
        """A B = 1.0000000001 A B."""
        return Rewrite(matmul(a, b, d), to=map1(matmul(a, b, d), "mul_const(1.0000000001)", d))

    with pytest.raises(UnsoundRuleError, match="different values"):
        check_rule(made(nearly))


# -- purposes of conditions


def purposes(name: str) -> dict[str, tuple[Purpose, ...]]:
    return {r.condition: r.purposes for r in condition_purposes(RULES[name])}


def test_purposes_of_conditions() -> None:
    scale = purposes("algebra.scale_into_matmul_weight")
    assert scale["scales(fn, d)"] == (Purpose.VALUES,)
    assert scale["column_scale(i, j)"] == (Purpose.TYPES, Purpose.VALUES)
    assert purposes("algebra.transpose_of_transpose") == {"composes(p, q, r)": (Purpose.BINDS,)}
    assert purposes("algebra.constant_second") == {
        "is_constant(c)": (Purpose.BOUNDS,),
        "commutes(fn)": (Purpose.VALUES,),
    }


# -- growth


def test_growth_counts_what_a_rule_adds_to_the_zoo() -> None:
    growth = check_rule(RULES["fusion.third_operand_of_matmul"]).growth
    products = sum(op.kind == "matmul" for op in zoo().ops)
    assert 0 < growth.matches <= products
    assert growth.new_e_nodes == growth.matches


# -- registration


def test_registration_refuses_incomplete_rules() -> None:
    family = RuleSet("family")
    register = family.rule(numerics=Numerics.EXACT, source="test")
    with pytest.raises(RuleWritingError, match=r"py:\d+: .*undocumented' has no docstring"):
        register(undocumented)
    with pytest.raises(RuleWritingError, match="parameter 'x' has no sort"):
        register(untyped)
    with pytest.raises(RuleWritingError, match=r"expected a name like family\.snake_case"):
        define("family.Camel", sum_becomes_product, numerics=Numerics.EXACT, source="test")
    register(sum_becomes_product)
    with pytest.raises(RuleWritingError, match=r"registered twice, before in .*py:\d+; rename one"):
        register(sum_becomes_product)


def test_a_docstring_starts_with_an_equation() -> None:
    def told(x: Tensor, d: String) -> Rewrite:
        """Remove two negations."""
        return Rewrite(map1(map1(x, "neg", d), "neg", d), to=x)

    with pytest.raises(RuleWritingError, match="expected an equation"):
        made(told)


def test_a_tolerance_goes_with_approximate_rules_only() -> None:
    with pytest.raises(RuleWritingError, match="is approximate with tolerance None"):
        made(sum_becomes_product, Numerics.APPROXIMATE)
    with pytest.raises(RuleWritingError, match=r"is exact with tolerance 0\.1"):
        made(commuted_anything, Numerics.EXACT, tolerance=0.1)
