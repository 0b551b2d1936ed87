"""Choose a strategy for every node of a contest instance within a time limit."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tilewright.errors import InfeasibleError
from tilewright.extract.choice import FORBIDDEN, ChoiceProblem
from tilewright.extract.large.contest import read_contest
from tilewright.extract.large.solve import LargeOptions, solve_large
from tilewright.extract.solution import Solution

_RESERVE = 0.03
"""Share of the time kept for starting up, the last round and writing the result."""
_RESERVE_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """A strategy for each node; costs are in the file's unit."""

    strategies: tuple[int, ...]
    cost: float
    bound: float
    """No assignment within the limit costs less."""
    peak: float
    """The largest use of memory at any time, and its limit (none: infinite)."""
    limit: float
    edges: int

    @property
    def gap(self) -> float:
        """How much cheaper than this one the best assignment can be, relative to the cost."""
        return (self.cost - self.bound) / self.cost if self.cost > self.bound else 0.0


def assign(path: Path, seconds: float, *, seed: int = 1, rounds: int | None = None) -> Assignment:
    """Read an instance and return the best assignment found.

    Args:
        path: The instance, .json or .json.gz.
        seconds: Wall time from this call, reading included.
        seed: Of the local search.
        rounds: Rounds of the search; with these and time enough, the result does not depend on speed.

    Raises:
        ModelError: The file cannot be read or is no instance.
        InfeasibleError: Nothing that fits was found.
    """
    start = time.monotonic()
    contest = read_contest(path)
    left = seconds * (1 - _RESERVE) - _RESERVE_SECONDS - (time.monotonic() - start)
    options = LargeOptions(seconds=max(0.0, left), seed=seed)
    if rounds is not None:
        options = LargeOptions(seconds=max(0.0, left), seed=seed, rounds=rounds)
    problem = contest.problem
    solution = solve_large(problem, options)
    if not solution.feasible:
        raise InfeasibleError(f"{path}: {_reason(problem, solution)}")
    return Assignment(
        strategies=solution.choice,
        cost=solution.cost / contest.scale,
        bound=solution.bound / contest.scale,
        peak=_peak(problem, solution.choice),
        limit=problem.limit if problem.rows else float("inf"),
        edges=contest.edges,
    )


def _peak(problem: ChoiceProblem, choice: tuple[int, ...]) -> float:
    return float(problem.use(choice).max(initial=0.0))


def _reason(problem: ChoiceProblem, solution: Solution) -> str:
    """Say why nothing was found to fit, or that it was not found in time."""
    least = np.zeros(problem.rows + 1)
    for usage in problem.usages:
        allowed = usage.amounts[problem.costs[usage.variable] < FORBIDDEN / 2]
        if len(allowed):
            least[usage.low] += allowed.min()
            least[usage.high] -= allowed.min()
    needed = float(np.cumsum(least).max(initial=0.0))
    if needed > problem.limit:
        return (
            f"any assignment uses at least {needed:,.0f} at some time, the limit is "
            f"{problem.limit:,.0f}; raise usage_limit"
        )
    peak = _peak(problem, solution.choice)
    if solution.cost >= FORBIDDEN / 2:
        return (
            "no assignment found without a forbidden strategy or pair (cost 10^18); "
            "allow more pairs, or raise --time-limit"
        )
    return (
        f"no assignment found within the limit of {problem.limit:,.0f}, the least found uses "
        f"{peak:,.0f}; raise usage_limit or --time-limit"
    )
