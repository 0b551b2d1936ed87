"""Rows that the mesh does not divide: padded graphs compute the same, and which of them are offered."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations, pairwise
from math import prod
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.dtypes import DType
from tilewright.graph import Array, Graph
from tilewright.reference import evaluate
from tilewright.rules.checks.zoo import GraphBuilder, transformer
from tilewright.rules.inference import infer_type
from tilewright.rules.padded_axes import Fill, axis_classes, passing
from tilewright.rules.padded_sizes import useful_sizes
from tilewright.rules.padding import Padding, paddings, with_added_rows

WIDTH = 6
"""Features of the random graphs, which no test pads."""


def inputs_of(graph: Graph, seed: int = 0) -> dict[str, Array]:
    """Random inputs."""
    random = np.random.default_rng(seed)
    return {
        port.name: random.integers(0, 4, port.shape).astype(port.dtype.numpy)
        if not port.dtype.is_float
        else random.normal(size=port.shape).astype(port.dtype.numpy)
        for port in graph.inputs
    }


def assert_equal(graph: Graph, other: Graph) -> None:
    """Both graphs are well typed and have the same results, bit for bit but for sums in another order."""
    other.validate()
    for op in other.ops:
        found = infer_type(
            op.kind,
            op.attrs,
            [other.types[name] for name in op.inputs],
            other.types[op.output].dtype,
        )
        assert found == other.types[op.output], op
    inputs = inputs_of(graph)
    expected, found_values = evaluate(graph, inputs), evaluate(other, inputs)
    assert expected.keys() == found_values.keys()
    for name, value in expected.items():
        assert np.isfinite(value).all()
        np.testing.assert_allclose(found_values[name], value, rtol=1e-12, atol=1e-12)


def everything_padded(graph: Graph, rows: int, size: int) -> Graph:
    """The graph in which all dimensions of `rows` that products walk along have `size`, worth it or not."""
    passings = passing(graph)
    sizes = {
        axis: size
        for found in axis_classes(graph, passings)
        if found.size == rows
        for axis in found.axes
    }
    return with_added_rows(graph, passings, sizes)


def attention_block(b: GraphBuilder, x: str) -> str:
    """Attention of the rows of [rows, WIDTH] among each other."""
    q, k, v = (b.linear(x, f"{x}.{name}", WIDTH) for name in "qkv")
    scores = b.op("matmul", q, b.op("transpose", k, perm=(1, 0)))
    weights = b.op("softmax", b.op("map", scores, fn="mul_const(0.5)"))
    return b.op("matmul", b.op("map", weights, fn="mul_const(0.9)"), v)


def lengths(padding: Padding) -> set[int]:
    """Rows of what products make."""
    graph = padding.graph
    return {graph.types[op.output].shape[-2] for op in graph.ops if op.kind == "matmul"}


def test_a_transformer_of_odd_length_may_be_padded_from_end_to_end() -> None:
    graph = transformer(3, tokens=13)
    as_given, longer = paddings(graph, (4, 4))
    assert as_given.graph is graph
    found = longer.graph
    assert_equal(graph, found)
    assert lengths(longer) == {16}
    added = [op for op in found.ops if op.output not in graph.types]
    softmaxes = sum(op.kind == "softmax" for op in found.ops)
    assert sum(op.kind == "map" for op in added) == softmaxes, "one mask for each softmax"
    # x, cos, sin, and the mask along both dimensions are lengthened, the result is cut
    assert sorted(op.kind for op in added if op.kind != "map") == ["concat"] * 5 + ["slice"] * 6
    assert found.notes == ("13 rows of 27 products are padded to 16",)
    assert (longer.added, longer.text, as_given.text) == (3 * 27, "13 -> 16", "as given")


@pytest.mark.parametrize(
    ("tokens", "axes", "sizes"),
    [
        (16, (4, 4), (16,)),
        (12, (4,), (12,)),
        (9, (16,), (9, 16)),
        (7, (16,), (7,)),
        (26, (8, 4), (26, 28, 32)),
        (40, (16, 4), (40, 48, 64)),
        (12, (4, 4), (12, 16)),
        (60, (8, 8, 4), (60, 64)),
        (197, (8, 16, 16), (197, 208, 256)),
        (197, (8, 9), (197, 216)),
        (257, (8, 16, 16), (257, 272, 384, 512)),
    ],
    ids=[
        *("divided by both", "divided", "by most of itself", "much too short", "by one or by both"),
        *("products of axes", "divided by each", "little more for all", "ViT on three axes"),
        *("ViT on two axes", "most sizes"),
    ],
)
def test_sizes_that_rows_may_have(
    tokens: int, axes: tuple[int, ...], sizes: tuple[int, ...]
) -> None:
    assert useful_sizes(tokens, axes) == sizes
    graph = transformer(1, tokens=tokens) if tokens < 30 else None
    if graph is not None:
        assert [lengths(padding) for padding in paddings(graph, axes)] == [{n} for n in sizes]


@given(st.integers(2, 600), st.lists(st.integers(1, 20), max_size=3))
def test_useful_sizes_are_split_in_ways_that_smaller_ones_are_not(
    size: int, axes: list[int]
) -> None:
    multiples = {prod(some) for n in range(1, 4) for some in combinations(axes, n)}
    found = useful_sizes(size, tuple(axes))
    ways = [{n for n in multiples if own % n == 0} for own in found]
    assert found[0] == size
    assert list(found) == sorted(set(found))
    assert len(found) <= 4
    assert all(own <= 2 * size for own in found)
    for own, after in pairwise(range(len(found))):
        assert not ways[own] >= ways[after] or found[after] > found[own] * 9 / 8


def test_groups_of_rows_are_padded_in_every_combination_or_in_step() -> None:
    def two_stacks(first: int, second: int) -> Graph:
        b = GraphBuilder()
        results = []
        for rows in (first, second):
            x = b.input(f"x{rows}", rows, WIDTH)
            for number in range(4):
                x = b.op("map", b.linear(x, f"fc{rows}_{number}", WIDTH), fn="relu")
            results.append(x)
        return b.graph(*results)

    graph = two_stacks(7, 13)
    found = paddings(graph, (4,))
    assert [p.text for p in found] == ["as given", "7 -> 8", "13 -> 16", "7 -> 8, 13 -> 16"]
    assert [p.added for p in found] == [0, 4, 12, 16]
    graph = two_stacks(26, 50)
    in_step = paddings(graph, (8, 4))
    assert [p.text for p in in_step] == ["as given", "26 -> 28, 50 -> 56", "26 -> 32, 50 -> 64"]
    for padding in (*found, *in_step[1:]):
        source = graph if padding in in_step else found[0].graph
        assert_equal(source, padding.graph)


def test_one_product_between_other_operators_is_not_worth_copies() -> None:
    b = GraphBuilder()
    x = b.input("x", 7, WIDTH)
    graph = b.graph(b.linear(x, "fc", 8))
    assert [padding.graph for padding in paddings(graph, (4,))] == [graph]


@pytest.mark.parametrize(("images", "sizes"), [(3, (3, 4)), (7, (7, 8)), (8, (8,))])
def test_images_may_be_added_to_a_batch(images: int, sizes: tuple[int, ...]) -> None:
    b = GraphBuilder()
    x = b.input("x", images, 3, 5, 5)
    for number in range(4):
        x = b.op("map", b.conv(x, f"conv{number}", 4, 3), fn="relu")
    graph = b.graph(x)
    found = paddings(graph, (4,))
    for padding, size in zip(found, sizes, strict=True):
        assert_equal(graph, padding.graph)
        convolved = [op.output for op in padding.graph.ops if op.kind == "conv"]
        assert {padding.graph.types[name].shape[0] for name in convolved} == {size}


def test_features_that_weights_have_are_left_to_rules() -> None:
    b = GraphBuilder()
    x = b.input("x", 8, 7)
    for number in range(4):
        x = b.op("map", b.linear(x, f"fc{number}", 7), fn="relu")
    graph = b.graph(x)
    assert any(found.is_of_weights for found in axis_classes(graph, passing(graph)))
    assert [padding.graph for padding in paddings(graph, (4,))] == [graph]


def test_a_product_sums_over_added_rows_only_where_they_are_zero() -> None:
    def products(fn: str) -> tuple[Graph, Graph]:
        b = GraphBuilder()
        x = b.input("x", 7, WIDTH)
        weights = b.op("softmax", b.op("matmul", x, b.op("transpose", x, perm=(1, 0))))
        graph = b.graph(b.op("matmul", b.op("map", weights, fn=fn), x))
        return graph, everything_padded(graph, 7, 8)

    for fn, sums in {
        "mul_const(3.0)": 8,
        "add_const(1.0)": 7,
        "neg|relu|square": 8,
        "exp": 7,
    }.items():
        graph, found = products(fn)
        assert_equal(graph, found)
        last = [op for op in found.ops if op.kind == "matmul"][-1]
        assert found.types[last.inputs[0]].shape[-1] == sums, fn
        assert found.types[last.output].shape[-2] == 8, fn


def test_functions_see_no_numbers_but_those_of_real_rows() -> None:
    b = GraphBuilder()
    x = b.op("map", b.input("x", 7, WIDTH), fn="abs|add_const(1.0)|log|rsqrt|reciprocal")
    graph = b.graph(b.op("matmul", attention_block(b, x), b.constant("w", WIDTH, 4)))
    found = everything_padded(graph, 7, 8)
    inputs = {"x": 3.0 + inputs_of(graph)["x"]}
    values: list[Array] = []

    def seen(op: Any, operands: Any) -> Any:
        values.extend(operands)
        return operands

    evaluate(found, inputs, seen)
    assert all(np.isfinite(value).all() for value in values)
    assert any(value.shape == (8, 8) for value in values)


def test_what_added_rows_hold() -> None:
    b = GraphBuilder()
    x = b.input("x", 7, WIDTH)
    weights = b.op("softmax", b.op("matmul", x, b.op("transpose", x, perm=(1, 0))))
    biased = b.op("map", weights, b.constant("c", 1, 1), fn="add")
    graph = b.graph(weights, b.op("matmul", biased, b.constant("w", 7, 4)))
    found = passing(graph)
    assert found[2].masked
    assert found[2].made == {0: Fill.ROWS, 1: Fill.ZERO}
    assert found[3].made == {0: Fill.ROWS, 1: Fill.ANY}
    assert found[4].axes == (frozenset({0}), frozenset({1}))


def test_half_precision_stays_finite_behind_the_mask() -> None:
    for dtype in (DType.F16, DType.BF16, DType.F32):
        b = GraphBuilder(dtype=dtype)
        graph = b.graph(attention_block(b, b.input("x", 13, WIDTH)))
        found = everything_padded(graph, 13, 16)
        inputs = inputs_of(graph)
        (expected,), (value,) = (evaluate(g, inputs).values() for g in (graph, found))
        assert np.isfinite(value.astype(np.float64)).all()
        tolerance = {DType.F16: 1e-2, DType.BF16: 5e-2, DType.F32: 1e-5}[dtype]
        np.testing.assert_allclose(
            value.astype(np.float64), expected.astype(np.float64), atol=tolerance
        )


def _steps(b: GraphBuilder, x: str, rows: int) -> Iterator[Callable[[], str]]:
    """What may be done to [rows, WIDTH], each giving that shape again."""
    middle = rows // 2
    name = f"c{len(b.constants)}"

    def part(start: int, size: int) -> str:
        return b.op("slice", x, starts=(start, 0), sizes=(size, WIDTH), steps=(1, 1))

    def shifted() -> str:
        wide = b.op("pad", x, begins=(0, 1), ends=(0, 0), value=1.0)
        return b.op("slice", wide, starts=(0, 0), sizes=(rows, WIDTH), steps=(1, 1))

    yield lambda: b.linear(x, name, WIDTH)
    yield lambda: attention_block(b, x)
    yield lambda: b.op("layernorm", x, epsilon=1e-3)
    yield lambda: b.op("map", x, b.op("reduce", x, fn="sum", axes=(0,)), fn="add")
    yield lambda: b.op("map", x, b.op("reduce", x, fn="max", axes=(0,)), fn="sub")
    yield lambda: b.op("map", x, b.op("reduce", x, fn="min", axes=(1,)), fn="max")
    yield lambda: b.op("map", x, b.constant(name, rows, 1), fn="mul|tanh")
    yield lambda: b.op("matmul", b.constant(name, rows, rows), x)
    yield lambda: b.op("softmax", x)
    yield lambda: b.op("reshape", b.op("reshape", x, shape=(WIDTH * rows,)), shape=(rows, WIDTH))
    yield lambda: b.op("reshape", b.op("reshape", x, shape=(rows, 2, 3)), shape=(rows, WIDTH))
    yield lambda: b.op("concat", part(middle, rows - middle), part(0, middle), axis=0)
    yield lambda: b.op("slice", x, starts=(rows - 1, 0), sizes=(rows, WIDTH), steps=(-1, 1))
    yield lambda: b.op("concat", b.op("concat", x, axis=0), axis=1)
    yield shifted


@settings(max_examples=60, deadline=None)
@given(
    st.integers(5, 9),
    st.integers(1, 3),
    st.lists(st.integers(0, 14), min_size=1, max_size=6),
)
def test_random_graphs_compute_the_same_with_added_rows(
    rows: int, added: int, steps: list[int]
) -> None:
    b = GraphBuilder()
    x = b.linear(b.input("x", rows, WIDTH), "first", WIDTH)
    for step in steps:
        x = list(_steps(b, x, rows))[step]()
    graph = b.graph(x, b.linear(x, "last", 4))
    assert_equal(graph, everything_padded(graph, rows, rows + added))
