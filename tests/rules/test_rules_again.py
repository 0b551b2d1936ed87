"""Values for readers far behind: what is offered, that it is the same value, and when nothing is."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tilewright.dtypes import DType
from tilewright.graph import Graph
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.rules.again import keeping_all
from tilewright.rules.alternatives import KEEP, Alternatives
from tilewright.rules.checks.zoo import GraphBuilder
from tilewright.rules.engine import saturate
from tilewright.rules.evaluation import disagreements
from tilewright.rules.options import SaturationOptions
from tilewright.rules.running_order import computed_classes

MESH = LogicalMesh(("x",), (2,))
SIZE = 8
EVERYTHING = SaturationOptions(scratchpad_bytes=0)
"""Values of any size may be computed again."""


def builder() -> GraphBuilder:
    return GraphBuilder("again", dtype=DType.F32)


def product(b: GraphBuilder, x: str) -> str:
    """Multiply by a weight, then make sure that products do not merge."""
    weight = b.constant(f"w{len(b.constants)}", SIZE, SIZE)
    return b.op("map", b.op("matmul", x, weight), fn="sin")


def outer(b: GraphBuilder) -> str:
    return b.op("map", b.input("column", SIZE, 1), b.input("row", 1, SIZE), fn="add")


def late_sum() -> Graph:
    """An outer sum, read by a product and behind another one."""
    b = builder()
    c = outer(b)
    return b.graph(b.op("concat", product(b, product(b, c)), c, axis=0))


def late_chain() -> Graph:
    """The same, moved: two operators lead to it, and the value between is as large."""
    b = builder()
    moved = b.op("transpose", outer(b), perm=(1, 0))
    return b.graph(b.op("concat", product(b, product(b, moved)), moved, axis=0))


def late_norm() -> Graph:
    """A norm of something that is read in the end anyway, read behind two products."""
    b = builder()
    x = b.input("x", SIZE, SIZE)
    norm = b.op("rmsnorm", x, epsilon=1e-5)
    side = b.op("concat", product(b, product(b, norm)), norm, axis=0)
    return b.graph(b.op("concat", side, x, axis=0))


def near() -> Graph:
    """An outer sum whose readers follow each other."""
    b = builder()
    c = outer(b)
    return b.graph(b.op("concat", product(b, c), c, axis=0))


def dear() -> Graph:
    """A function of something as large that nobody else reads."""
    b = builder()
    c = b.op("map", b.input("x", SIZE, SIZE), fn="sin")
    return b.graph(b.op("concat", product(b, product(b, c)), c, axis=0))


def found(graph: Graph, *without: str, options: SaturationOptions = EVERYTHING) -> Alternatives:
    return saturate(graph, MESH, options=options, without_rules=without)


def again(alternatives: Alternatives) -> dict[str, set[str]]:
    """Return the rules by which each value is made again."""
    rules: dict[str, set[str]] = {}
    for node in alternatives.nodes:
        if node.again:
            value = alternatives.classes[node.result].again_of
            assert value is not None
            (name, *_) = alternatives.classes[value].names
            rules.setdefault(name, set()).add(node.again)
    return rules


OFFERED = {
    late_sum: {"t0": {"pipeline.map_again"}},
    late_chain: {
        "t0": {"pipeline.map_again"},
        "t1": {"pipeline.movement_again"},
    },
    late_norm: {"t0": {"pipeline.norm_again"}},
    near: {},
    dear: {},
}


@pytest.mark.parametrize("model", OFFERED)
def test_it_is_offered_where_it_may_pay(model: Callable[[], Graph]) -> None:
    assert again(found(model(), "algebra")) == OFFERED[model]


@pytest.mark.parametrize("model", [late_sum, late_chain, late_norm])
def test_every_class_has_one_value(model: Callable[[], Graph]) -> None:
    graph = model()
    draw = np.random.default_rng(1)
    leaves = dict(graph.constants)
    for port in graph.inputs:
        leaves[port.tensor] = draw.normal(size=port.shape).astype(np.float32)
    alternatives = found(graph)
    assert any(node.kind == KEEP for node in alternatives.nodes)
    assert disagreements(graph, alternatives, leaves, 1e-5) == ()
    for tensor in alternatives.classes:
        if tensor.again_of is not None:
            assert tensor.type == alternatives.classes[tensor.again_of].type


def test_readers_behind_get_it_right_before_they_run() -> None:
    alternatives = found(late_sum(), "algebra")
    (late,) = (c.number for c in alternatives.classes if c.again_of is not None)
    order = computed_classes(alternatives)
    (reader,) = {n.result for n in alternatives.nodes if late in n.args}
    assert order.index(reader) == order.index(late) + 1
    assert alternatives.classes[reader].names == ("t5",)
    makers = [node for node in alternatives.nodes if node.result == late]
    assert {node.kind for node in makers} == {KEEP, "map"}
    ways = {way.node for way in alternatives.implementations}
    assert {node.number in ways for node in makers if node.kind != KEEP} == {True}


@pytest.mark.parametrize("without", ["pipeline", "pipeline.map_again"])
def test_it_is_left_out_by_name(without: str) -> None:
    assert again(found(late_sum(), "algebra", without)) == {}


def test_small_values_are_kept() -> None:
    plain = SaturationOptions(scratchpad_bytes=16 * 1024)  # 256 bytes are less than a 32nd of two
    assert again(found(late_sum(), options=plain)) == {}
    assert again(found(late_sum(), options=SaturationOptions())) == {}


@pytest.mark.parametrize("model", [late_sum, late_chain, late_norm, near])
def test_keeping_everything_is_what_there_was(model: Callable[[], Graph]) -> None:
    kept, plain = keeping_all(found(model())), found(model(), options=SaturationOptions())
    assert kept.classes == plain.classes
    assert kept.nodes == plain.nodes
    assert kept.implementations == plain.implementations
