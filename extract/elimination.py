"""Exact solution of a choice problem by eliminating its variables one by one.

Options with the same ports on all edges differ only in cost: the cheapest stands for all. Then the
variable whose neighbours span the smallest table goes first, until none is left; going back gives
the choice. Where message passing leaves a gap (values that several dear intermediates compute
together, as in a softmax), this closes it, as long as few variables meet in one table.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from tilewright.extract.choice import ChoiceProblem, Costs, Indices, cheapest_of_groups
from tilewright.extract.elimination_core import least_sums

MOST_ENTRIES = 16_000_000
"""Entries of the largest table; problems that need larger ones are not solved this way."""

POLISH_ENTRIES = 1_000_000
"""The same for improving a choice, which is done many times over."""

_MOST_LEFT = 32_000_000
"""Entries of the largest table without its variable: only these are held in memory."""

_LARGEST_KEY = 2**62

_BY_REST_WORK = 1_000_000
"""Entries of all tables from which on a second order of elimination is tried."""

_COMPILED_ENTRIES = 30_000
"""Of a table, from which on compiled loops are worth their call."""


@dataclass(frozen=True, slots=True, eq=False)
class Factor:
    """A cost over the groups of some variables, with an axis for each, in increasing order."""

    scope: tuple[int, ...]
    table: Costs


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """What is needed to choose a variable once those of `scope` are chosen."""

    variable: int
    scope: tuple[int, ...]
    best: NDArray[np.int16]


@dataclass(frozen=True, slots=True)
class _Plan:
    """An order of elimination, and the variables that keep the incumbent's option.

    `largest` counts the entries of the largest table, `left` of what is left of one without its variable,
    `work` of all tables.
    """

    order: tuple[int, ...]
    largest: int
    left: int
    work: int
    fixed: frozenset[int]


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """Options of each variable with the same ports on all edges, and what edges cost, for any option costs.

    `number` is the group of each option, `firsts` the first option of each group; `tables`, by edge, are
    costs by (group of the left variable, group of the right one).
    """

    number: tuple[Indices, ...]
    firsts: tuple[Indices, ...]
    tables: tuple[Costs, ...]


def groups_of(problem: ChoiceProblem) -> Groups:
    """Return the groups of a problem's options."""
    ports: list[list[Indices]] = [[] for _ in problem.costs]
    for edge in problem.edges:
        ports[edge.left].append(edge.left_ports)
        ports[edge.right].append(edge.right_ports)
    found = [grouped(own, len(costs)) for own, costs in zip(ports, problem.costs, strict=True)]
    firsts = tuple(first for _, first in found)
    tables = tuple(
        edge.matrix[
            np.ix_(edge.left_ports[firsts[edge.left]], edge.right_ports[firsts[edge.right]])
        ]
        for edge in problem.edges
    )
    return Groups(tuple(number for number, _ in found), firsts, tables)


