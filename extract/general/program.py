"""The integer program of a choice problem, solved with HiGHS, cycles cut off lazily.

A column for each alternative; y(c) is the sum over the alternatives of class c:

    y(c) = 1 for required classes, else y(c) <= 1
    sum of the alternatives of e that need c  <=  y(c)             for each class e that needs c
    y(c) <= sum of the alternatives that need c                    where a negative cost is below c

Cycles are excluded by *loop formulas*: of a set S of classes, none can be built unless some class of S
is built without the others,

    y(c) <= sum of the alternatives of classes in S that need nothing in S        for c in S.

Source:
    Loop formulas: Lin and Zhao, "ASSAT: computing answer sets of a logic program by SAT solvers", 2004.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, linprog, milp
from scipy.sparse import csr_array, vstack

from tilewright.extract.general.snapshot import Snapshot

type Row = dict[int, float]
type Vector = NDArray[np.float64]

# All subsets of a cycle with at most so many classes are looked at.
SUBSET_CLASSES = 12
# Status of scipy's solvers: there is no choice at all.
INFEASIBLE = 2
# How far a loop formula must be broken to be added.
VIOLATION = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Solved:
    """What a run of the solver found.

    Attributes:
        columns: The chosen alternatives of a solution without cycles, None if none was found.
        bound: No choice costs less, what was decided before included; infinite if there is none.
    """

    columns: tuple[int, ...] | None
    bound: float


class Program:
    """The integer program of a snapshot, with the loop formulas found so far."""

    def __init__(self, snapshot: Snapshot) -> None:
        """Write down all rows but the loop formulas of parts of cycles."""
        self.snapshot = snapshot
        self.rows: list[Row] = []
        self.lower: list[float] = []
        self.upper: list[float] = []
        self.loops: set[tuple[int, tuple[int, ...]]] = set()
        self.cost = np.array(snapshot.cost)
        # The solver's tolerances are absolute: costs of the order of 1000 suit them.
        whole = all(cost == int(cost) for cost in snapshot.cost)
        largest = float(np.abs(self.cost).max())
        self.scale = 1.0 if whole or largest == 0 else 1000 / largest
        self.step = _step(snapshot) if whole else 0.0
        for group in range(len(snapshot.alternatives)):
            self._write_class(group)
        users = snapshot.users()
        for group, mine in enumerate(users):
            self._write_needs(group, mine)
        for cycle in snapshot.cycles:
            self.add_loops(cycle, cycle)

    def _add(self, row: Row, lower: float, upper: float) -> None:
        self.rows.append(row)
        self.lower.append(lower)
        self.upper.append(upper)

    def _write_class(self, group: int) -> None:
        mine = self.snapshot.alternatives[group]
        if self.snapshot.is_required[group]:
            self._add(dict.fromkeys(mine, 1.0), 1, 1)
        elif len(mine) > 1:
            self._add(dict.fromkeys(mine, 1.0), -math.inf, 1)

    def _write_needs(self, group: int, users: Sequence[int]) -> None:
        snapshot = self.snapshot
        if snapshot.is_required[group]:
            return
        mine = snapshot.alternatives[group]
        by_owner: dict[int, list[int]] = {}
        for user in users:
            by_owner.setdefault(snapshot.owner[user], []).append(user)
        for columns in by_owner.values():
            self._add({**dict.fromkeys(mine, 1.0), **dict.fromkeys(columns, -1.0)}, 0, math.inf)
        if snapshot.is_tainted[group]:
            self._add({**dict.fromkeys(mine, -1.0), **dict.fromkeys(users, 1.0)}, 0, math.inf)

    def add_loops(self, members: Sequence[int], targets: Iterable[int]) -> int:
        """Add loop formulas of a set of classes, one for each target; return how many are new."""
        snapshot, inside, added = self.snapshot, set(members), 0
        entries = [
            column
            for group in members
            for column in snapshot.alternatives[group]
            if inside.isdisjoint(snapshot.needs[column])
        ]
        for target in targets:
            key = (target, tuple(members))
            if key in self.loops:
                continue
            self.loops.add(key)
            row: Row = dict.fromkeys(entries, 1.0)
            for column in snapshot.alternatives[target]:
                row[column] = row.get(column, 0.0) - 1
            self._add({column: value for column, value in row.items() if value}, 0, math.inf)
            added += 1
        return added

    def matrix(self) -> csr_array:
        """Return all rows so far."""
        starts = np.cumsum([0, *(len(row) for row in self.rows)])
        columns = np.fromiter((c for row in self.rows for c in row), dtype=np.int32)
        values = np.fromiter((v for row in self.rows for v in row.values()), dtype=np.float64)
        return csr_array((values, columns, starts), shape=(len(self.rows), len(self.cost)))

    def relax(self, deadline: float) -> tuple[float, Vector] | None:
        """Solve the linear relaxation, adding loop formulas of small cycles that it breaks.

        Returns:
            Its bound, computed from the dual solution, and the primal solution; None if time is up.
            The bound is infinite if no choice is possible.
        """
        while True:
            found = self._relax_once(deadline)
            if found is None or not self._separate(found[1]) or monotonic() > deadline:
                return found

    def _relax_once(self, deadline: float) -> tuple[float, Vector] | None:
        matrix = self.matrix()
        lower, upper = np.array(self.lower), np.array(self.upper)
        has_lower, has_upper = np.isfinite(lower), np.isfinite(upper)
        result = linprog(
            self.cost * self.scale,
            A_ub=_stack(matrix, has_upper, has_lower),
            b_ub=np.concatenate([upper[has_upper], -lower[has_lower]]),
            bounds=(0, 1),
            method="highs",
            options={"time_limit": max(0.01, deadline - monotonic())},
        )
        if result.status == INFEASIBLE:
            return math.inf, np.zeros(len(self.cost))
        if result.status != 0:
            return None
        # Any prices give a bound: nothing rests on the solver's tolerances.
        prices = np.minimum(result.ineqlin.marginals, 0)
        count = int(has_upper.sum())
        reduced = self.cost * self.scale - _stack(matrix, has_upper, has_lower).T @ prices
        value = prices[:count] @ upper[has_upper] - prices[count:] @ lower[has_lower]
        bound = float(value + np.minimum(reduced, 0).sum()) / self.scale
        return self.rounded(self.snapshot.paid + bound), result.x

    def rounded(self, bound: float) -> float:
        """Return a bound rounded up to the next cost that whole costs can add up to."""
        if not self.step:
            return bound
        beyond = (bound - self.snapshot.paid) / self.step
        return self.snapshot.paid + self.step * math.ceil(beyond - 1e-6)

    def _separate(self, values: Vector) -> int:
        """Add the loop formulas of subsets of small cycles that a solution breaks most."""
        snapshot, added = self.snapshot, 0
        for cycle in snapshot.cycles:
            if len(cycle) > SUBSET_CLASSES:
                continue
            place = {group: i for i, group in enumerate(cycle)}
            subsets = np.arange(1 << len(cycle))
            entering = np.zeros(len(subsets))
            built = np.zeros(len(cycle))
            for group in cycle:
                inside = (subsets >> place[group] & 1).astype(bool)
                weights: dict[int, float] = {}
                for column in snapshot.alternatives[group]:
                    mask = sum(1 << place[c] for c in snapshot.needs[column] if c in place)
                    weights[mask] = weights.get(mask, 0.0) + float(values[column])
                for mask, weight in weights.items():
                    entering += weight * (inside & (subsets & mask == 0))
                built[place[group]] = sum(weights.values())
            for group in cycle:
                inside = (subsets >> place[group] & 1).astype(bool)
                broken = np.where(inside, built[place[group]] - entering, -1.0)
                worst = int(np.argmax(broken))
                if broken[worst] > VIOLATION:
                    members = [other for other in cycle if worst >> place[other] & 1]
                    added += self.add_loops(members, [group])
        return added

    def solve(self, deadline: float, largest: float, node_limit: int | None) -> Solved:
        """Solve the integer program, adding loop formulas of the cycles that solutions have.

        Args:
            deadline: When to stop, of `monotonic`.
            largest: About the largest magnitude that the cost of the best choice can have; the search
                ends where costs, if whole, leave no room below.
            node_limit: Nodes of branch and bound at most, for each run.
        """
        bound = -math.inf
        while True:
            result = self._solve_once(deadline, largest, node_limit)
            if result.mip_dual_bound is not None and math.isfinite(result.mip_dual_bound):
                dual = self.snapshot.paid + float(result.mip_dual_bound) / self.scale
                bound = max(bound, self.rounded(dual))
            if result.status == INFEASIBLE:
                return Solved(columns=None, bound=math.inf)
            if result.x is None:
                return Solved(columns=None, bound=bound)
            columns = tuple(int(j) for j in np.flatnonzero(result.x > 0.5))
            broken = self.snapshot.cyclic_groups(columns)
            if not broken:
                return Solved(columns=columns, bound=bound)
            added = sum(self.add_loops(members, members) for members in broken)
            if not added or monotonic() > deadline:
                return Solved(columns=None, bound=bound)

    def _solve_once(self, deadline: float, largest: float, node_limit: int | None) -> Any:
        options: dict[str, float] = {
            "time_limit": max(0.01, deadline - monotonic()),
            "mip_rel_gap": 0.9 * self.step / max(abs(largest - self.snapshot.paid), 1e-9),
        }
        if node_limit is not None:
            options["node_limit"] = node_limit
        return milp(
            self.cost * self.scale,
            constraints=LinearConstraint(self.matrix(), self.lower, self.upper),
            bounds=Bounds(0, 1),
            integrality=np.ones(len(self.cost)),
            options=options,
        )


def _step(snapshot: Snapshot) -> float:
    """Return the largest number that divides all costs, which are whole numbers."""
    return float(math.gcd(*(int(cost) for cost in snapshot.cost)))


def _stack(
    matrix: csr_array, has_upper: NDArray[np.bool_], has_lower: NDArray[np.bool_]
) -> csr_array:
    """Return the rows as upper limits: those with one, then the others negated."""
    return csr_array(
        vstack([matrix[np.flatnonzero(has_upper)], -matrix[np.flatnonzero(has_lower)]])
    )
