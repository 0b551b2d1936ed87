"""Why two e-nodes are in one e-class: the chain of rules that equates them.

An e-node knows the rule that made it first (its origin). A rule's left and right sides are matched
against the e-graph again; every pair of e-nodes of one class that they connect, in which the rule made
something, is an equality with that rule's name. The shortest chain of equalities explains.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import networkx as nx

from tilewright.rules.engine import LogicalEGraph
from tilewright.rules.matching import Call, Match, Matcher, Pattern, read_pattern
from tilewright.rules.registry import ROOT, Rule, pattern_of
from tilewright.rules.snapshot import INSERTED, ENode

_UNSEEN = 1000.0
"""Length of an equality in which the rule made nothing new: true, but others are better explanations."""


@dataclass(frozen=True, slots=True)
class Equality:
    """A rule's left and right side in one e-class."""

    left: Match
    right: Match
    rule: Rule
    has_made: bool
    """Whether the rule was the first to make something of its right side."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RewriteStep:
    """One step of an explanation: terms as text, outermost e-nodes as data."""

    before: str
    after: str
    rule: str
    equation: str


def equalities(egraph: LogicalEGraph, e_class: int) -> Iterator[Equality]:
    """Yield the equalities of rules whose left side is in a class."""
    matcher = Matcher(egraph.snapshot)
    kinds = {n.constructor.name for n in egraph.snapshot.enodes if n.result == e_class}
    for number, rule in enumerate(egraph.rules, start=1):
        before, after = _sides(rule)
        if before.constructor.name not in kinds:
            continue
        for left in matcher.matches(before, e_class, {ROOT: e_class}):
            for right in matcher.matches(after, e_class, left.bindings):
                made = right.root is None or any(n.origin == number for n in right.nodes)
                yield Equality(left, right, rule, made)


@lru_cache(maxsize=1024)
def _sides(rule: Rule) -> tuple[Call, Pattern]:
    rewrite = pattern_of(rule)
    left = read_pattern(rewrite.left)
    assert isinstance(left, Call), "left sides are no variables"
    return left, read_pattern(rewrite.to)


def explain(
    egraph: LogicalEGraph, e_class: int, start: ENode, end: ENode, names: Mapping[int, str]
) -> tuple[RewriteStep, ...] | None:
    """Return the shortest chain of rules from one e-node of a class to another; None if there is none.

    Args:
        egraph: A block after rewriting.
        e_class: The class of both.
        start: Where the chain begins, usually the inserted e-node.
        end: Where it ends, usually the chosen one.
        names: Names of e-classes; those it does not contain are written out where the rule says how,
            and looked up in it where not.
    """
    chain: nx.Graph[ENode] = nx.Graph()
    chain.add_nodes_from([start, end])
    inserted = [n for n in egraph.snapshot.enodes if n.result == e_class and n.origin == INSERTED]
    for equality in equalities(egraph, e_class):
        assert equality.left.root is not None, "left sides are no variables"
        weight = 1.0 if equality.has_made else _UNSEEN
        ends = [equality.right.root] if equality.right.root is not None else inserted
        for other in ends:
            known = chain.get_edge_data(equality.left.root, other)
            if other != equality.left.root and (known is None or weight < known["weight"]):
                chain.add_edge(equality.left.root, other, weight=weight, by=equality)
    try:
        path = nx.shortest_path(chain, start, end, weight="weight")
    except nx.NetworkXNoPath:
        return None
    return tuple(
        _step(chain.edges[before, after]["by"], before, after, names)
        for before, after in pairwise(path)
    )


def _step(equality: Equality, before: ENode, after: ENode, names: Mapping[int, str]) -> RewriteStep:
    sides = {equality.left.root: equality.left, equality.right.root: equality.right}

    def text(node: ENode) -> str:
        return term_text(node, sides[node].nodes if node in sides else (node,), names)

    return RewriteStep(
        before=text(before),
        after=text(after),
        rule=equality.rule.name,
        equation=equality.rule.equation,
    )


def term_text(node: ENode, nodes: tuple[ENode, ...], names: Mapping[int, str]) -> str:
    """Write an e-node; operands by name, or written out if they are among `nodes`."""

    def operand(e_class: int) -> str:
        if e_class in names:
            return names[e_class]
        inner = next((n for n in nodes if n.result == e_class and n is not node), None)
        return names[e_class] if inner is None else term_text(inner, nodes, names)

    head = node.constructor.kind
    columns = dict(zip(node.constructor.columns, node.texts, strict=True))
    function = columns.pop("fn", "")
    if node.constructor.kind == "map":
        head = function
    elif function:
        head = f"{function}_{head}"
    if "epilogue" in columns:
        head = f"{head}|{columns.pop('epilogue')}"
        columns.pop("product_dtype", None)
    columns.pop("inner_dtype", None)
    details = "".join(f", {key}={value}" for key, value in columns.items() if key != "rest")
    return f"{head}({', '.join(operand(arg) for arg in node.args)}{details})"
