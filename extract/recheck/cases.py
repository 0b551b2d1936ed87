"""The least cost of a choice problem without rows, where one table for all cases would be too large.

As `min_sum.py`, but variables with at most two neighbours go first, and options that another one beats then.
Where a table would still be large, a few variables that others hardly border on are minimised out once for
each part of a partition of the options around them. Any partition is right; one by what options forbid
leaves small tables, as nothing joins variables any more that have no use for each other.

Source:
    Darwiche, "Recursive conditioning", Artificial Intelligence 126 (2001).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from math import prod

import numpy as np

from tilewright.extract.choice import FORBIDDEN, ChoiceProblem, Costs, Indices
from tilewright.extract.recheck.min_sum import (
    Factor,
    TooLargeError,
    factors_of,
    minimised,
    unbeaten,
)

_LARGE = 1_000_000
"""Entries of a table from which on cases are told apart."""

_SMALL_CASE = 3_000_000
"""Entries of all tables of a case that needs no more of them."""

_MOST_WORK = 300_000_000
"""Entries of all tables of a case, and of the table that all of them make."""

_MOST_TOGETHER = 9
"""Variables that are minimised out case by case."""

_COMPARED = 1_000_000
"""Entries of tables up to which options are compared in pairs."""

_NOT_ALLOWED = FORBIDDEN / 2

Options = dict[int, Indices]
"""By variable: numbers, or kinds."""


def least_by_cases(problem: ChoiceProblem, kept: tuple[Indices, ...], large: int = _LARGE) -> float:
    """Return the least cost of a choice among some options of each variable, whatever rows they use.

    Args:
        problem: The problem.
        kept: The options.
        large: Entries of a table from which on cases are told apart.

    Raises:
        TooLargeError: That takes too large tables, even so.
    """
    factors, count = factors_of(problem, unbeaten(problem, kept)), -1
    while sum(_sizes(factors).values()) != count:
        count = sum(_sizes(factors).values())
        left = {v: np.arange(n) for v, n in _sizes(factors).items()}
        factors, _ = _fewer(factors, left, left.keys())
        factors = _minimised_while(factors, lambda near, _: near <= 2)
    kinds = _kinds(factors)
    while kinds:
        factors = _minimised_while(factors, lambda _, entries: entries <= large)
        kinds = {v: kinds[v] for v in _sizes(factors)}
        if kinds:
            factors = _minimised_together(factors, kinds)
    return sum(float(table) for _, table in factors)


def _sizes(factors: Sequence[Factor]) -> dict[int, int]:
    return {v: n for scope, table in factors for v, n in zip(scope, table.shape, strict=True)}


def _near(factors: Sequence[Factor]) -> dict[int, set[int]]:
    """Return the variables in tables with each one, itself among them."""
    near: dict[int, set[int]] = {}
    for scope, _ in factors:
        for variable in scope:
            near.setdefault(variable, set()).update(scope)
    return near


def _minimised_while(factors: list[Factor], is_allowed: Callable[[int, int], bool]) -> list[Factor]:
    """Minimise out variables, the smallest table first, of which neighbours and entries are few enough."""
    while True:
        sizes = _sizes(factors)
        allowed = [
            (entries, v)
            for v, near in _near(factors).items()
            if is_allowed(len(near) - 1, entries := prod(sizes[u] for u in near))
        ]
        if not allowed:
            return factors
        factors = _joined(factors, min(allowed)[1])


def _joined(factors: list[Factor], variable: int) -> list[Factor]:
    scope = tuple(sorted(_near(factors)[variable] - {variable}))
    rest, least = minimised(factors, variable)
    return [*rest, (scope, np.minimum(least, FORBIDDEN))]


def _kinds(factors: Sequence[Factor]) -> Options:
    """Return a number for each option: those of a number forbid the same of others' cheapest options."""
    own: dict[int, Costs] = {}
    for scope, table in factors:
        if len(scope) == 1:
            own[scope[0]] = own.get(scope[0], 0.0) + table
    idle = {v: int(costs.argmin()) for v, costs in own.items()}
    marks = {v: [np.arange(len(costs)) == idle[v]] for v, costs in own.items()}
    for scope, table in factors:
        if len(scope) == 2:
            first, second = scope
            marks[first].append(table[:, idle[second]] >= _NOT_ALLOWED)
            marks[second].append(table[idle[first]] >= _NOT_ALLOWED)
    return {
        v: np.unique(np.stack(rows, axis=1), axis=0, return_inverse=True)[1].reshape(-1)
        for v, rows in marks.items()
    }


