"""Close the gap of a relaxation: leave out options that no better choice can take, solve the rest exactly.

Messages leave a cost of each option over and above the bound: what a choice with this option costs at
least, minus the bound. Options for which that exceeds the gap to a known choice are in no choice as
good as the known one. What is left may have tables that elimination can hold.

Source: reduced-cost fixing of integer programming, on the reparametrisation of TRW-S.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tilewright.extract.choice import ChoiceProblem, Costs, Indices
from tilewright.extract.elimination import Elimination, polish
from tilewright.extract.message_passing import MessagePassing


def solve_by_fixing(
    problem: ChoiceProblem,
    passing: MessagePassing,
    costs: tuple[Costs, ...],
    known: tuple[int, ...],
    *,
    most_entries: int,
    rounds: int,
) -> tuple[tuple[int, ...], float | None]:
    """Return a choice at least as good as a known one, and its cost if it is proved optimal.

    Args:
        problem: The choice problem; its capacity rows are not looked at.
        passing: Message passing on it that has run for these costs.
        costs: Costs of options, prices of capacity included.
        known: A choice.
        most_entries: Largest table.
        rounds: Better choices leave fewer options, and fewer options give better choices: how often.
    """
    priced = ChoiceProblem(costs, problem.edges, (), 0, 0.0)
    bound, above = passing.option_bounds(costs)
    choice, value = known, priced.cost(known)
    for number in range(rounds):
        slack = value - bound + 1e-9 * max(1.0, abs(value))
        kept = [np.flatnonzero(own <= slack) for own in above]
        # rounding must not lose the known choice itself
        kept = [np.union1d(own, [option]) for own, option in zip(kept, choice, strict=True)]
        reduced = _restricted(priced, kept)
        elimination = Elimination(reduced, most_entries=most_entries)
        if elimination.is_small:
            numbers, least = elimination.solve(reduced.costs)
            return _original(numbers, kept), least
        if number == rounds - 1:
            break
        start = tuple(int(np.searchsorted(k, o)) for k, o in zip(kept, choice, strict=True))
        better = _original(polish(reduced, reduced.costs, start), kept)
        before, value = value, min(value, priced.cost(better))
        if value >= before - 1e-9 * max(1.0, abs(before)):
            break
        choice = better
    return choice, None


def _restricted(problem: ChoiceProblem, kept: list[Indices]) -> ChoiceProblem:
    """Return the problem with some options of each variable only."""
    edges = tuple(
        replace(
            edge,
            left_ports=edge.left_ports[kept[edge.left]],
            right_ports=edge.right_ports[kept[edge.right]],
        )
        for edge in problem.edges
    )
    costs = tuple(own[k] for own, k in zip(problem.costs, kept, strict=True))
    return replace(problem, costs=costs, edges=edges)


def _original(numbers: tuple[int, ...], kept: list[Indices]) -> tuple[int, ...]:
    return tuple(int(own[n]) for own, n in zip(kept, numbers, strict=True))
