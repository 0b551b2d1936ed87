"""Scheduling problems and their solutions: tasks on renewable resources, as early done as possible.

The resource-constrained project scheduling problem. A task runs for its duration without a break and
takes an amount of each resource meanwhile; a precedence holds it back until some time after another one's
end. Times are whole numbers, of whatever unit; intervals are half-open.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from tilewright.errors import InfeasibleError, ScheduleError

MAX_TIME = 1 << 40
"""Durations, lags, demands and their sums over a problem must stay below, so that no product overflows."""


class Precedence(NamedTuple):
    """Task `after` starts no earlier than `lag` after the end of task `before`."""

    before: int
    after: int
    lag: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Tasks to be run in the least time.

    Attributes:
        durations: Of each task, at least 0.
        demands: For each task, the amount of each resource it takes while it runs.
        capacities: Of each resource.
        precedences: In any order; their graph has no cycle.
        name: What the problem is called in errors.

    Raises:
        ScheduleError: A number is out of range, a task that is not there is named, or tasks wait for each
            other in a circle.
        InfeasibleError: A task takes more than there is of a resource.
    """

    durations: tuple[int, ...]
    demands: tuple[tuple[int, ...], ...]
    capacities: tuple[int, ...]
    precedences: tuple[Precedence, ...] = ()
    name: str = "problem"

    def __post_init__(self) -> None:
        """Check the numbers, the references and the order."""
        self._check_numbers()
        for before, after, _ in self.precedences:
            for task in (before, after):
                if not 0 <= task < len(self.durations):
                    raise ScheduleError(
                        f"{self.name}: precedence {before} -> {after} names task {task}, expected 0 to "
                        f"{len(self.durations) - 1}; correct the number"
                    )
        self._check_order()

    def _check_numbers(self) -> None:
        if len(self.demands) != len(self.durations):
            raise ScheduleError(
                f"{self.name}: demands of {len(self.demands)} tasks, durations of {len(self.durations)}; "
                "give both for each task"
            )
        for task, (duration, demands) in enumerate(zip(self.durations, self.demands, strict=True)):
            if len(demands) != len(self.capacities):
                raise ScheduleError(
                    f"{self.name}: task {task} has demands on {len(demands)} resources, expected "
                    f"{len(self.capacities)}; give 0 where it needs none"
                )
            self._check_range(f"the duration of task {task}", duration)
            for resource, (demand, capacity) in enumerate(
                zip(demands, self.capacities, strict=True)
            ):
                self._check_range(f"the demand of task {task} on resource {resource}", demand)
                if demand > capacity:
                    raise InfeasibleError(
                        f"{self.name}: task {task} takes {demand} of resource {resource}, its capacity is "
                        f"{capacity}; raise the capacity or lower the demand by {demand - capacity}"
                    )
        for resource, capacity in enumerate(self.capacities):
            self._check_range(f"the capacity of resource {resource}", capacity)
        for before, after, lag in self.precedences:
            self._check_range(f"the lag of precedence {before} -> {after}", lag)
        self._check_range("the sum of all durations and lags", self.horizon)

    def _check_range(self, what: str, value: int) -> None:
        if not 0 <= value < MAX_TIME:
            raise ScheduleError(f"{self.name}: {what} is {value}, expected 0 to below 2^40")

    @property
    def horizon(self) -> int:
        """Length of a schedule that runs one task after the other."""
        return sum(self.durations) + sum(precedence.lag for precedence in self.precedences)

    def _check_order(self) -> None:
        """Refuse tasks that wait for each other in a circle."""
        waiting = [0] * len(self.durations)
        followers: list[list[int]] = [[] for _ in self.durations]
        for before, after, _ in self.precedences:
            waiting[after] += 1
            followers[before].append(after)
        order = [task for task, count in enumerate(waiting) if count == 0]
        for task in order:  # grows while it is walked
            for after in followers[task]:
                waiting[after] -= 1
                if waiting[after] == 0:
                    order.append(after)
        if len(order) < len(self.durations):
            circle = " -> ".join(map(str, _find_circle(followers, waiting)))
            raise ScheduleError(
                f"{self.name}: tasks wait for each other in a circle, {circle}; drop one of these precedences"
            )


def _find_circle(followers: list[list[int]], waiting: list[int]) -> list[int]:
    """Return the tasks of one circle, the first again at the end."""
    stuck = {task for task, count in enumerate(waiting) if count}
    preceding = {after: task for task in sorted(stuck) for after in followers[task]}
    task, seen = min(stuck), dict[int, int]()
    walk: list[int] = []
    while task not in seen:
        seen[task] = len(walk)
        walk.append(task)
        task = preceding[task]
    circle = walk[seen[task] :][::-1]
    return [*circle, circle[0]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """When each task starts, and what no schedule can be faster than."""

    starts: tuple[int, ...]
    makespan: int
    """End of the last task."""
    bound: int
    """No schedule is over earlier."""
    proof: str
    """What the bound rests on: "critical path", "resource", "energy" or "search"."""

    @property
    def is_optimal(self) -> bool:
        """Whether no schedule is shorter."""
        return self.makespan == self.bound

    @property
    def gap(self) -> float:
        """How much shorter a schedule might be, relative to this one's makespan."""
        return 1.0 - self.bound / self.makespan if self.makespan else 0.0
