"""Sequential tree-reweighted message passing (TRW-S) on a choice problem.

Every sweep over the variables gives a lower bound of the optimum (the dual of the local
relaxation) and a choice
found along the way. On trees and on most extraction problems the two meet, which proves the choice
optimal.

Source:
    Kolmogorov, "Convergent tree-reweighted message passing for energy minimization", PAMI 2006, section 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tilewright.extract.certificate import Dual
from tilewright.extract.choice import ChoiceProblem, Costs, Edge, Indices, priced
from tilewright.extract.solution import Relaxation


@dataclass(frozen=True, slots=True, eq=False)
class _Half:
    """An edge seen from one of its ends."""

    edge: int
    other: int
    ports: Indices
    other_ports: Indices
    matrix: Costs
    """From the other end's port to this end's port, [other ports, ports]."""
    order: Indices
    """This end's options sorted by port."""
    starts: Indices
    """First position in `order` of each port that has an option."""
    used: Costs
    """`matrix` with the columns of those ports only."""


def _half(edge: int, other: int, ports: Indices, other_ports: Indices, matrix: Costs) -> _Half:
    order = np.argsort(ports, kind="stable")
    present, starts = np.unique(ports[order], return_index=True)
    return _Half(edge, other, ports, other_ports, matrix, order, starts, matrix[:, present])


Sent = tuple[Costs, Costs]
"""Messages of an edge, by option: to its right end, and to its left one."""


