"""Best choices of small problems under conditions that only a whole plan can be asked about.

Elimination tells, for any choice of some variables, what the rest costs at least. So a depth-first search
meets exactly the choices that cost less than a known one, and asks the condition (does the plan's
scratchpad fit?) of those alone. When it ends, the best choice that it met is optimal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, prod

import numpy as np

from tilewright.extract.choice import (
    NOT_ALLOWED,
    ChoiceProblem,
    Costs,
    Indices,
    Usage,
    cheapest_of_groups,
)
from tilewright.extract.copies import PairUsage
from tilewright.extract.deadline import NO_DEADLINE, Deadline
from tilewright.extract.elimination import Factor, groups_of, spread

_MOST_ENTRIES = 2_000_000
"""Of the largest table; problems with larger ones are not searched."""

MOST_VARIABLES = 20
_MOST_NODES = 30_000
_MOST_LEAVES = 1_000
"""Variables of a small problem; nodes, and whole choices, after which the search gives up."""

_ROUNDING = 1e-9

Evaluate = Callable[[tuple[int, ...]], float]
"""Returns what a whole choice costs, inf if it does not meet the condition."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The best choice met, if any is better than the known cost; `is_proven` if there is no better one."""

    choice: tuple[int, ...] | None
    cost: float
    is_proven: bool


def search_exactly(
    problem: ChoiceProblem,
    needed: tuple[Usage, ...],
    together: tuple[PairUsage, ...],
    evaluate: Evaluate,
    known_cost: float,
    use_price: float = 0.0,
    sum_price: float = 1.0,
    deadline: Deadline = NO_DEADLINE,
    most_variables: int = MOST_VARIABLES,
) -> Found | None:
    """Return the best choice, None if the problem is too large to look.

    Args:
        problem: Costs of options and pairs, and the limit of rows.
        needed: What every plan with an option needs of the rows at least.
        together: The same of pairs of options, in addition.
        evaluate: Judges whole choices.
        known_cost: Of a choice that meets the condition; only better ones are looked for.
        use_price: Of a unit of the fullest row, beside the costs.
        sum_price: Of a unit of the costs.
        deadline: After which the search gives up.
        most_variables: Of a problem that is searched.
    """
    tables = _tables(problem) if len(problem.costs) <= most_variables else None
    if tables is None:
        return None
    search = _Search(
        problem, needed, together, tables, evaluate, known_cost, use_price, sum_price, deadline
    )
    search.descend(tables.least, np.zeros(problem.rows), [-1] * len(problem.costs), 0)
    return Found(choice=search.best, cost=search.cost, is_proven=not search.is_spent)


@dataclass(frozen=True, slots=True, eq=False)
class _Step:
    """A variable with the least cost of all that was eliminated before it, [groups of scope.., own]."""

    variable: int
    scope: tuple[int, ...]
    table: Costs


@dataclass(frozen=True, slots=True, eq=False)
class _Tables:
    """What the search looks up.

    Steps are in the order of choosing; `groups` are of options with equal ports, `extra` is by how much each
    is dearer than the cheapest of its group, `least` the cost of the best choice.
    """

    steps: tuple[_Step, ...]
    groups: tuple[Indices, ...]
    extra: tuple[Costs, ...]
    least: float


def _tables(problem: ChoiceProblem) -> _Tables | None:
    """Eliminate all variables and keep what that took."""
    count, groups = len(problem.costs), groups_of(problem)
    cheapest = [cheapest_of_groups(c, g) for c, g in zip(problem.costs, groups.number, strict=True)]
    factors = [Factor((v,), problem.costs[v][cheapest[v]]) for v in range(count)]
    factors += [
        Factor((edge.left, edge.right), table)
        for edge, table in zip(problem.edges, groups.tables, strict=True)
    ]
    sizes = [len(one) for one in cheapest]
    left, steps, least = set(range(count)), [], 0.0
    while left:
        joined = {
            v: tuple(sorted({u for f in factors if v in f.scope for u in f.scope} - {v}))
            for v in left
        }
        v = min(left, key=lambda u: (prod(sizes[w] for w in (*joined[u], u)), u))
        scope = joined[v]
        if prod(sizes[u] for u in scope) * sizes[v] > _MOST_ENTRIES:
            return None
        table = np.zeros([sizes[u] for u in (*scope, v)])
        for factor in factors:
            if v in factor.scope:
                table = table + spread(factor, (*scope, v))
        factors = [factor for factor in factors if v not in factor.scope]
        steps.append(_Step(v, scope, table))
        rest = table.min(axis=-1)
        if scope:
            factors.append(Factor(scope, rest))
        else:
            least += float(rest)
        left.remove(v)
    extra = tuple(
        costs - costs[first][own]
        for costs, own, first in zip(problem.costs, groups.number, cheapest, strict=True)
    )
    return _Tables(tuple(reversed(steps)), groups.number, extra, least)


