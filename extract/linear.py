"""The linear relaxation of a choice problem: a lower bound, prices of rows, a distance of each option.

A variable takes its options in fractions that sum to 1; an edge is a transport of these fractions from
the ports of one end to those of the other (facility location). Uses that exclude each other
(`exclusive.py`) may not take more of what they use, port by port, than there is of it. Rows of capacity
are constraints like any other, so that their prices come out of the same solution.

The bound is computed from the dual solution alone: for any multipliers, what the constraints cost
plus the negative reduced costs bounds every choice. So it holds whatever the solver's tolerances are.

Sources:
    Cornuejols, Nemhauser, Wolsey, "The uncapacitated facility location problem", 1990 (formulation).
    Neumaier, Shcherbina, "Safe bounds in linear and mixed-integer linear programming", Math. Program. 99
    (2004) (bound from an approximate dual solution).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import networkx as nx
import numpy as np
import scipy
from scipy.sparse import csr_matrix

from tilewright.extract.certificate import Cut, Dual
from tilewright.extract.choice import (
    FORBIDDEN,
    ChoiceProblem,
    Costs,
    Indices,
    Mask,
    cheapest_of_groups,
)
from tilewright.extract.deadline import NO_DEADLINE, Deadline
from tilewright.extract.exclusive import Exclusive, find_exclusive, find_patterns
from tilewright.extract.solution import Relaxation

MOST_COLUMNS = 400_000
"""Size of the largest relaxation that is worth its time."""


def columns_of(problem: ChoiceProblem) -> int:
    """Return the most columns that the relaxation of a problem may have."""
    return sum(map(len, problem.costs)) + sum(edge.matrix.size for edge in problem.edges)


def linear_relaxation(
    problem: ChoiceProblem,
    allowed: Sequence[Mask | None] | None = None,
    deadline: Deadline = NO_DEADLINE,
) -> Relaxation | None:
    """Return the bound of the linear relaxation; None if that is too large, has no solution or is late.

    Args:
        problem: The problem.
        allowed: For each edge the pairs of ports that are considered; None stands for all. With some left
            out, the result bounds nothing.
        deadline: For the solver.
    """
    if columns_of(problem) > MOST_COLUMNS:
        return None
    return LinearProgram(problem, allowed).solve(deadline)


@dataclass(slots=True)
class _Rows:
    """Rows of a sparse matrix, entry by entry."""

    count: int = 0
    rows: list[Indices] = field(default_factory=list)
    columns: list[Indices] = field(default_factory=list)
    values: list[Costs] = field(default_factory=list)
    right: list[float] = field(default_factory=list)

    def new(self, count: int, right: float = 0.0) -> int:
        """Add empty rows and return the number of the first."""
        self.count += count
        self.right += [right] * count
        return self.count - count

    def put(self, rows: Indices | int, columns: Indices, values: Costs | float) -> None:
        """Add entries."""
        count = len(columns)
        self.rows.append(rows if isinstance(rows, np.ndarray) else np.full(count, rows))
        self.columns.append(columns)
        self.values.append(values if isinstance(values, np.ndarray) else np.full(count, values))

    def matrix(self, columns: int) -> csr_matrix:
        entries = np.concatenate([*self.values, np.zeros(0)])
        places = (
            np.concatenate([*self.rows, np.zeros(0, dtype=np.int64)]),
            np.concatenate([*self.columns, np.zeros(0, dtype=np.int64)]),
        )
        return csr_matrix((entries, places), shape=(self.count, columns))


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Matrices:
    """Minimise costs x with equal x = equal_right, most x <= most_right, 0 <= x <= upper."""

    costs: Costs
    equal: csr_matrix
    equal_right: Costs
    most: csr_matrix
    most_right: Costs
    upper: Costs


def optimum(
    rows: Matrices, deadline: Deadline = NO_DEADLINE
) -> scipy.optimize.OptimizeResult | None:
    """Return the optimum of a linear program with its dual values; None if it has none or is late."""
    found = scipy.optimize.linprog(
        rows.costs,
        A_eq=rows.equal,
        b_eq=rows.equal_right,
        A_ub=rows.most,
        b_ub=rows.most_right,
        bounds=np.stack([np.zeros(len(rows.costs)), rows.upper], axis=1),
        method="highs-ds",
        options=None if deadline == NO_DEADLINE else {"time_limit": deadline.left_seconds},
    )
    return found if found.status == 0 else None


@dataclass(frozen=True, slots=True, eq=False)
class _Transport:
    """The columns of an edge's transport, and the ports at both ends of each."""

    left_ports: Indices
    right_ports: Indices
    columns: Indices


@dataclass(frozen=True, slots=True, eq=False)
class _Ends:
    """The rows of the two ends of an edge that each group of options is in."""

    left: Indices
    right: Indices


@dataclass(frozen=True, slots=True, eq=False)
class _Flow:
    """Columns of an edge's transport, [groups used, ports of the user], -1 where it is forbidden."""

    edge: int
    columns: Indices
    group_ports: Indices
    """The row of `columns` of each group of the variable that is used."""
    patterns: Indices
    """The user's pattern in each column of `columns`."""


