"""Solve a choice problem with capacity rows: Lagrangian prices on the rows, an inner solver without.

Problems of small tables are solved by elimination, which is exact, at every price vector. For others a
relaxation (`linear.py`, or messages where that is too large) gives a bound, prices to start with, and how
far each option is above the bound at least. Options near the bound make a start, which is polished: parts
of the choice are solved exactly while the rest stays. Once a choice is known, options too far above the bound
are in none that is better; if what is left has tables small enough, elimination closes the gap, or, where a
bound is asked for, a part of it.

For any non-negative prices, the bound of the priced problem minus prices times limit bounds every
feasible choice from below. Choices that overflow make their rows dearer until one fits; the
cheapest that fits is kept and then improved by single changes that keep it fitting.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from tilewright.extract.branching import branch_and_bound, is_shared
from tilewright.extract.certificate import Dropped, Priced
from tilewright.extract.choice import FORBIDDEN, ChoiceProblem, Costs, Indices, priced, restricted
from tilewright.extract.deadline import NO_DEADLINE, Deadline
from tilewright.extract.dominance import find_dominated, without_dominated
from tilewright.extract.elimination import POLISH_ENTRIES, Elimination, groups_of, polish
from tilewright.extract.guide import guiding_relaxation
from tilewright.extract.linear import columns_of, linear_relaxation
from tilewright.extract.local_search import completed, improve_feasible, repair
from tilewright.extract.message_passing import MessagePassing, message_relaxation
from tilewright.extract.solution import Relaxation, Solution

_CLOSING_TABLE = 400_000_000
"""Entries of the largest table when closing a gap."""

_AIMS = (1.0, 0.7, 0.5, 0.35, 0.25, 0.15)
"""Shares of a gap to close: fewer options are left for a part of it."""

_NEAR = 0.02
"""Distance from the bound, relative to it, within which options are among those that improve a start."""

_GUIDED_COLUMNS = 40_000
"""Columns of a relaxation above which the search does with a part of it, see `guide`."""

_PROMISING = 1.02
"""How much dearer than the known one a choice may be to be worth a longer search around it."""

_NO_PRICE = 1e-6
"""Relative to the cost, all of the scratchpad at such prices counts as free."""

_SEARCH_GAP, _BOUND_GAP = 0.05, 0.03
"""At which branch and bound ends, where a choice matters and where a bound does."""

_START_SWEEPS = 20
"""Of message passing among the options that make a start."""

_START_ENTRIES = 4_000_000
"""Largest table when polishing a start, which has few options."""


@dataclass(frozen=True, slots=True)
class SolveOptions:
    """How long to try: price updates, and the relative gap at which to stop."""

    sweeps: int = 60
    """Of message passing, for problems whose linear relaxation is too large."""
    price_steps: int = 24
    repair_every: int = 4
    """Price steps between attempts to make an optimal choice fit that does not; polished ones always are."""
    patience: int = 6
    """Price steps without a better bound or cost after which to stop."""
    polish_patience: int = 3
    """The same where choices are only polished, so that no step raises the bound."""
    gap: float = 1e-6
    exact_work: int = 3_000_000
    """Entries of all tables up to which elimination alone solves a problem, at every price vector."""
    closing_work: int = 600_000_000
    """Entries of all tables, over all price vectors, with which to close the gap to a known choice."""
    closes_parts: bool = False
    """Whether a bound closes a part of the gap where all of it takes more than that, in seconds."""
    branching_gap: float = float("inf")
    """Relative gap above which small problems are given to branch and bound."""
    deadline: Deadline = NO_DEADLINE
    """After which what is known is returned; it is only looked at between steps of the search."""


@dataclass(slots=True)
class _Best:
    """The best feasible choice and bound so far, and the choice that overflows least."""

    prices: Costs
    bound: float = 0.0
    choice: tuple[int, ...] | None = None
    cost: float = float("inf")
    improved_at: int = 0
    """Price step of the last gain of more than a thousandth."""
    overflow: float = float("inf")
    overflowing: tuple[int, ...] = ()
    tried: list[tuple[int, ...]] = field(default_factory=list)

    def keep(self, problem: ChoiceProblem, choice: tuple[int, ...], step: int = 0) -> None:
        """Take a feasible choice if it is the cheapest."""
        cost = problem.cost(choice)
        if cost < min(self.cost, FORBIDDEN):
            if cost < 0.999 * self.cost:
                self.improved_at = step
            self.choice, self.cost = choice, cost

    def raise_bound(self, bound: float, prices: Costs, step: int = 0) -> None:
        """Take a bound if it is the highest."""
        if bound > self.bound:
            if bound > 1.001 * self.bound:
                self.improved_at = step
            self.bound, self.prices = bound, prices.copy()

    def is_closed(self, gap: float) -> bool:
        """Whether nothing is left to gain."""
        return self.choice is not None and self.cost - self.bound <= gap * max(1.0, abs(self.cost))


class _Inner(Protocol):
    """Finds choices of a problem whose rows are in the costs."""

    is_exact: bool

    def choose(self, costs: tuple[Costs, ...]) -> tuple[int, ...]:
        """Return a choice for these costs of options, the best one if exact."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Floor:
    """A problem that bounds, without dominated options, and its relaxation.

    `kept` are the numbers of the options that are left; there is no relaxation where elimination is exact.
    """

    problem: ChoiceProblem
    fewer: ChoiceProblem
    kept: tuple[Indices, ...]
    dropped: tuple[Dropped, ...]
    elimination: Elimination
    relaxation: Relaxation | None


