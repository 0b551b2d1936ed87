"""Local search: random trees of variables are chosen anew, best given all others, within the rows."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tilewright.extract.choice import Costs, Indices
from tilewright.extract.large.compile import compiled
from tilewright.extract.large.flat import Flat
from tilewright.extract.large.rows import Rows
from tilewright.extract.large.rows_core import (
    ANY_OVERFLOW_COST,
    OVERFLOW_COST,
    add_use,
    excess_of,
    overflow_of,
)

MERIT, BEST, OVERFLOW = 0, 1, 2
"""Entries of `values`: the merit of the current and of the best choice, the current overflow."""

TREE = 64
"""Most variables of a tree."""
_FRONTIER = 4096


class Search(NamedTuple):
    """A current and a best choice, and what tree moves work on."""

    choice: Indices
    best: Indices
    use: Costs
    values: Costs
    random: Indices
    """State of the random numbers."""
    mark: Indices
    place: Indices
    """A variable's place in the tree."""
    tree: Indices
    parent_half: Indices
    """The half towards the parent, or -1."""
    old: Indices
    frontier: Indices
    local: Costs
    """[place in the tree, option]"""
    port: Costs
    excess: Costs


def new_search(flat: Flat, rows: Rows, choice: Indices, seed: int) -> Search:
    """Return a search at a choice; `values` are not known yet."""
    variables, most = len(choice), int(np.diff(flat.first).max(initial=1))
    numbers = [np.zeros(size, dtype=np.int64) for size in (variables, variables, TREE, TREE, TREE)]
    return Search(
        choice=choice.copy(),
        best=choice.copy(),
        use=np.zeros(len(rows.room)),
        values=np.full(3, np.inf),
        random=np.array([seed, 0], dtype=np.int64),
        mark=numbers[0],
        place=numbers[1],
        tree=numbers[2],
        parent_half=numbers[3],
        old=numbers[4],
        frontier=np.zeros(_FRONTIER, dtype=np.int64),
        local=np.zeros(TREE * most),
        port=np.zeros(max(most, int(flat.width.max(initial=1)))),
        excess=np.zeros(most),
    )


@compiled
def _below(state: Indices, most: int) -> int:
    """Return a random number from 0 to most - 1 (a linear congruential generator, high bits)."""
    state[0] = (state[0] * 25214903917 + 11) & 281474976710655
    return int(((state[0] >> 17) * most) >> 31)


@compiled
def _grow(flat: Flat, rows: Rows, search: Search, size: int, roots: int) -> int:
    """Pick a random forest in which no two variables but parent and child are neighbours."""
    variables = len(search.choice)
    search.random[1] += 1
    token = search.random[1]
    count, waiting = 0, 0
    rank = _below(search.random, variables)
    for root in range(roots):
        if root > 0:
            rank = (rank + _below(search.random, 65) - 32) % variables
        start = rows.by_time[rank]
        goal = size * (root + 1) // roots
        waiting = 0
        if not _joins(flat, search, start, token, 0):
            continue
        count = _plant(flat, search, start, -1, count, token)
        for half in range(flat.half_first[start], flat.half_first[start + 1]):
            if waiting < _FRONTIER:
                search.frontier[waiting] = half
                waiting += 1
        while waiting > 0 and count < goal:
            pick = _below(search.random, waiting)
            half = search.frontier[pick]
            waiting -= 1
            search.frontier[pick] = search.frontier[waiting]
            new = flat.other[half]
            if not _joins(flat, search, new, token, 1):
                continue
            count = _plant(flat, search, new, flat.mate[half], count, token)
            for next_half in range(flat.half_first[new], flat.half_first[new + 1]):
                if waiting < _FRONTIER:
                    search.frontier[waiting] = next_half
                    waiting += 1
    return count


@compiled
def _joins(flat: Flat, search: Search, variable: int, token: int, links: int) -> bool:
    """Whether a variable has options, is not in the forest and has that many neighbours in it."""
    if search.mark[variable] == token or flat.first[variable + 1] - flat.first[variable] < 2:
        return False
    found = 0
    for half in range(flat.half_first[variable], flat.half_first[variable + 1]):
        found += search.mark[flat.other[half]] == token
        if found > links:
            return False
    return found == links


