"""Schedules proven optimal, by constraint programming (CP-SAT of OR-tools, an optional dependency)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

from tilewright.errors import CompileError
from tilewright.lowering.scheduling.list_scheduling import Effort, list_schedule
from tilewright.lowering.scheduling.problem import Problem, Solution

_FIRST = Effort(samples=4000)
"""A good schedule to begin with is worth its time: the search then has only to refute shorter ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExactLimits:
    """How long the search may take; it gives what it has then, with its bound."""

    work: float = 200.0
    """CP-SAT's deterministic time, a third of a second of one processor or so; the same everywhere."""
    seed: int = 1


def exact_schedule(
    problem: Problem, limits: ExactLimits | None = None, known: Solution | None = None
) -> Solution:
    """Return a shortest schedule, or the best found with a proven bound when the limit ends the search.

    Args:
        problem: What to schedule.
        limits: Where to end the search.
        known: A schedule to begin with; the list scheduler makes one if there is none.

    Raises:
        CompileError: OR-tools is not installed.
    """
    limits = limits or ExactLimits()
    known = known or list_schedule(problem, _FIRST)
    if known.is_optimal:
        return known
    try:
        cp_model = import_module("ortools.sat.python.cp_model")
    except ImportError as error:
        raise CompileError(
            "exact schedules need OR-tools, which is not installed; install it with "
            "pip install 'tilewright[exact]', or schedule with lists"
        ) from error
    model, starts, makespan = _model(cp_model, problem, known)
    solver = cp_model.CpSolver()
    # one worker and a limit of work rather than time: the same schedule on every machine
    solver.parameters.num_workers = 1
    solver.parameters.max_deterministic_time = limits.work
    # the linear relaxation of cumulative resources costs more than it prunes
    solver.parameters.linearization_level = 0
    solver.parameters.random_seed = limits.seed
    status = solver.solve(model)
    bound = max(known.bound, round(solver.best_objective_bound))
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return known  # the limit came before the search repeated what is known
    found = round(solver.value(makespan))
    if found >= known.makespan:
        best = replace(known, bound=bound)
    else:
        times = tuple(round(solver.value(start)) for start in starts)
        best = Solution(starts=times, makespan=found, bound=bound, proof="search")
    return best if bound == known.bound else replace(best, proof="search")


def _model(cp_model: Any, problem: Problem, known: Solution) -> tuple[Any, list[Any], Any]:
    """Return the model, the variables of the starts and that of the makespan."""
    model = cp_model.CpModel()
    latest = known.makespan
    makespan = model.new_int_var(known.bound, latest, "makespan")
    starts, intervals = [], []
    for task, duration in enumerate(problem.durations):
        start = model.new_int_var(0, latest - duration, f"start {task}")
        intervals.append(model.new_fixed_size_interval_var(start, duration, f"task {task}"))
        model.add(start + duration <= makespan)
        model.add_hint(start, known.starts[task])
        starts.append(start)
    for before, after, lag in problem.precedences:
        model.add(starts[after] >= starts[before] + problem.durations[before] + lag)
    for resource, capacity in enumerate(problem.capacities):
        users = [
            (intervals[task], demands[resource])
            for task, demands in enumerate(problem.demands)
            if demands[resource] and problem.durations[task]
        ]
        if users and all(2 * demand > capacity for _, demand in users):
            model.add_no_overlap([interval for interval, _ in users])
        elif users:
            model.add_cumulative(
                [interval for interval, _ in users], [demand for _, demand in users], capacity
            )
    model.add_hint(makespan, latest)
    model.minimize(makespan)
    return model, starts, makespan