class Elimination:
    """The groups of options of a problem and an order of elimination, for any costs of options.

    With an incumbent, variables that make tables too large keep its options; then the result is the
    best of all choices that share those.
    """

    def __init__(
        self,
        problem: ChoiceProblem,
        incumbent: tuple[int, ...] | None = None,
        free: frozenset[int] = frozenset(),
        most_entries: int = MOST_ENTRIES,
        groups: Groups | None = None,
    ) -> None:
        """Find an order, fixing variables of `free` last; `groups` are those of the problem, if known."""
        self._most_entries = most_entries
        self._problem = problem
        self._incumbent = incumbent
        self._groups = groups or groups_of(problem)
        plans = [self._plan(free)]
        if incumbent is None and plans[0].work > _BY_REST_WORK:
            plans.append(self._plan(free, by_rest=True))
        self._plan_taken = min(plans, key=lambda plan: (not self._fits(plan), plan.work))
        self.fixed = self._plan_taken.fixed

    @property
    def is_small(self) -> bool:
        """Whether all tables are small enough."""
        return self._fits(self._plan_taken)

    @property
    def entries(self) -> int:
        """Entries of the largest table."""
        return self._plan_taken.largest

    @property
    def work(self) -> int:
        """Entries of all tables together, if they are small enough."""
        return self._plan_taken.work

    def _fits(self, plan: _Plan) -> bool:
        return plan.largest <= self._most_entries and plan.left <= _MOST_LEFT

    def _plan(self, free: frozenset[int], *, by_rest: bool = False) -> _Plan:
        """Return an order of elimination.

        Without an incumbent the order is cut short when a table is too large. `by_rest` goes by the
        entries of what is left of a table without its variable.
        """
        sizes = [len(firsts) for firsts in self._groups.firsts]
        near: list[set[int]] = [set() for _ in sizes]
        for edge in self._problem.edges:
            near[edge.left].add(edge.right)
            near[edge.right].add(edge.left)

        def entries(variable: int) -> int:
            return sizes[variable] * prod(sizes[u] for u in near[variable])

        left = {v: entries(v) for v in range(len(sizes))}
        order, fixed, most, work, rest = [], set(), 1, 0, 1
        while left and most <= self._most_entries:
            v = min(left, key=lambda u: (left[u] // sizes[u] if by_rest else left[u], u))
            joined = near[v]
            if self._incumbent is not None and left[v] > self._most_entries:
                v = max((v, *sorted(joined)), key=lambda u: (u not in free, sizes[u], -u))
                fixed.add(v)
                joined = set()
            else:
                most = max(most, left[v])
                rest = max(rest, left[v] // sizes[v])
                work += left[v]
                order.append(v)
            del left[v]
            for u in near[v]:
                near[u] |= joined
                near[u] -= {u, v}
            for u in near[v]:
                left[u] = entries(u)
        return _Plan(tuple(order), most, rest, work, frozenset(fixed))

    def solve(self, costs: tuple[Costs, ...]) -> tuple[tuple[int, ...], float]:
        """Return an optimal choice for these option costs, and its cost."""
        assert self.is_small, "tables too large"
        factors, cheapest, total = self._factors(costs)
        steps = []
        for v in self._plan_taken.order:
            mine = [f for f in factors if v in f.scope]
            factors = [f for f in factors if v not in f.scope]
            scope = tuple(sorted({u for f in mine for u in f.scope if u != v}))
            least, best = without(mine, scope, v)
            steps.append(Step(v, scope, best))
            if scope:
                factors.append(Factor(scope, least))
            else:
                total += float(least)
        groups = [-1] * len(costs)
        for step in reversed(steps):
            groups[step.variable] = int(step.best[tuple(groups[u] for u in step.scope)])
        choice = tuple(
            self._kept(v) if v in self.fixed else int(cheapest[v][g]) for v, g in enumerate(groups)
        )
        return choice, total

    def _kept(self, variable: int) -> int:
        assert self._incumbent is not None
        return self._incumbent[variable]

    def _factors(self, costs: tuple[Costs, ...]) -> tuple[list[Factor], list[Indices], float]:
        """Return tables over groups, the cheapest option of each, and the cost of what is fixed."""
        factors, cheapest = [], []
        total = 0.0
        for v, own in enumerate(costs):
            cheapest.append(cheapest_of_groups(own, self._groups.number[v]))
            if v in self.fixed:
                total += float(own[self._kept(v)])
            else:
                factors.append(Factor((v,), own[cheapest[v]]))
        for edge, table in zip(self._problem.edges, self._groups.tables, strict=True):
            left, right = self._fixed_group(edge.left), self._fixed_group(edge.right)
            if left is not None and right is not None:
                total += float(table[left, right])
            elif left is not None:
                factors.append(Factor((edge.right,), table[left]))
            elif right is not None:
                factors.append(Factor((edge.left,), table[:, right]))
            elif edge.left < edge.right:
                factors.append(Factor((edge.left, edge.right), table))
            else:
                factors.append(Factor((edge.right, edge.left), table.T))
        return factors, cheapest, total

    def _fixed_group(self, variable: int) -> int | None:
        """Return the group of the option that a variable keeps, if it does."""
        if variable not in self.fixed:
            return None
        return int(self._groups.number[variable][self._kept(variable)])


def polish(
    problem: ChoiceProblem,
    costs: tuple[Costs, ...],
    choice: tuple[int, ...],
    rounds: int = 4,
    most_entries: int = POLISH_ENTRIES,
    groups: Groups | None = None,
) -> tuple[int, ...]:
    """Improve a choice: each round lets some variables keep their options and solves the rest."""
    groups = groups or groups_of(problem)
    free: frozenset[int] = frozenset()
    for _ in range(rounds):
        elimination = Elimination(problem, choice, free, most_entries, groups)
        choice, _ = elimination.solve(costs)
        if not elimination.fixed or elimination.fixed <= free:
            break
        free |= elimination.fixed
    return choice


def grouped(ports: list[Indices], options: int) -> tuple[Indices, Indices]:
    """Return the number of each option's group, by equal ports, and the first option of each group."""
    keys = np.zeros(options, dtype=np.int64)
    count = 1
    for own in ports:
        size = int(own.max()) + 1
        if count * size > _LARGEST_KEY:
            keys = np.unique(keys, return_inverse=True)[1]
            count = int(keys.max()) + 1
        keys = keys * size + own
        count *= size
    _, firsts, groups = np.unique(keys, return_index=True, return_inverse=True)
    return groups, firsts


def without(
    factors: list[Factor], scope: tuple[int, ...], variable: int
) -> tuple[Costs, NDArray[np.int16]]:
    """Return the least sum of the factors over the groups of a variable, and which group gives it."""
    tables = [spread(factor, (*scope, variable)) for factor in factors]
    shape = np.broadcast_shapes(*(table.shape for table in tables))
    if prod(shape) >= _COMPILED_ENTRIES and scope:
        return _compiled(tables, shape)
    # The small tables first, so that few passes go over the whole.
    whole = _total(sorted(tables, key=lambda table: table.size))
    choice = whole.argmin(axis=-1)
    found = np.take_along_axis(whole, choice[..., None], axis=-1)[..., 0]
    return found, choice.astype(np.int16)


def _compiled(tables: list[Costs], shape: tuple[int, ...]) -> tuple[Costs, NDArray[np.int16]]:
    """Return the least sum along the last axis of tables that broadcast to a shape, and where it is."""
    inner = max(range(len(shape) - 1), key=lambda axis: (shape[axis], axis))
    tables = [np.ascontiguousarray(np.moveaxis(table, inner, -1)) for table in tables]
    tables.sort(key=lambda table: -table.size)
    flat = [table.reshape(-1) for table in tables]
    ends = np.cumsum([len(own) for own in flat[1:]], dtype=np.int64)
    steps = np.array(
        [
            [
                0 if size == 1 else step // table.itemsize
                for size, step in zip(table.shape, table.strides, strict=True)
            ]
            for table in tables
        ],
        dtype=np.int64,
    )
    outer = shape[:inner] + shape[inner + 1 : -1]
    least = np.empty((prod(outer), shape[inner]))
    best = np.empty(least.shape, dtype=np.int16)
    starts = np.concatenate([[0, 0], ends])[: len(tables)]
    of_inner, of_group, of_outer = (
        np.ascontiguousarray(own.T) for own in (steps[:, -1], steps[:, -2], steps[:, :-2])
    )
    least_sums(
        flat[0],
        np.concatenate([np.zeros(0), *flat[1:]]),
        starts,
        of_inner,
        of_group,
        of_outer,
        shape[-1],
        np.array(outer, dtype=np.int64),
        np.empty((3, shape[inner])),
        least,
        best,
    )

    def placed[T: np.generic](found: NDArray[T]) -> NDArray[T]:
        return np.ascontiguousarray(np.moveaxis(found.reshape(*outer, shape[inner]), -1, inner))

    return placed(least), placed(best)


def _total(parts: list[Costs]) -> Costs:
    """Return the sum of tables that broadcast, in their order, with as few new tables as can be."""
    shape = np.broadcast_shapes(*(part.shape for part in parts))
    total, is_whole = parts[0], False
    for part in parts[1:]:
        if is_whole:
            total += part
        else:
            total = total + part
            is_whole = total.shape == shape
    return total


def spread(factor: Factor, axes: tuple[int, ...]) -> Costs:
    """Return a factor's table with an axis for each of the given variables."""
    place = {variable: number for number, variable in enumerate(axes)}
    positions = [place[u] for u in factor.scope]
    order = sorted(range(len(positions)), key=positions.__getitem__)
    shape = [1] * len(axes)
    for axis in order:
        shape[positions[axis]] = factor.table.shape[axis]
    return np.transpose(factor.table, order).reshape(shape)
