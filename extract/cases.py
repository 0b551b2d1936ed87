"""Exact solution of choice problems in which alternatives tie variables together that others leave alone.

In an e-graph, one way to compute a value reads these values, and another one those. Elimination takes all
of them into one table. Once it is known what the options chosen demand, much is idle, and tables are small.
Options that others beat go first, and variables with few neighbours, in turn. What is left is eliminated
from tables in cases (`case_tables.py`), if there is an order in which these stay small (`case_order.py`).
If not, a *region* of variables that few others border on is solved in cases wherever a table would
be large, one for each way to demand within it; the least of all cases is one table over its border.

Sources:
    Dechter, "Bucket elimination", Artificial Intelligence 113 (1999);
    Poole, Zhang, "Exploiting contextual independence in probabilistic inference", JAIR 18 (2003);
    Darwiche, "Recursive conditioning", Artificial Intelligence 126 (2001) (cases of some variables).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from tilewright.extract.case_order import Sense, find_order
from tilewright.extract.case_tables import Cases, best_option, in_cases, without_variable
from tilewright.extract.choice import (
    FORBIDDEN,
    NOT_ALLOWED,
    ChoiceProblem,
    Costs,
    Edge,
    Indices,
    Mask,
    cheapest_of_groups,
)
from tilewright.extract.dominance import find_dominated
from tilewright.extract.elimination import Factor, Step, groups_of, spread, without
from tilewright.extract.exclusive import Patterns, find_patterns

_ROUNDS = 4
"""Of leaving out options, then variables with at most two neighbours."""

_FEW_NEIGHBOURS = 2
"""Of a variable that goes without making other tables than pairs."""

_LARGE = 1_000_000
"""Entries of a table above which a region is looked for."""

_MOST_INNER = 9
"""Variables of a region; the more there are, the more cases."""

_MOST_BORDER = 8_000_000
"""Entries of the table over a region's border."""

_SMALL_CASE = 3_000_000
"""Entries of all tables of a case up to which it is not split further."""

_MOST_IN_CASES = 200_000_000
"""Entries of all tables in cases."""

_MOST_ENTRIES = 60_000_000
"""Of all tables of a case."""

_COMPARED_ENTRIES = 1_000_000
"""Up to so many, options of a variable are compared in pairs, else only with the cheapest."""

_MOST_CASES = 120
"""Of all regions together."""

_POWERS = (0.0, 1.0, 2.0)
"""By which orders of elimination are tried."""


Kept = dict[int, Indices]
"""Options that are left, by variable."""

Chosen = dict[int, int]
"""One of them each."""


def least_by_cases(problem: ChoiceProblem) -> tuple[tuple[int, ...], float] | None:
    """Return a choice of least cost, whatever rows it uses, and its cost; None if that takes too much."""
    search = _Search(problem)
    try:
        return search.solve()
    except _TooLargeError:
        return None


class _TooLargeError(Exception):
    """Tables would be too large."""


@dataclass(frozen=True, slots=True, eq=False)
class _Region:
    """Variables with all their tables; `kinds` says by variable which options demand alike."""

    inner: frozenset[int]
    border: tuple[int, ...]
    factors: tuple[Factor, ...]
    kinds: Mapping[int, Indices]

    @property
    def border_entries(self) -> int:
        return prod(len(self.kinds[v]) for v in self.border)


@dataclass(frozen=True, slots=True, eq=False)
class _Case:
    """What options of the border that are left cost at least, and how inner variables follow from them."""

    kept: Kept
    table: Costs
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Left:
    """A variable that left tables in cases."""

    variable: int
    size: int
    mine: tuple[Cases, ...]


