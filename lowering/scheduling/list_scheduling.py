"""List scheduling with look-ahead: short schedules fast, for problems of any size.

A list scheduler places tasks one by one, in the order of a list, each where it fits first. The list looks
ahead: by the longest chain of tasks that still follows (latest start and finish), by all the work that
follows, and, after a first schedule, by the schedule that time running backwards gives, which knows of the
resources too (justification). Lists around the best schedule, with noise, then search its neighbourhood.
The effort counts schedules, not seconds, and noise comes from a seed, so results are the same everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tilewright.lowering.scheduling.bounds import lower_bound, paths
from tilewright.lowering.scheduling.problem import Problem, Solution
from tilewright.lowering.scheduling.search_core import follow, sample
from tilewright.lowering.scheduling.tables import IntArray, Tables, make_room, make_tables


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How hard the scheduler tries."""

    samples: int = 400
    """Lists with noise around the best schedule."""
    placements: int = 2_000_000
    """Tasks placed at most, which makes the samples of large problems fewer."""
    seed: int = 1


def list_schedule(problem: Problem, effort: Effort | None = None) -> Solution:
    """Return a schedule and a lower bound.

    Args:
        problem: What to schedule.
        effort: How hard to try.

    Source:
        Kolisch and Hartmann, "Heuristic algorithms for the resource-constrained project scheduling
        problem", 1999, for the rules.
    """
    effort = effort or Effort()
    tables = make_tables(problem)
    bound, proof = lower_bound(problem, tables)
    n = len(problem.durations)
    if n == 0:
        return Solution(starts=(), makespan=0, bound=0, proof=proof)
    backward, room = tables.reversed, make_room(tables)
    best, makespan = room.starts.copy(), -1
    for keys in _priorities(tables):
        found = follow(tables, backward, room, keys)
        if makespan < 0 or found < makespan:
            best, makespan = room.starts.copy(), found
        if makespan == bound:
            break
    # a sample places every task three times at least
    samples = min(effort.samples, effort.placements // (3 * n))
    makespan = sample(
        tables,
        backward,
        room,
        np.zeros(n, np.int64),
        best,
        makespan,
        bound,
        samples,
        effort.seed,
    )
    return Solution(starts=tuple(best.tolist()), makespan=makespan, bound=bound, proof=proof)


def _priorities(tables: Tables) -> tuple[IntArray, ...]:
    """Return the keys of the rules, by which the smallest goes first."""
    heads, tails = paths(tables)
    length = int((heads + tables.durations + tails).max())
    latest_finish = length - tails
    latest_start = latest_finish - tables.durations
    return (
        latest_finish,
        latest_start,
        heads + latest_start,
        heads,
    )
