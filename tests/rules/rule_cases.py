"""What tests of saturation share: checks of structure, rules drawn at random, rules that explode."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import networkx as nx
import numpy as np
from egglog import String

from tilewright.graph import Graph
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.rules.alternatives import Alternatives
from tilewright.rules.registry import Numerics, Rewrite, Rule
from tilewright.rules.terms import Tensor, map1, map2

GRID = LogicalMesh(("x", "y"), (2, 2))


def check_structure(graph: Graph, found: Alternatives) -> None:
    """Numbers are places, nodes are acyclic and in order, every class can be computed."""
    assert [c.number for c in found.classes] == list(range(len(found.classes)))
    assert [n.number for n in found.nodes] == list(range(len(found.nodes)))
    arcs: nx.DiGraph[int] = nx.DiGraph((n.result, a) for n in found.nodes for a in n.args)
    assert nx.is_directed_acyclic_graph(arcs)
    leaves = {c.number for c in found.classes if c.is_input} | {
        c.number for c in found.classes if any(name in graph.constants for name in c.names)
    }
    ready = set(leaves)
    for node in found.nodes:
        assert set(node.args) <= ready, "a node follows some node of each argument class"
        ready.update(node.results)
    assert ready >= {c.number for c in found.classes}
    names = Counter(name for c in found.classes for name in c.names)
    assert set(names) == {n for op in graph.ops for n in (*op.inputs, *op.outputs)} | {
        p.tensor for p in graph.inputs
    }
    assert set(names.values()) == {1}
    assert [
        found.classes[c].names.count(p.tensor)
        for c, p in zip(found.outputs, graph.outputs, strict=True)
    ] == [1] * len(graph.outputs)
    keys = [(n.kind, repr(sorted(n.attrs.items())), n.args, n.results) for n in found.nodes]
    assert len(set(keys)) == len(keys)


def digest(found: Alternatives) -> str:
    """SHA-256 of everything but times."""
    attrs = [sorted(n.attrs.items()) for n in found.nodes]
    nodes = [replace(n, attrs={}) for n in found.nodes]
    text = repr((found.classes, attrs, nodes, found.implementations, found.outputs, found.notes))
    return hashlib.sha256(text.encode()).hexdigest()


Term = str | tuple[Any, ...]
"""A variable, ("add" or "mul", term, term) or ("neg", term)."""


def steps(term: Term) -> list[Term]:
    """All terms that one use of an identity, forwards or backwards, makes of a term."""
    found: list[Term] = [("neg", ("neg", term))]
    match term:
        case ("add" | "mul") as fn, a, b:
            found.append((fn, b, a))
            if isinstance(a, tuple) and a[0] == fn:
                found.append((fn, a[1], (fn, a[2], b)))
            if isinstance(b, tuple) and b[0] == fn:
                found.append((fn, (fn, a, b[1]), b[2]))
            if fn == "mul" and isinstance(a, tuple) and a[0] == "add":
                found.append(("add", ("mul", a[1], b), ("mul", a[2], b)))
            if fn == "mul":
                found.append(("neg", ("mul", ("neg", a), b)))
            found += [(fn, changed, b) for changed in steps(a)]
            found += [(fn, a, changed) for changed in steps(b)]
        case "neg", a:
            if isinstance(a, tuple) and a[0] == "neg":
                found.append(a[1])
            found += [("neg", changed) for changed in steps(a)]
    return found if isinstance(term, tuple) else found[:0]


def random_term(random: np.random.Generator, depth: int) -> Term:
    if depth == 0:
        return f"x{random.integers(3)}"
    if random.random() < 0.2:
        return "neg", random_term(random, depth - 1)
    fn = ("add", "mul")[random.integers(2)]
    return fn, random_term(random, depth - 1), random_term(random, random.integers(depth))


def variables(term: Term) -> set[str]:
    return {term} if isinstance(term, str) else set().union(*map(variables, term[1:]))


def built(term: Term, given: dict[str, Any]) -> Any:
    if isinstance(term, str):
        return given[term]
    operands = [built(operand, given) for operand in term[1:]]
    return (map1 if len(operands) == 1 else map2)(*operands, term[0], given["d"])


def rule_of(name: str, left: Term, right: Term) -> Rule:
    """A rule that says left = right."""

    def function(**given: Any) -> Rewrite:
        """Left = right."""
        return Rewrite(built(left, given), to=built(right, given))

    return Rule(
        name=f"random.{name}",
        numerics=Numerics.REASSOCIATES,
        source="drawn at random",
        function=function,
        sorts={**dict.fromkeys(sorted(variables(left)), Tensor), "d": String},
    )


def random_rule(random: np.random.Generator, name: str) -> Rule:
    """A rule whose sides a few identities connect, true by construction."""
    left = right = random_term(random, 1 + int(random.integers(3)))
    while right == left:
        for _ in range(1 + random.integers(4)):
            options = steps(right)
            right = options[random.integers(len(options))]
    return rule_of(name, left, right)


EXPLOSIVE = (
    rule_of("commute_add", ("add", "a", "b"), ("add", "b", "a")),
    rule_of("associate_add", ("add", ("add", "a", "b"), "c"), ("add", "a", ("add", "b", "c"))),
    rule_of(
        "distribute", ("mul", ("add", "a", "b"), "c"), ("add", ("mul", "a", "c"), ("mul", "b", "c"))
    ),
    rule_of("negate_twice", ("add", "a", "b"), ("neg", ("neg", ("add", "a", "b")))),
)


def arithmetic(make_builder: Callable[..., Any], random: np.random.Generator, ops: int) -> Graph:
    """A graph of sums, few products and changes of sign, small enough to be exact on integers."""
    b = make_builder()
    tensors = [b.input(f"i{n}", 2, 3) for n in range(3)] + [b.constant(f"c{n}", 1, 3) for n in "ab"]
    leaves = len(tensors)
    for number in range(ops):
        x, other = tensors[-1], random.integers(leaves if number % 5 == 0 else len(tensors))
        y = tensors[number if number < leaves else other]  # every leaf is used
        if number > leaves and number % 7 == 6:
            tensors.append(b.op("map", x, fn="neg"))
        else:
            tensors.append(b.op("map", x, y, fn="mul" if number % 5 == 0 else "add"))
    return b.graph(tensors[-1])
