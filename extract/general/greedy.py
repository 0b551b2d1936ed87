"""Greedy extraction: the cheapest set of e-nodes found bottom up, sharing counted (greedy-DAG)."""

from __future__ import annotations

import heapq
import math
from time import monotonic

from tilewright.extract.general.egraph import EGraph
from tilewright.extract.general.workspace import recover


def greedy_choice(graph: EGraph, deadline: float = math.inf) -> dict[int, int]:
    """Return an acyclic choice for every class that has one.

    Each class keeps the cheapest set of classes with e-nodes that one of its e-nodes was ever seen to
    need. The choice made of these can be cyclic where costs are not positive; then, or at the deadline
    (of `monotonic`), any acyclic choice is returned instead.

    Source:
        The extraction gym's `faster-greedy-dag`; here e-nodes with cheap children come first, so that few
        are looked at again.
    """
    users: list[list[int]] = [[] for _ in range(graph.class_count)]
    for node, needs in enumerate(graph.children):
        for child in needs:
            users[child].append(node)
    best: dict[int, tuple[float, int, dict[int, float]]] = {}
    heap = [(0.0, node) for node, needs in enumerate(graph.children) if not needs]
    queued = {node: 0.0 for _, node in heap}
    while heap:
        priority, node = heapq.heappop(heap)
        if queued.get(node) != priority:
            continue
        del queued[node]
        group = graph.owner[node]
        content = _content(graph, node, best)
        if content is None:
            continue
        total = sum(content.values())
        known = best.get(group)
        if known is not None and total >= known[0] - 1e-12 * max(1.0, abs(known[0])):
            continue
        if monotonic() > deadline:
            return recover(graph, range(len(graph.owner)))
        best[group] = (total, node, content)
        for user in users[group]:
            needs = graph.children[user]
            if all(child in best for child in needs):
                dearest = max(best[child][0] for child in needs)
                if dearest < queued.get(user, math.inf):
                    queued[user] = dearest
                    heapq.heappush(heap, (dearest, user))
    choice = recover(graph, (node for _, node, _ in best.values()))
    if len(choice) < len(best):
        return recover(graph, range(len(graph.owner)))
    return choice


def _content(
    graph: EGraph, node: int, best: dict[int, tuple[float, int, dict[int, float]]]
) -> dict[int, float] | None:
    """Return the classes with their costs that an e-node comes with; None if only with a cycle."""
    group = graph.owner[node]
    parts = [best.get(child) for child in graph.children[node]]
    present = [part for part in parts if part is not None]
    if len(present) < len(parts):
        return None
    present.sort(key=lambda part: -len(part[2]))
    content = dict(present[0][2]) if present else {}
    for part in present[1:]:
        for child, cost in part[2].items():
            content.setdefault(child, cost)
    if group in content:
        return None
    content[group] = graph.cost[node]
    return content