def _minimised_together(factors: list[Factor], kinds: Options) -> list[Factor]:
    """Replace some variables by one table over those around them."""
    near, sizes = _near(factors), _sizes(factors)

    def around(some: frozenset[int]) -> tuple[int, ...]:
        return tuple(sorted(set[int]().union(*(near[v] for v in some)) - some))

    def entries(some: frozenset[int]) -> tuple[int, int, list[int]]:
        return prod(sizes[v] for v in around(some)), len(some), sorted(some)

    together = []
    for seed in sorted(kinds):
        some = frozenset({seed})
        while around(some) and len(some) < _MOST_TOGETHER:
            together.append(some)
            some = min((some | {v} for v in around(some)), key=entries)
        together.append(some)
    inner = min(together, key=entries)
    border = around(inner)
    if entries(inner)[0] > _MOST_WORK:
        raise TooLargeError(f"a bound takes a table of {entries(inner)[0]} entries to check")
    mine = [one for one in factors if inner & set(one[0])]
    table = np.full([sizes[v] for v in border], FORBIDDEN)
    whole = {v: np.arange(sizes[v]) for v in (*border, *inner)}
    for left, least in _cases(mine, inner, border, whole, kinds):
        place = np.ix_(*(left[v] for v in border))
        table[place] = np.minimum(table[place], least)
    return [*(one for one in factors if not inner & set(one[0])), (border, table)]


def _cases(
    factors: list[Factor],
    inner: frozenset[int],
    border: tuple[int, ...],
    left: Options,
    kinds: Options,
) -> Iterator[tuple[Options, Costs]]:
    """Yield options of the border with the least cost of inner ones, together for all that are possible."""
    factors, left = _fewer(factors, left, inner)
    if not all(len(own) for own in left.values()):
        return
    factors = [_without_idle_axes(one) for one in factors]
    work, order = _work(factors, inner)
    several = [v for v, own in left.items() if len(set(kinds[v][own].tolist())) > 1]
    if work > _SMALL_CASE and several:
        variable = max(several)
        for kind in sorted(set(kinds[variable][left[variable]].tolist())):
            part = np.flatnonzero(kinds[variable][left[variable]] == kind)
            some = [_taken(one, variable, part) for one in factors]
            own = {**left, variable: left[variable][part]}
            yield from _cases(some, inner, border, own, kinds)
        return
    if work > _MOST_WORK:
        raise TooLargeError(f"a case of a bound takes tables of {work} entries to check")
    for variable in order:
        factors = _joined(factors, variable)
    total = np.zeros([len(left[v]) for v in border])
    for scope, table in factors:
        shape = [len(left[v]) if v in scope else 1 for v in border]
        total = total + table.reshape(shape)  # scopes and the border are in increasing order
    yield left, total


def _work(factors: Sequence[Factor], inner: frozenset[int]) -> tuple[int, list[int]]:
    """Return the entries of all tables of the better of two orders, and that order."""
    sizes = _sizes(factors)
    found = []
    for power in (0, 1):
        near, order, work = _near(factors), list[int](), 0
        while len(order) < len(inner):
            entries = {v: prod(sizes[u] for u in near[v]) for v in inner - set(order)}
            variable = min(entries, key=lambda v: (entries[v] // sizes[v] ** power, v))
            order.append(variable)
            work += entries[variable]
            for u in near[variable] - {variable}:
                near[u] = (near[u] | near[variable]) - {variable}
        found.append((work, order))
    return min(found)


def _taken(factor: Factor, variable: int, part: Indices) -> Factor:
    scope, table = factor
    return (scope, table.take(part, scope.index(variable))) if variable in scope else factor


def _without_idle_axes(factor: Factor) -> Factor:
    """Return a table of several variables without those that make no difference."""
    scope, table = factor
    for variable in scope if len(scope) > 1 else ():
        first = table.take([0], scope.index(variable))
        if (table == first).all():
            rest = tuple(v for v in scope if v != variable)
            table, scope = first.reshape([table.shape[scope.index(v)] for v in rest]), rest
    return scope, table


def _fewer(
    factors: list[Factor], left: Options, inner: Collection[int]
) -> tuple[list[Factor], Options]:
    """Leave out options that nothing allows, and inner ones that another one beats."""
    todo = set(left)
    while todo:
        variable = min(todo)
        todo.remove(variable)
        tables = [
            np.moveaxis(table, scope.index(variable), 0).reshape(len(left[variable]), -1)
            for scope, table in factors
            if variable in scope
        ]
        stays = np.all([(table < _NOT_ALLOWED).any(axis=1) for table in tables], axis=0)
        is_compared = stays.sum() * sum(table.size for table in tables) <= _COMPARED
        if variable in inner and is_compared:
            for option in np.flatnonzero(stays):
                if stays[option]:
                    excess = sum((t[option] - t).max(axis=1) for t in tables)
                    stays &= (excess > 0) | (np.arange(len(stays)) == option)
        if not stays.all():
            part = np.flatnonzero(stays)
            factors = [_taken(one, variable, part) for one in factors]
            left = {**left, variable: left[variable][part]}
            if not len(part):
                return factors, left
            todo |= _near(factors)[variable] - {variable}
    return factors, left
