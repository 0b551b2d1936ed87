"""Rounds of work on a contracted problem: price steps in one thread, tree moves in the other."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Self

import numpy as np

from tilewright.extract.choice import ChoiceProblem, Costs, Indices
from tilewright.extract.large import dual_core, passing_core, search_core
from tilewright.extract.large.dual_core import BOUND, STEP, Dual
from tilewright.extract.large.flat import Flat, flatten
from tilewright.extract.large.rows import Rows, flatten_rows
from tilewright.extract.large.rows_core import ANY_OVERFLOW_COST, taxes
from tilewright.extract.large.search_core import BEST, Search

_ROUND = 50_000_000
"""Work of a round in each thread, [table entries]: about a tenth of a second."""
_CYCLE = 48
"""Rounds of a cycle of annealing, of which the last ones only go down."""
_COLD = 8
_HEATS = (0.02, 0.1, 0.4, 0.05)
"""Temperatures at which cycles begin, in costs of an average variable."""
_PROBE_EVERY = 4
"""Price steps between choices read off the messages."""
_FIRST_PROBES = 25
_WARM_STEP = 0.3
"""The first step, as a share of Polyak's, from prices of a larger problem."""
_LEAST_STEP = 1e-3
"""Price steps shorter than this share of Polyak's no longer move the bound."""


