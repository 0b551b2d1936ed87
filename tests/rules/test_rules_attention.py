"""Fused attention is found with its mask and scale, wherever a model applies them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from tilewright.dtypes import DType
from tilewright.graph import Array, Graph
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.rules.alternatives import Alternatives, LogicalNode
from tilewright.rules.engine import saturate
from tilewright.rules.evaluation import disagreements

GRID = LogicalMesh(("x", "y"), (2, 2))


Make = Callable[..., Graph]


@pytest.fixture
def attention(make_builder: Callable[..., Any]) -> Make:
    """Return a maker of softmax(scale * q k + mask) v.

    The scale is on "scores", "queries", "both" (queries and keys) or "none".
    """

    def make(
        scale: str, mask: tuple[int, ...] | None, dtype: DType = DType.F64, *, heads: int = 4
    ) -> Graph:
        b = make_builder("attention")
        q = b.input("q", heads, 6, 4, dtype=dtype)
        k = b.op("transpose", b.input("k", heads, 8, 4, dtype=dtype), perm=(0, 2, 1))
        if scale in ("queries", "both"):
            q = b.op("map", q, fn="mul_const(0.5)")
        if scale == "both":
            k = b.op("map", k, fn="mul_const(0.25)")
        scores = b.op("matmul", q, k)
        if scale == "scores":
            scores = b.op("map", scores, fn="mul_const(0.125)")
        if mask is not None:
            scores = b.op("map", scores, b.input("mask", *mask, dtype=dtype), fn="add")
        weights = b.op("softmax", scores)
        graph: Graph = b.graph(b.op("matmul", weights, b.input("v", heads, 8, 2, dtype=dtype)))
        return graph

    return make


def leaves(graph: Graph) -> Mapping[str, Array]:

    rng = np.random.default_rng(3)
    return {p.tensor: rng.normal(size=graph.types[p.tensor].shape) for p in graph.inputs}


def fused(found: Alternatives) -> list[LogicalNode]:
    return [node for node in found.nodes if node.kind == "attention"]


SCALES = {"none": 1.0, "scores": 0.125, "queries": 0.5, "both": 0.125}


@pytest.mark.parametrize(
    ("scale", "mask"),
    [
        *((scale, None) for scale in SCALES),
        *(("scores", mask) for mask in ((4, 6, 8), (1, 6, 8), (4, 1, 8), (1, 6, 1))),
        ("both", (1, 6, 8)),
    ],
)
def test_mask_and_scale_are_in_the_fused_operator(
    attention: Make, scale: str, mask: tuple[int, ...] | None
) -> None:
    graph = attention(scale, mask)
    found = saturate(graph, GRID)
    names = {c.number: c.names for c in found.classes}
    wanted = {"q", "v"} if mask is None else {"q", "v", "mask"}
    direct = [
        node
        for node in fused(found)
        if node.attrs["scale"] == SCALES[scale]
        and wanted == {n for a in node.args for n in names[a] if n in ("q", "v", "mask")}
    ]
    assert len(direct) == 1
    assert disagreements(graph, found, leaves(graph), 1e-9) == ()


def test_heads_and_queries_are_split(attention: Make) -> None:
    found = saturate(attention("none", (1, 6, 8)), GRID)
    (node,) = fused(found)
    assert node.nest is not None
    own = [w for w in found.implementations if w.node == node.number]
    ways = {w.split_dims: w for w in own if not any(w.macros)}
    names = [loop.name for loop in node.nest.dims]
    assert {tuple("-" if d < 0 else names[d] for d in split) for split in ways} == {
        *(("-", "-"), ("b0", "-"), ("m", "-"), ("-", "b0"), ("-", "m")),
        *(("b0", "b0"), ("b0", "m"), ("m", "b0")),
    }
    way = ways[0, 1]
    assert way.operands == ((0, 1), (0, -1), (0, -1), (-1, 1))
    assert way.result == (0, 1)
    (ring,) = (w for w in own if any(w.macros) and w.split_dims == (0, 1))
    assert ring.operands == ((0, 1), (0, 2), (0, 1), (-1, 1)), "keys and values in pieces"


def test_what_is_no_attention_is_not_fused(attention: Make) -> None:
    enlarging = attention("scores", (4, 6, 8), heads=1)
    assert fused(saturate(enlarging, GRID)) == [], "the mask makes heads that q and k do not have"
    without = ("fusion.attention_of_products", "fusion.masked_attention_of_products")
    graph = attention("none", None)
    assert len(fused(saturate(graph, GRID))) == 1
    assert fused(saturate(graph, GRID, without_rules=without)) == []
    halves = saturate(attention("scores", (1, 6, 8), DType.F16), GRID)
    assert {node.attrs["scale"] for node in fused(halves)} == {1.0, 0.125}