@compiled
def _plant(
    flat: Flat, search: Search, variable: int, parent_half: int, count: int, token: int
) -> int:
    search.mark[variable] = token
    search.place[variable] = count
    search.tree[count] = variable
    search.parent_half[count] = parent_half
    search.old[count] = search.choice[variable]
    return count + 1


@compiled
def _cost_here(flat: Flat, costs: Costs, search: Search, count: int, token: int) -> float:
    """Return the cost of the forest's options and of the edges that it touches."""
    total = 0.0
    for number in range(count):
        variable = search.tree[number]
        option = search.choice[variable]
        total += costs[flat.first[variable] + option]
        for half in range(flat.half_first[variable], flat.half_first[variable + 1]):
            other = flat.other[half]
            if search.mark[other] == token and search.place[other] > number:
                continue
            mate = flat.mate[half]
            row = flat.ports[flat.ports_at[mate] + search.choice[other]]
            column = flat.ports[flat.ports_at[half] + option]
            total += flat.matrix[flat.matrix_at[mate] + row * flat.width[half] + column]
    return total


@compiled
def _gather(
    flat: Flat,
    rows: Rows,
    costs: Costs,
    tax: Costs,
    factor: float,
    limit: float,
    search: Search,
    number: int,
    token: int,
) -> int:
    """Write to `local` what a variable's options cost with fixed neighbours; return the work done."""
    variable = search.tree[number]
    start = flat.first[variable]
    options = flat.first[variable + 1] - start
    stride = len(search.excess)
    local = search.local[number * stride : number * stride + options]
    work = excess_of(flat, rows, variable, search.use, search.excess)
    for option in range(options):
        local[option] = costs[start + option] + factor * tax[start + option]
        if search.excess[option] > 0.0:
            local[option] += ANY_OVERFLOW_COST + OVERFLOW_COST * search.excess[option] / limit
    for half in range(flat.half_first[variable], flat.half_first[variable + 1]):
        other = flat.other[half]
        if search.mark[other] == token:
            continue
        mate = flat.mate[half]
        row = flat.ports[flat.ports_at[mate] + search.choice[other]]
        at = flat.matrix_at[mate] + row * flat.width[half]
        ports_at = flat.ports_at[half]
        for option in range(options):
            local[option] += flat.matrix[at + flat.ports[ports_at + option]]
        work += options
    return work


@compiled
def _report(flat: Flat, search: Search, number: int) -> int:
    """Add to the parent's `local` the best that a variable can do for each of its options."""
    half = search.parent_half[number]
    variable = search.tree[number]
    parent = flat.other[half]
    mate = flat.mate[half]
    options = flat.first[variable + 1] - flat.first[variable]
    width = flat.width[mate]
    stride = len(search.excess)
    local = search.local[number * stride : number * stride + options]
    best = search.port[:width]
    for port in range(width):
        best[port] = np.inf
    for option in range(options):
        at = flat.matrix_at[half] + flat.ports[flat.ports_at[half] + option] * width
        row = flat.matrix[at : at + width]
        offset = local[option]
        for port in range(width):
            value = row[port] + offset
            best[port] = value if value < best[port] else best[port]
    above = search.place[parent] * stride
    for option in range(flat.first[parent + 1] - flat.first[parent]):
        search.local[above + option] += best[flat.ports[flat.ports_at[mate] + option]]
    return int(options * width)


@compiled
def _choose(flat: Flat, rows: Rows, limit: float, search: Search, number: int) -> int:
    """Choose a variable given its parent's choice and the rows as they are; return the work done."""
    variable = search.tree[number]
    options = flat.first[variable + 1] - flat.first[variable]
    work = excess_of(flat, rows, variable, search.use, search.excess)
    at = number * len(search.excess)
    half = search.parent_half[number]
    column, ports_at, base = 0, 0, 0
    if half >= 0:
        mate = flat.mate[half]
        row = flat.ports[flat.ports_at[mate] + search.choice[flat.other[half]]]
        base = flat.matrix_at[mate] + row * flat.width[half]
        ports_at = flat.ports_at[half]
    best, least = 0, np.inf
    for option in range(options):
        value = search.local[at + option]
        if half >= 0:
            column = flat.ports[ports_at + option]
            value += flat.matrix[base + column]
        if search.excess[option] > 0.0:
            value += ANY_OVERFLOW_COST + OVERFLOW_COST * search.excess[option] / limit
        if value < least:
            best, least = option, value
    search.choice[variable] = best
    add_use(flat, rows, variable, best, 1.0, search.use)
    return int(work + options)


