"""Explanations: chains of rules from the model's term to another of its class."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tilewright.graph import Graph
from tilewright.rules.engine import LogicalEGraph, rewrite_block
from tilewright.rules.options import SaturationOptions
from tilewright.rules.provenance import equalities, explain
from tilewright.rules.snapshot import INSERTED, ENode

Builder = Callable[..., Any]


def names_of(egraph: LogicalEGraph) -> dict[int, str]:
    names: dict[int, str] = {}
    for name, e_class in egraph.classes.items():
        names.setdefault(e_class, name)
    return names


def node(egraph: LogicalEGraph, e_class: int, constructor: str) -> ENode:
    found = [
        n
        for n in egraph.snapshot.enodes
        if n.result == e_class and n.constructor.name == constructor
    ]
    return min(found, key=lambda n: (n.origin, n.signature_texts))


def test_a_chain_of_two_rules(make_builder: Builder) -> None:
    b = make_builder()
    x, v = b.input("x", 4, 6), b.input("v", 6, 3)
    p = b.op("softmax", x)
    y = b.op("matmul", p, v)
    egraph = rewrite_block(b.graph(y), SaturationOptions())
    e_class = egraph.classes[y]
    start, end = node(egraph, e_class, "matmul"), node(egraph, e_class, "matmul_binary")
    assert start.origin == INSERTED
    steps = explain(
        egraph, e_class, start, end, names_of(egraph) | {end.args[0]: "e", end.args[2]: "s"}
    )
    assert steps is not None
    assert [s.rule for s in steps] == [
        "algebra.denominator_past_product",
        "fusion.third_operand_of_matmul",
    ]
    assert steps[0].before == "matmul(div(e, s), v)" or steps[0].before == f"matmul({p}, v)"
    assert steps[0].after == "div(matmul(e, v), s)"
    assert steps[1].after == "matmul|div(e, v, s)"
    back = explain(
        egraph, e_class, end, start, names_of(egraph) | {end.args[0]: "e", end.args[2]: "s"}
    )
    assert back is not None
    assert [s.rule for s in back] == [s.rule for s in reversed(steps)]


def test_no_chain_between_classes_that_no_rule_joins(make_builder: Builder) -> None:
    b = make_builder()
    x = b.input("x", 4, 6)
    y, z = b.op("map", x, fn="exp"), b.op("map", x, fn="sqrt")
    egraph = rewrite_block(b.graph(y, z), SaturationOptions())
    start = node(egraph, egraph.classes[y], "map1")
    end = node(egraph, egraph.classes[z], "map1")
    assert explain(egraph, egraph.classes[y], start, end, names_of(egraph)) is None


@pytest.mark.parametrize("model", ["transformer", "encoder", "resnet"])
def test_every_e_node_of_a_rule_is_reached_from_the_model(
    model: str, models: dict[str, Callable[..., Graph]]
) -> None:
    """What a rule added to a class that the model has is linked to the model's own e-node by rules."""
    egraph = rewrite_block(models[model](1), SaturationOptions())
    names = names_of(egraph)
    for e_class in sorted(set(egraph.classes.values())):
        members = [n for n in egraph.snapshot.enodes if n.result == e_class]
        inserted = [n for n in members if n.origin == INSERTED]
        if not inserted:
            continue
        for other in members:
            if other not in inserted:
                named = {n.result: f"t{n.result}" for n in egraph.snapshot.enodes} | names
                steps = explain(egraph, e_class, inserted[0], other, named)
                assert steps is not None, (model, names[e_class], other.constructor.name)
                assert steps[-1].after != steps[-1].before


def test_equalities_are_of_rules_that_made_something(
    models: dict[str, Callable[..., Graph]],
) -> None:
    egraph = rewrite_block(models["encoder"](1), SaturationOptions())
    made = {n.origin for n in egraph.snapshot.enodes if n.origin != INSERTED}
    seen = {
        equality.rule.name
        for e_class in {n.result for n in egraph.snapshot.enodes}
        for equality in equalities(egraph, e_class)
        if equality.has_made
    }
    assert {egraph.rules[number - 1].name for number in made} <= seen
