"""Solve a choice problem that is a little different from one that was solved before.

Prices of capacity and the choice of the similar problem are where the search starts. Small problems,
which elimination solves exactly, go to the ordinary solver; it is fast enough there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from tilewright.extract.choice import FORBIDDEN, ChoiceProblem, Costs, Indices, priced
from tilewright.extract.dominance import without_dominated
from tilewright.extract.elimination import Elimination, polish
from tilewright.extract.exploration.messages import Messages, among, carried_to, messages_of
from tilewright.extract.local_search import Uses, completed, fits, improve_feasible, repair
from tilewright.extract.message_passing import MessagePassing, Sent
from tilewright.extract.model_tables import ModelTables
from tilewright.extract.option import Option
from tilewright.extract.origins import Variable
from tilewright.extract.solution import Solution
from tilewright.extract.solve import SolveOptions, solve

EXACT_ENTRIES = 100_000
"""Largest table of problems that are solved exactly, whatever is known about a similar one."""

_POLISH_ENTRIES = 400_000
_SWEEPS = 16
_WARM_SWEEPS = 4
"""From messages of a similar problem."""

_BOUND_SWEEPS = 24
_WARM_BOUND_SWEEPS = 8
_BOUND_GAIN = 1e-6
"""Of a sweep, relative: the last one has less."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Known:
    """A solved problem: its choice by variable, and prices of its rows in units of the objective."""

    chosen: Mapping[Variable, Option]
    prices: Mapping[Variable, float]
    relaxed_prices: Mapping[Variable, float]
    sent: Messages = MappingProxyType({})
    """Messages of the problem, at its prices."""
    relaxed_sent: Messages = MappingProxyType({})
    """Messages of the problem that bounds."""


def known(tables: ModelTables, solution: Solution, relaxed: Solution) -> Known:
    """Return what later problems start from.

    Args:
        tables: The tables that were solved.
        solution: The solution of their problem.
        relaxed: The solution of the problem that bounds.
    """
    return Known(
        chosen=chosen(tables, solution),
        prices=_by_variable(tables, solution.multipliers),
        relaxed_prices=_by_variable(tables, relaxed.multipliers),
    )


def chosen(tables: ModelTables, solution: Solution) -> dict[Variable, Option]:
    """Return the option that a solution takes of each variable."""
    return {
        variable: options[number]
        for variable, options, number in zip(
            tables.variables, tables.options, solution.choice, strict=True
        )
    }


def with_messages(known: Known, tables: ModelTables) -> Known:
    """Return what is known with the messages at its prices, in tables of it."""
    prices, relaxed = (row_prices(tables, p) for p in (known.prices, known.relaxed_prices))
    return replace(
        known,
        sent=messages_of(tables, prices, known.sent, is_relaxed=False),
        relaxed_sent=messages_of(tables, relaxed, known.relaxed_sent, is_relaxed=True),
    )


def marginals(
    tables: ModelTables, prices: Costs, start: Messages
) -> dict[Variable, tuple[tuple[Option, float], ...]]:
    """Return what a choice with each option costs at least, in units of the objective, at given prices.

    That is a bound of plans in which all repeats of a block do the same.
    """
    problem = tables.problem
    if not problem.costs:
        return {}
    passing = MessagePassing(problem, carried_to(tables, start, is_relaxed=False))
    costs = priced(problem, prices)
    for _ in range(_WARM_SWEEPS if start else _SWEEPS):
        passing.sweep(costs)
    bound, above = passing.option_bounds(costs)
    bound -= float(prices.sum()) * problem.limit
    return {
        variable: tuple(
            (option, (bound + float(value)) / tables.scale)
            for option, value in zip(options, own, strict=True)
        )
        for variable, options, own in zip(tables.variables, tables.options, above, strict=True)
    }


def _by_variable(tables: ModelTables, prices: Costs) -> dict[Variable, float]:
    """Return prices of rows by the variable that a row belongs to, without the scale of the tables."""
    return {v: float(p) / tables.scale for v, p in zip(tables.variables, prices, strict=True) if p}


def row_prices(tables: ModelTables, prices: Mapping[Variable, float]) -> Costs:
    """Return prices in the rows and the scale of other tables."""
    return np.array([prices.get(v, 0.0) * tables.scale for v in tables.variables])


def carried(tables: ModelTables, chosen: Mapping[Variable, Option]) -> tuple[int, ...]:
    """Return the choice in other tables that is like a known one, -1 where there is nothing alike."""
    return tuple(
        _like(options, chosen.get(variable))
        for variable, options in zip(tables.variables, tables.options, strict=True)
    )


