"""What multipliers prove: any numbers bound every choice from below, as cost is only moved around.

A message moves cost from an edge into the options at its ends. A price of a row is paid by the options that
use it, and given back for all of the limit. A cut's price is paid wherever a user takes what the cut is of,
and given back by the one option that they share. What is left of every edge and of every variable is at least
its least entry; the sum of these is the bound.

Source:
    Werner, "A linear programming approach to max-sum problem: a review", IEEE PAMI 29 (2007), section 3
    (equivalent transformations).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tilewright.extract.certificate import Cut, Dropped, Dual
from tilewright.extract.choice import ChoiceProblem, Costs, Edge, Indices, Mask
from tilewright.extract.plan_error import PlanError

_Price = tuple[Mask, Mask, float]
"""Options of the left and of the right end that pay a price together."""


@dataclass(frozen=True, slots=True)
class Proven:
    """A bound of every choice, and by how much one with an option is above it at least, by variable."""

    bound: float
    above: tuple[Costs, ...]


def left_over(
    problem: ChoiceProblem, dropped: Sequence[Dropped]
) -> tuple[tuple[Indices, ...], float]:
    """Return the options that are left, and by how much an optimum may be dearer among these.

    Each dropped option is compared with the one that is said to beat it: in its cost, in what its edges may
    cost more for the options that are left of the neighbours, and in every use of rows. What it is dearer
    for rounding is added up.

    Raises:
        PlanError: An option is not beaten.
    """
    kept = [np.ones(len(own), dtype=bool) for own in problem.costs]
    slack = 0.0
    for drop in dropped:
        kept[drop.variable][drop.options] = False
        if not kept[drop.variable][drop.by].all():
            raise PlanError(f"options of variable {drop.variable} are beaten by some that are gone")
        costs = problem.costs[drop.variable]
        more = costs[drop.by] - costs[drop.options]
        for edge in problem.edges:
            for own, ports, other, others, matrix in (
                (edge.left, edge.left_ports, edge.right, edge.right_ports, edge.matrix),
                (edge.right, edge.right_ports, edge.left, edge.left_ports, edge.matrix.T),
            ):
                if own == drop.variable:
                    table = matrix[:, np.unique(others[kept[other]])]
                    pairs = np.stack([ports[drop.by], ports[drop.options]], axis=1)
                    pairs, place = np.unique(pairs, axis=0, return_inverse=True)
                    worst = (table[pairs[:, 0]] - table[pairs[:, 1]]).max(axis=1)
                    more = more + worst[place.reshape(-1)]
        for usage in problem.usages:
            if usage.variable == drop.variable:
                if (usage.amounts[drop.by] > usage.amounts[drop.options]).any():
                    raise PlanError(
                        f"options of variable {drop.variable} use less than what beats them"
                    )
        slack += max(0.0, float(more.max()))
    return tuple(np.flatnonzero(own) for own in kept), slack


def with_prices(problem: ChoiceProblem, prices: Costs) -> tuple[Costs, ...]:
    """Return the costs of options with the prices of the rows that they use.

    Raises:
        PlanError: A price is negative.
    """
    if len(prices) != problem.rows or (prices < 0).any():
        raise PlanError("prices of rows must be numbers from 0, one for each")
    costs = [own.copy() for own in problem.costs]
    for usage in problem.usages:
        costs[usage.variable] += prices[usage.low : usage.high].sum() * usage.amounts
    return tuple(costs)


def proven_by(problem: ChoiceProblem, dual: Dual) -> Proven:
    """Return what multipliers prove of the choices that keep the rows and the cuts.

    Raises:
        PlanError: A price is negative.
    """
    costs = list(with_prices(problem, dual.prices))
    bound = -float(dual.prices.sum()) * problem.limit
    paid: list[list[_Price]] = [[] for _ in problem.edges]
    for cut in dual.cuts:
        if cut.price < 0:
            raise PlanError(f"a cut of variable {cut.variable} has a negative price")
        costs[cut.variable] = costs[cut.variable] - cut.price * cut.stock
        for number, mask in cut.users:
            paid[number].append(_price(problem.edges[number], cut, mask))
    for edge, messages, prices in zip(problem.edges, dual.messages, paid, strict=True):
        bound += least_left(edge, *messages, prices)
        costs[edge.left] = costs[edge.left] + messages[0]
        costs[edge.right] = costs[edge.right] + messages[1]
    least = [float(own.min()) for own in costs]
    above = tuple(own - low for own, low in zip(costs, least, strict=True))
    return Proven(bound + sum(least), above)


def _price(edge: Edge, cut: Cut, mask: Mask) -> _Price:
    return (cut.part, mask, cut.price) if edge.left == cut.variable else (mask, cut.part, cut.price)


def least_left(edge: Edge, left: Costs, right: Costs, prices: Sequence[_Price] = ()) -> float:
    """Return the least entry of an edge, prices included, less the messages of both ends."""
    rows, rows_sent = _classes(edge.left_ports, [own for own, _, _ in prices], left)
    columns, columns_sent = _classes(edge.right_ports, [own for _, own, _ in prices], right)
    table = edge.matrix[np.ix_(rows[:, 0], columns[:, 0])]
    for number, (_, _, price) in enumerate(prices, 1):
        table = table + price * np.outer(rows[:, number], columns[:, number])
    return float((table - rows_sent[:, None] - columns_sent[None, :]).min())


def _classes(ports: Indices, masks: Sequence[Mask], sent: Costs) -> tuple[Indices, Costs]:
    """Return the distinct (port, mask entries..) of options, and the most that one of each sends."""
    marks = np.stack([ports, *(mask.astype(np.int64) for mask in masks)], axis=1)
    found, place = np.unique(marks, axis=0, return_inverse=True)
    most = np.full(len(found), -np.inf)
    np.maximum.at(most, place.reshape(-1), sent)
    return found, most


def with_costs(problem: ChoiceProblem, costs: tuple[Costs, ...]) -> ChoiceProblem:
    """Return the problem with other costs of options, and without rows."""
    return replace(problem, costs=costs, usages=(), rows=0)
