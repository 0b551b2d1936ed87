"""Rules of the mesh: where each partition, tiling, collective and memory rule changes a plan.

Every row names a rule and a model whose best plan costs less with it than without it. The slow suite also
simulates both plans and compares what the programs compute with the reference.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from plan_cases import ONE, SMALL, TILE, Builder, Entry, check_plan_worth, check_worth

from tilewright.dtypes import DType
from tilewright.graph import Graph
from tilewright.rules.options import SaturationOptions

LINE = "mesh_1x4"
LONG_LINE = "mesh_1x8"
SMALL_LINE = "mesh_1x4?sram_kib=32"
"""Tiles whose scratchpads are too small for what is between two products."""
"""So many tiles that handshakes of chunks and odd sizes count."""
PADDED = {**ONE, "pads": (1, 1, 1, 1)}
POOL = {"fn": "max", "kernel": (3, 3), "strides": (1, 1), "dilations": (1, 1)}


def product(b: Builder, *shapes: tuple[int, ...], constant: bool = True) -> Graph:
    x, w = shapes
    second = b.constant if constant else b.input
    return b.graph(b.op("matmul", b.input("x", *x), second("w", *w)))


def few_rows(b: Builder) -> Graph:
    return product(b, (4, 256), (256, 512))


def long_sum(b: Builder) -> Graph:
    """Sum over many terms; the tiles divide neither rows nor columns."""
    return product(b, (5, 2048), (2048, 5))


def experts(b: Builder) -> Graph:
    """Give every expert five tokens of its own."""
    return product(b, (8, 5, 64), (8, 64, 65))


def chained(b: Builder, *shapes: tuple[int, ...]) -> Graph:
    """Return relu(x v) w."""
    x, v, w = (b.input(name, *shape) for name, shape in zip("xvw", shapes, strict=True))
    return b.graph(b.op("matmul", b.op("map", b.op("matmul", x, v), fn="relu"), w))


def rows_of_chain(b: Builder) -> Graph:
    return chained(b, (1024, 16), (16, 128), (128, 16))


def features_of_chain(b: Builder) -> Graph:
    """Few rows and many hidden features: each tile makes and uses some of them."""
    return chained(b, (17, 16), (16, 4096), (4096, 16))


def experts_of_chain(b: Builder) -> Graph:
    """Each tile has experts of its own, with 65 tokens each."""
    return chained(b, (8, 65, 16), (8, 16, 129), (8, 129, 16))


def heads(b: Builder) -> Graph:
    return product(b, (1, 8, 5, 64), (1, 8, 64, 65), constant=False)


def mlp(b: Builder) -> Graph:
    hidden = b.op("map", b.op("matmul", b.input("x", 32, 64), b.constant("v", 64, 256)), fn="relu")
    return b.graph(b.op("matmul", hidden, b.constant("w", 256, 64)))


def many_features(b: Builder) -> Graph:
    """Take up the scratchpads of four tiles with features of many rows, and with the sums over them."""
    x, v, w = b.input("x", 128, 256), b.constant("v", 256, 512), b.constant("w", 512, 256)
    return b.graph(b.op("matmul", b.op("map", b.op("matmul", x, v), fn="relu"), w))


def convolution(b: Builder, x: tuple[int, ...], w: tuple[int, ...], stride: int = 1) -> Graph:
    attrs = {**ONE, "strides": (stride, stride)}
    return b.graph(b.op("conv", b.input("x", *x), b.constant("w", *w), **attrs))


def images(b: Builder) -> Graph:
    return convolution(b, (16, 3, 7, 7), (5, 3, 3, 3))


def filters(b: Builder) -> Graph:
    return convolution(b, (1, 5, 7, 7), (64, 5, 3, 3))


def channels(b: Builder) -> Graph:
    return convolution(b, (1, 256, 7, 7), (5, 256, 3, 3))


def patches(b: Builder) -> Graph:
    return convolution(b, (1, 3, 64, 64), (5, 3, 4, 4), stride=4)


def one_window(b: Builder) -> Graph:
    return convolution(b, (1, 3, 32, 32), (5, 3, 32, 32))


def overlapping_windows(b: Builder) -> Graph:
    x = b.op("conv", b.input("x", 1, 3, 32, 32), b.constant("w", 8, 3, 3, 3), **PADDED)
    return b.graph(b.op("conv", x, b.constant("v", 8, 8, 3, 3), **PADDED))


def pooled(b: Builder, channels: int, size: int, pads: int) -> Graph:
    x = b.op("map", b.input("x", 1, channels, size, size), fn="tanh")
    return b.graph(b.op("pool", x, **POOL, pads=(pads,) * 4))


def pooled_channels(b: Builder) -> Graph:
    return pooled(b, 64, 15, 0)


def pooled_image(b: Builder) -> Graph:
    return pooled(b, 3, 64, 1)


def attention(b: Builder, heads: int, tokens: int) -> Graph:
    q, v = (b.input(name, heads, tokens, 16) for name in "qv")
    scores = b.op("matmul", q, b.input("k", heads, 16, tokens))
    return b.graph(b.op("matmul", b.op("softmax", scores), v))


def many_heads(b: Builder) -> Graph:
    return attention(b, 8, 65)


def one_head(b: Builder) -> Graph:
    return attention(b, 1, 256)


def activation(b: Builder) -> Graph:
    return b.graph(b.op("map", b.input("x", 256, 256), fn="gelu"))


def long_rows(b: Builder) -> Graph:
    """Normalise twice: once alone takes no longer than the DRAM ports, however rows are split."""
    once = b.op("layernorm", b.input("x", 256, 255), epsilon=1e-5)
    return b.graph(b.op("layernorm", b.op("softmax", once), epsilon=1e-5))


def row_sums(b: Builder) -> Graph:
    return b.graph(b.op("reduce", b.input("x", 256, 255), fn="sum", axes=(1,)))


def column_sums(b: Builder) -> Graph:
    return b.graph(b.op("reduce", b.input("x", 1024, 63), fn="sum", axes=(0,)))


def transposed_between(b: Builder) -> Graph:
    x = b.op("map", b.input("x", 256, 64), fn="tanh")
    return b.graph(b.op("map", b.op("transpose", x, perm=(1, 0)), fn="exp"))


def embedding(b: Builder) -> Graph:
    """Look rows up in a table that no scratchpad holds."""
    indices = b.input("i", 64, dtype=DType.I64)
    return b.graph(b.op("gather", b.constant("t", 8192, 64), indices, axis=0))


def vocabulary(b: Builder) -> Graph:
    """Look up in a table whose width the tiles do not divide."""
    indices = b.input("i", 6, dtype=DType.I64)
    return b.graph(b.op("gather", b.constant("t", 4096, 61), indices, axis=0))


def last_token(b: Builder) -> Graph:
    """Take one row of a sum: all others need not be completed."""
    x = b.op("matmul", b.input("x", 32, 1024), b.constant("w", 1024, 67))
    return b.graph(b.op("softmax", b.op("slice", x, starts=(31, 0), sizes=(1, 67), steps=(1, 1))))


def normalised_mlp(b: Builder) -> Graph:
    """Apply x + relu(norm(x) v) w, the rows of the norm on one tile each."""
    x = b.input("x", 128, 256)
    hidden = b.op("matmul", b.op("rmsnorm", x, epsilon=1e-5), b.constant("v", 256, 512))
    y = b.op("matmul", b.op("map", hidden, fn="relu"), b.constant("w", 512, 256))
    return b.graph(b.op("map", y, x, fn="add"))


def weighed_values(b: Builder, rows: int, terms: int, columns: int) -> Graph:
    """Weigh values, both computed on the tiles that have their rows."""
    weights = b.op("softmax", b.input("x", rows, terms))
    return b.graph(b.op("matmul", weights, b.op("map", b.input("v", terms, columns), fn="tanh")))


def few_values(b: Builder) -> Graph:
    return weighed_values(b, 256, 256, 64)


def many_narrow_values(b: Builder) -> Graph:
    return weighed_values(b, 128, 1024, 32)


def tokens_that_attend(b: Builder) -> Graph:
    """Attend over normalised tokens, which are keys and values at once and fill a scratchpad."""
    x = b.op("rmsnorm", b.input("x", 512, 64), epsilon=1e-5)
    x = b.op("reshape", x, shape=(1, 512, 64))
    scores = b.op("matmul", x, b.op("transpose", x, perm=(0, 2, 1)))
    return b.graph(b.op("matmul", b.op("softmax", scores), x))


def square(b: Builder) -> Graph:
    return product(b, (64, 64), (64, 64))


def sum_in_boxes(b: Builder) -> Graph:
    return product(b, (16, 4096), (4096, 16))


def wide_product(b: Builder) -> Graph:
    """Multiply by what is wider than the other operand is long."""
    return product(b, (256, 64), (64, 1024), constant=False)


def two_layers(b: Builder, rows: int, width: int, inner: int, fn: str) -> Graph:
    x = b.op("matmul", b.input("x", rows, width), b.constant("v", width, inner))
    return b.graph(b.op("matmul", b.op("map", x, fn=fn), b.constant("w", inner, width)))


def narrow_inside(b: Builder) -> Graph:
    return two_layers(b, 16, 256, 64, "tanh")


def many_rows(b: Builder) -> Graph:
    """Use both weights on all rows: in scratchpads they would have to be shared out."""
    return two_layers(b, 1024, 64, 128, "relu")


def sequence_parallel(b: Builder) -> Graph:
    """Split a sum over hidden features, then normalise rows."""
    x = b.op("map", b.op("matmul", b.input("x", 16, 64), b.constant("v", 64, 1024)), fn="relu")
    return b.graph(b.op("rmsnorm", b.op("matmul", x, b.constant("w", 1024, 64)), epsilon=1e-5))


def rows_after_columns(b: Builder) -> Graph:
    """Give each tile the weights of some columns, then normalise rows."""
    return b.graph(
        b.op("softmax", b.op("matmul", b.input("x", 64, 2048), b.constant("w", 2048, 64)))
    )


ENTRIES = (
    Entry(("partition.matmul_rows",), mlp, LINE),
    Entry(("partition.matmul_columns",), few_rows, LINE),
    Entry(("partition.matmul_contracting_axis",), long_sum, LINE),
    Entry(("partition.matmul_first_batch_axis",), experts, LINE),
    Entry(("partition.matmul_heads",), heads, LINE),
    Entry(("partition.chain_rows",), rows_of_chain, SMALL_LINE),
    Entry(("partition.chain_features",), features_of_chain, SMALL_LINE),
    Entry(("partition.chain_batch",), experts_of_chain, SMALL_LINE),
    Entry(("partition.conv_batch",), images, LINE),
    Entry(("partition.conv_output_channels",), filters, LINE),
    Entry(("partition.conv_input_channels",), channels, LINE),
    Entry(("partition.conv_space",), patches, LINE),
    Entry(("partition.conv_window",), one_window, LINE),
    Entry(("partition.conv_space_halo",), overlapping_windows, LINE),
    Entry(("partition.pool_space_halo",), pooled_image, LINE),
    Entry(("partition.pooled_tensor",), pooled_channels, LINE),
    Entry(("partition.attention_heads",), many_heads, LINE),
    Entry(("partition.attention_queries",), one_head, LINE),
    Entry(("partition.elementwise",), activation, LINE),
    Entry(("partition.rows_of_norms",), long_rows, LINE),
    Entry(("partition.kept_axis_of_reduction",), row_sums, LINE),
    Entry(("partition.reduced_axis",), column_sums, LINE),
    Entry(("partition.moved_data",), transposed_between, LINE),
    Entry(("partition.gathered_rows",), embedding, LINE),
    Entry(("partition.vocabulary_of_table",), vocabulary, LONG_LINE),
    Entry(("partition.partial_sums_through_linear",), last_token, "toy"),
    Entry(("partition.gathered_matmul_rows",), normalised_mlp, LONG_LINE),
    Entry(("partition.gathered_matmul_terms",), normalised_mlp, LONG_LINE),
    Entry(("partition.gathered_matmul_columns",), many_narrow_values, "toy"),
    Entry(("partition.gathered_matmul_values",), few_values, LONG_LINE),
    Entry(("partition.scattered_matmul_rows",), many_features, LINE),
    Entry(("partition.ring_attention",), tokens_that_attend, LONG_LINE),
    Entry(("tiling.whole_loop",), square, "mesh_1x1?sram_kib=64"),
    Entry(("tiling.smaller_tiles",), square, SMALL),
    Entry(("tiling.accumulate_over_parts",), sum_in_boxes, TILE),
    Entry(("tiling.choose_outermost",), wide_product, SMALL),
    Entry(("collective.slice_of_all_reduce",), sequence_parallel, LINE),
    Entry(("collective.slice_of_all_gather",), rows_after_columns, LINE),
    Entry(("memory.weight_resident",), square, SMALL),
    Entry(("memory.weight_streamed",), many_rows, "mesh_2x2?sram_kib=32"),
    Entry(("memory.value_in_scratchpad",), narrow_inside, SMALL),
    Entry(("memory.value_in_dram",), narrow_inside, SMALL),
)


each_entry = pytest.mark.parametrize("entry", ENTRIES, ids=Entry.name)


@each_entry
def test_rule_makes_a_plan_cheaper(entry: Entry, make_builder: Callable[..., Builder]) -> None:
    check_plan_worth(entry.model(make_builder(dtype=DType.F32)), entry.rules, entry.target)


@pytest.mark.slow
@each_entry
def test_rule_makes_a_program_faster(entry: Entry, make_builder: Callable[..., Builder]) -> None:
    check_worth(entry.model(make_builder(dtype=DType.F32)), entry.rules, entry.target)


def test_every_rule_of_the_mesh_has_a_model() -> None:
    options = SaturationOptions()
    families = (options.partition, options.tiling, options.collective, options.memory)
    found = {rule for entry in ENTRIES for rule in entry.rules}
    assert found == {rule.name for family in families for rule in family}
