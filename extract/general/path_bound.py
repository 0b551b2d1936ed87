"""Bounds without a solver: the dearest chain of classes that need each other."""

from __future__ import annotations

import heapq
import math

from tilewright.extract.general.workspace import Workspace


def drop_dear(work: Workspace, cost: float) -> float:
    """Drop alternatives that are in no choice cheaper than `cost`; return a bound of all choices.

    With costs that are not negative, an extraction of a class c costs at least

        L(c) = min over alternatives a of c:  cost(a) + max over the classes d that a needs: L(d)

    and one that gets to c from a required class along a chain of users costs at least D(c) above it,
    the cheapest such chain. So a choice with a costs D(c) + cost(a) + max L(d) or more.

    Args:
        work: The problem, changed in place; afterwards it only has choices cheaper than `cost`,
            perhaps none.
        cost: The cost of a known choice.

    Returns:
        What is decided already plus the largest L of a required class; -inf if a cost is negative.

    Source:
        L: Knuth, "A generalization of Dijkstra's algorithm", 1977.
    """
    paid = math.fsum(work.paid)
    if any(work.cost[a] < 0 for group in work.live for a in work.alternatives[group]):
        return -math.inf
    below = _cheapest_below(work)
    above = _cheapest_above(work)
    bound = paid + max((below[group] for group in work.required), default=0.0)
    least = cost - 1e-9 * max(1.0, abs(cost))
    for group in sorted(work.live):
        for alternative in sorted(work.alternatives[group]):
            dearest = max((below[child] for child in work.needs[alternative]), default=0.0)
            if paid + above[group] + work.cost[alternative] + dearest >= least:
                work.remove(alternative)
    return bound


def _cheapest_below(work: Workspace) -> dict[int, float]:
    """L of each class."""
    missing = {a: len(work.needs[a]) for group in work.live for a in work.alternatives[group]}
    settled: dict[int, float] = {}
    heap = [(work.cost[a], a) for a, count in missing.items() if not count]
    heapq.heapify(heap)
    while heap:
        value, alternative = heapq.heappop(heap)
        group = work.owner[alternative]
        if group in settled:
            continue
        settled[group] = value
        for user in work.users[group]:
            missing[user] -= 1
            if not missing[user]:
                # Classes settle from cheap to dear: the last one is the dearest.
                heapq.heappush(heap, (value + work.cost[user], user))
    return settled


def _cheapest_above(work: Workspace) -> dict[int, float]:
    """D of each class."""
    settled: dict[int, float] = {}
    heap = [(0.0, group) for group in sorted(work.required)]
    while heap:
        value, group = heapq.heappop(heap)
        if group in settled:
            continue
        settled[group] = value
        for alternative in work.alternatives[group]:
            for child in work.needs[alternative]:
                if child not in settled:
                    heapq.heappush(heap, (value + work.cost[alternative], child))
    return settled
