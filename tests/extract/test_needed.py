"""Which values every choice computes: against trying all choices of one node a class."""

from __future__ import annotations

from itertools import product

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.dtypes import DType
from tilewright.extract.needed import needed_classes
from tilewright.graph import TensorType
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.rules.alternatives import Alternatives, LogicalNode, TensorClass

TYPE = TensorType((4,), DType.F32)


def alternatives_of(
    nodes: list[tuple[int, tuple[int, ...]]],
    classes: int,
    outputs: tuple[int, ...],
    *,
    inputs: int = 1,
    hosts: tuple[int, ...] = (),
) -> Alternatives:
    """Return alternatives with nodes (result, arguments); classes below `inputs` are inputs."""
    return Alternatives(
        mesh=LogicalMesh((), ()),
        classes=tuple(
            TensorClass(number=c, type=TYPE, names=(), is_input=c < inputs, is_constant=False)
            for c in range(classes)
        ),
        nodes=tuple(
            LogicalNode(
                number=n, kind="host" if n in hosts else "map", args=args, result=result, nest=None
            )
            for n, (result, args) in enumerate(nodes)
        ),
        implementations=(),
        outputs=outputs,
    )


def needed_by_trying(found: Alternatives) -> frozenset[int]:
    """Return the classes that all choices of one node for each class reach from the roots."""
    makers: dict[int, list[LogicalNode]] = {}
    for node in found.nodes:
        makers.setdefault(node.result, []).append(node)
    made = sorted(makers)
    roots = {*found.outputs, *(n.result for n in found.nodes if n.kind == "host")}
    every: set[int] | None = None
    for choice in product(*(makers[c] for c in made)):
        chosen = dict(zip(made, choice, strict=True))
        reached: set[int] = set()
        todo = list(roots)
        while todo:
            c = todo.pop()
            if c not in reached:
                reached.add(c)
                todo += chosen[c].args if c in chosen else ()
        every = reached if every is None else every & reached
    return frozenset(every or ())


@st.composite
def dags(draw: st.DrawFn) -> Alternatives:
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    classes, inputs = int(rng.integers(4, 9)), int(rng.integers(1, 3))
    nodes = []
    for c in range(inputs, classes):
        for _ in range(int(rng.integers(1, 4))):
            count = int(rng.integers(1, 3))
            nodes.append((c, tuple(int(a) for a in rng.integers(0, c, count))))
    # any order in which each argument has some node before: put a random one of each class first
    first, later = [], []
    for c in range(inputs, classes):
        own = [node for node in nodes if node[0] == c]
        first.append(own[0])
        later += own[1:]
    order = first
    for node in later:
        place = int(rng.integers(order.index(first[node[0] - inputs]) + 1, len(order) + 1))
        order = [*order[:place], node, *order[place:]]
    outputs = tuple({classes - 1, int(rng.integers(inputs, classes))})
    hosts = (int(rng.integers(0, len(order))),) if rng.random() < 0.2 else ()
    return alternatives_of(order, classes, outputs, inputs=inputs, hosts=hosts)


@given(dags())
@settings(max_examples=200)
def test_needed_is_what_all_choices_reach(found: Alternatives) -> None:
    assert needed_classes(found) == needed_by_trying(found)


def test_alternatives_after_their_consumer_count() -> None:
    # 1 <- 0; 2 <- 1; 3 <- 2; and, later in the order, 2 <- 0
    found = alternatives_of([(1, (0,)), (2, (1,)), (3, (2,)), (2, (0,))], 4, (3,))
    assert needed_classes(found) == {0, 2, 3}


def test_a_chain_needs_all_and_a_diamond_its_join() -> None:
    chain = alternatives_of([(1, (0,)), (2, (1,)), (3, (2,))], 4, (3,))
    assert needed_classes(chain) == {0, 1, 2, 3}
    diamond = alternatives_of([(1, (0,)), (2, (0,)), (3, (1,)), (3, (2,))], 4, (3,))
    assert needed_classes(diamond) == {0, 3}


def test_host_regions_are_needed() -> None:
    found = alternatives_of([(1, (0,)), (2, (1,)), (3, (0,))], 4, (3,), hosts=(1,))
    assert needed_classes(found) == {0, 1, 2, 3}
