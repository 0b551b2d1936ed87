"""Branches of random graphs, against paths followed one by one."""

from __future__ import annotations

from itertools import accumulate, combinations

import networkx as nx
import numpy as np
import pytest

from tilewright.extract.pipeline.branches import branch_places, find_branches
from tilewright.graph import Op


def drawn(seed: int) -> list[Op]:
    """A random model in which some operators have side results that nobody reads."""
    draw = np.random.default_rng(seed)
    ops: list[Op] = []
    for number in range(int(draw.integers(2, 14))):
        count = min(number, int(draw.integers(0, 4)))
        near = draw.choice(np.arange(max(0, number - 5), number), count) if count else []
        inputs = tuple(dict.fromkeys(f"v{n}" for n in near)) or ("x",)
        ops.append(Op(name=f"o{number}", kind="map", inputs=inputs, outputs=(f"v{number}",)))
    return ops


def graph_of(ops: list[Op]) -> nx.DiGraph:
    reads = nx.DiGraph()
    reads.add_nodes_from(range(len(ops)))
    reads.add_edges_from((int(n[1:]), i) for i, op in enumerate(ops) for n in op.inputs if n != "x")
    return reads


@pytest.mark.parametrize("seed", range(40))
def test_parts_are_in_one_piece_have_one_exit_and_are_joined(seed: int) -> None:
    ops = drawn(seed)
    outputs = {ops[-1].output, ops[len(ops) // 2].output}
    found = find_branches(ops, outputs)
    assert sorted(found.order) == list(range(len(ops)))
    place = {number: at for at, number in enumerate(found.order)}
    reads = graph_of(ops)
    assert all(place[a] < place[b] for a, b in reads.edges)
    for join in found.joins:
        assert all(a[1] == b[0] for a, b in zip(join.parts, join.parts[1:], strict=False))
        members = [{found.order[at] for at in range(*part)} for part in join.parts]
        for inside, (_, stop) in zip(members, join.parts, strict=True):
            root = found.order[stop - 1]
            outside = {a for a, b in reads.edges if a in inside and b not in inside}
            kept = {n for n in inside if ops[n].output in outputs or not list(reads.successors(n))}
            assert outside | kept == {root}
        for (a, first), (b, second) in combinations(enumerate(members), 2):
            is_read = any(reads.has_edge(x, y) for x in first for y in second)
            assert is_read == (a in join.reads[b])
            assert not any(reads.has_edge(y, x) for x in first for y in second)


def test_every_operator_alone_before_the_end_is_somewhere_in_a_join() -> None:
    """Two towers and a fork in the second: parts of the dot product, parts of the sum."""

    def op(name: str, *inputs: str) -> Op:
        return Op(name=name, kind="map", inputs=inputs, outputs=(name,))

    ops = [
        op("a", "x"),
        op("b", "y"),
        op("aa", "a"),
        op("left", "b"),
        op("right", "b"),
        op("sum", "left", "right"),
        op("dot", "aa", "sum"),
    ]
    found = find_branches(ops, {"dot"})
    assert [ops[n].name for n in found.order] == ["a", "aa", "b", "left", "right", "sum", "dot"]
    parts = {join.parts: join.reads for join in found.joins}
    assert parts == {
        ((0, 2), (2, 6)): (frozenset(), frozenset()),
        ((2, 3), (3, 4), (4, 5)): (frozenset(), frozenset({0}), frozenset({0})),
    }
    ordered = [ops[n] for n in found.order]
    work = list(accumulate([5.0] * 7))
    assert branch_places(ordered, {"dot"}, work, 9) == {0, 2, 3, 4, 5, 6}
    # the smaller join has no room left
    assert branch_places(ordered, {"dot"}, work, 4) == {0, 2, 6}
    # what saves next to nothing is not worth a cut
    small = list(accumulate([100.0, 100.0, 100.0, 1.0, 1.0, 1.0, 1.0]))
    assert branch_places(ordered, {"dot"}, small, 9) == {0, 2, 6}


def test_many_equal_branches_are_cut_evenly() -> None:
    ops = [Op(name=f"b{n}", kind="map", inputs=("x",), outputs=(f"b{n}",)) for n in range(16)]
    names = tuple(f"b{n}" for n in range(16))
    ops.append(Op(name="all", kind="concat", inputs=names, outputs=("all",)))
    work = list(accumulate([1.0] * 16 + [0.1]))
    assert branch_places(ops, {"all"}, work, 5) == {0, 4, 8, 12, 16}
