"""What a part of a choice problem costs, by the option of the one variable that joins it to the rest.

The part is then a cost of that variable's options, and need not be looked at again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from tilewright.extract.account import consistent
from tilewright.extract.choice import FORBIDDEN, ChoiceProblem, Costs, Indices, Usage, restricted
from tilewright.extract.dominance import without_dominated
from tilewright.extract.elimination import Factor, Step, without
from tilewright.extract.linear import LinearProgram

_MOST_ENTRIES = 100_000_000
"""Of the largest table."""

_SPREAD = 0.05
"""Costs are exact up to so far above the bound of the linear relaxation, relative to it."""


@dataclass(frozen=True, slots=True, eq=False)
class Projection:
    """The least cost of some variables for each option of the one that joins them to others."""

    costs: Costs
    _found: tuple[_Found, ...]

    def options(self, option: int) -> dict[int, int]:
        """Return the best option of each of the variables, given that of the joint."""
        return next((f.options(option) for f in self._found if option in f.joint_options), {})


def project(
    problem: ChoiceProblem, kept: Sequence[Indices], inner: Sequence[int], joint: int
) -> Projection | None:
    """Return what inner variables cost at least, by the option of their joint; None if they are too many.

    Args:
        problem: The problem. All edges of the inner variables are among them, or with the joint.
        kept: The options that are left of each variable; of the joint, those that are asked for. Others
            are FORBIDDEN.
        inner: The variables.
        joint: The one that joins them to others; its own costs are not looked at.
    """
    costs = np.full(len(problem.costs[joint]), FORBIDDEN)
    part = part_of(problem, (*inner, joint))
    allowed = consistent(part, tuple(kept[v] for v in (*inner, joint)))
    todo, parts = (kept[joint][:0] if allowed is None else allowed[-1]), []
    while len(todo):
        found = _cheapest(part, kept, inner, todo)
        if found is None:
            return None
        costs[found.joint_options] = found.costs
        parts.append(found)
        todo = np.setdiff1d(todo, found.joint_options)
    return Projection(costs, tuple(parts))


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    """What follows from some options of the joint."""

    joint_options: Indices
    costs: Costs
    """By option of the joint, as far as there are some."""
    members: dict[int, Indices]
    steps: tuple[Step, ...]
    places: Indices
    """Of each of these options of the joint among those that the steps know."""

    def options(self, option: int) -> dict[int, int]:
        """Return the best option of each variable; none if there is none."""
        if not self.steps:
            return {}
        last = len(self.members)
        groups = {last: int(self.places[np.flatnonzero(self.joint_options == option)[0]])}
        for step in reversed(self.steps):
            groups[step.variable] = int(step.best[tuple(groups[u] for u in step.scope)])
        return {v: int(own[groups[n]]) for n, (v, own) in enumerate(self.members.items())}


def _cheapest(
    part: ChoiceProblem, kept: Sequence[Indices], inner: Sequence[int], todo: Indices
) -> _Found | None:
    """Return what costs least among some options of the joint, and all that costs little more.

    Options of the variables that are further above the bound of the linear relaxation are left out; that
    is exact for what costs no more than that.
    """
    last = len(inner)
    numbers = np.arange(len(part.costs[last]), dtype=np.float64)
    apart = tuple(Usage(last, 0, 1, way * numbers) for way in (1, -1))  # so that all of them stay
    part = replace(part, costs=(*part.costs[:-1], 0 * numbers), usages=apart, rows=1)
    few = restricted(part, [*(kept[v] for v in inner), todo])
    fewer, left = without_dominated(few)
    fewer = replace(fewer, usages=(), rows=0)
    relaxation = LinearProgram(fewer).solve()
    if relaxation is None:  # nothing is proven of these
        return _Found(todo, np.zeros(len(todo)), {}, (), np.zeros(len(todo), dtype=np.int64))
    most = max(relaxation.bound * (1 + _SPREAD), relaxation.bound + _SPREAD)
    near = [np.flatnonzero(above <= most - relaxation.bound) for above in relaxation.above[:-1]]
    near.append(np.arange(len(todo)))
    found = _eliminated(restricted(fewer, near), last)
    if found is None:
        return None
    costs, steps = found
    done = np.flatnonzero(costs <= max(most, float(costs.min())))
    members = {
        v: kept[v][own[few_]] for v, own, few_ in zip(inner, left[:-1], near[:-1], strict=True)
    }
    return _Found(todo[done], np.minimum(costs[done], most), members, tuple(steps), done)


def part_of(problem: ChoiceProblem, variables: Sequence[int]) -> ChoiceProblem:
    """Return the problem of some variables, in this order, without usages."""
    number = {v: n for n, v in enumerate(variables)}
    return ChoiceProblem(
        costs=tuple(problem.costs[v] for v in variables),
        edges=tuple(
            replace(edge, left=number[edge.left], right=number[edge.right])
            for edge in problem.edges
            if edge.left in number and edge.right in number
        ),
        usages=(),
        rows=0,
        limit=problem.limit,
    )


def _eliminated(problem: ChoiceProblem, last: int) -> tuple[Costs, list[Step]] | None:
    """Return the least cost by the option of the last variable, and how the others follow."""
    factors = [Factor((v,), own) for v, own in enumerate(problem.costs)]
    for edge in problem.edges:
        table = edge.matrix[np.ix_(edge.left_ports, edge.right_ports)]
        ends, table = (
            ((edge.left, edge.right), table)
            if edge.left < edge.right
            else ((edge.right, edge.left), table.T)
        )
        factors.append(Factor(ends, table))
    steps, todo = [], set(range(last))
    while todo:
        scopes = {v: {u for f in factors if v in f.scope for u in f.scope} for v in todo}
        entries = {v: prod(len(problem.costs[u]) for u in scopes[v]) for v in todo}
        v = min(todo, key=lambda u: (entries[u], u))
        if entries[v] > _MOST_ENTRIES:
            return None
        todo.remove(v)
        scope = tuple(sorted(scopes[v] - {v}))
        least, best = without([f for f in factors if v in f.scope], scope, v)
        factors = [f for f in factors if v not in f.scope] + [Factor(scope, least)]
        steps.append(Step(v, scope, best))
    total: Costs = sum((f.table for f in factors), np.zeros(len(problem.costs[last])))
    return total, steps
