"""Branches: parts of a model that do not depend on each other, and an order in which each is in one piece.

What reaches the outputs of a model only through one operator is that operator's subtree in the tree of
post-dominators, and nothing but its own results leaves it. The subtrees right under an operator (under the
end, for a model of several outputs) are the parts that it joins; those of which neither reads what comes of
the other are branches. In post-order every subtree is a run of operators, so that a stage can be just that.

Source: Johnson, Pearson, Pingali, "The Program Structure Tree" (PLDI 1994), of regions with one entry and
one exit; those here may read from anywhere.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import networkx as nx

from tilewright.graph import Graph, Op
from tilewright.rules.roll import run_time_ops

_LEAST_SAVING = 0.1
"""Part of a model's work that branches must be able to do beside other work of it, to be cut out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Join:
    """The parts that one operator joins: runs `start <= i < stop` of operators, one behind the other.

    `reads[n]` are the parts, all before part n, whose results part n reads.
    """

    parts: tuple[tuple[int, int], ...]
    reads: tuple[frozenset[int], ...]

    @property
    def edges(self) -> frozenset[int]:
        """Where parts begin and end."""
        return frozenset(place for part in self.parts for place in part)

    def sizes(self, work: Sequence[float]) -> list[float]:
        """Return the work of each part, given that of each operator and all before it."""
        return [work[stop - 1] - (work[start - 1] if start else 0) for start, stop in self.parts]

    def saving(self, work: Sequence[float]) -> float:
        """Return by how much the longest chain of parts is shorter than all of them."""
        sizes, ends = self.sizes(work), list[float]()
        for size, reads in zip(sizes, self.reads, strict=True):
            ends.append(size + max((ends[n] for n in reads), default=0.0))
        return sum(sizes) - max(ends, default=0.0)

    def coarser(self, work: Sequence[float]) -> tuple[float, Join] | None:
        """Return the work of the lightest two neighbours with the same readers and reads, and them as one."""
        readers = [
            frozenset(n for n, reads in enumerate(self.reads) if part in reads)
            for part in range(len(self.parts))
        ]
        sizes = self.sizes(work)
        alike = [
            (sizes[a] + sizes[b], a)
            for a, b in pairwise(range(len(self.parts)))
            if self.reads[a] == self.reads[b] and readers[a] == readers[b]
        ]
        if not alike:
            return None
        least, gone = min(alike)
        parts = list(self.parts)
        parts[gone : gone + 2] = [(parts[gone][0], parts[gone + 1][1])]
        kept = self.reads[:gone] + self.reads[gone + 1 :]
        reads = tuple(frozenset(n - (n > gone) for n in found) for found in kept)
        return least, Join(parts=tuple(parts), reads=reads)


@dataclass(frozen=True, slots=True, kw_only=True)
class Branches:
    """An order of operators, by their numbers, and the joins in it, outer ones first."""

    order: tuple[int, ...]
    joins: tuple[Join, ...]


def find_branches(ops: Sequence[Op], outputs: Collection[str]) -> Branches:
    """Return the joins of operators in topological order, and an order with every part in one piece.

    Args:
        ops: The operators.
        outputs: The results that they are there for.
    """
    end = len(ops)
    readers = _readers(ops, outputs)
    reverse = nx.DiGraph((reader, maker) for maker, found in enumerate(readers) for reader in found)
    reverse.add_node(end)
    parents = nx.immediate_dominators(reverse, end)
    children: list[list[int]] = [[] for _ in range(end + 1)]
    for number in range(end):
        children[parents[number]].append(number)
    reads = _sibling_reads(readers, parents, children)
    ordered = [_sorted(siblings, reads) for siblings in children]
    starts, stops = _preorder(ordered)
    # in pre-order an operator comes in front of its subtree, in post-order right behind it
    depth = _depths(ordered)
    place = [stops[n] - 1 - depth[n] for n in range(end + 1)]
    order = sorted(range(end), key=place.__getitem__)
    joins = (
        Join(
            parts=tuple((place[n] + 1 - stops[n] + starts[n], place[n] + 1) for n in siblings),
            reads=tuple(frozenset(map(siblings.index, sorted(reads[n]))) for n in siblings),
        )
        for siblings in ordered
        if len(siblings) > 1
    )
    return Branches(order=tuple(order), joins=tuple(joins))