class _Search:
    """Takes variables out of the tables one after the other, and remembers how they follow from others."""

    def __init__(self, problem: ChoiceProblem) -> None:
        groups = groups_of(problem)
        self._options = [
            cheapest_of_groups(own, number)
            for own, number in zip(problem.costs, groups.number, strict=True)
        ]
        self._factors = [
            Factor((v,), own[left])
            for v, (own, left) in enumerate(zip(problem.costs, self._options, strict=True))
        ]
        for edge, table in zip(problem.edges, groups.tables, strict=True):
            self._factors.append(_factor(edge.left, edge.right, table))
        self._size = {v: len(own) for v, own in enumerate(self._options)}
        self._trail: list[Step | Kept | _Region | _Left] = []
        self._cases_left = _MOST_CASES

    def solve(self) -> tuple[tuple[int, ...], float]:
        """Return a choice of least cost, and the cost.

        Raises:
            _TooLargeError: Tables would be too large.
        """
        for _ in range(_ROUNDS):
            count = sum(self._size.values())
            self._leave_out_beaten()
            self._eliminate(most_near=_FEW_NEIGHBOURS)
            if sum(self._size.values()) == count:
                break
        problem, numbers = _as_problem(self._factors, self._size)
        patterns = dict(zip(numbers, find_patterns(problem), strict=True))
        if not self._eliminate_in_cases(patterns):
            kinds = {v: own.of_option for v, own in patterns.items()}
            while self._size:
                self._eliminate(most_entries=_LARGE)
                if self._size:
                    self._take_out(_best_region(self._factors, kinds, self._size.keys()))
        cost = sum(float(factor.table) for factor in self._factors)
        return self._choice(), cost

    def _leave_out_beaten(self) -> None:
        problem, numbers = _as_problem(self._factors, self._size)
        kept, _ = find_dominated(problem)
        left = dict(zip(numbers, kept, strict=True))
        self._factors = [_restricted(factor, left) for factor in self._factors]
        self._size = {v: len(own) for v, own in left.items()}
        self._trail.append(left)

    def _eliminate(self, most_near: int | None = None, most_entries: int | None = None) -> None:
        """Minimise out variables of few neighbours or entries, the smallest table first."""
        near = _neighbours(self._factors)
        while self._size:
            entries = {v: n * prod(self._size[u] for u in near[v]) for v, n in self._size.items()}
            todo = [
                v
                for v in self._size
                if (most_near is None or len(near[v]) <= most_near)
                and (most_entries is None or entries[v] <= most_entries)
            ]
            if not todo:
                return
            variable = min(todo, key=lambda v: (entries[v], v))
            self._factors, step = _without(self._factors, variable)
            self._trail.append(step)
            del self._size[variable]
            for u in near[variable]:
                near[u] = (near[u] | near[variable]) - {u, variable}

    def _eliminate_in_cases(self, patterns: Mapping[int, Patterns]) -> bool:
        """Minimise out all variables, if tables in cases stay small; return whether that was so."""
        sense = Sense(patterns)
        left = [in_cases(factor, self._size, sense.idle) for factor in self._factors]
        order = find_order([cases.outline for cases in left], sense, _MOST_IN_CASES)
        if order is None:
            return False
        indifferent = sorted(self._size.keys() - set(order))
        for variable in (*order, *indifferent):
            mine = tuple(cases for cases in left if variable in cases.outline.scope)
            left = [cases for cases in left if variable not in cases.outline.scope]
            left.append(without_variable(mine, variable, self._size, sense))
            self._trail.append(_Left(variable, self._size[variable], mine))
            del self._size[variable]
        self._factors = [
            Factor((), min(cases.tables, default=np.array(FORBIDDEN))) for cases in left
        ]
        return True

    def _take_out(self, region: _Region) -> None:
        """Replace the tables of a region by one over its border."""
        if region.border_entries > _MOST_BORDER:
            raise _TooLargeError
        table = np.full([len(region.kinds[v]) for v in region.border], FORBIDDEN)
        for case in _cases(region):
            self._cases_left -= 1
            if self._cases_left < 0:
                raise _TooLargeError
            place = np.ix_(*(case.kept[v] for v in region.border))
            table[place] = np.minimum(table[place], case.table)
        self._factors = [f for f in self._factors if region.inner.isdisjoint(f.scope)]
        self._factors.append(Factor(region.border, table))
        self._trail.append(region)
        for variable in region.inner:
            del self._size[variable]

    def _choice(self) -> tuple[int, ...]:
        """Return the choice that follows, what was taken out last first."""
        chosen: Chosen = {}
        for taken in reversed(self._trail):
            if isinstance(taken, Step):
                _follow(chosen, taken)
            elif isinstance(taken, _Region):
                _choose_inside(chosen, taken)
            elif isinstance(taken, _Left):
                variable = taken.variable
                chosen[variable] = best_option(taken.mine, variable, taken.size, chosen)
            else:
                chosen.update({v: int(own[chosen[v]]) for v, own in taken.items()})
        return tuple(int(own[chosen[v]]) for v, own in enumerate(self._options))


def _factor(left: int, right: int, table: Costs) -> Factor:
    return Factor((left, right), table) if left < right else Factor((right, left), table.T)


def _restricted(factor: Factor, kept: Mapping[int, Indices]) -> Factor:
    if not any(v in kept for v in factor.scope):
        return factor
    parts = zip(factor.scope, factor.table.shape, strict=True)
    return Factor(
        factor.scope, factor.table[np.ix_(*(kept.get(v, np.arange(n)) for v, n in parts))]
    )