def floor(problem: ChoiceProblem, options: SolveOptions | None = None) -> Floor:
    """Return a problem with its relaxation, to bound it or one of the same options that is never cheaper."""
    options = options or SolveOptions()
    kept, dropped = find_dominated(problem)
    fewer = restricted(problem, kept)
    elimination = Elimination(fewer)
    is_exact = not problem.costs or _is_exact(elimination, options)
    relaxation = None if is_exact else _relaxation(fewer, np.zeros(problem.rows), options)
    return Floor(problem, fewer, kept, dropped, elimination, relaxation)


def solve(
    problem: ChoiceProblem,
    options: SolveOptions | None = None,
    *,
    prices: Costs | None = None,
    last: Solution | None = None,
    below: Floor | None = None,
) -> Solution:
    """Return the best choice found within the limits, with its proven bound.

    `prices` are the row prices to start from, for example those of a similar problem. `last` is the solution
    of a problem that is the same but for options that use less there: the search goes on from it. `below` is
    one of the same options, none of whose choices is dearer; it guides the search of a large problem.

    A problem in which nothing feasible is found gives the least overflowing choice with
    `feasible` false.
    """
    options = options or SolveOptions()
    if last is not None:
        return _solve_again(problem, last, options)
    if not problem.costs:
        return _empty(problem)
    start = np.zeros(problem.rows) if prices is None else prices
    fewer, kept = without_dominated(problem)
    elimination = Elimination(fewer)
    best = _Best(start)
    if _is_exact(elimination, options):
        _search(fewer, _Exact(elimination), best, start, options)
        return _solution(problem, fewer, kept, best, "elimination")
    guided = None if below is None else _guided(fewer, kept, below)
    relaxation, guide = guided or (_relaxation(fewer, start, options),) * 2
    best.raise_bound(relaxation.bound, guide.prices)
    is_late = options.deadline.is_past
    inner = _Polished(fewer, guide.likely if is_late else _near_bound(fewer, guide))
    _search(fewer, inner, best, guide.prices, options)
    method = relaxation.method
    if guide is relaxation:
        method += _close(fewer, relaxation, best, options)
    method += _branch(fewer, best, _SEARCH_GAP, 0.0, options)
    return _solution(problem, fewer, kept, best, method)


def _guided(
    fewer: ChoiceProblem, kept: tuple[Indices, ...], below: Floor
) -> tuple[Relaxation, Relaxation] | None:
    """Return what bounds a large problem, and what guides its search instead of its whole relaxation."""
    relaxation = below.relaxation
    if relaxation is None or columns_of(fewer) <= _GUIDED_COLUMNS:
        return None
    guide = guiding_relaxation(fewer, restricted(below.problem, kept), relaxation)
    return None if guide is None else (relaxation, guide)


