"""A scheduling problem as arrays, for the compiled loops."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tilewright.lowering.scheduling.problem import Problem

IntArray = NDArray[np.int64]


class Tables(NamedTuple):
    """Tasks [n], resources [r] and precedences [e]; each task's predecessors and successors in one row."""

    durations: IntArray
    demands: IntArray
    """[n, r]."""
    capacities: IntArray
    before_first: IntArray
    """[n + 1]: predecessors of task i are `before_task[before_first[i]:before_first[i + 1]]`."""
    before_task: IntArray
    before_lag: IntArray
    after_first: IntArray
    after_task: IntArray
    after_lag: IntArray

    @property
    def reversed(self) -> Tables:
        """The problem with time running backwards."""
        return self._replace(
            before_first=self.after_first,
            before_task=self.after_task,
            before_lag=self.after_lag,
            after_first=self.before_first,
            after_task=self.before_task,
            after_lag=self.before_lag,
        )


class Room(NamedTuple):
    """Memory for the compiled loops, so that they need not allocate."""

    times: IntArray
    """[2 n + 2]: where the use of resources changes, ascending."""
    used: IntArray
    """[2 n + 2, r]: use from that time on."""
    waiting: IntArray
    """[n]: predecessors that are not placed yet."""
    heap: IntArray
    """[n]."""
    order: IntArray
    """[n]."""
    keys: IntArray
    """[n]."""
    starts: IntArray
    """[n]."""
    other: IntArray
    """[n]: starts in the other direction."""


def make_tables(problem: Problem) -> Tables:
    """Return the arrays of a problem."""
    tasks, resources = len(problem.durations), len(problem.capacities)
    edges = np.array(problem.precedences, np.int64).reshape(-1, 3)
    before = _rows(edges[:, 1], edges[:, 0], edges[:, 2], tasks)
    after = _rows(edges[:, 0], edges[:, 1], edges[:, 2], tasks)
    return Tables(
        np.array(problem.durations, np.int64),
        np.array(problem.demands, np.int64).reshape(tasks, resources),
        np.array(problem.capacities, np.int64),
        *before,
        *after,
    )


def _rows(
    owner: IntArray, other: IntArray, lag: IntArray, tasks: int
) -> tuple[IntArray, IntArray, IntArray]:
    """Return the first entry of each owner, and the entries by owner."""
    order = np.argsort(owner, kind="stable")
    first = np.zeros(tasks + 1, np.int64)
    np.cumsum(np.bincount(owner, minlength=tasks), out=first[1:])
    return first, np.ascontiguousarray(other[order]), np.ascontiguousarray(lag[order])


def make_room(tables: Tables) -> Room:
    """Return working memory that is large enough for a problem."""
    tasks, resources = tables.demands.shape
    vector = [np.zeros(tasks, np.int64) for _ in range(6)]
    return Room(
        np.zeros(2 * tasks + 2, np.int64), np.zeros((2 * tasks + 2, resources), np.int64), *vector
    )