def _slim(factor: Factor) -> Factor:
    """Return a factor without the variables that make no difference to it; costs of one keep it."""
    scope, table = factor.scope, factor.table
    for axis in reversed(range(len(factor.scope))):
        if len(factor.scope) > 1 and (table == table.take([0], axis)).all():
            scope, table = (*scope[:axis], *scope[axis + 1 :]), np.asarray(table.take(0, axis))
    return Factor(scope, table)


def _neighbours(factors: Sequence[Factor], variables: Iterable[int] = ()) -> dict[int, set[int]]:
    near: dict[int, set[int]] = {v: set() for v in variables}
    for factor in factors:
        for variable in factor.scope:
            near.setdefault(variable, set()).update(factor.scope)
    return {variable: others - {variable} for variable, others in near.items()}


def _as_problem(
    factors: Sequence[Factor], variables: Collection[int]
) -> tuple[ChoiceProblem, list[int]]:
    """Return tables of at most two variables as a choice problem, and the number of its variables here."""
    numbers = sorted(variables)
    place = {v: n for n, v in enumerate(numbers)}
    costs: list[Costs] = [np.zeros(0)] * len(numbers)
    pairs: dict[tuple[int, int], Costs] = {}
    for factor in factors:
        if len(factor.scope) == 1:
            number = place[factor.scope[0]]
            known = costs[number]
            costs[number] = known + factor.table if len(known) else factor.table
        elif factor.scope:
            first, second = factor.scope
            ends = place[first], place[second]
            pairs[ends] = pairs[ends] + factor.table if ends in pairs else factor.table
    edges = tuple(
        Edge(
            *ends,
            np.arange(table.shape[0]),
            np.arange(table.shape[1]),
            np.minimum(table, FORBIDDEN),
        )
        for ends, table in pairs.items()
    )
    own = tuple(np.minimum(one, FORBIDDEN) for one in costs)
    return ChoiceProblem(costs=own, edges=edges, usages=(), rows=0, limit=1.0), numbers


def _without(factors: Sequence[Factor], variable: int) -> tuple[list[Factor], Step]:
    """Minimise a variable out of its tables."""
    mine = [f for f in factors if variable in f.scope]
    scope = tuple(sorted({v for f in mine for v in f.scope} - {variable}))
    least, best = without(mine, scope, variable)
    rest = [f for f in factors if variable not in f.scope]
    return [*rest, Factor(scope, np.minimum(least, FORBIDDEN))], Step(variable, scope, best)


def _follow(chosen: Chosen, step: Step) -> None:
    chosen[step.variable] = int(step.best[tuple(chosen[v] for v in step.scope)])


def _best_region(
    factors: Sequence[Factor], kinds: Mapping[int, Indices], left: Collection[int]
) -> _Region:
    """Return the region of the smallest border."""
    near = _neighbours(factors)
    size = {v: len(kinds[v]) for v in left}
    grown = (one for seed in sorted(left) for one in _grown(seed, near, size))
    inner = min(grown, key=lambda one: (_entries(_border(one, near), size), len(one), sorted(one)))
    border = tuple(sorted(_border(inner, near)))
    mine = tuple(f for f in factors if not inner.isdisjoint(f.scope))
    return _Region(inner, border, mine, {v: kinds[v] for v in (*inner, *border)})


def _grown(
    seed: int, near: Mapping[int, set[int]], size: Mapping[int, int]
) -> Iterator[frozenset[int]]:
    """Yield regions around a variable, each with one variable more."""
    inner = frozenset({seed})
    yield inner
    while len(inner) < _MOST_INNER and (border := _border(inner, near)):
        ways = [inner | {v} for v in sorted(border)]
        inner = min(ways, key=lambda one: (_entries(_border(one, near), size), sorted(one)))
        yield inner


def _border(inner: frozenset[int], near: Mapping[int, set[int]]) -> set[int]:
    return set[int]().union(*(near[v] for v in inner)) - inner


def _entries(variables: Collection[int], size: Mapping[int, int]) -> int:
    return prod(size[v] for v in variables)


