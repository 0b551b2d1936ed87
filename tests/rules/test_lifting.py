"""Numbers in which repeats differ become constants; the graph stays equal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from tilewright.dtypes import DType
from tilewright.graph import Graph
from tilewright.reference import evaluate
from tilewright.rules.lifting import lift_numbers
from tilewright.rules.roll import roll


def layers(builder: Callable[..., Any], scales: Sequence[float], length: int = 15) -> Graph:
    """Return layers of `length` + 2 maps, of which one multiplies by the layer's own number."""
    b = builder("layers")
    x = b.input("x", 2, 4)
    for number, scale in enumerate(scales):
        start = x
        for step in range(length):
            fn = f"mul_const({scale!r})|relu" if step == 3 else ("tanh", "exp", "neg")[step % 3]
            x = b.op("map", x, fn=fn)
        x = b.op("map", x, b.constant(f"{number}.c", 1, 4), fn="add")
        x = b.op("map", b.op("map", x, fn="tanh"), start, fn="mul")
    return b.graph(x)  # type: ignore[no-any-return]


SCALES = tuple(0.1 + 0.05 * n for n in range(8))


def test_layers_that_differ_in_a_number_are_one_block(make_builder: Callable[..., Any]) -> None:
    graph = layers(make_builder, SCALES)
    lifted = lift_numbers(graph, roll(graph))
    lifted.validate()
    assert len(roll(graph).instances) == 1
    assert len(roll(lifted).blocks) == 1
    assert len(roll(lifted).instances) == len(SCALES)
    assert len(lifted.constants) == len(graph.constants) + len(SCALES)
    inputs = {"x": np.random.default_rng(0).normal(size=(2, 4))}
    (expected,), (found,) = (evaluate(g, inputs).values() for g in (graph, lifted))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("scales", "length"),
    [((0.5,) * 8, 15), (SCALES[:3], 15), (SCALES[:1], 300), ((), 3)],
    ids=["equal", "few", "one", "none"],
)
def test_what_saves_little_stays(
    make_builder: Callable[..., Any], scales: Sequence[float], length: int
) -> None:
    graph = layers(make_builder, scales, length)
    assert lift_numbers(graph, roll(graph)) is graph


MIXED = "exp neg tanh abs relu erf neg tanh exp abs erf relu tanh relu".split()


def test_only_numbers_that_differ_become_constants(make_builder: Callable[..., Any]) -> None:
    b = make_builder("mixed")
    x = b.input("x", 2, 4)
    for scale in SCALES:
        for fn in (*MIXED, "add_const(1.0)", f"mul_const({scale!r})"):
            x = b.op("map", x, fn=fn)
    graph = b.graph(x)
    lifted = lift_numbers(graph, roll(graph))
    found = [op.text("fn") for op in lifted.ops]
    assert found.count("add_const(1.0)") == len(SCALES)
    assert found.count("mul") == len(SCALES)


def test_integers_keep_their_numbers(make_builder: Callable[..., Any]) -> None:
    b = make_builder("integers", dtype=DType.I32)
    x = b.input("x", 2, 4)
    for number in range(8):
        for fn in ("neg", "abs", "neg", "sign", "abs", "neg", "sign", "sign", "abs", "abs") * 2:
            x = b.op("map", x, fn=fn)
        x = b.op("map", x, fn=f"add_const({number})")
    graph = b.graph(x)
    assert lift_numbers(graph, roll(graph)) is graph
