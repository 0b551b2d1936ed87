"""Which uses of a value exclude each other, whatever the rest of a choice is.

An *optional* variable has an *idle* option that is never dearer than another one, but forbidden to
options of neighbours, which *demand* the variable: in extraction, a value that is not computed is of
no use to its readers. Some best choice leaves every optional variable idle that no neighbour demands.
So where the only ways to come to need two values pass through different alternatives of a third, both
are never needed at once. Relaxations do not see that: they let each alternative's fraction share the
same fraction of what both read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from tilewright.extract.choice import FORBIDDEN, ChoiceProblem, Costs, Indices

_FORBIDDEN = FORBIDDEN / 2
"""Costs from here on are not allowed; sums of allowed ones stay below."""

Use = tuple[int, int]
"""A variable and the number of one of its patterns."""

_End = tuple[int, Costs, Indices, Indices]
"""The other end of an edge, costs by (own port, other port), own ports, other ports."""


@dataclass(frozen=True, slots=True, eq=False)
class Patterns:
    """What the options of one variable demand: options of a pattern demand the same variables."""

    idle: int
    """The idle option, -1 if the variable is not optional."""
    of_option: Indices
    demands: tuple[tuple[int, ...], ...]
    """Variables that each pattern demands, in increasing order."""

    @property
    def demands_idly(self) -> bool:
        """Whether the idle option demands something."""
        return self.idle >= 0 and bool(self.demands[self.of_option[self.idle]])


@dataclass(frozen=True, slots=True)
class Exclusive:
    """Uses of a variable of which no sensible choice has two."""

    variable: int
    uses: tuple[Use, ...]


def find_patterns(problem: ChoiceProblem) -> tuple[Patterns, ...]:
    """Return what each variable's options demand."""
    ends = _ends(problem)
    amounts: list[list[Costs]] = [[] for _ in problem.costs]
    for usage in problem.usages:
        amounts[usage.variable].append(usage.amounts)
    idle = [
        _idle(own, mine, used) for own, mine, used in zip(problem.costs, ends, amounts, strict=True)
    ]
    while True:
        patterns = tuple(
            _patterns(len(own), mine, idle, variable)
            for variable, (own, mine) in enumerate(zip(problem.costs, ends, strict=True))
        )
        # What demands something while it is idle is not optional. Of two that so demand each other, the
        # one whose idle option costs more was taken for optional by mistake.
        wrong = {
            variable: float(problem.costs[variable][own.idle])
            for variable, own in enumerate(patterns)
            if own.demands_idly
        }
        if not wrong:
            return patterns
        for variable, cost in wrong.items():
            if cost >= max(wrong.values()):
                idle[variable] = -1


def find_exclusive(problem: ChoiceProblem, patterns: Sequence[Patterns]) -> tuple[Exclusive, ...]:
    """Return sets of uses that exclude each other, over at least two using variables each."""
    together = _Together(patterns)
    found: list[Exclusive] = []
    for variable, own in enumerate(patterns):
        uses = together.uses[variable] if own.idle >= 0 else ()
        if len({user for user, _ in uses}) < 2:
            continue
        apart = together.apart(uses)
        groups = dict.fromkeys(_grown(apart, seed) for seed in range(len(uses)))
        for group in groups:
            members = tuple(uses[number] for number in group)
            if len({user for user, _ in members}) > 1:
                found.append(Exclusive(variable, members))
    return tuple(found)


def find_apart(patterns: Sequence[Patterns]) -> frozenset[tuple[Use, Use]]:
    """Return pairs of patterns of different variables of which no sensible choice has both."""
    together = _Together(patterns)
    uses = list(together.number)
    return frozenset(
        (one, uses[other])
        for one, number in together.number.items()
        for other in np.flatnonzero(~together.possible[number])
        if uses[other][0] != one[0]
    )


def _ends(problem: ChoiceProblem) -> list[list[_End]]:
    ends: list[list[_End]] = [[] for _ in problem.costs]
    for edge in problem.edges:
        ends[edge.left].append((edge.right, edge.matrix, edge.left_ports, edge.right_ports))
        ends[edge.right].append((edge.left, edge.matrix.T, edge.right_ports, edge.left_ports))
    return ends


def _idle(costs: Costs, ends: list[_End], amounts: list[Costs]) -> int:
    """Return the option that is never dearer than another one, but forbidden to someone; -1 for none."""
    for option in np.flatnonzero(costs == costs.min()):
        if any(amount[option] > amount.min() for amount in amounts):
            continue
        is_demanded = False
        for _, matrix, ports, _ in ends:
            row = matrix[ports[option]]
            allowed = row < _FORBIDDEN
            if (row[allowed] > matrix[np.unique(ports)][:, allowed].min(axis=0)).any():
                break
            is_demanded |= not allowed.all()
        else:
            if is_demanded:
                return int(option)
    return -1