@compiled
def tree_moves(
    flat: Flat,
    rows: Rows,
    costs: Costs,
    tax: Costs,
    limit: float,
    search: Search,
    hottest: float,
    coldest: float,
    budget: int,
) -> int:
    """Make tree moves until the work budget is spent, cooling down; return the number of moves.

    A move that makes the choice worse by d is kept with probability exp(-d / temperature).
    """
    spent, moves = 0, 0
    values = search.values
    while spent < budget:
        moves += 1
        heat = hottest * (coldest / hottest) ** (spent / budget) if hottest > 0.0 else 0.0
        size = 1 + _below(search.random, TREE if _below(search.random, 2) else 8)
        roots = 1 + _below(search.random, 1 + min(3, size // 2))
        count = _grow(flat, rows, search, size, roots)
        token = search.random[1]
        spent += 50 + 10 * count
        if count == 0:
            continue
        before = _cost_here(flat, costs, search, count, token)
        factor = _below(search.random, 1024) / 700.0
        for number in range(count):
            variable = search.tree[number]
            add_use(flat, rows, variable, search.choice[variable], -1.0, search.use)
        for number in range(count):
            spent += _gather(flat, rows, costs, tax, factor, limit, search, number, token)
        for number in range(count - 1, -1, -1):
            if search.parent_half[number] >= 0:
                spent += _report(flat, search, number)
        for number in range(count):
            spent += _choose(flat, rows, limit, search, number)
        after = _cost_here(flat, costs, search, count, token)
        overflow = overflow_of(rows, search.use)
        spent += len(search.use) // 4
        gain = values[OVERFLOW] - overflow
        change = after - before - OVERFLOW_COST * gain / limit
        change += ANY_OVERFLOW_COST * ((overflow > 0.0) - (values[OVERFLOW] > 0.0))
        chance = (1 + _below(search.random, 1048576)) / 1048576.0
        if change <= 0.0 or (heat > 0.0 and change < -heat * np.log(chance)):
            values[MERIT] += change
            values[OVERFLOW] = overflow
            if values[MERIT] < values[BEST] - 1e-9:
                values[BEST] = values[MERIT]
                for variable in range(len(search.choice)):
                    search.best[variable] = search.choice[variable]
        else:
            for number in range(count):
                variable = search.tree[number]
                add_use(flat, rows, variable, search.choice[variable], -1.0, search.use)
                add_use(flat, rows, variable, search.old[number], 1.0, search.use)
                search.choice[variable] = search.old[number]
    return moves


@compiled
def evaluate(flat: Flat, rows: Rows, costs: Costs, limit: float, search: Search) -> float:
    """Compute the current choice's use, overflow and merit anew; return the merit."""
    search.use[:] = 0.0
    total = 0.0
    for variable in range(len(search.choice)):
        option = search.choice[variable]
        add_use(flat, rows, variable, option, 1.0, search.use)
        total += costs[flat.first[variable] + option]
        for half in range(flat.half_first[variable], flat.half_first[variable + 1]):
            other = flat.other[half]
            if other > variable:
                width = flat.width[flat.mate[half]]
                row = flat.ports[flat.ports_at[half] + option]
                mate = flat.mate[half]
                column = flat.ports[flat.ports_at[mate] + search.choice[other]]
                total += flat.matrix[flat.matrix_at[half] + row * width + column]
    overflow = overflow_of(rows, search.use)
    search.values[OVERFLOW] = overflow
    search.values[MERIT] = (
        total + OVERFLOW_COST * overflow / limit + ANY_OVERFLOW_COST * (overflow > 0.0)
    )
    return float(search.values[MERIT])
