"""Prices of rows and messages, improved together: each step gives a bound of every fitting choice."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tilewright.extract.choice import Costs, Indices
from tilewright.extract.large.compile import compiled
from tilewright.extract.large.flat import Flat
from tilewright.extract.large.passing_core import choose_in_order, costs_given, pass_messages
from tilewright.extract.large.rows import Rows
from tilewright.extract.large.rows_core import (
    ANY_OVERFLOW_COST,
    OVERFLOW_COST,
    add_use,
    excess_of,
    taxes,
    use_of,
)

BOUND, STEP, SINCE = 0, 1, 2
"""Entries of `progress`: the best bound, the length of the next step, steps since a better bound."""

_PATIENCE = 12


class Dual(NamedTuple):
    """What price steps change."""

    messages: Costs
    prices: Costs
    best_prices: Costs
    slope: Costs
    """A running mean of the rows' overflow."""
    progress: Costs
    costs: Costs
    """Scratch: costs of options with what they pay for rows."""
    choice: Indices
    use: Costs
    upto: Costs
    belief: Costs
    slack: Costs


@compiled
def dual_steps(
    flat: Flat, rows: Rows, costs: Costs, dual: Dual, goal: float, steps: int, sweeps: int
) -> None:
    """Sweep and change the prices some times, in Polyak steps towards the goal."""
    count = len(rows.room)
    for _ in range(steps):
        taxes(flat, rows, dual.prices, dual.upto, dual.costs)
        for option in range(len(costs)):
            dual.costs[option] += costs[option]
        bound = pass_messages(flat, dual.costs, dual.messages, dual.belief, dual.slack, sweeps)
        for row in range(count):
            bound -= dual.prices[row] * rows.room[row]
        dual.progress[SINCE] += 1
        if bound > dual.progress[BOUND]:
            if bound > dual.progress[BOUND] + 1e-6 * abs(bound):
                dual.progress[SINCE] = 0
            dual.progress[BOUND] = bound
            for row in range(count):
                dual.best_prices[row] = dual.prices[row]
        if dual.progress[SINCE] > _PATIENCE:
            dual.progress[STEP] *= 0.7
            dual.progress[SINCE] = 0
            for row in range(count):
                dual.prices[row] = dual.best_prices[row]
        choose_in_order(flat, dual.costs, dual.messages, dual.choice, dual.belief, True)
        use_of(flat, rows, dual.choice, dual.use)
        norm = 0.0
        for row in range(count):
            dual.slope[row] += 0.4 * (dual.use[row] - rows.room[row] - dual.slope[row])
            if dual.prices[row] > 0.0 or dual.slope[row] > 0.0:
                norm += dual.slope[row] * dual.slope[row]
        if norm == 0.0:
            continue
        gap = goal - bound
        least = 1e-5 * abs(goal)
        step = dual.progress[STEP] * (gap if gap > least else least) / norm
        for row in range(count):
            price = dual.prices[row] + step * dual.slope[row]
            dual.prices[row] = price if price > 0.0 else 0.0


@compiled
def choose_fitting(flat: Flat, rows: Rows, dual: Dual, limit: float, excess: Costs) -> None:
    """Choose one variable after the other by the messages, keeping to the rows where possible.

    Variables that are not chosen yet count with the least that any of their options uses.
    """
    dual.choice[:] = -1
    dual.use[:] = 0.0
    for variable in range(len(dual.choice) - 1, -1, -1):
        costs_given(flat, dual.costs, dual.messages, dual.choice, variable, dual.belief)
        excess_of(flat, rows, variable, dual.use, excess)
        best, least = 0, np.inf
        for option in range(flat.first[variable + 1] - flat.first[variable]):
            value = dual.belief[option]
            if excess[option] > 0.0:
                value += ANY_OVERFLOW_COST + OVERFLOW_COST * excess[option] / limit
            if value < least:
                best, least = option, value
        dual.choice[variable] = best
        add_use(flat, rows, variable, best, 1.0, dual.use)
