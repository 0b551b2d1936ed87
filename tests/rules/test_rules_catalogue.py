"""The catalogue of rewrite rules, algebra to layout: where each changes a plan.

Every row names the rules that realise an entry and a model whose best plan costs less with
them than without them, predicted and simulated. All programs are run and compared with the reference.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from plan_cases import ONE, SMALL, Builder, Model, check_outputs, check_worth, compiled

from tilewright.dtypes import DType
from tilewright.graph import Graph, TensorType

TILE = "mesh_1x1"


@dataclass(frozen=True, slots=True)
class Entry:
    """Rules of a catalogue number, and a model that they make cheaper."""

    number: int
    rules: tuple[str, ...]
    model: Model
    target: str = TILE


def part(b: Builder, x: str, start: int, size: int) -> str:
    """Return columns of a tensor."""
    shape = b.types[x].shape
    starts = (*(0,) * (len(shape) - 1), start)
    return str(b.op("slice", x, starts=starts, sizes=(*shape[:-1], size), steps=(1,) * len(shape)))


def two_weights(b: Builder) -> Graph:
    inner = b.op("matmul", b.input("x", 64, 64), b.constant("w", 64, 64))
    return b.graph(b.op("matmul", inner, b.constant("v", 64, 64)))


def shared_left_factor(b: Builder) -> Graph:
    x = b.input("x", 64, 128)
    products = [b.op("matmul", x, b.input(name, 128, 64)) for name in "vw"]
    return b.graph(b.op("map", *products, fn="add"))


def shared_right_factor(b: Builder) -> Graph:
    w = b.constant("w", 128, 128)
    products = [b.op("matmul", b.input(name, 64, 128), w) for name in "xy"]
    return b.graph(b.op("map", *products, fn="add"))


def gate_of_lstm(b: Builder) -> Graph:
    """Multiply an input and a state that came together."""
    both = b.input("xh", 64, 16)
    products = [
        b.op("matmul", part(b, both, 8 * i, 8), b.constant(f"w{i}", 8, 256)) for i in range(2)
    ]
    return b.graph(b.op("map", *products, fn="add"))


def query_and_key(b: Builder) -> Graph:
    x = b.op("map", b.input("x", 8, 256), fn="tanh")
    q, k = (b.op("matmul", x, b.constant(name, 256, 8)) for name in "qk")
    return b.graph(b.op("map", q, k, fn="mul"))


def joined(b: Builder) -> Graph:
    """Join narrow products; wide ones store their parts meanwhile, which no cost model foresees."""
    x = b.input("x", 16, 256)
    products = [b.op("matmul", x, b.constant(name, 256, 16)) for name in "vw"]
    return b.graph(b.op("concat", *products, axis=1))


def inception(b: Builder) -> Graph:
    x = b.input("x", 1, 16, 16, 16)
    products = [b.op("conv", x, b.constant(name, 8, 16, 1, 1), **ONE) for name in "vw"]
    return b.graph(b.op("concat", *products, axis=1))


def branches(b: Builder) -> Graph:
    x = b.op("map", b.input("x", 1, 64, 4, 4), fn="tanh")
    v, w = (b.op("conv", x, b.constant(name, 8, 64, 1, 1), **ONE) for name in "vw")
    return b.graph(b.op("map", v, w, fn="mul"))


def two_convolutions(b: Builder) -> Graph:
    both = b.input("xy", 1, 32, 8, 8)
    halves = [
        b.op("slice", both, starts=(0, 16 * i, 0, 0), sizes=(1, 16, 8, 8), steps=(1,) * 4)
        for i in range(2)
    ]
    products = [
        b.op("conv", half, b.constant(f"w{i}", 16, 16, 1, 1), **ONE)
        for i, half in enumerate(halves)
    ]
    return b.graph(b.op("concat", *products, axis=1))


def transposed_product(b: Builder) -> Graph:
    x, y = (b.op("transpose", b.input(name, 64, 64), perm=(1, 0)) for name in "xy")
    return b.graph(b.op("transpose", b.op("matmul", x, y), perm=(1, 0)))


def scaled_product(b: Builder) -> Graph:
    y = b.op("matmul", b.input("x", 64, 64), b.constant("w", 64, 64))
    return b.graph(b.op("map", y, b.constant("s", 1, 64), fn="mul"))


def batch_norm(b: Builder) -> Graph:
    y = b.op("conv", b.input("x", 1, 8, 16, 16), b.constant("w", 16, 8, 1, 1), **ONE)
    y = b.op("map", y, b.constant("s", 1, 16, 1, 1), fn="mul")
    return b.graph(b.op("map", y, b.constant("t", 1, 16, 1, 1), fn="add"))


def merged_heads(b: Builder) -> Graph:
    """Take query and key out of one product, as GPT-2 writes it."""
    both = b.linear(b.input("x", 64, 64), "c", 128)
    return b.graph(b.op("matmul", part(b, both, 0, 64), part(b, both, 64, 64)))


def half_of_joint(b: Builder) -> Graph:
    both = b.op("concat", b.input("x", 64, 64), b.input("y", 64, 64), axis=1)
    return b.graph(b.op("map", part(b, both, 64, 64), fn="relu"))


def joint_of_halves(b: Builder) -> Graph:
    x = b.op("map", b.input("x", 64, 128), fn="tanh")
    both = b.op("concat", part(b, x, 0, 64), part(b, x, 64, 64), axis=1)
    return b.graph(b.op("map", both, fn="exp"))


def part_of_part(b: Builder) -> Graph:
    return b.graph(part(b, part(b, b.input("x", 64, 128), 32, 64), 32, 16))


def activated_joint(b: Builder) -> Graph:
    products = [
        b.op("matmul", b.input(name, 64, 64), b.constant(f"w{name}", 64, 64)) for name in "xy"
    ]
    both = b.op("map", b.op("concat", *products, axis=0), b.constant("c", 1, 64), fn="mul")
    return b.graph(b.op("map", both, fn="relu"))


def activated_parts(b: Builder) -> Graph:
    products = [
        b.op("matmul", b.input(name, 64, 64), b.constant(f"w{name}", 64, 64)) for name in "xy"
    ]
    return b.graph(b.op("map", b.op("concat", *products, axis=1), fn="relu"))


def activated_after_reshape(b: Builder) -> Graph:
    y = b.op("matmul", b.input("x", 64, 64), b.constant("w", 64, 64))
    return b.graph(b.op("map", b.op("reshape", y, shape=(64, 4, 16)), fn="relu"))


def activated_after_pad(b: Builder) -> Graph:
    y = b.op("conv", b.input("x", 1, 8, 16, 16), b.constant("w", 8, 8, 1, 1), **ONE)
    y = b.op("pad", y, begins=(0, 0, 2, 2), ends=(0, 0, 2, 2), value=0.0)
    return b.graph(b.op("map", y, fn="relu"))


def written_transposed(b: Builder) -> Graph:
    y = b.op("map", b.linear(b.input("x", 64, 64), "l", 64), fn="relu")
    return b.graph(b.op("transpose", y, perm=(1, 0)))


def activated_transposed(b: Builder) -> Graph:
    y = b.op("map", b.op("matmul", b.input("x", 64, 64), b.constant("w", 64, 64)), fn="relu")
    return b.graph(b.op("transpose", y, perm=(1, 0)))


def read_transposed(b: Builder) -> Graph:
    x = b.op("map", b.op("transpose", b.input("x", 64, 64), perm=(1, 0)), fn="relu")
    return b.graph(b.op("matmul", x, b.constant("w", 64, 64)))


def long_rows(b: Builder) -> Graph:
    return b.graph(b.op("softmax", b.input("x", 2, 4096)))


def softmax_taken_apart(b: Builder) -> Graph:
    x = b.input("x", 64, 64)
    e = b.op("map", b.op("map", x, b.op("reduce", x, fn="max", axes=(1,)), fn="sub"), fn="exp")
    return b.graph(b.op("map", e, b.op("reduce", e, fn="sum", axes=(1,)), fn="div"))


def dense_layer(b: Builder) -> Graph:
    return b.graph(b.op("map", b.linear(b.input("x", 64, 64), "l", 64), fn="relu"))


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


def shared_keys(b: Builder) -> Graph:
    """Give each two heads of queries the same keys, transposed for the product."""
    k = b.op("reshape", b.input("k", 1, 4, 64, 16), shape=(1, 4, 1, 64, 16))
    k = b.op("expand", k, shape=(1, 4, 2, 64, 16))
    k = b.op("transpose", b.op("reshape", k, shape=(1, 8, 64, 16)), perm=(0, 1, 3, 2))
    return b.graph(b.op("matmul", b.input("q", 1, 8, 4, 16), k))


def shared_values(b: Builder) -> Graph:
    """Give each two heads of weights the same values."""
    v = b.op("reshape", b.input("v", 1, 4, 64, 16), shape=(1, 4, 1, 64, 16))
    v = b.op("expand", v, shape=(1, 4, 2, 64, 16))
    p = b.input("p", 1, 8, 4, 64)
    return b.graph(b.op("matmul", p, b.op("reshape", v, shape=(1, 8, 64, 16))))


def context(b: Builder) -> Graph:
    y = b.op("matmul", b.input("p", 1, 4, 64, 64), b.input("v", 1, 4, 64, 16))
    return b.graph(b.op("transpose", y, perm=(0, 2, 1, 3)))


def blocked(b: Builder) -> Graph:
    """Apply a function to 16 x 16 blocks: pack, function, unpack."""
    x = b.op("reshape", b.input("x", 64, 64), shape=(4, 16, 4, 16))
    y = b.op("map", b.op("transpose", x, perm=(0, 2, 1, 3)), fn="tanh")
    return b.graph(b.op("reshape", b.op("transpose", y, perm=(0, 2, 1, 3)), shape=(64, 64)))


def odd_vocabulary(b: Builder) -> Graph:
    return b.graph(b.op("matmul", b.input("x", 1, 256), b.constant("w", 256, 509)))


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


def odd_sum(b: Builder) -> Graph:
    return b.graph(b.op("matmul", b.input("x", 1, 1021), b.constant("w", 1021, 3)))


PRODUCTS = "algebra.first_of_two_products", "algebra.second_of_two_products"
CONVOLUTIONS = "algebra.first_of_two_convolutions", "algebra.second_of_two_convolutions"
EPILOGUES = (
    "fusion.map_after_matmul",
    "fusion.third_operand_of_matmul",
    "fusion.map_after_matmul_third_operand",
)
ENTRIES = (
    Entry(1, ("algebra.product_of_two_weights",), two_weights),
    Entry(2, ("algebra.sum_of_products",), shared_left_factor),
    Entry(2, ("algebra.product_with_sum",), shared_right_factor),
    Entry(3, ("algebra.sum_of_products_as_one",), gate_of_lstm),
    Entry(4, PRODUCTS, query_and_key),
    Entry(4, ("algebra.joined_products", *PRODUCTS), joined),
    Entry(5, ("algebra.joined_convolutions", *CONVOLUTIONS), inception),
    Entry(5, CONVOLUTIONS, branches),
    Entry(6, ("algebra.grouped_convolution",), two_convolutions),
    Entry(
        7, ("algebra.transpose_of_product", "fusion.transposed_product"), transposed_product, SMALL
    ),
    Entry(8, ("algebra.scale_into_matmul_weight",), scaled_product),
    Entry(8, ("algebra.scale_into_conv_weight",), batch_norm),
    Entry(9, ("algebra.slice_before_binary",), merged_heads, SMALL),
    Entry(9, ("algebra.part_of_product",), merged_heads, SMALL),
    Entry(9, ("algebra.slice_of_second_part",), half_of_joint),
    Entry(9, ("algebra.concat_of_adjacent_slices",), joint_of_halves, SMALL),
    Entry(9, ("algebra.slice_of_slice",), part_of_part),
    Entry(9, ("algebra.map_into_parts",), activated_parts),
    Entry(9, ("algebra.binary_into_parts",), activated_joint),
    Entry(9, ("algebra.reshape_after_map",), activated_after_reshape, SMALL),
    Entry(9, ("algebra.pad_after_map",), activated_after_pad, SMALL),
    Entry(9, ("algebra.transpose_before_map",), activated_transposed, SMALL),
    Entry(9, ("algebra.transpose_before_binary",), written_transposed, SMALL),
    Entry(9, ("algebra.transpose_after_map",), read_transposed, SMALL),
    Entry(10, ("algebra.softmax_in_parts",), long_rows, "toy"),
    Entry(10, ("algebra.softmax_from_parts",), softmax_taken_apart),
    Entry(11, EPILOGUES, dense_layer, SMALL),
    Entry(12, ("fusion.map_after_map", "fusion.map_after_binary"), chain, SMALL),
    Entry(13, ("fusion.dequantised_weight",), quantised_weight),
    Entry(13, ("fusion.dequantised_weight_unary",), quantised_activated),
    Entry(13, ("fusion.dequantised_weight_binary",), quantised_layer),
    Entry(13, ("fusion.dequantised_kernel",), quantised_filters),
    Entry(13, ("fusion.dequantised_kernel_unary",), quantised_filters_activated),
    Entry(13, ("fusion.dequantised_kernel_binary",), quantised_filters_and_bias),
    Entry(16, ("fusion.layernorm_of_residual",), post_norm, SMALL),
    Entry(16, ("fusion.rmsnorm_of_residual",), post_rms_norm, SMALL),
    Entry(17, ("fusion.map_after_matmul", "fusion.third_operand_before_matmul"), gated, SMALL),
    Entry(18, ("fusion.transposed_left_operand",), read_transposed, SMALL),
    Entry(18, ("fusion.transposed_right_operand",), attention_scores, SMALL),
    Entry(18, ("fusion.transposed_product",), context, SMALL),
    Entry(18, ("algebra.product_with_shared_heads",), shared_values, SMALL),
    Entry(18, ("algebra.product_with_shared_transposed_heads",), shared_keys, SMALL),
    Entry(19, ("algebra.transpose_of_transpose",), blocked, SMALL),
    Entry(21, ("algebra.padded_columns",), odd_vocabulary, "toy"),
    Entry(21, ("algebra.padded_sum",), odd_sum, "toy"),
)


@pytest.mark.parametrize(
    "entry", ENTRIES, ids=lambda e: f"{e.number}-{e.rules[0]}-{e.model.__name__}"
)
def test_rule_makes_a_plan_cheaper(entry: Entry, make_builder: Callable[..., Builder]) -> None:
    graph = entry.model(make_builder(dtype=DType.F32))
    check_worth(graph, entry.rules, entry.target)


def test_every_entry_that_is_not_a_mechanism_has_a_model() -> None:
    """14 and 15 have tests of their own; 20 and 22 are the tests below."""
    assert {entry.number for entry in ENTRIES} == {*range(1, 23)} - {14, 15, 20, 22}


def test_layouts_pass_through_element_wise_operators(make_builder: Callable[..., Builder]) -> None:
    """Entry 20: a map runs in whatever way its operand lies, by the strategies of its nest."""
    b = make_builder(dtype=DType.F32)
    y = b.op("matmul", b.input("x", 64, 64), b.constant("w", 64, 64))
    done = compiled(b.graph(b.op("map", y, fn="tanh")), ("fusion",))
    assert done.plan is not None
    product, mapped = done.plan.ops
    (delivery,) = mapped.deliveries
    assert max(product.result.sharding) >= 0
    assert delivery.moves == ()
    assert mapped.result.sharding == product.result.sharding


def test_the_compiler_lays_weights_out(make_builder: Callable[..., Builder]) -> None:
    """Entry 22: what is made of constants only is computed at compile time and costs no kernel."""
    b = make_builder(dtype=DType.F32)
    w = b.op("transpose", b.constant("w", 64, 64), perm=(1, 0))
    graph = b.graph(b.op("matmul", b.input("x", 64, 64), b.op("reshape", w, shape=(64, 64))))
    done = compiled(graph, ("fusion",))
    assert done.plan is not None
    assert [op.op.kind for op in done.plan.ops] == ["matmul"]
    check_outputs(done, graph)
