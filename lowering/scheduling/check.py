"""Whether a schedule keeps all limits, found out the naive way.

It shares nothing with the schedulers: every pair of tasks and every resource is looked at by itself.
"""

from __future__ import annotations

from collections.abc import Sequence

from tilewright.lowering.scheduling.problem import Problem


def find_violations(problem: Problem, starts: Sequence[int], makespan: int) -> tuple[str, ...]:
    """Return what is wrong with a schedule, a sentence each; nothing if it is correct.

    Args:
        problem: The tasks.
        starts: When each starts.
        makespan: The end of the last one, as claimed.
    """
    if len(starts) != len(problem.durations):
        return (f"{len(starts)} starts of {len(problem.durations)} tasks",)
    ends = [start + length for start, length in zip(starts, problem.durations, strict=True)]
    found = [f"task {task} starts at {start}" for task, start in enumerate(starts) if start < 0]
    if makespan != max(ends, default=0):
        found.append(f"the makespan is {max(ends, default=0)}, {makespan} was claimed")
    for before, after, lag in problem.precedences:
        if starts[after] < ends[before] + lag:
            found.append(
                f"task {after} starts at {starts[after]}, task {before} ends at {ends[before]} and "
                f"the lag is {lag}"
            )
    # the use of a resource only grows when a task starts, so its peak is at a start
    for resource, capacity in enumerate(problem.capacities):
        for time in sorted(set(starts)):
            used = sum(
                problem.demands[task][resource]
                for task in range(len(starts))
                if starts[task] <= time < ends[task]
            )
            if used > capacity:
                found.append(
                    f"{used} of resource {resource} in use at {time}, there are {capacity}"
                )
    return tuple(found)
