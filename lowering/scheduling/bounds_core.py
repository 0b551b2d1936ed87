"""Compiled loops of the lower bounds."""

from __future__ import annotations

from tilewright.lowering.scheduling.jit import compiled, compiled_part
from tilewright.lowering.scheduling.tables import IntArray, Tables


@compiled
def longest_paths(tables: Tables, heads: IntArray, waiting: IntArray, order: IntArray) -> None:
    """Fill `heads` [n] with the longest chain in front of each task.

    Args:
        tables: The problem.
        heads: The result.
        waiting: [n], working memory.
        order: [n], working memory; afterwards a topological order.
    """
    n = len(tables.durations)
    count = 0
    for task in range(n):
        heads[task] = 0
        waiting[task] = tables.before_first[task + 1] - tables.before_first[task]
        if waiting[task] == 0:
            order[count] = task
            count += 1
    for position in range(n):
        task = order[position]
        end = heads[task] + tables.durations[task]
        for at in range(tables.after_first[task], tables.after_first[task + 1]):
            after = tables.after_task[at]
            heads[after] = max(heads[after], end + tables.after_lag[at])
            waiting[after] -= 1
            if waiting[after] == 0:
                order[count] = after
                count += 1


@compiled_part
def _is_overfull(
    tables: Tables, heads: IntArray, tails: IntArray, makespan: int, begin: int, end: int
) -> bool:
    """Whether the tasks must do more work within a window than some resource can."""
    for resource in range(len(tables.capacities)):
        work = 0
        for task in range(len(tables.durations)):
            length = tables.durations[task]
            # what is within the window when the task runs as early, and as late, as can be
            early = heads[task] + length - begin
            late = end - (makespan - tails[task] - length)
            inside = min(length, end - begin, early, late)
            if inside > 0:
                work += inside * tables.demands[task, resource]
        if work > tables.capacities[resource] * (end - begin):
            return True
    return False


@compiled
def is_refuted(
    tables: Tables, heads: IntArray, tails: IntArray, makespan: int, times: IntArray
) -> bool:
    """Whether the work in some window shows that no schedule ends by `makespan`.

    Args:
        tables: The problem.
        heads: [n], earliest starts.
        tails: [n], the least time from the end of each task to that of the last.
        makespan: At least the critical path.
        times: [2, 2 n], working memory.
    """
    n = len(tables.durations)
    for task in range(n):
        length = tables.durations[task]
        times[0, task] = heads[task]
        times[0, n + task] = makespan - tails[task] - length
        times[1, task] = makespan - tails[task]
        times[1, n + task] = heads[task] + length
    for first in range(2 * n):
        for second in range(2 * n):
            begin, end = times[0, first], times[1, second]
            if begin < end and _is_overfull(tables, heads, tails, makespan, begin, end):
                return True
    return False