class _Search:
    """The state of one depth-first search."""

    def __init__(
        self,
        problem: ChoiceProblem,
        needed: tuple[Usage, ...],
        together: tuple[PairUsage, ...],
        tables: _Tables,
        evaluate: Evaluate,
        known_cost: float,
        use_price: float,
        sum_price: float,
        deadline: Deadline,
    ) -> None:
        self._tables, self._evaluate, self._deadline = tables, evaluate, deadline
        self._limit, self._use_price, self._sum_price = problem.limit, use_price, sum_price
        self.best: tuple[int, ...] | None = None
        self.cost = known_cost
        self._nodes = self._leaves = 0
        self._uses = [np.zeros((len(own), problem.rows)) for own in problem.costs]
        for usage in needed:
            self._uses[usage.variable][:, usage.low : usage.high] += usage.amounts[:, None]
        self._pairs: list[list[tuple[int, int, Costs]]] = [[] for _ in problem.costs]
        """Of each variable: the other one, the row, amounts by (other option, own option)."""
        for pair in together:
            self._pairs[pair.consumer].append((pair.producer, pair.consumer, pair.amounts))
            self._pairs[pair.producer].append((pair.consumer, pair.consumer, pair.amounts.T))
        rest = np.zeros(problem.rows)
        rests = []
        for step in reversed(tables.steps):
            rests.append(rest)
            rest = rest + self._uses[step.variable].min(axis=0)
        self._rest = rests[::-1]
        """What the variables after each step need at least."""

    @property
    def is_spent(self) -> bool:
        """Whether the search was cut short."""
        is_over = self._nodes > _MOST_NODES or self._leaves > _MOST_LEAVES
        return is_over or self._deadline.is_past

    def descend(self, least: float, use: Costs, choice: list[int], depth: int) -> None:
        """Try the options of the next variable, the most promising first.

        Args:
            least: What the choice so far and the best rest cost.
            use: What the choice so far needs of each row.
            choice: Options by variable, -1 where none is chosen.
            depth: Variables chosen.
        """
        if depth == len(self._tables.steps):
            self._leaves += 1
            cost = self._evaluate(tuple(choice))
            if cost < self.cost:
                self.best, self.cost = tuple(choice), cost
            return
        self._nodes += 1
        step = self._tables.steps[depth]
        v = step.variable
        at = tuple(int(self._tables.groups[u][choice[u]]) for u in step.scope)
        own = step.table[at]
        costs = least + (own - own.min())[self._tables.groups[v]] + self._tables.extra[v]
        uses = use + self._uses[v]
        for other, row, amounts in self._pairs[v]:
            if choice[other] >= 0:
                uses[:, row] += amounts[choice[other]]
        fullest = (uses + self._rest[depth]).max(axis=1, initial=0.0)
        bounds = self._sum_price * costs + self._use_price * fullest
        bounds = np.where((fullest > self._limit) | (costs >= NOT_ALLOWED), inf, bounds)
        for option in np.argsort(bounds, kind="stable"):
            # an equal choice is no better, whatever the rounding
            if bounds[option] == inf or bounds[option] >= self.cost * (1 - _ROUNDING):
                break
            if self.is_spent:
                break
            choice[v] = int(option)
            self.descend(float(costs[option]), uses[option], choice, depth + 1)
        choice[v] = -1  # else variables before this one would count its copies
