"""Make a choice fit its capacity rows and improve it, one variable at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tilewright.extract.choice import ChoiceProblem, Costs, Indices, Usage
from tilewright.extract.local_search_core import overflows


def fits(problem: ChoiceProblem, choice: tuple[int, ...]) -> bool:
    """Whether no row is overused."""
    return bool((problem.use(choice) <= problem.limit).all())


Uses = dict[int, tuple[Costs, Indices]]
"""By variable, the distinct uses of its options, [uses, usages], and the one of each option."""


def improve_feasible(
    problem: ChoiceProblem, choice: tuple[int, ...], rounds: int = 8, uses: Uses | None = None
) -> tuple[int, ...]:
    """Improve single variables while every row stays within the limit.

    Args:
        problem: The problem.
        choice: One that fits.
        rounds: Over all variables.
        uses: What other searches in the same problem found, to go on with.
    """
    search = _LocalSearch(problem, choice, uses)
    for _ in range(rounds):
        if not search.descend():
            break
    return tuple(search.choice)


def repair(
    problem: ChoiceProblem, choice: tuple[int, ...], uses: Uses | None = None
) -> tuple[int, ...] | None:
    """Make a choice fit by the cheapest single changes for each byte saved; None if that gets stuck.

    `uses` are what other searches in the same problem found, to go on with.
    """
    search = _LocalSearch(problem, choice, uses)
    while search.overflow() > 0:
        if not search.relieve():
            return None
    return tuple(search.choice)


def completed(
    problem: ChoiceProblem, kept: tuple[Indices, ...], start: Sequence[int]
) -> tuple[int, ...]:
    """Return a choice as one of the options that are left; where its own is not, the best given neighbours.

    Args:
        problem: The problem of the options that are left.
        kept: Their numbers in the whole problem, by variable.
        start: A choice of the whole problem; -1 where nothing is known.
    """
    choice = [
        int(np.searchsorted(own, s)) if s in own else -1 for own, s in zip(kept, start, strict=True)
    ]
    for variable in [v for v, option in enumerate(choice) if option < 0]:
        total = problem.costs[variable].copy()
        for edge in problem.edges:
            if edge.left == variable and choice[edge.right] >= 0:
                total += edge.matrix[edge.left_ports, edge.right_ports[choice[edge.right]]]
            elif edge.right == variable and choice[edge.left] >= 0:
                total += edge.matrix[edge.left_ports[choice[edge.left]], edge.right_ports]
        choice[variable] = int(total.argmin())
    return tuple(choice)


def _amounts(usages: list[Usage]) -> Costs:
    """Return what each option takes in each of a variable's parts: [options, parts]."""
    return np.stack([usage.amounts for usage in usages], axis=1)


class _LocalSearch:
    """A choice with its row use, changed one variable at a time."""

    def __init__(
        self, problem: ChoiceProblem, choice: tuple[int, ...], uses: Uses | None = None
    ) -> None:
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
        self._uses: Uses = {} if uses is None else uses

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

    def overflow_by_option(self, variable: int, among: Indices | None = None) -> Costs:
        """Return the total overuse if the variable took each of its options, or each of some."""
        options = len(self.problem.costs[variable] if among is None else among)
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
        if among is None:
            unique, inverse = self._signatures(variable, usages)
        else:  # few options are not worth looking for equal ones
            unique, inverse = _amounts(usages)[among], np.arange(options)
        totals = np.empty(len(unique))
        first, last = (
            np.array(ends) - low for ends in zip(*((u.low, u.high) for u in usages), strict=True)
        )
        overflows(rest, self.problem.limit, first, last, unique, np.empty(len(rest)), totals)
        return np.asarray(totals[inverse] + outside)

    def _signatures(self, variable: int, usages: list[Usage]) -> tuple[Costs, Indices]:
        """Return the distinct uses of a variable's options, and the one of each option."""
        if variable not in self._uses:
            unique, inverse = np.unique(_amounts(usages), axis=0, return_inverse=True)
            self._uses[variable] = unique, inverse.reshape(-1)
        return self._uses[variable]

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
            cheaper = np.flatnonzero(costs < costs[current] - 1e-9)
            allowed = cheaper[self.overflow_by_option(variable, cheaper) <= 0]
            if len(allowed):
                self.set(variable, int(allowed[costs[allowed].argmin()]))
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
