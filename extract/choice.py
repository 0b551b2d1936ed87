"""The choice problem: one option for each variable, costs of options and of pairs, capacity rows.

Extraction reduces to it, and so do other assignment problems (Google's contest on intra-operator
parallelism, for
one). A variable's options are grouped by *ports*: an edge's cost depends only on the port of each end,
so an edge between variables of thousands of options is a small matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Costs = NDArray[np.float64]
Indices = NDArray[np.int64]
Mask = NDArray[np.bool_]

FORBIDDEN = 1e11
"""Stands for "not allowed"; costs are scaled to stay far below it and far above its rounding error."""
NOT_ALLOWED = FORBIDDEN / 2
"""Sums of costs from here on are not allowed; those of allowed ones stay below."""


@dataclass(frozen=True, slots=True, eq=False)
class Edge:
    """A cost `matrix[left_ports[i], right_ports[j]]` if `left` takes option i and `right` option j."""

    left: int
    right: int
    left_ports: Indices
    right_ports: Indices
    matrix: Costs


@dataclass(frozen=True, slots=True, eq=False)
class Usage:
    """Capacity use of a variable's options in the rows `[low, high)`, [bytes] by option."""

    variable: int
    low: int
    high: int
    amounts: Costs


@dataclass(frozen=True, slots=True, eq=False)
class ChoiceProblem:
    """Minimise the options' and pairs' costs; in each row the use must not exceed `limit`."""

    costs: tuple[Costs, ...]
    edges: tuple[Edge, ...]
    usages: tuple[Usage, ...]
    rows: int
    limit: float

    def cost(self, choice: Sequence[int]) -> float:
        """Return the cost of a choice, one option number for each variable."""
        total = sum(float(costs[option]) for costs, option in zip(self.costs, choice, strict=True))
        for edge in self.edges:
            left, right = choice[edge.left], choice[edge.right]
            total += float(edge.matrix[edge.left_ports[left], edge.right_ports[right]])
        return total

    def use(self, choice: Sequence[int]) -> Costs:
        """Return the use of each row under a choice."""
        delta = np.zeros(self.rows + 1)
        for usage in self.usages:
            amount = usage.amounts[choice[usage.variable]]
            delta[usage.low] += amount
            delta[usage.high] -= amount
        return np.cumsum(delta)[: self.rows]


def priced(problem: ChoiceProblem, prices: Costs) -> tuple[Costs, ...]:
    """Return the options' costs with the price of the rows they use added."""
    if not prices.any():
        return problem.costs
    total = np.concatenate(([0.0], np.cumsum(prices)))
    costs = [own.copy() for own in problem.costs]
    for usage in problem.usages:
        price = total[usage.high] - total[usage.low]
        if price > 0:
            costs[usage.variable] += price * usage.amounts
    return tuple(costs)


def restricted(problem: ChoiceProblem, kept: Sequence[Indices]) -> ChoiceProblem:
    """Return the problem with some options of each variable only, given by their numbers."""
    return ChoiceProblem(
        costs=tuple(own[left] for own, left in zip(problem.costs, kept, strict=True)),
        edges=tuple(
            replace(
                e, left_ports=e.left_ports[kept[e.left]], right_ports=e.right_ports[kept[e.right]]
            )
            for e in problem.edges
        ),
        usages=tuple(replace(u, amounts=u.amounts[kept[u.variable]]) for u in problem.usages),
        rows=problem.rows,
        limit=problem.limit,
    )


def cheapest_of_groups(costs: Costs, groups: Indices) -> Indices:
    """Return the cheapest option of each group, the first of equal ones.

    Args:
        costs: Cost of each option.
        groups: The group of each option; groups are numbered from 0 without gaps.
    """
    order = np.lexsort((costs, groups))
    return order[np.searchsorted(groups[order], np.arange(int(groups.max()) + 1))]