def _patterns(options: int, ends: list[_End], idle: list[int], variable: int) -> Patterns:
    demands: list[set[int]] = [set() for _ in range(options)]
    for other, matrix, ports, other_ports in ends:
        if idle[other] >= 0:
            is_forbidden = matrix[:, other_ports[idle[other]]] >= _FORBIDDEN
            for option in np.flatnonzero(is_forbidden[ports]):
                demands[option].add(other)
    # The idle option is a pattern of its own: the others mean that the variable is needed.
    numbers: dict[tuple[bool, tuple[int, ...]], int] = {}
    of_option = [
        numbers.setdefault((option == idle[variable], tuple(sorted(own))), len(numbers))
        for option, own in enumerate(demands)
    ]
    return Patterns(idle[variable], np.array(of_option), tuple(own for _, own in numbers))


class _Together:
    """Which two patterns of different variables a choice without useless values can have."""

    def __init__(self, patterns: Sequence[Patterns]) -> None:
        self.patterns = patterns
        self.uses: list[tuple[Use, ...]] = self._find_uses()
        self.number: dict[Use, int] = {}
        for variable in self._users_first:
            own = patterns[variable]
            idle = own.of_option[own.idle] if own.idle >= 0 else -1
            for pattern in range(len(own.demands)):
                if pattern != idle:
                    self.number[variable, pattern] = len(self.number)
        self.possible = self._possible()

    def _find_uses(self) -> list[tuple[Use, ...]]:
        uses: list[list[Use]] = [[] for _ in self.patterns]
        for variable, own in enumerate(self.patterns):
            for pattern, demanded in enumerate(own.demands):
                for other in demanded:
                    uses[other].append((variable, pattern))
        return [tuple(own) for own in uses]

    @cached_property
    def _circular(self) -> frozenset[int]:
        """Variables that demand each other around a circle: nothing is concluded about their need."""
        parts = nx.strongly_connected_components(self._demands)
        return frozenset(v for part in parts if len(part) > 1 for v in part)

    @cached_property
    def _demands(self) -> nx.DiGraph[int]:
        graph: nx.DiGraph[int] = nx.DiGraph()
        graph.add_nodes_from(range(len(self.patterns)))
        for variable, uses in enumerate(self.uses):
            graph.add_edges_from((user, variable) for user, _ in uses)
        return graph

    @cached_property
    def _users_first(self) -> list[int]:
        order: nx.DiGraph[int] = nx.DiGraph()
        order.add_nodes_from(self._demands)
        circular = self._circular
        order.add_edges_from(
            (a, b) for a, b in self._demands.edges if a not in circular or b not in circular
        )
        # A circle between circular and other variables would have made those circular, too.
        return list(nx.lexicographical_topological_sort(order))

    def _possible(self) -> NDArray[np.bool_]:
        """Return for pairs of patterns whether both can be chosen, users before what they use."""
        possible = np.zeros((len(self.number), len(self.number)), dtype=bool)
        for variable in self._users_first:
            own = [self.number[use] for use in self._patterns_of(variable)]
            if not own:
                continue
            first = own[0]
            if self.patterns[variable].idle < 0 or variable in self._circular:
                with_earlier = np.ones(first, dtype=bool)
            else:
                users = [self.number[use] for use in self.uses[variable]]
                with_earlier = possible[users, :first].any(axis=0)
                with_earlier[users] = True
            possible[own, :first] = with_earlier
            possible[:first, own] = with_earlier[:, None]
        return possible

    def _patterns_of(self, variable: int) -> list[Use]:
        uses = ((variable, pattern) for pattern in range(len(self.patterns[variable].demands)))
        return [use for use in uses if use in self.number]

    def apart(self, uses: tuple[Use, ...]) -> NDArray[np.bool_]:
        """Return which pairs of uses exclude each other."""
        numbers = [self.number[use] for use in uses]
        return ~self.possible[np.ix_(numbers, numbers)]


def _grown(apart: NDArray[np.bool_], seed: int) -> tuple[int, ...]:
    """Return a largest set with the seed, found greedily, in which all pairs exclude each other."""
    members = [seed]
    count = len(apart)
    for number in (*range(seed + 1, count), *range(seed)):
        if apart[number, members].all():
            members.append(number)
    return tuple(sorted(members))
