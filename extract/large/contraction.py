"""Merge variables that a neighbour's option decides: the same optimum over far fewer variables.

If each option of a variable leaves its neighbour one option (all other pairs being forbidden), or, where
the neighbour has no other edges, one that is cheapest and uses least in every row, the neighbour moves
into the variable: its costs, edges and usages become those of the option that decides it. Options that
no option of a neighbour goes with disappear, and so do variables with one option. All of this is exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tilewright.extract.choice import FORBIDDEN, ChoiceProblem, Costs, Edge, Indices, Usage

Interval = tuple[int, int]


@dataclass(frozen=True, slots=True, eq=False)
class Contracted:
    """A smaller problem, and how its choices are those of the one it was made from.

    What every choice costs and uses stands in a variable with one option, the last.
    """

    problem: ChoiceProblem
    is_possible: bool
    """False if some variable has no option that forbidden pairs allow; then nothing was merged."""
    members: tuple[tuple[Indices, Indices], ...]
    """For each variable: the original ones in it, and their options by its option, [option, member]."""

    def expand(self, choice: Indices) -> tuple[int, ...]:
        """Return the original problem's choice for one of the smaller problem's."""
        found: Indices = np.zeros(sum(len(own) for own, _ in self.members), dtype=np.int64)
        for option, (variables, options) in zip(choice, self.members, strict=True):
            found[variables] = options[option]
        return tuple(found.tolist())


def contract(problem: ChoiceProblem) -> Contracted:
    """Return the problem without variables that others decide."""
    work = _Contraction(problem)
    if not work.run():
        count = len(problem.costs)
        members = tuple(
            (np.array([v]), np.arange(len(problem.costs[v]))[:, None]) for v in range(count)
        )
        return Contracted(problem, False, members)
    return work.result()


class _Contraction:
    def __init__(self, problem: ChoiceProblem) -> None:
        self.original = problem
        self.costs = [_infinite(own) for own in problem.costs]
        self.near: list[dict[int, Costs]] = [{} for _ in problem.costs]
        self.uses: list[dict[Interval, Costs]] = [{} for _ in problem.costs]
        self.labels: list[Indices] = [np.arange(len(own)) for own in problem.costs]
        """The original numbers of each variable's options. `uses` and `decided` keep all of these."""
        self.total = [np.zeros(len(own)) for own in problem.costs]
        self.merges: list[tuple[int, int, Indices]] = []
        """(merged, into, label of the merged one's option by label), in the order it was done."""
        self.gone: set[int] = set()
        self.fixed: dict[int, int] = {}
        self.constant = 0.0
        self.base: dict[Interval, float] = {}
        self.changed: set[int] = set(range(len(problem.costs)))
        for edge in problem.edges:
            matrix = _infinite(edge.matrix)
            if edge.left_ports.size != matrix.shape[0] or not _is_range(edge.left_ports):
                matrix = matrix[edge.left_ports]
            if edge.right_ports.size != matrix.shape[1] or not _is_range(edge.right_ports):
                matrix = matrix[:, edge.right_ports]
            self._join(edge.left, edge.right, matrix)
        for usage in problem.usages:
            if usage.low < usage.high:
                self._use(usage.variable, (usage.low, usage.high), usage.amounts)

    def run(self) -> bool:
        """Merge until nothing changes; return False if a variable has no option left."""
        while self.changed:
            now = sorted(self.changed)
            self.changed = set()
            for v in now:
                if v in self.gone:
                    continue
                if not self._drop_impossible(v):
                    return False
                if len(self.costs[v]) == 1:
                    self._fix(v)
                else:
                    self._merge_away(v)
        return True

    def result(self) -> Contracted:
        """Return what is left as a choice problem."""
        left = [v for v in range(len(self.costs)) if v not in self.gone]
        number = {v: n for n, v in enumerate(left)}
        edges = []
        for v in left:
            for u, matrix in sorted(self.near[v].items()):
                if u > v and matrix.any():
                    ports = np.arange(matrix.shape[0]), np.arange(matrix.shape[1])
                    finite = np.where(np.isinf(matrix), FORBIDDEN, matrix)
                    edges.append(Edge(number[v], number[u], *ports, finite))
        usages = [
            Usage(number[v], low, high, amounts[self.labels[v]])
            for v in left
            for (low, high), amounts in sorted(self.uses[v].items())
        ]
        usages += [
            Usage(len(left), low, high, np.array([amount]))
            for (low, high), amount in sorted(self.base.items())
        ]
        costs = (*(self.costs[v] for v in left), np.array([self.constant]))
        original = self.original
        return Contracted(
            ChoiceProblem(
                costs,
                tuple(edges),
                tuple(usage for usage in usages if usage.amounts.any()),
                original.rows,
                original.limit,
            ),
            True,
            self._members(left),
        )

    def _members(self, left: list[int]) -> tuple[tuple[Indices, Indices], ...]:
        """Return the original variables in each that is left, and in those that are fixed."""
        found = {v: {v: self.labels[v]} for v in left}
        found |= {v: {v: np.array([label])} for v, label in self.fixed.items()}
        owner = {v: v for v in found}
        for v, into, decided in reversed(self.merges):
            owner[v] = owner[into]
            found[owner[v]][v] = decided[found[owner[v]][into]]
        members = [
            (np.array(list(found[v])), np.stack(list(found[v].values()), axis=1)) for v in left
        ]
        fixed = {u: int(own[0]) for v in sorted(self.fixed) for u, own in found[v].items()}
        last = (
            np.array(list(fixed), dtype=np.int64),
            np.array([list(fixed.values())], dtype=np.int64),
        )
        return (*members, last)

    def _join(self, left: int, right: int, matrix: Costs) -> None:
        """Add an edge, or its costs to the edge that is there."""
        known = self.near[left].get(right)
        total = matrix if known is None else known + matrix
        self.near[left][right], self.near[right][left] = total, total.T

    def _use(self, v: int, interval: Interval, amounts: Costs) -> None:
        known = self.uses[v].get(interval)
        self.uses[v][interval] = amounts if known is None else known + amounts
        self.total[v] = self.total[v] + amounts

    def _drop_impossible(self, v: int) -> bool:
        """Leave out options that cannot be chosen; return whether some are left."""
        possible = np.isfinite(self.costs[v])
        for matrix in self.near[v].values():
            possible &= np.isfinite(matrix.min(axis=1))
        if possible.all():
            return True
        self.costs[v] = self.costs[v][possible]
        self.labels[v] = self.labels[v][possible]
        for u in list(self.near[v]):
            self.near[v][u] = self.near[v][u][possible]
            self.near[u][v] = self.near[v][u].T
            self.changed.add(u)
        return bool(possible.any())

    def _fix(self, v: int) -> None:
        """Move a variable with one option into its neighbours and what every choice costs and uses."""
        self.constant += float(self.costs[v][0])
        for u, matrix in self.near[v].items():
            self.costs[u] = self.costs[u] + matrix[0]
            del self.near[u][v]
            self.changed.add(u)
        label = int(self.labels[v][0])
        for interval, amounts in self.uses[v].items():
            self.base[interval] = self.base.get(interval, 0.0) + float(amounts[label])
        self.fixed[v] = label
        self._remove(v)

    def _remove(self, v: int) -> None:
        self.near[v], self.uses[v] = {}, {}
        self.gone.add(v)

    def _merge_away(self, v: int) -> None:
        """Merge a variable into a neighbour that decides it, if one does."""
        if not self.near[v] and not self.total[v].any():
            best = int(self.costs[v].argmin())
            self.costs[v], self.labels[v] = self.costs[v][[best]], self.labels[v][[best]]
            self._fix(v)
            return
        for u in sorted(self.near[v], key=lambda u: (len(self.costs[u]), u)):
            decided = self._decided(v, self.near[v][u] + self.costs[v][:, None])
            if decided is None:
                continue
            # Where each decides the other the smaller one moves: hubs would move over and over.
            if self._size(u) < self._size(v):
                reverse = self._decided(u, self.near[u][v] + self.costs[u][:, None])
                if reverse is not None:
                    self._merge(u, v, reverse)
                    return
            self._merge(v, u, decided)
            return

    def _size(self, v: int) -> int:
        return len(self.near[v]) + len(self.uses[v])

    def _decided(self, v: int, costs: Costs) -> Indices | None:
        """Return v's option for each option of a neighbour, if the neighbour decides it.

        `costs` are [options of v, options of the neighbour].
        """
        finite = np.isfinite(costs)
        if (finite.sum(axis=0) <= 1).all():
            return np.asarray(finite.argmax(axis=0))
        if len(self.near[v]) > 1:
            return None
        labels = self.labels[v]
        ties = np.where(costs <= costs.min(axis=0), self.total[v][labels][:, None], np.inf)
        best = ties.argmin(axis=0)
        for amounts in self.uses[v].values():
            least = np.where(finite, amounts[labels][:, None], np.inf).min(axis=0)
            if (amounts[labels[best]] > least).any():
                return None
        return np.asarray(best)

    def _merge(self, v: int, u: int, decided: Indices) -> None:
        """Move v into u, whose options decide v's."""
        matrix = self.near[v].pop(u)
        del self.near[u][v]
        self.costs[u] = self.costs[u] + matrix[decided, np.arange(len(decided))]
        self.costs[u] = self.costs[u] + self.costs[v][decided]
        labels = np.zeros(len(self.original.costs[u]), dtype=np.int64)
        labels[self.labels[u]] = self.labels[v][decided]
        self.merges.append((v, u, labels))
        for interval, amounts in self.uses[v].items():
            self._use(u, interval, amounts[labels])
        for w, own in self.near[v].items():
            del self.near[w][v]
            self._join(u, w, own[decided])
            self.changed.add(w)
        self._remove(v)
        self.changed.add(u)


def _infinite(values: Costs) -> Costs:
    return np.where(values >= FORBIDDEN / 2, np.inf, values)


def _is_range(ports: Indices) -> bool:
    return bool((ports == np.arange(len(ports))).all())