def in_branch_order(graph: Graph) -> Graph:
    """Return a model with its operators at run time in an order that has every part in one piece."""
    ops = run_time_ops(graph)
    order = find_branches(ops, [port.tensor for port in graph.outputs]).order
    made = {name for op in ops for name in op.outputs}
    constant = (op for op in graph.ops if made.isdisjoint(op.outputs))
    return replace(graph, ops=(*constant, *(ops[number] for number in order)))


def branch_places(
    ops: Sequence[Op], outputs: Collection[str], work: Sequence[float], most: int
) -> frozenset[int]:
    """Return where branches that are worth it begin and end.

    Args:
        ops: The operators in an order that has every part in one piece.
        outputs: The results that they are there for.
        work: Work of each operator and all before it.
        most: Places at most; so small neighbours stay together.
    """
    least = _LEAST_SAVING * work[-1] if work else 0.0
    joins = find_branches(ops, outputs).joins
    found: frozenset[int] = frozenset()
    for join in sorted(joins, key=lambda join: -join.saving(work)):
        if join.saving(work) <= least:
            break
        coarser = join.coarser(work)
        while coarser and (coarser[0] < least or len(found | join.edges) > most):
            join = coarser[1]
            coarser = join.coarser(work)
        if len(found | join.edges) <= most:
            found |= join.edges
    return found


def _readers(ops: Sequence[Op], outputs: Collection[str]) -> list[list[int]]:
    """Return the readers of each operator's results; the end, behind all of them, reads outputs."""
    makers = {name: number for number, op in enumerate(ops) for name in op.outputs}
    readers: list[list[int]] = [[] for _ in ops]
    for number, op in enumerate(ops):
        for maker in sorted({makers[name] for name in op.inputs if name in makers}):
            readers[maker].append(number)
    for maker, op in enumerate(ops):
        if not readers[maker] or not set(outputs).isdisjoint(op.outputs):
            readers[maker].append(len(ops))
    return readers


def _preorder(children: Sequence[Sequence[int]]) -> tuple[list[int], list[int]]:
    """Return where each node's subtree begins and ends in pre-order; the root is the last node."""
    starts, stops = [0] * len(children), [0] * len(children)
    count, todo = 0, [len(children) - 1]
    path: list[int] = []
    while todo:
        node = todo.pop()
        if path and path[-1] == node:  # again, behind its subtree
            stops[path.pop()] = count
            continue
        starts[node] = count
        count += 1
        path.append(node)
        todo += [node, *reversed(children[node])]
    return starts, stops


def _depths(children: Sequence[Sequence[int]]) -> list[int]:
    """Return how many nodes are above each."""
    depths, todo = [0] * len(children), [len(children) - 1]
    while todo:
        node = todo.pop()
        for child in children[node]:
            depths[child] = depths[node] + 1
            todo.append(child)
    return depths


def _sibling_reads(
    readers: Sequence[Sequence[int]],
    parents: Mapping[int, int],
    children: Sequence[Sequence[int]],
) -> list[set[int]]:
    """Return the siblings that each operator's subtree reads.

    Reads from one subtree in another begin at its root: whatever comes of an operator below it passes it.
    """
    reads: list[set[int]] = [set() for _ in children]
    starts, _ = _preorder(children)
    for maker, found in enumerate(readers):
        siblings = children[parents[maker]]
        begins = [starts[n] for n in siblings]
        for reader in found:
            if reader != parents[maker]:
                reads[siblings[bisect_right(begins, starts[reader]) - 1]].add(maker)
    return reads


def _sorted(siblings: Sequence[int], reads: Sequence[set[int]]) -> list[int]:
    """Return siblings so that each comes behind those that it reads, else in the old order of their roots."""
    if len(siblings) < 2:
        return list(siblings)
    order: nx.DiGraph[int] = nx.DiGraph()
    order.add_nodes_from(siblings)
    order.add_edges_from((before, n) for n in siblings for before in sorted(reads[n]))
    return list(nx.lexicographical_topological_sort(order))
