"""The catalogue of rewrite rules: models that rules of fusion make cheaper.

The quick tests plan with and without the rules; the slow ones also simulate both programs and compare what
they compute with the reference.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from plan_cases import ONE, SMALL, Builder, Entry, check_plan_worth, check_worth

from tilewright.dtypes import DType
from tilewright.graph import Graph, TensorType
from tilewright.rules.options import builtin_rules


def dense_layer(b: Builder) -> Graph:
    return b.graph(b.op("map", b.linear(b.input("x", 64, 64), "l", 64), fn="relu"))


def two_functions(b: Builder) -> Graph:
    return b.graph(b.op("map", b.op("map", b.input("x", 64, 64), fn="abs"), fn="sqrt"))


def chain(b: Builder) -> Graph:
    y = b.op("map", b.input("x", 64, 64), b.input("y", 64, 64), fn="sub")
    return b.graph(b.op("map", b.op("map", y, fn="abs"), fn="sqrt"))


def post_norm(b: Builder, kind: str = "layernorm") -> Graph:
    total = b.op("map", b.input("x", 64, 64), b.input("y", 64, 64), fn="add")
    return b.graph(b.op(kind, total, epsilon=1e-5))


def post_rms_norm(b: Builder) -> Graph:
    return post_norm(b, "rmsnorm")


def gated(b: Builder) -> Graph:
    x = b.input("x", 64, 64)
    gate = b.op("map", b.op("matmul", x, b.constant("g", 64, 128)), fn="silu")
    return b.graph(b.op("map", gate, b.op("matmul", x, b.constant("u", 64, 128)), fn="mul"))


def attention_scores(b: Builder) -> Graph:
    q, k = (b.input(name, 4, 64, 16) for name in "qk")
    return b.graph(b.op("matmul", q, b.op("transpose", k, perm=(0, 2, 1))))


def transposed_factor(b: Builder) -> Graph:
    x = b.op("transpose", b.input("x", 64, 64), perm=(1, 0))
    return b.graph(b.op("matmul", x, b.constant("w", 64, 64)))


def context(b: Builder) -> Graph:
    y = b.op("matmul", b.input("p", 1, 4, 64, 64), b.input("v", 1, 4, 64, 16))
    return b.graph(b.op("transpose", y, perm=(0, 2, 1, 3)))


def quantised_weight(b: Builder) -> Graph:
    """Multiply by a weight of 8 bits with a scale for each column."""
    return b.graph(b.op("matmul", b.input("x", 8, 256), dequantised(b, (256, 512), (1, 512))))


def quantised_layer(b: Builder) -> Graph:
    y = b.op("matmul", b.input("x", 8, 256), dequantised(b, (256, 512), (1, 512)))
    return b.graph(b.op("map", b.op("map", y, b.constant("b", 1, 512), fn="add"), fn="relu"))


def quantised_activated(b: Builder) -> Graph:
    y = b.op("matmul", b.input("x", 8, 256), dequantised(b, (256, 512), (1, 512)))
    return b.graph(b.op("map", y, fn="relu"))


def quantised_filters(b: Builder) -> Graph:
    """Convolve with filters of 8 bits with a scale for each."""
    return b.graph(filtered(b))


def quantised_filters_activated(b: Builder) -> Graph:
    return b.graph(b.op("map", filtered(b), fn="relu"))


def quantised_filters_and_bias(b: Builder) -> Graph:
    y = b.op("map", filtered(b), b.constant("b", 1, 96, 1, 1), fn="add")
    return b.graph(b.op("map", y, fn="relu"))


def filtered(b: Builder) -> str:
    w = dequantised(b, (96, 64, 3, 3), (96, 1, 1, 1))
    return str(b.op("conv", b.input("x", 1, 64, 6, 6), w, **ONE))


def dequantised(b: Builder, shape: tuple[int, ...], scales: tuple[int, ...]) -> str:
    """Return a weight of which the model has integers and scales."""
    b.constants["q"] = np.random.default_rng(0).integers(-127, 128, shape).astype(np.int8)
    b.types["q"] = TensorType(shape, DType.I8)
    whole = b.op("map", "q", fn="cast(f32)", dtype=DType.F32)
    return str(b.op("map", whole, b.constant("s", *scales), fn="mul"))


def chosen(b: Builder) -> Graph:
    """Choose element by element, then apply a function."""
    mask = b.input("c", 64, 64, dtype=DType.BOOL)
    y = b.op("map", mask, b.input("x", 64, 64), b.input("y", 64, 64), fn="where")
    return b.graph(b.op("map", y, fn="tanh"))


def product_and_bias(b: Builder) -> Graph:
    return b.graph(b.linear(b.input("x", 64, 64), "l", 64))


def activated_convolution(b: Builder) -> Graph:
    return b.graph(b.op("map", convolved(b), fn="relu"))


def convolution_and_bias(b: Builder) -> Graph:
    return b.graph(b.op("map", convolved(b), b.constant("b", 1, 16, 1, 1), fn="add"))


def residual_and_convolution(b: Builder) -> Graph:
    return b.graph(b.op("map", b.input("y", 1, 16, 16, 16), convolved(b), fn="add"))


def convolved(b: Builder) -> str:
    x, w = b.input("x", 1, 16, 16, 16), b.constant("w", 16, 16, 1, 1)
    return str(b.op("conv", x, w, **ONE))


def attention(
    b: Builder,
    *,
    queries: float = 1.0,
    keys: float = 1.0,
    is_masked: bool = False,
    width: int = 16,
) -> Graph:
    q, k, v = b.input("q", 4, 64, width), b.input("k", 4, width, 64), b.input("v", 4, 64, width)
    q = b.op("map", q, fn=f"mul_const({queries})") if queries != 1.0 else q
    k = b.op("map", k, fn=f"mul_const({keys})") if keys != 1.0 else k
    scores = b.op("matmul", q, k)
    if is_masked:
        scores = b.op("map", scores, b.input("mask", 1, 64, 64), fn="add")
    return b.graph(b.op("matmul", b.op("softmax", scores), v))


def scaled_queries(b: Builder) -> Graph:
    return attention(b, queries=0.25, width=32)


def scaled_keys(b: Builder) -> Graph:
    return attention(b, keys=0.25)


def masked_attention(b: Builder) -> Graph:
    return attention(b, is_masked=True)


def masked_scaled_queries(b: Builder) -> Graph:
    return attention(b, queries=0.25, is_masked=True)


def masked_scaled_keys(b: Builder) -> Graph:
    return attention(b, keys=0.25, is_masked=True)


def chained(b: Builder, inner: str, outer: str) -> Graph:
    """Return two products of inputs with many rows of 128 features between; what may follow each is named."""
    x, v, w = b.input("x", 256, 16), b.input("v", 16, 128), b.input("w", 128, 16)
    between = follow(b, b.op("matmul", x, v), inner, 128)
    return b.graph(follow(b, b.op("matmul", between, w), outer, 16))


def follow(b: Builder, product: str, what: str, columns: int) -> str:
    if what == "bias":
        return str(b.op("map", product, b.constant(f"bias{columns}", 1, columns), fn="add"))
    return str(b.op("map", product, fn="relu")) if what == "map" else product


def products_alone(b: Builder) -> Graph:
    return chained(b, "nothing", "nothing")


def products_then_map(b: Builder) -> Graph:
    return chained(b, "nothing", "map")


def products_then_bias(b: Builder) -> Graph:
    return chained(b, "nothing", "bias")


def products_around_map(b: Builder) -> Graph:
    return chained(b, "map", "nothing")


def products_around_map_then_map(b: Builder) -> Graph:
    return chained(b, "map", "map")


def products_around_map_then_bias(b: Builder) -> Graph:
    return chained(b, "map", "bias")


def products_around_bias(b: Builder) -> Graph:
    return chained(b, "bias", "nothing")


def products_around_bias_then_map(b: Builder) -> Graph:
    return chained(b, "bias", "map")


def products_around_bias_then_bias(b: Builder) -> Graph:
    return chained(b, "bias", "bias")


EPILOGUES = "fusion.map_after_matmul", "fusion.third_operand_of_matmul"
ENTRIES = (
    Entry(EPILOGUES, dense_layer, SMALL),
    Entry(("fusion.map_after_binary",), chain, SMALL),
    Entry(("fusion.dequantised_weight",), quantised_weight),
    Entry(("fusion.dequantised_weight_unary",), quantised_activated),
    Entry(("fusion.dequantised_weight_binary",), quantised_layer),
    Entry(("fusion.dequantised_kernel",), quantised_filters),
    Entry(("fusion.dequantised_kernel_unary",), quantised_filters_activated),
    Entry(("fusion.dequantised_kernel_binary",), quantised_filters_and_bias),
    Entry(("fusion.layernorm_of_residual",), post_norm, SMALL),
    Entry(("fusion.rmsnorm_of_residual",), post_rms_norm, SMALL),
    Entry(("fusion.map_after_matmul", "fusion.third_operand_before_matmul"), gated, SMALL),
    Entry(("fusion.transposed_left_operand",), transposed_factor, SMALL),
    Entry(("fusion.transposed_right_operand",), attention_scores, SMALL),
    Entry(("fusion.transposed_product",), context, SMALL),
    Entry(("fusion.map_after_map",), two_functions, SMALL),
    Entry(("fusion.map_after_ternary",), chosen, SMALL),
    Entry(("fusion.third_operand_of_matmul",), product_and_bias, SMALL),
    Entry(("fusion.map_after_conv",), activated_convolution, SMALL),
    Entry(("fusion.third_operand_of_conv",), convolution_and_bias, SMALL),
    Entry(("fusion.third_operand_before_conv",), residual_and_convolution, SMALL),
    Entry(("fusion.attention_of_products",), scaled_queries, SMALL),
    Entry(("fusion.masked_attention_of_products",), masked_attention, SMALL),
    Entry(("fusion.scale_of_queries",), scaled_queries, SMALL),
    Entry(("fusion.scale_of_keys",), scaled_keys, SMALL),
    Entry(("fusion.masked_scale_of_queries",), masked_scaled_queries, SMALL),
    Entry(("fusion.masked_scale_of_keys",), masked_scaled_keys, SMALL),
    Entry(("fusion.chain_of_products",), products_alone, SMALL),
    Entry(("fusion.chain_of_products_and_map",), products_then_map, SMALL),
    Entry(("fusion.chain_of_products_and_bias",), products_then_bias, SMALL),
    Entry(("fusion.chain_of_mapped_product",), products_around_map, SMALL),
    Entry(("fusion.chain_of_mapped_product_and_map",), products_around_map_then_map, SMALL),
    Entry(("fusion.chain_of_mapped_product_and_bias",), products_around_map_then_bias, SMALL),
    Entry(("fusion.chain_of_biased_product",), products_around_bias, SMALL),
    Entry(("fusion.chain_of_biased_product_and_map",), products_around_bias_then_map, SMALL),
    Entry(("fusion.chain_of_biased_product_and_bias",), products_around_bias_then_bias, SMALL),
)


each_entry = pytest.mark.parametrize("entry", ENTRIES, ids=Entry.name)


@each_entry
def test_rules_make_a_plan_cheaper(entry: Entry, make_builder: Callable[..., Builder]) -> None:
    check_plan_worth(entry.model(make_builder(dtype=DType.F32)), entry.rules, entry.target)


@pytest.mark.slow
@each_entry
def test_rules_make_a_program_faster(entry: Entry, make_builder: Callable[..., Builder]) -> None:
    check_worth(entry.model(make_builder(dtype=DType.F32)), entry.rules, entry.target)


def test_every_rule_has_a_model() -> None:
    """What changes no plan is no rule of this package."""
    rules = {rule.name for rule in builtin_rules() if rule.ruleset == "fusion"}
    assert {rule for entry in ENTRIES for rule in entry.rules if rule in rules} == rules
