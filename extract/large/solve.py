"""Solve a large choice problem in a given time: contraction, dual prices, local search side by side.

One thread improves the bound (message passing with prices on rows), another the choice (tree moves
with the prices found so far, in cycles of simulated annealing); when the bound no longer moves, both
search. Options that the bound shows to be in no better choice are then left out, and the smaller problem
is contracted and solved in the same way.

Threads meet after rounds of equal work, counted in table entries and not in seconds: a number of
rounds gives the same result on any machine.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from tilewright.extract.choice import FORBIDDEN, ChoiceProblem, Costs, Indices
from tilewright.extract.large.contraction import Contracted, contract
from tilewright.extract.large.worker import Worker
from tilewright.extract.solution import Solution

_LEAST_REDUCTION = 0.9
"""A problem is contracted anew when no more than this share of its options is left."""


@dataclass(frozen=True, slots=True)
class LargeOptions:
    """When to stop; the result depends on `rounds` and `seed` only, unless time runs out first."""

    seconds: float = 60.0
    """Wall time from the call of `solve_large`."""
    rounds: int = 1_000_000
    seed: int = 1
    gap: float = 1e-9


def solve_large(problem: ChoiceProblem, options: LargeOptions | None = None) -> Solution:
    """Return the best choice found in the time, and a proven bound of every fitting choice.

    The solution's multipliers are the row prices of the bound. Where options were left out on the way,
    the bound rests on the choice returned, too: it holds for every choice that is better.
    """
    options = options or LargeOptions()
    deadline = time.monotonic() + options.seconds
    stage = contract(problem)
    if not stage.is_possible:
        return _solution(problem, (0,) * len(problem.costs), float("inf"), np.zeros(problem.rows))
    worker = Worker(stage.problem, options.seed)
    way = [stage]
    with ThreadPoolExecutor(2) as pool:
        rounds = options.rounds
        while rounds > 0 and time.monotonic() < deadline and not worker.is_closed(options.gap):
            rounds -= worker.run(pool, deadline, rounds, options.gap)
            if not worker.is_settled:
                continue
            kept = worker.kept_options()
            if sum(map(len, kept)) <= _LEAST_REDUCTION * sum(map(len, way[-1].problem.costs)):
                way.append(_reduced(way[-1].problem, kept))
                worker = worker.on(way[-1].problem, _start(way[-1], worker.best))
    return _solution(problem, _expanded(way, worker.best), worker.bound, worker.prices)


def _reduced(problem: ChoiceProblem, kept: list[Indices]) -> Contracted:
    """Contract what is left of a problem; its members are in the numbers of the problem given."""
    edges = tuple(
        replace(e, left_ports=e.left_ports[kept[e.left]], right_ports=e.right_ports[kept[e.right]])
        for e in problem.edges
    )
    usages = tuple(replace(u, amounts=u.amounts[kept[u.variable]]) for u in problem.usages)
    costs = tuple(own[k] for own, k in zip(problem.costs, kept, strict=True))
    stage = contract(replace(problem, costs=costs, edges=edges, usages=usages))
    members = []
    for variables, options in stage.members:
        columns = [kept[v][options[:, place]] for place, v in enumerate(variables.tolist())]
        members.append((variables, np.stack(columns, axis=1) if columns else options))
    return replace(stage, members=tuple(members))


def _start(stage: Contracted, choice: Indices) -> Indices:
    """Return the smaller problem's choice that a choice of the larger one is or that is no worse."""
    found = [
        int(np.flatnonzero(options[:, 0] == choice[variables[0]])[0])
        for variables, options in stage.members[:-1]
    ]
    return np.array([*found, 0], dtype=np.int64)


def _expanded(way: list[Contracted], choice: Indices) -> tuple[int, ...]:
    for stage in reversed(way):
        choice = np.array(stage.expand(choice), dtype=np.int64)
    return tuple(choice.tolist())


def _solution(
    problem: ChoiceProblem, choice: tuple[int, ...], bound: float, prices: Costs
) -> Solution:
    cost = problem.cost(choice)
    fits = bool((problem.use(choice) <= problem.limit).all())
    feasible = cost < FORBIDDEN / 2 and fits
    method = "contraction + message passing + tree moves"
    return Solution(choice, cost, min(bound, cost) if feasible else bound, method, prices, feasible)