class LinearProgram:
    """The linear program of a problem; options that differ only in cost are one column, the cheapest."""

    def __init__(
        self, problem: ChoiceProblem, allowed: Sequence[Mask | None] | None = None
    ) -> None:
        self.problem = problem
        self.allowed = allowed or (None,) * len(problem.edges)
        self.patterns = find_patterns(problem)
        self.costs: list[Costs] = []
        self.columns = 0
        self.equal, self.most = _Rows(), _Rows()
        self.group_of: list[Indices] = []
        self.options: list[Indices] = []
        """The option that stands for each group."""
        self.first: list[int] = []
        """The first group's column of each variable."""
        for variable in range(len(problem.costs)):
            self._add_variable(variable)
        self.flows: dict[tuple[int, int], _Flow] = {}
        self.transports: list[_Transport] = []
        self.ends: list[_Ends] = []
        self.cuts: list[Cut] = []
        """Those of the rows of `most`, without prices."""
        found = find_exclusive(problem, self.patterns)
        self.told_apart = {(e.variable, user) for e in found for user, _ in e.uses}
        """Used variables and users whose flows matter by pattern."""
        for number in range(len(problem.edges)):
            self._add_edge(number)
        for exclusive in found:
            self._add_exclusive(exclusive)
        self.first_use = self._add_capacity()

    def rows(self) -> Matrices:
        """Return the program in the form that solvers take."""
        upper = np.full(self.columns, np.inf)
        upper[self.first_use :] = 1.0  # the others are at most 1 anyway
        return Matrices(
            costs=np.concatenate(self.costs),
            equal=self.equal.matrix(self.columns),
            equal_right=np.array(self.equal.right),
            most=self.most.matrix(self.columns),
            most_right=np.array(self.most.right),
            upper=upper,
        )

    def choice(self, values: Costs) -> tuple[int, ...]:
        """Return the option that has most of each variable in a solution."""
        return tuple(
            int(options[values[first : first + len(options)].argmax()])
            for first, options in zip(self.first, self.options, strict=True)
        )

    def solve(self, deadline: Deadline = NO_DEADLINE) -> Relaxation | None:
        """Return the bound with its prices."""
        rows = self.rows()
        found = optimum(rows, deadline)
        if found is None:
            return None
        multipliers = np.minimum(found.ineqlin.marginals, 0.0)
        reduced = rows.costs - rows.equal.T @ found.eqlin.marginals - rows.most.T @ multipliers
        negative = np.minimum(reduced, 0.0)
        bound = float(found.eqlin.marginals @ rows.equal_right + negative.sum())
        extra = reduced - negative
        above = tuple(
            extra[first + groups] + own - own[options[groups]]
            for first, groups, options, own in zip(
                self.first, self.group_of, self.options, self.problem.costs, strict=True
            )
        )
        prices = (
            -negative[self.first_use :] / self.problem.limit
            if self.problem.rows
            else rows.costs[:0]
        )
        return Relaxation(
            *(bound, prices, above, "linear relaxation", self.choice(found.x)),
            self._edges_above(extra),
            self._dual(found.eqlin.marginals, -multipliers, prices),
        )

    def _dual(self, equal: Costs, most: Costs, prices: Costs) -> Dual:
        """Return the dual solution in terms of the problem."""
        groups = self.group_of
        return Dual(
            prices=prices,
            messages=tuple(
                (equal[ends.left][groups[edge.left]], equal[ends.right][groups[edge.right]])
                for edge, ends in zip(self.problem.edges, self.ends, strict=True)
            ),
            cuts=tuple(
                replace(cut, price=float(price))
                for cut, price in zip(self.cuts, most, strict=True)
                if price > 0
            ),
            idle=tuple(own.idle for own in self.patterns),
        )

    def _edges_above(self, extra: Costs) -> tuple[Costs, ...]:
        above = []
        for edge, flow in zip(self.problem.edges, self.transports, strict=True):
            own = np.full(edge.matrix.shape, np.inf)
            np.minimum.at(own, (flow.left_ports, flow.right_ports), extra[flow.columns])
            above.append(own)
        return tuple(above)

    def _new_columns(self, costs: Costs) -> Indices:
        self.costs.append(costs)
        self.columns += len(costs)
        return np.arange(self.columns - len(costs), self.columns)

    def _add_variable(self, variable: int) -> None:
        own = self.problem.costs[variable]
        marks: list[Costs] = [np.zeros(len(own))]
        for edge in self.problem.edges:
            marks += [edge.left_ports.astype(np.float64)] if edge.left == variable else []
            marks += [edge.right_ports.astype(np.float64)] if edge.right == variable else []
        marks += [u.amounts for u in self.problem.usages if u.variable == variable]
        _, groups = np.unique(np.stack(marks, axis=1), axis=0, return_inverse=True)
        groups = groups.reshape(-1)
        cheapest = cheapest_of_groups(own, groups)
        columns = self._new_columns(own[cheapest])
        self.group_of.append(groups)
        self.options.append(cheapest)
        self.first.append(int(columns[0]))
        self.equal.put(self.equal.new(1, 1.0), columns, 1.0)

    def _add_edge(self, number: int) -> None:
        edge = self.problem.edges[number]
        left_demands = (edge.right, edge.left) in self.told_apart
        right_demands = (edge.left, edge.right) in self.told_apart
        left, left_of, left_patterns = self._ports(edge.left, edge.left_ports, left_demands)
        right, right_of, right_patterns = self._ports(edge.right, edge.right_ports, right_demands)
        matrix = edge.matrix[np.ix_(left, right)]
        is_possible = matrix < FORBIDDEN / 2
        allowed = self.allowed[number]
        if allowed is not None:
            is_possible &= allowed[np.ix_(left, right)]
        rows, columns = np.nonzero(is_possible)
        flow = self._new_columns(matrix[rows, columns])
        ends = []
        for variable, ports, places in (
            (edge.left, left_of, rows),
            (edge.right, right_of, columns),
        ):
            first = self.equal.new(len(left) if ports is left_of else len(right))
            self.equal.put(first + places, flow, 1.0)
            groups = self.first[variable] + np.arange(len(ports))
            self.equal.put(first + ports, groups, -1.0)
            ends.append(first + ports)
        self.ends.append(_Ends(*ends))
        self.transports.append(_Transport(left[rows], right[columns], flow))
        table = np.full(matrix.shape, -1)
        table[rows, columns] = flow
        if right_demands:
            self.flows[edge.left, edge.right] = _Flow(number, table, left_of, right_patterns)
        if left_demands:
            self.flows[edge.right, edge.left] = _Flow(number, table.T, right_of, left_patterns)

    def _ports(
        self, variable: int, ports: Indices, is_user: bool
    ) -> tuple[Indices, Indices, Indices]:
        """Return the ports, which one each group has, and their patterns, which split those of users."""
        options = self.options[variable]
        patterns = self.patterns[variable].of_option[options]
        if not is_user:
            patterns = np.zeros_like(patterns)
        kinds = int(patterns.max()) + 1
        found, inverse = np.unique(ports[options] * kinds + patterns, return_inverse=True)
        return found // kinds, inverse.reshape(-1), found % kinds

    def _add_exclusive(self, exclusive: Exclusive) -> None:
        """Let uses that exclude each other take no more of each port than there is."""
        used = exclusive.variable
        by_user: dict[int, list[int]] = {}
        for user, pattern in exclusive.uses:
            by_user.setdefault(user, []).append(pattern)
        flows = [self.flows[used, user] for user in by_user]
        takers = [
            flow.columns[:, np.isin(flow.patterns, patterns)]
            for flow, patterns in zip(flows, by_user.values(), strict=True)
        ]
        is_stock = self.options[used] != self.patterns[used].idle
        for groups in _united([flow.group_ports for flow in flows]):
            stock = groups[is_stock[groups]]
            if not len(stock):
                continue
            row = self.most.new(1)
            flat = np.concatenate(
                [
                    taken[sorted(set(flow.group_ports[groups].tolist()))].reshape(-1)
                    for flow, taken in zip(flows, takers, strict=True)
                ]
            )
            self.most.put(row, flat[flat >= 0], 1.0)
            self.most.put(row, self.first[used] + stock, -1.0)
            self.cuts.append(
                Cut(
                    variable=used,
                    part=np.isin(self.group_of[used], groups),
                    stock=np.isin(self.group_of[used], stock),
                    users=tuple(
                        (flow.edge, np.isin(self.patterns[user].of_option, patterns))
                        for flow, (user, patterns) in zip(flows, by_user.items(), strict=True)
                    ),
                    price=0.0,
                )
            )

    def _add_capacity(self) -> int:
        """Add the use of each row, as a part of the limit: that of the row before plus what changes."""
        problem = self.problem
        first = self.columns
        use = self._new_columns(np.zeros(problem.rows))
        row = self.equal.new(problem.rows)
        self.equal.put(row + np.arange(problem.rows), use, -1.0)
        if problem.rows:
            self.equal.put(row + np.arange(1, problem.rows), use[:-1], 1.0)
        for usage in problem.usages:
            amounts = usage.amounts[self.options[usage.variable]] / problem.limit
            groups = np.flatnonzero(amounts)
            columns = self.first[usage.variable] + groups
            self.equal.put(row + usage.low, columns, amounts[groups])
            if usage.high < problem.rows:
                self.equal.put(row + usage.high, columns, -amounts[groups])
        return first


def _united(partitions: Sequence[Indices]) -> list[Indices]:
    """Return the finest partition that every given one refines; each gives a part's number by element."""
    near: nx.Graph[int] = nx.Graph()
    near.add_nodes_from(range(len(partitions[0])))
    for partition in partitions:
        for part in range(int(partition.max()) + 1):
            nx.add_path(near, np.flatnonzero(partition == part).tolist())
    return [np.array(sorted(part)) for part in nx.connected_components(near)]
