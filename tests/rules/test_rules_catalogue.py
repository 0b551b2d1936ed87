"""The catalogue of rewrite rules: models that rules of algebra make cheaper.

The quick tests plan with and without the rules; the slow ones also simulate both programs and compare what
they compute with the reference.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from plan_cases import (
    ONE,
    SMALL,
    Builder,
    Entry,
    check_outputs,
    check_plan_worth,
    check_worth,
    compiled,
)

from tilewright.dtypes import DType
from tilewright.graph import Graph
from tilewright.rules.options import builtin_rules

GRID = "mesh_4x4"


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


def new_key(b: Builder) -> Graph:
    """Multiply a query with the keys of a cache and one that is new, of which no mesh splits the number."""
    q, old, new = integers(b, (8, 1, 64), (8, 64, 256), (8, 64, 1))
    return product(b, q, b.op("concat", old, new, axis=2))


def new_value(b: Builder) -> Graph:
    """Weigh the values of a cache and one that is new."""
    p, r, old, new = integers(b, (8, 1, 256), (8, 1, 1), (8, 256, 64), (8, 1, 64))
    return product(b, b.op("concat", p, r, axis=2), b.op("concat", old, new, axis=1))


def integers(b: Builder, *shapes: tuple[int, ...]) -> list[str]:
    return [b.input(f"i{n}", *shape, dtype=DType.I8) for n, shape in enumerate(shapes)]


def product(b: Builder, x: str, y: str) -> Graph:
    return b.graph(b.op("matmul", x, y, dtype=DType.I32))


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
    x = b.op("map", b.op("transpose", b.input("x", 64, 128), perm=(1, 0)), fn="relu")
    return b.graph(b.op("matmul", x, b.constant("w", 64, 32)))


def long_rows(b: Builder) -> Graph:
    return b.graph(b.op("softmax", b.input("x", 2, 4096)))


def softmax_taken_apart(b: Builder) -> Graph:
    x = b.input("x", 64, 64)
    e = b.op("map", b.op("map", x, b.op("reduce", x, fn="max", axes=(1,)), fn="sub"), fn="exp")
    return b.graph(b.op("map", e, b.op("reduce", e, fn="sum", axes=(1,)), fn="div"))


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


def blocked(b: Builder) -> Graph:
    """Apply a function to 16 x 16 blocks: pack, function, unpack."""
    x = b.op("reshape", b.input("x", 64, 64), shape=(4, 16, 4, 16))
    y = b.op("map", b.op("transpose", x, perm=(0, 2, 1, 3)), fn="tanh")
    return b.graph(b.op("reshape", b.op("transpose", y, perm=(0, 2, 1, 3)), shape=(64, 64)))


def odd_vocabulary(b: Builder) -> Graph:
    return b.graph(b.op("matmul", b.input("x", 1, 256), b.constant("w", 256, 509)))


def odd_sum(b: Builder) -> Graph:
    return b.graph(b.op("matmul", b.input("x", 1, 1021), b.constant("w", 1021, 3)))


def transposed_by_nothing(b: Builder) -> Graph:
    return b.graph(b.op("transpose", b.op("map", b.input("x", 64, 64), fn="tanh"), perm=(0, 1)))


def transposes_apart(b: Builder) -> Graph:
    """Transpose there and back; between both, reshape there and back."""
    y = b.op("transpose", b.op("map", b.input("x", 64, 64), fn="tanh"), perm=(1, 0))
    y = b.op("reshape", b.op("reshape", y, shape=(64, 4, 16)), shape=(64, 64))
    return b.graph(b.op("map", b.op("transpose", y, perm=(1, 0)), fn="exp"))


def cast_to_itself(b: Builder) -> Graph:
    x = b.op("map", b.input("x", 64, 64), fn="cast(f32)", dtype=DType.F32)
    return b.graph(b.op("matmul", x, b.constant("w", 64, 64)))


def casts_there_and_back(b: Builder) -> Graph:
    x = b.input("x", 64, 64, dtype=DType.F16)
    y = b.op("map", x, fn="cast(f32)", dtype=DType.F32)
    y = b.op("map", y, fn="cast(f16)", dtype=DType.F16)
    return b.graph(b.op("reduce", y, fn="sum", axes=(1,)))


def all_of_it(b: Builder) -> Graph:
    return b.graph(b.op("map", part(b, b.input("x", 64, 64), 0, 64), fn="tanh"))


def first_half_of_joint(b: Builder) -> Graph:
    return part_of_joint(b, "xy", 0)


def first_of_three(b: Builder) -> Graph:
    return part_of_joint(b, "xyz", 0)


def last_of_three(b: Builder) -> Graph:
    return part_of_joint(b, "xyz", 128)


def part_of_joint(b: Builder, names: str, start: int) -> Graph:
    joint = b.op("concat", *(b.input(name, 64, 64) for name in names), axis=1)
    return b.graph(b.op("map", part(b, joint, start, 64), fn="relu"))


def inside_of_padded(b: Builder) -> Graph:
    y = b.op("pad", b.input("x", 64, 64), begins=(0, 2), ends=(0, 2), value=0.0)
    return b.graph(b.op("map", part(b, y, 2, 60), fn="relu"))


def weights_on_the_left(b: Builder) -> Graph:
    inner = b.op("matmul", b.constant("v", 64, 64), b.input("x", 64, 64))
    return b.graph(b.op("matmul", b.constant("w", 64, 64), inner))


def halved_product(b: Builder) -> Graph:
    y = b.op("matmul", b.input("x", 64, 16), b.constant("w", 16, 64))
    return b.graph(b.op("map", y, fn="mul_const(0.5)"))


def halved_operand(b: Builder) -> Graph:
    x = b.op("map", b.input("x", 64, 256), fn="mul_const(0.5)")
    return b.graph(b.op("matmul", x, b.input("w", 256, 16)))


def scale_on_the_left(b: Builder) -> Graph:
    y = b.op("matmul", b.input("x", 64, 64), b.constant("w", 64, 64))
    return b.graph(b.op("map", b.constant("s", 1, 64), y, fn="mul"))


def two_shifts(b: Builder) -> Graph:
    y = b.op("map", b.input("x", 64, 64), b.constant("s", 1, 64), fn="add")
    return b.graph(b.op("map", y, b.constant("t", 1, 64), fn="add"))


def bias_and_residual(b: Builder) -> Graph:
    y = b.op("map", b.linear(b.input("x", 64, 64), "l", 64), b.input("r", 1, 64), fn="add")
    return b.graph(y)


def scaled_layer(b: Builder) -> Graph:
    y = b.linear(b.input("x", 64, 64), "l", 64)
    return b.graph(b.op("map", y, b.constant("s", 1, 64), fn="mul"))


def scaled_scores(b: Builder) -> Graph:
    """Scale scores by a number, as exporters write attention."""
    return weighed(b, b.op("map", scores(b), fn="mul_const(0.25)"))


def scores_by_constant(b: Builder) -> Graph:
    """Scale scores by a constant of one element."""
    return weighed(b, b.op("map", scores(b), b.constant("s", 1, 1, 1), fn="mul"))


def scores(b: Builder) -> str:
    return str(b.op("matmul", b.input("q", 4, 64, 16), b.input("k", 4, 16, 64)))


def weighed(b: Builder, scores: str) -> Graph:
    return b.graph(b.op("matmul", b.op("softmax", scores), b.input("v", 4, 64, 16)))


def long_rms_norm(b: Builder) -> Graph:
    return b.graph(b.op("rmsnorm", b.input("x", 2, 4096), epsilon=1e-5))


def long_layer_norm(b: Builder) -> Graph:
    return b.graph(b.op("layernorm", b.input("x", 2, 4096), epsilon=1e-5))


def normalised_exponentials(b: Builder) -> Graph:
    e = b.op("map", b.op("matmul", b.input("x", 1, 512), b.constant("u", 512, 512)), fn="exp")
    y = b.op("map", e, b.op("reduce", e, fn="sum", axes=(1,)), fn="div")
    return b.graph(b.op("matmul", y, b.constant("w", 512, 64)))


def rms_norm_before_product(b: Builder) -> Graph:
    return before_product(b, b.op("rmsnorm", residual(b), epsilon=1e-5), 64)


def gain_before_product(b: Builder) -> Graph:
    y = b.op("rmsnorm", residual(b), epsilon=1e-5)
    return before_product(b, b.op("map", y, b.constant("g", 1, 512), fn="mul"), 64)


def layer_norm_before_product(b: Builder) -> Graph:
    return before_product(b, b.op("layernorm", residual(b), epsilon=1e-5), 512)


def affine_norm_before_product(b: Builder) -> Graph:
    return before_product(b, affine_norm(b, residual(b)), 512)


def flattened_norm_before_product(b: Builder) -> Graph:
    y = affine_norm(b, b.op("reshape", residual(b), shape=(1, 1, 512)))
    return before_product(b, b.op("reshape", y, shape=(1, 512)), 512)


def residual(b: Builder) -> str:
    """Return x U + x, one row that many tiles share."""
    x = b.input("x", 1, 512)
    return str(b.op("map", b.op("matmul", x, b.constant("u", 512, 512)), x, fn="add"))


def affine_norm(b: Builder, x: str) -> str:
    ones = (1,) * (len(b.types[x].shape) - 1)
    y = b.op("layernorm", x, epsilon=1e-5)
    y = b.op("map", y, b.constant("g", *ones, 512), fn="mul")
    return str(b.op("map", y, b.constant("b", *ones, 512), fn="add"))


def before_product(b: Builder, x: str, columns: int) -> Graph:
    return b.graph(b.op("map", b.op("matmul", x, b.constant("w", 512, columns)), fn="relu"))


PRODUCTS = "algebra.first_of_two_products", "algebra.second_of_two_products"
CONVOLUTIONS = "algebra.first_of_two_convolutions", "algebra.second_of_two_convolutions"
ENTRIES = (
    Entry(("algebra.product_of_two_weights",), two_weights),
    Entry(("algebra.sum_of_products",), shared_left_factor),
    Entry(("algebra.product_with_sum",), shared_right_factor),
    Entry(("algebra.sum_of_products_as_one",), gate_of_lstm),
    Entry(("algebra.product_in_columns",), new_key, GRID),
    Entry(("algebra.product_in_terms",), new_value, GRID),
    Entry(PRODUCTS, query_and_key),
    Entry(("algebra.joined_products", *PRODUCTS), joined),
    Entry(("algebra.joined_convolutions", *CONVOLUTIONS), inception),
    Entry(CONVOLUTIONS, branches),
    Entry(("algebra.grouped_convolution",), two_convolutions),
    Entry(("algebra.transpose_of_product", "fusion.transposed_product"), transposed_product, SMALL),
    Entry(("algebra.scale_into_matmul_weight",), scaled_product),
    Entry(("algebra.scale_into_conv_weight",), batch_norm),
    Entry(("algebra.slice_before_binary",), merged_heads, SMALL),
    Entry(("algebra.part_of_product",), merged_heads, SMALL),
    Entry(("algebra.slice_of_second_part",), half_of_joint),
    Entry(("algebra.concat_of_adjacent_slices",), joint_of_halves, SMALL),
    Entry(("algebra.slice_of_slice",), part_of_part),
    Entry(("algebra.map_into_parts",), activated_parts),
    Entry(("algebra.binary_into_parts",), activated_joint),
    Entry(("algebra.reshape_after_map",), activated_after_reshape, SMALL),
    Entry(("algebra.pad_after_map",), activated_after_pad, SMALL),
    Entry(("algebra.transpose_before_map",), activated_transposed, SMALL),
    Entry(("algebra.transpose_before_binary",), written_transposed, SMALL),
    Entry(("algebra.transpose_after_map",), read_transposed, SMALL),
    Entry(("algebra.softmax_in_parts",), long_rows, "toy"),
    Entry(("algebra.softmax_from_parts",), softmax_taken_apart),
    Entry(("algebra.product_with_shared_heads",), shared_values, SMALL),
    Entry(("algebra.product_with_shared_transposed_heads",), shared_keys, SMALL),
    Entry(("algebra.transpose_of_transpose",), blocked, SMALL),
    Entry(("algebra.padded_columns",), odd_vocabulary, "toy"),
    Entry(("algebra.padded_sum",), odd_sum, "toy"),
    Entry(("algebra.product_after_two_weights",), weights_on_the_left),
    Entry(("algebra.transpose_by_identity",), transposed_by_nothing, SMALL),
    Entry(("algebra.reshape_of_reshape",), transposes_apart, SMALL),
    Entry(("algebra.reshape_to_own_shape",), transposes_apart, SMALL),
    Entry(("algebra.map_that_keeps_values",), cast_to_itself, SMALL),
    Entry(("algebra.cast_of_lossless_cast",), casts_there_and_back, SMALL),
    Entry(("algebra.slice_of_everything",), all_of_it, SMALL),
    Entry(("algebra.slice_of_first_part",), first_half_of_joint),
    Entry(("algebra.slice_of_first_of_three",), first_of_three),
    Entry(("algebra.slice_of_last_of_three",), last_of_three),
    Entry(("algebra.slice_of_pad",), inside_of_padded),
    Entry(("algebra.number_into_weight",), halved_product),
    Entry(("algebra.number_out_of_left_operand",), halved_operand, SMALL),
    Entry(("algebra.number_into_left_operand",), scaled_scores, SMALL),
    Entry(("algebra.scalar_into_left_operand",), scores_by_constant, SMALL),
    Entry(("algebra.constant_second",), scale_on_the_left),
    Entry(("algebra.merge_constant_shifts",), two_shifts),
    Entry(("algebra.bias_onto_residual",), bias_and_residual),
    Entry(("algebra.scale_over_shift",), scaled_layer),
    Entry(("algebra.rmsnorm_in_parts",), long_rms_norm, "toy"),
    Entry(("algebra.layernorm_in_parts",), long_layer_norm, "toy"),
    Entry(("algebra.denominator_past_product",), normalised_exponentials, GRID),
    Entry(("algebra.rmsnorm_past_product",), rms_norm_before_product, GRID),
    Entry(("algebra.gain_into_weight",), gain_before_product, GRID),
    Entry(("algebra.layernorm_past_product",), layer_norm_before_product, GRID),
    Entry(("algebra.affine_layernorm_past_product",), affine_norm_before_product, GRID),
    Entry(("algebra.flattened_layernorm_past_product",), flattened_norm_before_product, GRID),
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
    rules = {rule.name for rule in builtin_rules() if rule.ruleset == "algebra"}
    assert {rule for entry in ENTRIES for rule in entry.rules if rule in rules} == rules


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