def lower_bound(
    below: Floor,
    cutoff: float,
    prices: Costs,
    options: SolveOptions,
    *,
    repeats_differ: bool = False,
) -> Solution:
    """Return a proven bound of a problem of which a choice of cost `cutoff` is known.

    Args:
        below: The problem.
        cutoff: Cost of a choice, inf if none is known.
        prices: Of the rows, to start from.
        options: How long to try.
        repeats_differ: Whether variables stand for the average of several repeats, which need not be equal
            and have nothing in common but what is used in every row. At the prices of the relaxation
            repeats are independent, and equal ones are best; so options that are too far above it go,
            but the prices must stay.

    Returns:
        A solution whose bound counts; its choice, feasible or not, is a by-product.
    """
    problem, fewer, kept, relaxation = below.problem, below.fewer, below.kept, below.relaxation
    if not problem.costs:
        return _empty(problem)
    best = _Best(prices)
    if relaxation is None:
        _search(fewer, _Exact(below.elimination), best, prices, options)
        return _proven(_solution(problem, fewer, kept, best, "elimination"), below)
    best.raise_bound(relaxation.bound, relaxation.prices)
    best.cost = cutoff
    shared_price, closing = 0.0, options
    if repeats_differ and any(is_shared(fewer)):
        shared_price = float(relaxation.prices.sum())
        closing = replace(options, price_steps=1)
    aims = _AIMS if options.closes_parts else _AIMS[:1]
    method = relaxation.method + _close(fewer, relaxation, best, closing, aims)
    branched = _branch(fewer, best, _BOUND_GAP, shared_price, options)
    found = _solution(problem, fewer, kept, best, method + branched)
    return _proven(found, below, "HiGHS" if branched else "")


def _proven(found: Solution, below: Floor, solver: str = "") -> Solution:
    """Return a solution whose bound counts with what it takes to compute that again."""
    dual = None if below.relaxation is None else below.relaxation.dual
    proof = Priced(dropped=below.dropped, dual=dual, prices=found.multipliers, solver=solver)
    return replace(found, proof=proof)


def _empty(problem: ChoiceProblem) -> Solution:
    return Solution((), 0.0, 0.0, "empty", np.zeros(problem.rows), True)


def _is_exact(elimination: Elimination, options: SolveOptions) -> bool:
    return elimination.is_small and elimination.work <= options.exact_work


def _solve_again(problem: ChoiceProblem, last: Solution, options: SolveOptions) -> Solution:
    """Search on from the solution of a problem in which options use less, whose bound still holds."""
    fewer, kept = without_dominated(problem)
    elimination = Elimination(fewer)
    inner = (
        _Exact(elimination)
        if _is_exact(elimination, options)
        else _Polished(fewer, completed(fewer, kept, last.choice))
    )
    best = _Best(last.multipliers, last.bound)
    _search(fewer, inner, best, last.multipliers, replace(options, polish_patience=2))
    return _solution(problem, fewer, kept, best, last.method)


def _relaxation(problem: ChoiceProblem, prices: Costs, options: SolveOptions) -> Relaxation:
    found = linear_relaxation(problem, deadline=options.deadline)
    if found is not None:
        return found
    return message_relaxation(problem, prices, 1 if options.deadline.is_past else options.sweeps)


def _solution(
    problem: ChoiceProblem,
    fewer: ChoiceProblem,
    kept: tuple[Indices, ...],
    best: _Best,
    method: str,
) -> Solution:
    """Return the result of a search among fewer options as one of the whole problem."""
    if problem.rows and best.prices.any():
        method += " + capacity prices"
    if best.choice is None and best.overflowing:
        repaired = repair(fewer, best.overflowing)
        if repaired is not None:
            best.keep(fewer, improve_feasible(fewer, repaired))
    is_feasible = best.choice is not None
    found = best.choice or best.overflowing or tuple(0 for _ in fewer.costs)
    choice = _original(found, kept)
    cost = problem.cost(choice)
    bound = min(best.bound, best.cost)
    tried = tuple(_original(one, kept) for one in dict.fromkeys(best.tried))
    return Solution(choice, cost, bound, method, best.prices, is_feasible, tried)


class _Exact:
    """Elimination."""

    is_exact = True

    def __init__(self, elimination: Elimination) -> None:
        self._elimination = elimination

    def choose(self, costs: tuple[Costs, ...]) -> tuple[int, ...]:
        """Return the best choice."""
        return self._elimination.solve(costs)[0]


