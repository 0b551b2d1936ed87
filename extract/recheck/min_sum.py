"""The least cost of a choice problem without rows, by variable elimination, the plain way.

Options with the same ports on all edges differ only in cost: the cheapest stands for all. Options that
another one beats, whatever the neighbours take, go. Then every variable in turn is minimised out of
the sum of the tables that it is in.

Sources:
    Dechter, "Bucket elimination", Artificial Intelligence 113 (1999);
    Goldstein, Biophysical Journal 66 (1994) (options that another one beats).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from tilewright.extract.choice import ChoiceProblem, Costs, Indices
from tilewright.extract.plan_error import PlanError

MOST_WORK = 1_500_000_000
"""Entries of all tables, which are made one option of the variable that goes at a time."""

_MOST_LEFT = 40_000_000
"""Of a table without that variable."""

_MOST_BEATEN = 1500
"""Options of a variable that are compared with each other."""

Factor = tuple[tuple[int, ...], Costs]
"""Variables in increasing order, and a table with an axis for each."""


class TooLargeError(PlanError):
    """The tables that an elimination takes are too large."""


def least_cost(
    problem: ChoiceProblem, kept: tuple[Indices, ...], most_work: int = MOST_WORK
) -> float:
    """Return the least cost of a choice among some options of each variable, whatever rows they use.

    Raises:
        TooLargeError: That takes more than `most_work` entries of tables.
    """
    kept = unbeaten(problem, kept)
    return _eliminated(factors_of(problem, kept), [len(own) for own in kept], most_work)


def factors_of(problem: ChoiceProblem, kept: tuple[Indices, ...]) -> list[Factor]:
    """Return the costs of some options, and of pairs of them, as tables."""
    factors: list[Factor] = [
        ((variable,), own[left])
        for variable, (own, left) in enumerate(zip(problem.costs, kept, strict=True))
    ]
    for edge in problem.edges:
        ports = edge.left_ports[kept[edge.left]], edge.right_ports[kept[edge.right]]
        table = edge.matrix[np.ix_(*ports)]
        ends = (edge.left, edge.right)
        factors.append((ends, table) if edge.left < edge.right else (ends[::-1], table.T))
    return factors


def _ends(problem: ChoiceProblem, variable: int) -> list[tuple[int, Indices, Indices, Costs]]:
    """Return the edges of a variable: other variable, own ports, other ports, costs by own and other port."""
    ends = []
    for edge in problem.edges:
        if edge.left == variable:
            ends.append((edge.right, edge.left_ports, edge.right_ports, edge.matrix))
        if edge.right == variable:
            ends.append((edge.left, edge.right_ports, edge.left_ports, edge.matrix.T))
    return ends


def unbeaten(problem: ChoiceProblem, kept: tuple[Indices, ...]) -> tuple[Indices, ...]:
    """Return options among which some choice of least cost is."""
    return _undominated(problem, _without_twins(problem, kept))


def _without_twins(problem: ChoiceProblem, kept: tuple[Indices, ...]) -> tuple[Indices, ...]:
    """Return the cheapest of options with the same ports."""
    left = []
    for variable, (costs, options) in enumerate(zip(problem.costs, kept, strict=True)):
        groups = twins(problem, variable, options)
        cheapest = [min(own, key=lambda o: (costs[o], o)) for own in groups]
        left.append(np.array(sorted(cheapest), dtype=np.int64))
    return tuple(left)


def twins(problem: ChoiceProblem, variable: int, options: Indices) -> list[list[int]]:
    """Return options of a variable in groups of the same ports."""
    ports = [own for _, own, _, _ in _ends(problem, variable)]
    rows = np.stack([np.zeros(len(options)), *(own[options] for own in ports)], axis=1)
    groups: dict[bytes, list[int]] = {}
    for option, row in zip(options.tolist(), rows, strict=True):
        groups.setdefault(row.tobytes(), []).append(option)
    return list(groups.values())


def _undominated(problem: ChoiceProblem, kept: tuple[Indices, ...]) -> tuple[Indices, ...]:
    """Return the options that no other one beats, as long as there are some that one beats."""
    left = list(kept)
    ends = [_ends(problem, variable) for variable in range(len(left))]
    todo = set(range(len(left)))
    while todo:
        variable = min(todo)
        todo.remove(variable)
        options = left[variable]
        if len(options) > _MOST_BEATEN:
            continue
        costs = problem.costs[variable][options]
        excess = costs[:, None] - costs[None, :]
        for other, own, others, matrix in ends[variable]:
            table = matrix[:, np.unique(others[left[other]])]
            ports, place = np.unique(own[options], return_inverse=True)
            worst = np.stack([(table[port] - table[ports]).max(axis=1) for port in ports])
            excess += worst[np.ix_(place, place)]
        # an option is beaten by a better one, or by an equal one before it
        is_beaten = (excess <= 0) & ((excess.T > 0) | np.tri(len(options), k=-1, dtype=bool).T)
        stays = ~is_beaten.any(axis=0)
        if not stays.all():
            left[variable] = options[stays]
            todo |= {other for other, *_ in ends[variable]}
    return tuple(left)


def _eliminated(factors: list[Factor], sizes: list[int], most_work: int) -> float:
    """Return the least sum of the factors."""
    total, work = 0.0, 0
    left = set(range(len(sizes)))
    scopes = {v: {u for scope, _ in factors if v in scope for u in scope} for v in left}
    while left:
        v = min(left, key=lambda u: (prod(sizes[w] for w in scopes[u]), u))
        left.remove(v)
        axes = tuple(sorted(scopes[v] - {v}))
        entries = prod(sizes[u] for u in axes)
        work += entries * sizes[v]
        if entries > _MOST_LEFT or work > most_work:
            raise TooLargeError(f"a bound takes tables of {work} entries to check")
        factors, least = minimised(factors, v)
        if axes:
            factors.append((axes, least))
        else:
            total += float(least)
        for u in axes:
            scopes[u] = (scopes[u] | scopes[v]) - {v}
    return total


def minimised(factors: Sequence[Factor], variable: int) -> tuple[list[Factor], Costs]:
    """Return the other factors, and the least sum of those with a variable, by its neighbours in order."""
    mine = [one for one in factors if variable in one[0]]
    size = {u: n for scope, table in mine for u, n in zip(scope, table.shape, strict=True)}
    axes = tuple(sorted(size.keys() - {variable}))
    tables = [spread(scope, table, axes, variable) for scope, table in mine]
    least = np.full([size[u] for u in axes], np.inf)
    for option in range(size[variable]):
        rest: Costs = np.zeros(())
        for table in sorted((part[..., option] for part in tables), key=lambda one: one.size):
            rest = rest + table
        np.minimum(least, rest, out=least)
    return [one for one in factors if variable not in one[0]], least


def spread(scope: tuple[int, ...], table: Costs, axes: tuple[int, ...], last: int) -> Costs:
    """Return a table with an axis for each of `axes`, and one for `last`, which is in its scope."""
    moved = np.moveaxis(table, scope.index(last), -1)
    size = {u: table.shape[n] for n, u in enumerate(scope)}
    return moved.reshape([*(size.get(u, 1) for u in axes), size[last]])
