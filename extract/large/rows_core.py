"""Uses of capacity rows, compiled."""

from __future__ import annotations

import numpy as np

from tilewright.extract.choice import Costs, Indices
from tilewright.extract.large.compile import compiled
from tilewright.extract.large.flat import Flat
from tilewright.extract.large.rows import Rows

ANY_OVERFLOW_COST, OVERFLOW_COST = 1e10, 1e11
"""What searching charges for overflow at all, and for each limit's worth of it: more than any choice."""


@compiled
def add_use(flat: Flat, rows: Rows, variable: int, option: int, sign: float, use: Costs) -> None:
    """Add (sign 1) or take away (-1) what a variable's option uses."""
    for segment in range(rows.first[variable], rows.first[variable + 1]):
        amount = sign * rows.amounts[rows.amounts_at[segment] + option]
        if amount != 0.0:
            for row in range(rows.low[segment], rows.high[segment]):
                use[row] += amount


@compiled
def use_of(flat: Flat, rows: Rows, choice: Indices, use: Costs) -> None:
    """Write the use of each row under a choice."""
    use[:] = 0.0
    for variable in range(len(choice)):
        add_use(flat, rows, variable, choice[variable], 1.0, use)


@compiled
def taxes(flat: Flat, rows: Rows, prices: Costs, upto: Costs, tax: Costs) -> None:
    """Write what each option pays for the rows that it uses; `upto` is scratch, one more than rows."""
    upto[0] = 0.0
    for row in range(len(prices)):
        upto[row + 1] = upto[row] + prices[row]
    for variable in range(len(flat.first) - 1):
        start = flat.first[variable]
        options = flat.first[variable + 1] - start
        for option in range(options):
            tax[start + option] = 0.0
        for segment in range(rows.first[variable], rows.first[variable + 1]):
            price = upto[rows.high[segment]] - upto[rows.low[segment]]
            if price > 0.0:
                at = rows.amounts_at[segment]
                for option in range(options):
                    tax[start + option] += price * rows.amounts[at + option]


@compiled
def excess_of(flat: Flat, rows: Rows, variable: int, use: Costs, excess: Costs) -> int:
    """Write by how much each option would overflow the worst row of each segment, summed.

    `use` is without the variable. Returns the work done.
    """
    options = flat.first[variable + 1] - flat.first[variable]
    for option in range(options):
        excess[option] = 0.0
    work = 0
    for segment in range(rows.first[variable], rows.first[variable + 1]):
        room = np.inf
        for row in range(rows.low[segment], rows.high[segment]):
            left = rows.room[row] - use[row]
            room = left if left < room else room
        at = rows.amounts_at[segment]
        for option in range(options):
            over = rows.amounts[at + option] - room
            excess[option] += over if over > 0.0 else 0.0
        work += rows.high[segment] - rows.low[segment] + options
    return work


@compiled
def overflow_of(rows: Rows, use: Costs) -> float:
    """Return by how much rows overflow, summed."""
    total = 0.0
    for row in range(len(use)):
        over = use[row] - rows.room[row]
        total += over if over > 0.0 else 0.0
    return total