class _Polished:
    """A choice, improved by solving parts of it exactly."""

    is_exact = False

    def __init__(self, problem: ChoiceProblem, choice: tuple[int, ...]) -> None:
        self._problem = replace(problem, usages=())
        self._groups = groups_of(problem)
        self._last = choice

    def choose(self, costs: tuple[Costs, ...]) -> tuple[int, ...]:
        """Return a good choice, found from the last one."""
        self._last = polish(self._problem, costs, self._last, groups=self._groups)
        return self._last


def _near_bound(problem: ChoiceProblem, relaxation: Relaxation) -> tuple[int, ...]:
    """Return a good choice at the prices of a relaxation, among options that are near its bound."""
    costs = priced(problem, relaxation.prices)
    problem = replace(problem, usages=(), costs=costs)
    starts = (relaxation.likely, _start(problem, _near(relaxation, 0.0)))
    # Larger parts among fewer options; smaller parts among all of them follow with each price step.
    near = _near(relaxation, _NEAR)
    found = [_polish_near(problem, near, start) for start in starts]
    return min(found, key=problem.cost)


def _polish_near(
    problem: ChoiceProblem, near: tuple[Indices, ...], choice: tuple[int, ...]
) -> tuple[int, ...]:
    """Improve a choice among its own options and those near the bound."""
    kept = tuple(np.union1d(own, [option]) for own, option in zip(near, choice, strict=True))
    return _polish_among(problem, choice, kept, _START_ENTRIES)


def _near(relaxation: Relaxation, near: float) -> tuple[Indices, ...]:
    most = near * abs(relaxation.bound)
    return tuple(
        np.flatnonzero(own <= max(most, float(own.min())) + 1e-9) for own in relaxation.above
    )


def _start(problem: ChoiceProblem, kept: tuple[Indices, ...]) -> tuple[int, ...]:
    """Return a choice among some options, from messages."""
    few = restricted(problem, kept)
    passing = MessagePassing(few)
    for _ in range(_START_SWEEPS):
        passing.sweep(few.costs)
    decoded = (passing.decode(few.costs, backwards=way) for way in (True, False))
    starts = [passing.improve(few.costs, choice) for choice in decoded]
    start = min(starts, key=few.cost)
    return _original(polish(few, few.costs, start, most_entries=_START_ENTRIES), kept)


def _search(
    problem: ChoiceProblem, inner: _Inner, best: _Best, prices: Costs, options: SolveOptions
) -> None:
    """Look for choices that fit, and for prices of a better bound, from some prices on."""
    best.improved_at = 0
    patience = options.patience if inner.is_exact else options.polish_patience
    repair_every = options.repair_every if inner.is_exact else 1
    for step in range(options.price_steps):
        if step and options.deadline.is_past:
            break
        costs = priced(problem, prices)
        choice = inner.choose(costs)
        value = replace(problem, costs=costs).cost(choice) - float(prices.sum()) * problem.limit
        if inner.is_exact:
            best.raise_bound(value, prices, step)
        best.tried.append(choice)
        use = problem.use(choice)
        overflow = float(np.maximum(use - problem.limit, 0).sum())
        if overflow < best.overflow and problem.cost(choice) < FORBIDDEN:
            best.overflow, best.overflowing = overflow, choice
        fitting: tuple[int, ...] | None = choice if overflow <= 0 else None
        if overflow > 0 and step % repair_every == repair_every - 1:
            fitting = repair(problem, choice)
        if fitting is not None:
            best.keep(problem, _improved(problem, fitting, best.cost), step)
        if best.is_closed(options.gap) or step - best.improved_at >= patience:
            break
        if overflow <= 0 and float(prices.sum()) * problem.limit <= _NO_PRICE * abs(value):
            break
        prices = _next_prices(problem, prices, use, value, best, step)


def _improved(problem: ChoiceProblem, choice: tuple[int, ...], known: float) -> tuple[int, ...]:
    """Improve a choice that fits, with more effort if it is not much dearer than the known cost."""
    choice = improve_feasible(problem, choice)
    if not problem.rows or problem.cost(choice) > _PROMISING * known:
        return choice
    return improve_feasible(problem, _polish_within_use(problem, choice))


