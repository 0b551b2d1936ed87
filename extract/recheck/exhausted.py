"""All choices of a small problem that cost less than a limit and may fit, one after the other.

Variables are eliminated with all tables kept. Then, in the order in which the last one to go comes first, the
tables say of any first options what the best choice of the rest makes them cost.

Source:
    Dechter, "Bucket elimination", Artificial Intelligence 113 (1999) (choosing without dead ends).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from tilewright.extract.choice import ChoiceProblem, Costs, Indices, Usage
from tilewright.extract.copies import PairUsage
from tilewright.extract.plan_error import PlanError
from tilewright.extract.recheck.min_sum import factors_of, spread, twins

_MOST_ENTRIES = 20_000_000
"""Of a table."""

_MOST_CHOICES = 200_000
"""Beginnings of choices that are looked at."""


@dataclass(frozen=True, slots=True, eq=False)
class _Bucket:
    """What a variable's groups of options cost with the best of all that went before, by scope and group."""

    variable: int
    scope: tuple[int, ...]
    table: Costs
    least: Costs


def choices_below(
    problem: ChoiceProblem,
    needed: Sequence[Usage],
    together: Sequence[PairUsage],
    cost: float,
    row_price: float = 0.0,
) -> Iterator[tuple[int, ...]]:
    """Yield the choices that cost less and whose rows may be within the limit.

    Args:
        problem: Costs of options and pairs, and the limit of rows.
        needed: What every plan with an option needs of the rows at least.
        together: The same of pairs of options, in addition.
        cost: What choices must be below.
        row_price: Of a unit of the fullest row, which then counts as well.

    Raises:
        PlanError: There are too many to look at.
    """
    groups = [
        twins(problem, variable, np.arange(len(own))) for variable, own in enumerate(problem.costs)
    ]
    cheapest = tuple(
        np.array([min(own, key=costs.__getitem__) for own in parts], dtype=np.int64)
        for parts, costs in zip(groups, problem.costs, strict=True)
    )
    buckets, least = _buckets(problem, cheapest)
    order = [bucket.variable for bucket in buckets]
    uses = [np.zeros((len(own), problem.rows)) for own in problem.costs]
    for usage in needed:
        uses[usage.variable][:, usage.low : usage.high] += usage.amounts[:, None]
    rest = np.zeros((len(order) + 1, problem.rows))
    for depth in reversed(range(len(order))):
        rest[depth] = rest[depth + 1] + uses[order[depth]].min(axis=0)
    stack: list[tuple[float, dict[int, int], dict[int, int]]] = [(least, {}, {})]
    seen = 0
    while stack:
        known, chosen, group_of = stack.pop()
        if len(chosen) == len(order):
            yield tuple(chosen[v] for v in range(len(order)))
            continue
        seen += 1
        if seen > _MOST_CHOICES:
            raise PlanError(f"more than {_MOST_CHOICES} choices cost less than the bound")
        bucket = buckets[len(chosen)]
        v, at = bucket.variable, tuple(group_of[u] for u in bucket.scope)
        for group, options in enumerate(groups[v]):
            best = known + float(bucket.table[(*at, group)] - bucket.least[at])
            for option in options:
                extra = problem.costs[v][option] - problem.costs[v][cheapest[v][group]]
                if best + extra >= cost:
                    continue
                more = {**chosen, v: option}
                rows = rest[len(more)] + sum(uses[u][o] for u, o in more.items())
                fullest = _with_pairs(rows, together, more).max(initial=0.0)
                is_less = best + extra + row_price * fullest < cost
                if is_less and fullest <= problem.limit:
                    stack.append((best + float(extra), more, {**group_of, v: group}))


def _with_pairs(rows: Costs, together: Sequence[PairUsage], chosen: dict[int, int]) -> Costs:
    for pair in together:
        if pair.producer in chosen and pair.consumer in chosen:
            amount = pair.amounts[chosen[pair.producer], chosen[pair.consumer]]
            rows[pair.consumer] += amount
    return rows


def _buckets(problem: ChoiceProblem, kept: tuple[Indices, ...]) -> tuple[list[_Bucket], float]:
    """Return the tables of an elimination, the last one first, and the least cost."""
    factors, sizes = factors_of(problem, kept), [len(own) for own in kept]
    left, found, total = set(range(len(sizes))), [], 0.0
    while left:
        joined = {
            v: tuple(sorted({u for scope, _ in factors if v in scope for u in scope} - {v}))
            for v in left
        }
        v = min(left, key=lambda u: (prod(sizes[w] for w in (*joined[u], u)), u))
        scope = joined[v]
        if prod(sizes[u] for u in (*scope, v)) > _MOST_ENTRIES:
            raise PlanError("an exact search takes tables that are too large to check")
        left.remove(v)
        table = np.zeros([sizes[u] for u in (*scope, v)])
        for own, values in factors:
            if v in own:
                table = table + spread(own, values, scope, v)
        factors = [(own, values) for own, values in factors if v not in own]
        least = np.asarray(table.min(axis=-1))
        found.append(_Bucket(v, scope, table, least))
        if scope:
            factors.append((scope, least))
        else:
            total += float(least)
    return found[::-1], total