def _cases(region: _Region) -> Iterator[_Case]:
    """Yield the cases of a region: ways to demand in which it has small tables.

    Raises:
        _TooLargeError: Some case has large ones.
    """
    todo = [(region.factors, {v: np.arange(len(own)) for v, own in region.kinds.items()})]
    while todo:
        pruned = _pruned(*todo.pop(), region.inner)
        if pruned is None:
            continue
        factors, kept = tuple(map(_slim, pruned[0])), pruned[1]
        kinds = {v: region.kinds[v][own] for v, own in kept.items()}
        order, work = _order(factors, region.inner, {v: len(own) for v, own in kept.items()})
        # What comes late reads what comes early: its alternatives decide what is idle.
        several = [v for v, own in kinds.items() if (own != own[0]).any()]
        if work <= _SMALL_CASE or not several:
            if work > _MOST_ENTRIES:
                raise _TooLargeError
            yield _solved(factors, order, region.border, kept)
            continue
        variable = max(several)
        for kind in np.unique(kinds[variable]):
            part = np.flatnonzero(kinds[variable] == kind)
            less = tuple(_restricted(f, {variable: part}) for f in factors)
            todo.append((less, {**kept, variable: kept[variable][part]}))


def _solved(
    factors: tuple[Factor, ...], order: Sequence[int], border: tuple[int, ...], kept: Kept
) -> _Case:
    left, steps = list(factors), []
    for variable in order:
        left, step = _without(left, variable)
        steps.append(step)
    total = np.zeros([len(kept[v]) for v in border])
    for factor in left:
        total += spread(factor, border)
    return _Case(kept, total, tuple(steps))


def _order(
    factors: Sequence[Factor], inner: Collection[int], size: Mapping[int, int]
) -> tuple[list[int], int]:
    """Return an order of elimination, and the entries of all its tables; the best of several."""
    near = _neighbours(factors, inner)
    orders = [_greedy(near, inner, size, power) for power in _POWERS]
    return min(orders, key=lambda one: one[1])


def _greedy(
    neighbours: Mapping[int, set[int]],
    inner: Collection[int],
    size: Mapping[int, int],
    power: float,
) -> tuple[list[int], int]:
    """Return the order that takes the smallest table next: entries over a power of the variable's size."""
    near, left = dict(neighbours), set(inner)
    order, work = list[int](), 0
    while left:
        entries = {v: size[v] * _entries(near[v], size) for v in left}
        variable = min(left, key=lambda v: (entries[v] / size[v] ** power, v))
        work += entries[variable]
        left.remove(variable)
        order.append(variable)
        for u in near[variable]:
            near[u] = (near[u] | near[variable]) - {u, variable}
    return order, work


def _pruned(
    factors: tuple[Factor, ...], kept: Kept, inner: Collection[int]
) -> tuple[tuple[Factor, ...], Kept] | None:
    """Leave out options that nothing allows, and inner ones that others beat; None if none are left."""
    todo = set(kept)
    while todo:
        variable = max(todo)
        todo.remove(variable)
        tables = [
            np.moveaxis(f.table, f.scope.index(variable), 0).reshape(len(kept[variable]), -1)
            for f in factors
            if variable in f.scope
        ]
        is_left = np.logical_and.reduce([(t < NOT_ALLOWED).any(axis=1) for t in tables])
        if variable in inner and is_left.sum() > 1:
            is_left[is_left] = ~_beaten([table[is_left] for table in tables])
        if not is_left.any():
            return None
        if not is_left.all():
            part = np.flatnonzero(is_left)
            for factor in factors:
                todo |= set(factor.scope) if variable in factor.scope else set()
            todo.discard(variable)
            factors = tuple(_restricted(factor, {variable: part}) for factor in factors)
            kept = {**kept, variable: kept[variable][part]}
    return factors, kept


def _beaten(tables: list[Costs]) -> Mask:
    """Return which options another one beats, given [options, others] of each table."""
    count = len(tables[0])
    own = sum((t[:, 0] for t in tables if t.shape[1] == 1), np.zeros(count))
    is_pairwise = count * sum(t.size for t in tables) <= _COMPARED_ENTRIES
    is_beaten = np.zeros(count, dtype=bool)
    for option in np.argsort(own, kind="stable")[: None if is_pairwise else 1]:
        if not is_beaten[option]:
            more = sum((t[option] - t).max(axis=1) for t in tables)
            is_beaten |= (more <= 0) & (np.arange(count) != option)
    return is_beaten


def _choose_inside(chosen: Chosen, region: _Region) -> None:
    """Choose the inner variables of a region; those of its border are chosen."""
    border = {v: np.array([chosen[v]]) for v in region.border}
    kinds = {**region.kinds, **{v: region.kinds[v][own] for v, own in border.items()}}
    factors = tuple(_restricted(factor, border) for factor in region.factors)
    cases = _cases(replace(region, factors=factors, kinds=kinds))
    best = min(cases, key=lambda case: float(case.table.min()))
    own = dict.fromkeys(region.border, 0)
    for step in reversed(best.steps):
        _follow(own, step)
    chosen.update({v: int(best.kept[v][own[v]]) for v in region.inner})