def _like(options: Sequence[Option], wanted: Option | None) -> int:
    """Return the option that computes the same in the same place, the same object if it is there."""
    if wanted is None:
        return -1
    for number, option in enumerate(options):
        if option is wanted:
            return number
    key = _place(wanted)
    alike = [n for n, option in enumerate(options) if _place(option) == key]
    return min(alike, key=lambda n: (abs(options[n].units - wanted.units), n), default=-1)


def _place(option: Option) -> tuple[object, ...]:
    split = option.implementation.split_dims if option.implementation else None
    number = option.node.number if option.node else None
    return number, split, option.operands, option.resident, option.result


def resolve(
    problem: ChoiceProblem,
    start: Sequence[int],
    prices: Costs,
    sent: Sequence[Sent | None] = (),
) -> Solution:
    """Return the best choice found near a start, at given prices of capacity; its bound is not tight.

    Args:
        problem: The choice problem.
        start: A choice of a similar problem; -1 where nothing is known.
        prices: Prices of the rows of a similar problem.
        sent: Messages of each edge of a similar problem, where they are known.
    """
    if not problem.costs:
        return solve(problem)
    if Elimination(problem, most_entries=EXACT_ENTRIES).is_small:
        return solve(problem, prices=prices)
    fewer, kept = without_dominated(problem)
    if Elimination(fewer, most_entries=EXACT_ENTRIES).is_small:
        return solve(problem, prices=prices)
    first = completed(fewer, kept, start)
    costs = priced(fewer, prices)
    passing = MessagePassing(fewer, among(problem, sent, kept))
    sweeps = _WARM_SWEEPS if any(sent) else _SWEEPS
    bound = max(passing.sweep(costs) for _ in range(sweeps))
    passed = passing.improve(costs, passing.decode(costs, backwards=True))
    candidates = [first, passing.improve(costs, first), passed]
    candidates += [polish(fewer, costs, c, 2, _POLISH_ENTRIES) for c in candidates[1:]]
    best = _best_fitting(fewer, candidates)
    choice = candidates[-1] if best is None else best
    numbers = tuple(int(own[option]) for own, option in zip(kept, choice, strict=True))
    return Solution(
        numbers,
        problem.cost(numbers),
        bound - float(prices.sum()) * problem.limit,
        "message passing from a known solution",
        prices,
        best is not None,
    )


def _best_fitting(
    problem: ChoiceProblem, candidates: Sequence[tuple[int, ...]]
) -> tuple[int, ...] | None:
    """Return the cheapest choice within the limits that is a candidate, or a candidate made to fit."""
    best, least, uses = None, FORBIDDEN, Uses()
    for candidate in dict.fromkeys(candidates):
        fitting = candidate if fits(problem, candidate) else repair(problem, candidate, uses)
        if fitting is None:
            continue
        improved = improve_feasible(problem, fitting, uses=uses)
        cost = problem.cost(improved)
        if cost < least:
            best, least = improved, cost
    return best


def warm_bound(
    relaxed: ChoiceProblem, prices: Costs, sent: Sequence[Sent | None] = (), least: float = 0.0
) -> Solution:
    """Return a lower bound of a problem from prices that are good for a similar one.

    Args:
        relaxed: The problem that bounds.
        prices: Prices of its rows, of a similar problem.
        sent: Messages of each edge of a similar problem, where they are known.
        least: A bound that is known: the search ends once it will hardly be beaten.
    """
    if not relaxed.costs:
        return solve(relaxed)
    if Elimination(relaxed, most_entries=EXACT_ENTRIES).is_small:
        return solve(relaxed, SolveOptions(price_steps=4), prices=prices)
    passing, costs = MessagePassing(relaxed, sent), priced(relaxed, prices)
    offset = float(prices.sum()) * relaxed.limit
    bound = -np.inf
    sweeps = _WARM_BOUND_SWEEPS if any(sent) else _BOUND_SWEEPS
    for left in reversed(range(sweeps)):
        last, bound = bound, max(bound, passing.sweep(costs) - offset)
        # each sweep gains less than the one before it
        if bound - last <= _BOUND_GAIN * abs(bound) or bound + left * (bound - last) < least:
            break
    return Solution((), 0.0, bound, "message passing + known prices", prices, False)


def with_fixed(problem: ChoiceProblem, variable: int, allowed: Indices) -> ChoiceProblem:
    """Return the problem in which a variable may take some of its options only."""
    costs = np.full(len(problem.costs[variable]), FORBIDDEN)
    costs[allowed] = problem.costs[variable][allowed]
    own = (*problem.costs[:variable], costs, *problem.costs[variable + 1 :])
    return replace(problem, costs=own)
