"""What no schedule can beat: chains of precedences, work on a resource, and energy in windows of time."""

from __future__ import annotations

import numpy as np

from tilewright.lowering.scheduling.bounds_core import is_refuted, longest_paths
from tilewright.lowering.scheduling.problem import Problem
from tilewright.lowering.scheduling.tables import IntArray, Tables, make_tables

_ENERGY_TASKS = 100
"""Larger problems do without the windows, whose number grows with the square of the tasks."""


def critical_path(tables: Tables) -> int:
    """Return the length of the longest chain of tasks and lags."""
    heads, _ = paths(tables)
    return int((heads + tables.durations).max(initial=0))


def resource_bound(tables: Tables) -> int:
    """Return the least time in which the busiest resource can do its work."""
    work = tables.durations @ tables.demands
    busy = tables.capacities > 0
    return int((-(-work[busy] // tables.capacities[busy])).max(initial=0))


def lower_bound(problem: Problem, tables: Tables | None = None) -> tuple[int, str]:
    """Return the best bound, and what it rests on: "critical path", "resource" or "energy".

    The last one is destructive: a makespan is refuted when, with every task between its earliest and
    latest times, the tasks must do more work within some window than a resource can.

    Source:
        Baptiste, Le Pape and Nuijten, "Satisfiability tests and time-bound adjustments for cumulative
        scheduling problems", 1999, for the windows.
    """
    tables = make_tables(problem) if tables is None else tables
    chain, work = critical_path(tables), resource_bound(tables)
    bound, proof = (chain, "critical path") if chain >= work else (work, "resource")
    n = len(problem.durations)
    if not 0 < n <= _ENERGY_TASKS:
        return bound, proof
    heads, tails = paths(tables)
    room = np.zeros((2, 2 * n), np.int64)
    # what refutes a makespan refutes all that are shorter
    low, step = bound, 1
    while is_refuted(tables, heads, tails, low + step - 1, room):
        low, step = low + step, 2 * step
    high = low + step - 1
    while low < high:
        middle = (low + high) // 2
        if is_refuted(tables, heads, tails, middle, room):
            low = middle + 1
        else:
            high = middle
    return (low, "energy") if low > bound else (bound, proof)


def paths(tables: Tables) -> tuple[IntArray, IntArray]:
    """Return the longest chain before the start of each task, and after its end."""
    n = len(tables.durations)
    heads, tails, room = (np.zeros(n, np.int64) for _ in range(3))
    order = np.zeros(n, np.int64)
    longest_paths(tables, heads, room, order)
    longest_paths(tables.reversed, tails, room, order)
    return heads, tails