class MessagePassing:
    """TRW-S with messages that survive a change of the options' costs (warm start)."""

    def __init__(self, problem: ChoiceProblem, start: Sequence[Sent | None] = ()) -> None:
        """Prepare the neighbourhoods; variables are swept in their numbering's order.

        Args:
            problem: What messages are about.
            start: The messages of each edge, zero where they are not known.
        """
        self._problem = problem
        count = len(problem.costs)
        self._halves: list[list[_Half]] = [[] for _ in range(count)]
        # messages[2 e] runs from left to right, messages[2 e + 1] from right to left.
        self._messages: list[Costs] = []
        for number, edge in enumerate(problem.edges):
            self._halves[edge.left].append(
                _half(number, edge.right, edge.left_ports, edge.right_ports, edge.matrix.T)
            )
            self._halves[edge.right].append(
                _half(number, edge.left, edge.right_ports, edge.left_ports, edge.matrix)
            )
            known = start[number] if start else None
            if known is None:
                known = (
                    np.zeros(len(problem.costs[edge.right])),
                    np.zeros(len(problem.costs[edge.left])),
                )
            self._messages += known
        self._weights = [
            1.0 / max(1, sum(h.other < v for h in halves), sum(h.other > v for h in halves))
            for v, halves in enumerate(self._halves)
        ]

    def sweep(self, costs: tuple[Costs, ...]) -> float:
        """Pass messages forwards and backwards once; return the lower bound for these option costs."""
        count = len(costs)
        for variable in range(count):
            belief = self._belief(costs, variable)
            belief -= belief.min()
            for half in self._halves[variable]:
                if half.other > variable:
                    self._send(variable, half, belief)
        bound = 0.0
        for variable in reversed(range(count)):
            belief = self._belief(costs, variable)
            least = float(belief.min())
            belief -= least
            bound += least
            for half in self._halves[variable]:
                if half.other < variable:
                    bound += self._send(variable, half, belief)
        return bound

    def option_bounds(self, costs: tuple[Costs, ...]) -> tuple[float, tuple[Costs, ...]]:
        """Pass messages backwards once; return the bound, and what each option costs at least above it.

        The cost of a choice is the bound, plus the rest of each variable's belief that its messages do
        not carry, plus what each message leaves of an edge; all are non-negative. So the cost of any
        choice with an option is at least the bound plus the least of those that the option touches.
        """
        bound = 0.0
        above = [np.zeros(len(own)) for own in costs]
        for variable in reversed(range(len(costs))):
            belief = self._belief(costs, variable)
            least = float(belief.min())
            belief -= least
            bound += least
            lower = [half for half in self._halves[variable] if half.other < variable]
            above[variable] += (1.0 - self._weights[variable] * len(lower)) * belief
            for half in lower:
                incoming = self._incoming(variable, half)
                slack = self._weights[variable] * belief - self._messages[incoming]
                least = self._send(variable, half, belief)
                bound += least
                sent = np.full(half.matrix.shape[0], -np.inf)
                sent[half.other_ports] = self._messages[incoming ^ 1] + least
                above[variable] += slack + (half.matrix - sent[:, None]).min(axis=0)[half.ports]
        return bound, tuple(above)

    def messages(self) -> tuple[tuple[Costs, Costs], ...]:
        """Return what the last backward pass moves of each edge to its left and its right end, by option."""
        found = []
        for number, edge in enumerate(self._problem.edges):
            is_left_first = edge.left < edge.right
            first = self._messages[2 * number + is_left_first]
            ports, others = edge.left_ports, edge.right_ports
            table = edge.matrix[ports] if is_left_first else edge.matrix.T[others]
            rest = (table - first[:, None]).min(axis=0)  # all that is left of the edge
            ends = (first, rest[others if is_left_first else ports])
            found.append(ends if is_left_first else ends[::-1])
        return tuple(found)

    @property
    def sent(self) -> tuple[Sent, ...]:
        """The messages of each edge."""
        return tuple(zip(self._messages[::2], self._messages[1::2], strict=True))

    def decode(self, costs: tuple[Costs, ...], *, backwards: bool) -> tuple[int, ...]:
        """Fix the variables one by one: fixed neighbours by their choice, others by their messages.

        Backwards, consumers come before producers, which then cannot fail to compute what is used.
        """
        count = len(costs)
        choice = [-1] * count
        for variable in reversed(range(count)) if backwards else range(count):
            total = costs[variable].copy()
            for half in self._halves[variable]:
                if choice[half.other] >= 0:
                    total += half.matrix[half.other_ports[choice[half.other]], half.ports]
                else:
                    total += self._messages[self._incoming(variable, half)]
            choice[variable] = int(total.argmin())
        return tuple(choice)

    def improve(
        self, costs: tuple[Costs, ...], choice: tuple[int, ...], rounds: int = 20
    ) -> tuple[int, ...]:
        """Change single variables to their best option given all others until nothing changes."""
        current = list(choice)
        for _ in range(rounds):
            changed = False
            for variable, own in enumerate(costs):
                total = own.copy()
                for half in self._halves[variable]:
                    total += half.matrix[half.other_ports[current[half.other]], half.ports]
                best = int(total.argmin())
                if total[best] < total[current[variable]] - 1e-9:
                    current[variable] = best
                    changed = True
            if not changed:
                break
        return tuple(current)

    def _incoming(self, variable: int, half: _Half) -> int:
        edge: Edge = self._problem.edges[half.edge]
        return 2 * half.edge + (0 if edge.right == variable else 1)

    def _belief(self, costs: tuple[Costs, ...], variable: int) -> Costs:
        belief = costs[variable].copy()
        for half in self._halves[variable]:
            belief += self._messages[self._incoming(variable, half)]
        return belief

    def _send(self, variable: int, half: _Half, belief: Costs) -> float:
        """Update the message to the other end; return its minimum, which moves into the bound."""
        incoming = self._incoming(variable, half)
        slack = self._weights[variable] * belief - self._messages[incoming]
        by_port = np.minimum.reduceat(slack[half.order], half.starts)
        message = (half.used + by_port).min(axis=1)[half.other_ports]
        least = float(message.min())
        self._messages[incoming ^ 1] = message - least
        return least


def message_relaxation(problem: ChoiceProblem, prices: Costs, sweeps: int) -> Relaxation:
    """Return the bound that messages give at some prices of rows."""
    costs = priced(problem, prices)
    passing = MessagePassing(problem)
    for _ in range(sweeps):
        passing.sweep(costs)
    bound, above = passing.option_bounds(costs)
    offset = float(prices.sum()) * problem.limit
    likely = tuple(int(own.argmin()) for own in above)
    dual = Dual(prices=prices, messages=passing.messages())
    return Relaxation(bound - offset, prices, above, "message passing", likely, dual=dual)
