"""Options that are remembered for nodes that are priced alike are those of each node by itself."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
from extract_cases import Builder, Case, one_block, saturated, tiny, with_sram

from tilewright.extract.alike import moved_alike, priced_alike
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


@cache
def epilogues() -> Case:
    """Return a product that computes more or less on the way, and maps; there is little room."""
    b = Builder("epilogues")
    x = b.input(64, 96)
    product = b.matmul(x, b.weight(96, 64))
    halved = b.map("mul_const(0.5)", product)
    rounded = b.map("cast(f16)|cast(f32)", halved)
    graph = b.graph(b.map("relu", rounded), b.map("relu", x), b.map("exp", x))
    return saturated(graph, with_sram(mesh_target(2, 2), 8 * 1024), rolled=one_block(graph))


def test_epilogues_move_alike_and_copies_do_not() -> None:
    (block,) = epilogues().tables()[0]
    products = [n for n in block.nodes if n.kind == "matmul" and n.attrs]
    assert len(products) > len({moved_alike(block, node) for node in products}) == 1
    relu = next(node for node in block.nodes if node.attrs.get("fn") == "relu")
    exp, copy = (replace(relu, attrs={"fn": fn}) for fn in ("exp", "identity"))
    assert moved_alike(block, relu) == moved_alike(block, exp) != moved_alike(block, copy)


CASES = {
    "branches": branches,
    "epilogues": epilogues,
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
