"""Options that another option of the same variable beats whatever the other variables take.

Option a beats option b if a is cheaper by at least what its edges may cost more, taken over every
option of the neighbours, and uses no more of any row. Many options go that way: a dear way to lay a
value out loses to a cheap one and the moves from there. What is left has the same optimum, also
under any prices of rows.

Source:
    Goldstein, "Efficient rotamer elimination applied to protein side-chains and related spin glasses",
    Biophysical Journal 66 (1994).
"""

from __future__ import annotations

import numpy as np

from tilewright.extract.choice import ChoiceProblem, Costs, Indices, restricted

_PASSES = 3
_MOST_OPTIONS = 1500
"""Variables with more options are left alone: pairs of options take memory."""

Incident = tuple[int, Costs, Indices, Indices]
"""The other end of an edge, costs by (own port, other port), own ports, other ports."""


def without_dominated(problem: ChoiceProblem) -> tuple[ChoiceProblem, tuple[Indices, ...]]:
    """Return the problem without dominated options, and the numbers of those that are left."""
    kept = [np.arange(len(own)) for own in problem.costs]
    incident: list[list[Incident]] = [[] for _ in problem.costs]
    for e in problem.edges:
        incident[e.left].append((e.right, e.matrix, e.left_ports, e.right_ports))
        incident[e.right].append((e.left, e.matrix.T, e.right_ports, e.left_ports))
    amounts: list[list[Costs]] = [[] for _ in problem.costs]
    for usage in problem.usages:
        amounts[usage.variable].append(usage.amounts)
    for _ in range(_PASSES):
        before = sum(map(len, kept))
        for variable, own in enumerate(problem.costs):
            if 1 < len(kept[variable]) <= _MOST_OPTIONS:
                beaten = _beaten(own, incident[variable], amounts[variable], kept, variable)
                kept[variable] = kept[variable][~beaten]
        if sum(map(len, kept)) == before:
            break
    return restricted(problem, kept), tuple(kept)


def _beaten(
    costs: Costs, edges: list[Incident], amounts: list[Costs], kept: list[Indices], variable: int
) -> Indices:
    """Return which of the variable's options that are left another one beats."""
    options = kept[variable]
    # more[a, b]: what a may cost more than b
    more = costs[options][:, None] - costs[options][None, :]
    for other, matrix, ports, other_ports in edges:
        own, number = _distinct(ports[options])
        reached, _ = _distinct(other_ports[kept[other]])
        table = matrix[own][:, reached]
        worst = np.empty((len(own), len(own)))
        for row, found in zip(table, worst, strict=True):
            np.max(row - table, axis=1, out=found)
        more += worst[number][:, number]
    beats = more <= 0
    for amount in amounts:
        beats &= amount[options][:, None] <= amount[options][None, :]
    # of options that beat each other, the first stays
    beats &= ~(beats.T & np.tri(len(options), k=0, dtype=bool))
    return np.asarray(beats.any(axis=0))


def _distinct(ports: Indices) -> tuple[Indices, Indices]:
    """Return the distinct ports in increasing order, and the place of each port among them."""
    is_there = np.zeros(int(ports.max()) + 1, dtype=bool)
    is_there[ports] = True
    return np.flatnonzero(is_there), (np.cumsum(is_there) - 1)[ports]
