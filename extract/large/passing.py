"""Message passing in compiled code: the same meaning and the same numbers as `MessagePassing`."""

from __future__ import annotations

import numpy as np

from tilewright.extract.choice import ChoiceProblem, Costs
from tilewright.extract.large import passing_core
from tilewright.extract.large.flat import flatten


class CompiledPassing:
    """Sequential tree-reweighted message passing, with messages that survive a change of costs.

    A stand-in for `tilewright.extract.message_passing.MessagePassing`: every method takes and gives
    the same. The first call in a process loads the machine code, the first on a machine makes it.
    """

    def __init__(self, problem: ChoiceProblem) -> None:
        """Lay out the problem; variables are swept in their numbering's order."""
        self._flat = flatten(problem)
        self._messages = np.zeros(int(self._flat.width.sum()))
        self._belief = np.zeros(int(np.diff(self._flat.first).max(initial=0)))
        self._slack = np.zeros(int(self._flat.width.max(initial=0)))

    def sweep(self, costs: tuple[Costs, ...], times: int = 1) -> float:
        """Pass messages forwards and backwards; return the lower bound for these option costs."""
        return float(
            passing_core.pass_messages(
                self._flat, _joined(costs), self._messages, self._belief, self._slack, times
            )
        )

    def option_bounds(self, costs: tuple[Costs, ...]) -> tuple[float, tuple[Costs, ...]]:
        """Pass messages backwards once; return the bound, and what each option costs at least above it."""
        above = np.zeros(int(self._flat.first[-1]))
        bound = passing_core.bound_options(
            self._flat, _joined(costs), self._messages, self._belief, self._slack, above
        )
        return float(bound), tuple(np.split(above, self._flat.first[1:-1]))

    def decode(self, costs: tuple[Costs, ...], *, backwards: bool) -> tuple[int, ...]:
        """Fix the variables one by one: fixed neighbours by their choice, others by their messages."""
        choice = np.zeros(len(costs), dtype=np.int64)
        passing_core.choose_in_order(
            self._flat, _joined(costs), self._messages, choice, self._belief, backwards
        )
        return tuple(choice.tolist())

    def improve(
        self, costs: tuple[Costs, ...], choice: tuple[int, ...], rounds: int = 20
    ) -> tuple[int, ...]:
        """Change single variables to their best option given all others until nothing changes."""
        current = np.array(choice, dtype=np.int64)
        passing_core.descend(
            self._flat, _joined(costs), self._messages, current, self._belief, rounds
        )
        return tuple(current.tolist())


def _joined(costs: tuple[Costs, ...]) -> Costs:
    return np.concatenate(costs) if costs else np.zeros(0)