class Worker:
    """The dual and two searches on a problem, with the best choice and bound so far."""

    def __init__(
        self, problem: ChoiceProblem, seed: int, prices: Costs | None = None, cycle: int = 0
    ) -> None:
        """Lay the problem out; `prices` of its rows to begin with."""
        self.flat: Flat = flatten(problem)
        self.rows: Rows = flatten_rows(problem)
        self.costs: Costs = np.concatenate(problem.costs)
        self.limit = max(problem.limit, 1.0)
        self._row_count = problem.rows
        self._seed = seed
        self.dual = _new_dual(self.flat, self.rows)
        if prices is not None:
            self.dual.prices[:] = self.dual.best_prices[:] = prices[self.rows.original]
        none = np.zeros(len(problem.costs), dtype=np.int64)
        self.best: Indices = none
        self.merit = float("inf")
        self.searches = tuple(
            search_core.new_search(self.flat, self.rows, none, seed + 1000003 * (2 * cycle + k))
            for k in range(2)
        )
        self.probe = search_core.new_search(self.flat, self.rows, none, 0)
        self.tax: Costs = np.zeros(len(self.costs))
        self.upto: Costs = np.zeros(len(self.rows.room) + 1)
        self._cycle = cycle
        self._floor = -float("inf")
        visits = (np.diff(self.flat.first) * np.diff(self.flat.half_first)).sum()
        sweep = 2 * len(self.flat.matrix) + 8 * int(visits + len(self.rows.amounts))
        self._probes = max(1, _ROUND // (sweep + 1000) // _PROBE_EVERY)

    def on(self, problem: ChoiceProblem, start: Indices) -> Self:
        """Return a worker on a reduction of the problem that begins at a choice and these prices."""
        other = type(self)(problem, self._seed, self.prices, self._cycle)
        other._floor = self.bound
        other.dual.progress[STEP] = _WARM_STEP
        other._begin(other.searches[0], start)
        return other

    @property
    def bound(self) -> float:
        """The best bound of any fitting choice that is better than the best one."""
        return max(self._floor, float(self.dual.progress[BOUND]))

    @property
    def prices(self) -> Costs:
        """The prices of the problem's rows that give the bound."""
        prices = np.zeros(self._row_count)
        prices[self.rows.original] = self.dual.best_prices
        return prices

    @property
    def is_settled(self) -> bool:
        """Whether the bound no longer moves."""
        return bool(self.dual.progress[STEP] <= _LEAST_STEP) or self._is_single

    @property
    def _is_single(self) -> bool:
        return len(self.costs) == len(self.best)

    def is_closed(self, gap: float) -> bool:
        """Whether the best choice is proved optimal."""
        return self.merit < ANY_OVERFLOW_COST and self.merit - self.bound <= gap * max(
            1.0, abs(self.merit)
        )

    def run(self, pool: ThreadPoolExecutor, deadline: float, rounds: int, gap: float) -> int:
        """Work for a cycle, or until time, rounds or gap end; return the number of rounds."""
        probes = _FIRST_PROBES if self.dual.progress[BOUND] == -float("inf") else 0
        for number in range(probes):
            if number == 0 or time.monotonic() < deadline:
                self._price(1, 2)
        self._keep(self.probe)
        for search in self.searches:
            self._begin(search, self.best)
        for phase in range(min(rounds, _CYCLE)):
            if time.monotonic() > deadline or self.is_closed(gap):
                return phase
            taxes(self.flat, self.rows, self.dual.best_prices, self.upto, self.tax)
            second = (
                pool.submit(self._anneal, self.searches[1], self._cycle + 1, phase)
                if self.is_settled
                else pool.submit(self._price, self._probes, 1)
            )
            self._anneal(self.searches[0], self._cycle, phase)
            second.result()
            for search in (*self.searches, self.probe):
                self._keep(search)
        self._cycle += 1
        return min(rounds, _CYCLE)

    def kept_options(self) -> list[Indices]:
        """Return the options of each variable that can be in a better choice, and those of the best."""
        flat, dual = self.flat, self.dual
        taxes(flat, self.rows, dual.best_prices, self.upto, dual.costs)
        dual.costs[:] += self.costs
        above = np.zeros(len(self.costs))
        scratch = dual.belief, dual.slack
        passing_core.pass_messages(flat, dual.costs, dual.messages, *scratch, 8)
        bound = passing_core.bound_options(flat, dual.costs, dual.messages, *scratch, above)
        bound -= float(dual.best_prices @ self.rows.room)
        slack = self.merit - bound + 1e-9 * abs(self.merit) + 1e-3
        kept = []
        for v, option in enumerate(self.best.tolist()):
            own = above[flat.first[v] : flat.first[v + 1]] <= slack
            own[option] = True
            kept.append(np.flatnonzero(own))
        return kept

    def _price(self, probes: int, sweeps: int) -> None:
        """Take price steps, and read a fitting choice off the messages every few."""
        excess = np.zeros(len(self.probe.excess))
        for _ in range(probes):
            dual_core.dual_steps(
                self.flat, self.rows, self.costs, self.dual, self._goal(), _PROBE_EVERY, sweeps
            )
            dual_core.choose_fitting(self.flat, self.rows, self.dual, self.limit, excess)
            self.probe.choice[:] = self.dual.choice
            merit = search_core.evaluate(self.flat, self.rows, self.costs, self.limit, self.probe)
            if merit < self.probe.values[BEST]:
                self.probe.values[BEST] = merit
                self.probe.best[:] = self.probe.choice

    def _goal(self) -> float:
        """Return the cost that price steps aim at."""
        if self.merit < ANY_OVERFLOW_COST:
            return self.merit
        if np.isfinite(self.bound):
            return 1.1 * abs(self.bound) + 1.0
        return float(np.median(self.costs))

    def _begin(self, search: Search, choice: Indices) -> None:
        search.choice[:] = choice
        merit = search_core.evaluate(self.flat, self.rows, self.costs, self.limit, search)
        search.values[BEST] = merit
        search.best[:] = choice
        self._keep(search)

    def _anneal(self, search: Search, cycle: int, phase: int) -> None:
        """Do a round's work of moves: all of the first cycle and the end of every other only go down."""
        scale = abs(self.merit) if abs(self.merit) < ANY_OVERFLOW_COST else abs(self.bound)
        hottest = scale / len(self.best) * _HEATS[cycle % len(_HEATS)]
        share = phase / _CYCLE
        hot = 0.0 if cycle == 0 or phase >= _CYCLE - _COLD else hottest * 0.01**share
        cold = hottest * 0.01 ** (share + 1 / _CYCLE)
        search_core.tree_moves(
            self.flat,
            self.rows,
            self.costs,
            self.tax,
            self.limit,
            search,
            hot,
            cold,
            _ROUND,
        )

    def _keep(self, search: Search) -> None:
        if search.values[BEST] < self.merit - 1e-9:
            self.merit = float(search.values[BEST])
            self.best = search.best.copy()


def _new_dual(flat: Flat, rows: Rows) -> Dual:
    count, most = len(rows.room), int(np.diff(flat.first).max(initial=1))
    return Dual(
        messages=np.zeros(int(flat.width.sum())),
        prices=np.zeros(count),
        best_prices=np.zeros(count),
        slope=np.zeros(count),
        progress=np.array([-np.inf, 1.0, 0.0]),
        costs=np.zeros(int(flat.first[-1])),
        choice=np.zeros(len(flat.first) - 1, dtype=np.int64),
        use=np.zeros(count),
        upto=np.zeros(count + 1),
        belief=np.zeros(most),
        slack=np.zeros(int(flat.width.max(initial=1))),
    )
