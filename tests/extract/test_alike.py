"""Options that are remembered for nodes that are priced alike are those of each node by itself."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
from extract_cases import Builder, Case, one_block, saturated, tiny

from tilewright.extract.alike import priced_alike
from tilewright.extract.options import class_options, implementations_by_node
from tilewright.hwmodel.family import mesh_target
from tilewright.rules.alternatives import Alternatives
from tilewright.rules.running_order import computed_classes


@cache
def branches() -> Case:
    """Return three equal products of one value, and one of a computed value with another."""
    b = Builder("branches")
    x = b.input(16, 32)
    first, second, third = (b.matmul(x, b.weight(32, 16)) for _ in range(3))
    graph = b.graph(b.map("add", first, second), b.matmul(second, third))
    return saturated(graph, mesh_target(2, 2), rolled=one_block(graph))


CASES = {
    "branches": branches,
    **{
        name: lambda name=name: tiny(name) for name in ("attention_scores", "conv_relu", "residual")
    },
}


@pytest.mark.parametrize("name", CASES)
def test_remembered_options_are_those_of_each_class_by_itself(name: str) -> None:
    alternatives, pricing, _ = CASES[name]().tables()
    shared = replace(pricing)
    for block in alternatives:
        for number in computed_classes(block):
            alone = class_options(block, number, replace(pricing))
            assert class_options(block, number, shared) == alone
            for option in alone:
                if option.implementation is not None and option.node is not None:
                    assert option.implementation.node == option.node.number


def keys(block: Alternatives) -> dict[int, object]:
    by_node = implementations_by_node(block)
    return {
        node.number: priced_alike(block, node, by_node.get(node.number, ()))
        for node in block.nodes
        if node.kind == "matmul" and not node.origin
    }


def test_equal_products_are_alike_and_others_are_not() -> None:
    (block,) = branches().tables()[0]
    found = list(keys(block).values())
    assert len(found) == 4
    assert len(set(found)) == 2


def test_constants_tell_nodes_apart() -> None:
    (block,) = branches().tables()[0]
    varying = replace(block, classes=tuple(replace(c, is_constant=False) for c in block.classes))
    changed = [number for number, key in keys(block).items() if keys(varying)[number] != key]
    assert len(changed) == 3