def _polish_within_use(problem: ChoiceProblem, choice: tuple[int, ...]) -> tuple[int, ...]:
    """Improve a choice among options that use no more of any row than its own, so that it still fits."""
    is_kept = [np.ones(len(own), dtype=bool) for own in problem.costs]
    for usage in problem.usages:
        own = choice[usage.variable]
        is_kept[usage.variable] &= usage.amounts <= usage.amounts[own]
    kept = tuple(np.flatnonzero(own) for own in is_kept)
    return _polish_among(problem, choice, kept)


def _polish_among(
    problem: ChoiceProblem,
    choice: tuple[int, ...],
    kept: tuple[Indices, ...],
    most_entries: int = POLISH_ENTRIES,
) -> tuple[int, ...]:
    """Improve a choice among some options of each variable, its own being one of them."""
    few = restricted(problem, kept)
    numbers = tuple(int(np.searchsorted(k, o)) for k, o in zip(kept, choice, strict=True))
    return _original(polish(few, few.costs, numbers, most_entries=most_entries), kept)


def _close(
    problem: ChoiceProblem,
    relaxation: Relaxation,
    best: _Best,
    options: SolveOptions,
    aims: tuple[float, ...] = (1.0,),
) -> str:
    """Solve what is left of a problem once options far above the bound are out; return what was done.

    Args:
        problem: The problem.
        relaxation: Says how far options are above its bound.
        best: What is known, which may get better.
        options: How long to try.
        aims: Up to which shares of the gap above the relaxation's bound to close it, the best first: the
            first one of which what is left is small is taken.
    """
    if best.is_closed(options.gap) or options.deadline.is_past:
        return ""
    gap = best.cost - relaxation.bound + 1e-9 * max(1.0, abs(best.cost))
    for aim in aims if gap < np.inf else aims[:1]:
        slack = aim * gap
        highest = min(best.cost, relaxation.bound + slack)
        kept = tuple(np.flatnonzero(own <= slack) for own in relaxation.above)
        if not all(map(len, kept)):  # no choice costs less
            best.raise_bound(highest, relaxation.prices)
            return " + fixing"
        few = restricted(problem, kept)
        elimination = Elimination(few, most_entries=_CLOSING_TABLE)
        if elimination.is_small and elimination.work <= options.closing_work:
            break
    else:
        return ""
    steps = min(options.price_steps, 1 + options.closing_work // (1 + 8 * elimination.work))
    rest = _Best(relaxation.prices, relaxation.bound, cost=best.cost)
    _search(few, _Exact(elimination), rest, relaxation.prices, replace(options, price_steps=steps))
    if rest.choice is not None:
        best.keep(problem, _original(rest.choice, kept))
    # Every choice that costs less than the aim is among those that are left.
    best.raise_bound(min(rest.bound, highest), rest.prices)
    return " + elimination"


def _branch(
    problem: ChoiceProblem, best: _Best, gap: float, shared_price: float, options: SolveOptions
) -> str:
    """Improve a wide gap by branch and bound; return what was done."""
    if (1 - options.branching_gap) * best.cost <= best.bound or options.deadline.is_past:
        return ""
    found = branch_and_bound(problem, gap, shared_price)
    if found is None:
        return ""
    if found.choice is not None:
        best.keep(problem, improve_feasible(problem, found.choice))
    best.raise_bound(min(found.bound, best.cost), best.prices)
    return " + branch and bound"


def _original(choice: tuple[int, ...], kept: tuple[Indices, ...]) -> tuple[int, ...]:
    return tuple(int(own[option]) for own, option in zip(kept, choice, strict=True))


def _next_prices(
    problem: ChoiceProblem, prices: Costs, use: Costs, value: float, best: _Best, step: int
) -> Costs:
    """Take a Polyak subgradient step towards the best known cost (or 10 % above the bound without one)."""
    slope = use - problem.limit
    is_known = best.choice is not None
    goal = best.cost if is_known else value + 0.1 * abs(value) * (1 + step) + 1.0
    size = max(goal - value, 1e-3 * abs(goal) + 1.0)
    active = np.where((prices > 0) | (slope > 0), slope, 0.0)
    norm = float(active @ active)
    if norm == 0:
        return prices
    damping = 1.0 / (1 + step / 8) if is_known else 1.0
    return np.asarray(np.maximum(prices + damping * size / norm * active, 0.0))
