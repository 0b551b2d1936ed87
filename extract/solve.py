"""Solve a choice problem with capacity rows: Lagrangian prices on the rows, an inner solver without.

The inner solver eliminates variables where tables stay small, which is exact, and passes messages
elsewhere.

For any non-negative prices, the bound of the priced problem minus prices times limit bounds every
feasible choice from below. Choices that overflow make their rows dearer until one fits; the
cheapest that fits is
kept and then improved by single changes that keep it fitting.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from tilewright.extract.choice import FORBIDDEN, ChoiceProblem, Costs, Indices, Solution, Usage
from tilewright.extract.dominance import without_dominated
from tilewright.extract.elimination import Elimination, polish
from tilewright.extract.fixing import solve_by_fixing
from tilewright.extract.message_passing import MessagePassing

_ROUNDS = 3
"""Rounds in which to close the gap."""

_FIRST_ENTRIES, _WARM_ENTRIES = 24_000_000, 1_000_000
"""Largest table with which to close the gap at the first prices, once, and at later ones."""


@dataclass(frozen=True, slots=True)
class SolveOptions:
    """How long to try: sweeps for each price vector, price updates, relative gap at which to stop."""

    sweeps: int = 60
    """For the first prices."""
    warm_sweeps: int = 8
    """For later prices, whose messages start from the last ones."""
    price_steps: int = 24
    repair_every: int = 6
    """Price steps between attempts to make a choice fit that does not."""
    fix_every: int = 3
    """Price steps between attempts to close the gap by leaving out options."""
    patience: int = 8
    """Price steps without a better bound or cost after which to stop."""
    gap: float = 1e-6


@dataclass(slots=True)
class _Best:
    """The best feasible choice and bound so far."""

    choice: tuple[int, ...] | None = None
    cost: float = float("inf")
    bound: float = 0.0
    prices: Costs | None = None
    improved_at: int = 0
    """Price step of the last gain of more than a thousandth."""


def solve(
    problem: ChoiceProblem, options: SolveOptions | None = None, prices: Costs | None = None
) -> Solution:
    """Return the best choice found within the limits, with its proven bound.

    `prices` are the row prices to start from, for example those of a similar problem.

    A problem in which nothing feasible is found gives the least overflowing choice with
    `feasible` false.
    """
    options = options or SolveOptions()
    if not problem.costs:
        return Solution((), 0.0, 0.0, "empty", np.zeros(problem.rows), True)
    fewer, kept = without_dominated(problem)
    found = _solve(fewer, options, prices)
    choice = tuple(int(left[option]) for left, option in zip(kept, found.choice, strict=True))
    return replace(found, choice=choice)


def _solve(problem: ChoiceProblem, options: SolveOptions, prices: Costs | None) -> Solution:
    """Solve a problem that has variables."""
    elimination = Elimination(problem)
    passing = None if elimination.is_small else MessagePassing(problem)
    prices = np.zeros(problem.rows) if prices is None else prices
    best = _Best(prices=prices)
    least_overflow: tuple[float, tuple[int, ...]] | None = None
    for step in range(options.price_steps):
        costs = priced(problem, prices)
        if passing is None:
            choice, least = elimination.solve(costs)
            bound = least - float(prices.sum()) * problem.limit
        else:
            choice, bound = _relaxed(problem, passing, costs, prices, options, warm=step > 0)
            if step == 0:
                choice = polish(problem, costs, choice)
            if step % options.fix_every == 0:
                most = _WARM_ENTRIES if step else _FIRST_ENTRIES
                choice, proved = solve_by_fixing(
                    problem, passing, costs, choice, most_entries=most, rounds=_ROUNDS
                )
                if proved is not None:
                    bound = max(bound, proved - float(prices.sum()) * problem.limit)
        if bound > best.bound:
            if bound > 1.001 * best.bound:
                best.improved_at = step
            best.bound, best.prices = bound, prices.copy()
        use = problem.use(choice)
        overflow = float(np.maximum(use - problem.limit, 0).sum())
        if least_overflow is None or overflow < least_overflow[0]:
            least_overflow = (overflow, choice)
        fitting: tuple[int, ...] | None = choice if overflow <= 0 else None
        if overflow > 0 and step % options.repair_every == options.repair_every - 1:
            fitting = repair(problem, choice)
        if fitting is not None:
            before = best.cost
            _keep(problem, best, improve_feasible(problem, fitting))
            if best.cost < 0.999 * before:
                best.improved_at = step
        if _closed(best, options.gap):
            break
        if overflow <= 0 and not prices.any():
            break
        if step - best.improved_at >= options.patience:
            break
        prices = _next_prices(problem, prices, use, bound, best, step)
    method = "elimination" if passing is None else "message passing"
    if problem.rows and best.prices is not None and best.prices.any():
        method += " + capacity prices"
    if best.choice is None:
        assert least_overflow is not None
        repaired = repair(problem, least_overflow[1])
        if repaired is not None:
            _keep(problem, best, improve_feasible(problem, repaired))
    if best.choice is None:
        assert least_overflow is not None
        choice = least_overflow[1]
        return Solution(choice, problem.cost(choice), best.bound, method, prices, False)
    assert best.prices is not None
    return Solution(best.choice, best.cost, min(best.bound, best.cost), method, best.prices, True)


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


def fits(problem: ChoiceProblem, choice: tuple[int, ...]) -> bool:
    """Whether no row is overused."""
    return bool((problem.use(choice) <= problem.limit).all())


def improve_feasible(
    problem: ChoiceProblem, choice: tuple[int, ...], rounds: int = 8
) -> tuple[int, ...]:
    """Improve single variables while every row stays within the limit."""
    search = _LocalSearch(problem, choice)
    for _ in range(rounds):
        if not search.descend():
            break
    return tuple(search.choice)


def repair(problem: ChoiceProblem, choice: tuple[int, ...]) -> tuple[int, ...] | None:
    """Make a choice fit by the cheapest single changes for each byte saved; None if that gets stuck."""
    search = _LocalSearch(problem, choice)
    while search.overflow() > 0:
        if not search.relieve():
            return None
    return tuple(search.choice)


def _relaxed(
    problem: ChoiceProblem,
    passing: MessagePassing,
    costs: tuple[Costs, ...],
    prices: Costs,
    options: SolveOptions,
    *,
    warm: bool,
) -> tuple[tuple[int, ...], float]:
    """Return the best choice for priced costs and the bound on the real problem."""
    offset = float(prices.sum()) * problem.limit
    bound, choice, cost = 0.0, None, float("inf")
    last = -float("inf")
    sweeps = options.warm_sweeps if warm else options.sweeps
    for sweep in range(sweeps):
        dual = passing.sweep(costs)
        bound = max(bound, dual - offset)
        if sweep % 16 == 7 or sweep == sweeps - 1:
            for backwards in (True, False):
                candidate = passing.improve(costs, passing.decode(costs, backwards=backwards))
                value = _cost_with(problem, costs, candidate)
                if value < cost:
                    choice, cost = candidate, value
        is_settled = abs(dual - last) <= 1e-9 * max(1.0, abs(dual))
        if choice is not None and (is_settled or cost - dual <= options.gap * max(1.0, abs(cost))):
            break
        last = dual
    assert choice is not None
    return choice, bound


def _cost_with(problem: ChoiceProblem, costs: tuple[Costs, ...], choice: tuple[int, ...]) -> float:
    return ChoiceProblem(costs, problem.edges, (), 0, 0.0).cost(choice)


def _keep(problem: ChoiceProblem, best: _Best, choice: tuple[int, ...]) -> None:
    cost = problem.cost(choice)
    if cost < min(best.cost, FORBIDDEN):
        best.choice, best.cost = choice, cost


def _closed(best: _Best, gap: float) -> bool:
    return best.choice is not None and best.cost - best.bound <= gap * max(1.0, abs(best.cost))


def _next_prices(
    problem: ChoiceProblem, prices: Costs, use: Costs, bound: float, best: _Best, step: int
) -> Costs:
    """Take a Polyak subgradient step towards the best known cost (or 10 % above the bound without one)."""
    slope = use - problem.limit
    goal = best.cost if best.choice is not None else bound + 0.1 * abs(bound) * (1 + step) + 1.0
    size = max(goal - bound, 1e-3 * abs(goal) + 1.0)
    active = np.where((prices > 0) | (slope > 0), slope, 0.0)
    norm = float(active @ active)
    if norm == 0:
        return prices
    damping = 1.0 if best.choice is None else 1.0 / (1 + step / 8)
    return np.asarray(np.maximum(prices + damping * size / norm * active, 0.0))


class _LocalSearch:
    """A choice with its row use, changed one variable at a time."""

    def __init__(self, problem: ChoiceProblem, choice: tuple[int, ...]) -> None:
        self.problem = problem
        self.choice = list(choice)
        self.use = problem.use(choice)
        self.neighbours: list[list[int]] = [[] for _ in problem.costs]
        for number, edge in enumerate(problem.edges):
            self.neighbours[edge.left].append(number)
            self.neighbours[edge.right].append(number)
        self.usages: list[list[int]] = [[] for _ in problem.costs]
        for number, usage in enumerate(problem.usages):
            self.usages[usage.variable].append(number)
        self._unique: dict[int, tuple[Costs, Indices]] = {}

    def overflow(self) -> float:
        """Return by how much rows are overused, summed."""
        return float(np.maximum(self.use - self.problem.limit, 0).sum())

    def option_costs(self, variable: int) -> Costs:
        """Return the cost of each option given the other variables' choice."""
        total = self.problem.costs[variable].copy()
        for number in self.neighbours[variable]:
            edge = self.problem.edges[number]
            if edge.left == variable:
                total += edge.matrix[edge.left_ports, edge.right_ports[self.choice[edge.right]]]
            else:
                total += edge.matrix[edge.left_ports[self.choice[edge.left]], edge.right_ports]
        return total

    def overflow_by_option(self, variable: int) -> Costs:
        """Return the total overuse if the variable took each of its options."""
        options = len(self.problem.costs[variable])
        usages = [self.problem.usages[number] for number in self.usages[variable]]
        if not usages:
            return np.full(options, self.overflow())
        low, high = min(u.low for u in usages), max(u.high for u in usages)
        rest = self.use[low:high].copy()
        current = self.choice[variable]
        for usage in usages:
            rest[usage.low - low : usage.high - low] -= usage.amounts[current]
        outside = self.overflow() - float(
            np.maximum(self.use[low:high] - self.problem.limit, 0).sum()
        )
        unique, inverse = self._signatures(variable, usages)
        totals = np.empty(len(unique))
        for number, amounts in enumerate(unique):
            row = rest.copy()
            for usage, amount in zip(usages, amounts, strict=True):
                row[usage.low - low : usage.high - low] += amount
            totals[number] = np.maximum(row - self.problem.limit, 0).sum()
        return np.asarray(totals[inverse] + outside)

    def _signatures(self, variable: int, usages: list[Usage]) -> tuple[Costs, Indices]:
        """Return the distinct uses of a variable's options, and the one of each option."""
        if variable not in self._unique:
            amounts = np.stack([usage.amounts for usage in usages], axis=1)
            unique, inverse = np.unique(amounts, axis=0, return_inverse=True)
            self._unique[variable] = unique, inverse.reshape(-1)
        return self._unique[variable]

    def set(self, variable: int, option: int) -> None:
        """Change one variable."""
        for number in self.usages[variable]:
            usage = self.problem.usages[number]
            self.use[usage.low : usage.high] += (
                usage.amounts[option] - usage.amounts[self.choice[variable]]
            )
        self.choice[variable] = option

    def descend(self) -> bool:
        """Give each variable its cheapest option that overuses nothing; return whether something changed."""
        changed = False
        for variable in range(len(self.choice)):
            costs = self.option_costs(variable)
            current = self.choice[variable]
            if costs.min() >= costs[current] - 1e-9:
                continue
            allowed = self.overflow_by_option(variable) <= 0
            costs = np.where(allowed, costs, np.inf)
            best = int(costs.argmin())
            if costs[best] < costs[current] - 1e-9:
                self.set(variable, best)
                changed = True
        return changed

    def relieve(self) -> bool:
        """Change variables, the cheapest byte saved first, until it fits; return whether any changed."""
        before = self.overflow()
        ranked: list[tuple[float, int, int]] = []
        for variable in self._overusing():
            saved = before - self.overflow_by_option(variable)
            if not (saved > 0).any():
                continue
            costs = self.option_costs(variable)
            extra = np.maximum(costs - costs[self.choice[variable]], 0.0)
            with np.errstate(divide="ignore", invalid="ignore"):
                rate = np.where(saved > 0, (extra + 1e-6) / saved, np.inf)
            option = int(rate.argmin())
            ranked.append((float(rate[option]), variable, option))
        changed = False
        for rate_of_change, variable, option in sorted(ranked):
            if self.overflow() <= 0:
                break
            costs = self.option_costs(variable)
            saved_now = self.overflow() - float(self.overflow_by_option(variable)[option])
            extra_now = max(float(costs[option] - costs[self.choice[variable]]), 0.0)
            # An earlier change may have made this one useless or dear; the next round ranks anew.
            if saved_now > 0 and (extra_now + 1e-6) / saved_now <= 4 * rate_of_change + 1e-12:
                self.set(variable, option)
                changed = True
        return changed

    def _overusing(self) -> list[int]:
        """Return the variables that use a row which is overused."""
        full = np.concatenate(([0], np.cumsum(self.use > self.problem.limit)))
        return sorted({u.variable for u in self.problem.usages if full[u.high] > full[u.low]})
