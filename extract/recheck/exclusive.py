"""Whether cuts hold: at most one of their users takes what they are of, in some best choice.

A variable is optional if its *idle* option costs and uses no more than any other, on every edge, wherever
it is allowed, and makes no demands: then a best choice has it idle wherever no neighbour takes an option for
which idle is forbidden. So what is not idle has a reason, an option of a neighbour that demands it, which has
a reason in turn, up to variables that are not optional. Two uses exclude each other if all such ways
contradict themselves: they need two options of one variable that are not the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import networkx as nx
import numpy as np

from tilewright.extract.certificate import Cut
from tilewright.extract.choice import FORBIDDEN, ChoiceProblem, Costs, Mask
from tilewright.extract.plan_error import PlanError

_Fact = tuple[int, bytes]
"""A variable, and the mask of options of which it has one."""


def check_cuts(problem: ChoiceProblem, cuts: Sequence[Cut], idle: Sequence[int]) -> None:
    """Raise PlanError unless some best choice keeps all cuts.

    Args:
        problem: What is chosen.
        cuts: At most one user of each is said to use what the cut is of.
        idle: The option of each variable that is said to be idle, -1 for none.
    """
    if not cuts:
        return
    demands = _demands(problem, idle)
    for variable, option in enumerate(idle):
        if option >= 0:
            _check_idle(problem, variable, option)
            if any(mask[option] for mask in demands[variable].values()):
                raise PlanError(f"the idle option of variable {variable} demands something")
    ways = _Ways(demands, idle)
    for cut in cuts:
        uses = []
        for number, mask in cut.users:
            edge = problem.edges[number]
            if cut.variable not in (edge.left, edge.right):
                raise PlanError(f"a cut of variable {cut.variable} is about edges of others")
            uses.append((edge.right if edge.left == cut.variable else edge.left, mask))
        if (cut.part & ~cut.stock & ~_idle_like(problem, cut, idle[cut.variable])).any():
            raise PlanError(f"a cut of variable {cut.variable} leaves out what it is of")
        if (cut.stock & ~cut.part).any():
            raise PlanError(f"a cut of variable {cut.variable} counts what it is not of")
        for (first, one), (second, other) in combinations(uses, 2):
            if first == second or ways.are_possible(
                (first, one.tobytes()), (second, other.tobytes())
            ):
                raise PlanError(
                    f"variables {first} and {second} may both use variable {cut.variable}"
                )


def _table(problem: ChoiceProblem, number: int, variable: int) -> tuple[int, Costs]:
    """Return the other end of an edge, and its costs by (own option, other option)."""
    edge = problem.edges[number]
    table = edge.matrix[np.ix_(edge.left_ports, edge.right_ports)]
    return (edge.right, table) if edge.left == variable else (edge.left, table.T)


def _idle_like(problem: ChoiceProblem, cut: Cut, idle: int) -> Mask:
    """Return which options of a cut's variable no user can take in the way that the cut is about."""
    found = np.ones(len(cut.part), dtype=bool)
    for number, mask in cut.users:
        _, table = _table(problem, number, cut.variable)
        found &= (table[:, mask] >= FORBIDDEN / 2).all(axis=1)
    if idle >= 0 and not found[idle]:
        raise PlanError(f"users of variable {cut.variable} do not need it")
    return found


def _check_idle(problem: ChoiceProblem, variable: int, option: int) -> None:
    costs = problem.costs[variable]
    is_least = costs[option] <= costs.min()
    for usage in problem.usages:
        if usage.variable == variable:
            is_least &= usage.amounts[option] <= usage.amounts.min()
    for number, edge in enumerate(problem.edges):
        if variable in (edge.left, edge.right):
            _, table = _table(problem, number, variable)
            allowed = table[option] < FORBIDDEN / 2
            is_least &= bool((table[option][allowed] <= table[:, allowed].min(axis=0)).all())
    if not is_least:
        raise PlanError(f"option {option} of variable {variable} is dearer than another one")


def _demands(problem: ChoiceProblem, idle: Sequence[int]) -> list[dict[int, Mask]]:
    """Return which options of each variable demand which other variables not to be idle."""
    found: list[dict[int, Mask]] = [{} for _ in problem.costs]
    for number, edge in enumerate(problem.edges):
        for variable in (edge.left, edge.right):
            other, table = _table(problem, number, variable)
            if idle[other] >= 0:
                mask = table[:, idle[other]] >= FORBIDDEN / 2
                if mask.any():
                    known = found[variable].get(other, np.zeros(len(mask), dtype=bool))
                    found[variable][other] = known | mask
    return found


class _Ways:
    """How variables may have come not to be idle."""

    def __init__(self, demands: list[dict[int, Mask]], idle: Sequence[int]) -> None:
        graph: nx.DiGraph[int] = nx.DiGraph()
        graph.add_nodes_from(range(len(demands)))
        graph.add_edges_from((user, used) for user, own in enumerate(demands) for used in own)
        condensed = nx.condensation(graph)
        # Of variables that demand each other around a circle nothing is concluded.
        circular = {v for _, part in condensed.nodes(data="members") if len(part) > 1 for v in part}
        order = nx.lexicographical_topological_sort(condensed)
        self._place = {
            v: place for place, part in enumerate(order) for v in condensed.nodes[part]["members"]
        }
        self._idle = idle
        self._is_open = [own < 0 or v in circular for v, own in enumerate(idle)]
        self._reasons: list[list[_Fact]] = [[] for _ in demands]
        for user, own in enumerate(demands):
            for used, mask in own.items():
                self._reasons[used].append((user, mask.tobytes()))
        self._known: dict[tuple[_Fact, _Fact], bool] = {}

    def are_possible(self, first: _Fact, second: _Fact) -> bool:
        """Whether two facts may both be true in a choice in which all has a reason."""
        if first[0] == second[0]:
            return bool((_mask(first) & _mask(second)).any())
        if self._place[first[0]] > self._place[second[0]]:
            first, second = second, first
        key = (first, second)
        if key not in self._known:  # the later one's reason is an earlier variable
            variable, mask = second[0], _mask(second)
            is_open = self._is_open[variable] or mask[self._idle[variable]]
            self._known[key] = bool(is_open) or any(
                self.are_possible(first, reason) for reason in self._reasons[variable]
            )
        return self._known[key]


def _mask(fact: _Fact) -> Mask:
    return np.frombuffer(fact[1], dtype=bool)
