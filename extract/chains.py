"""Chains of moves of which none is better than another in both of two metrics."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from tilewright.extract.objective import AnyMetric, single
from tilewright.extract.plan import Move
from tilewright.extract.plan_writer import Route
from tilewright.extract.reshard import ReshardTable, move_units

Amounts = tuple[float, float]
"""What something takes of each of two metrics."""


@dataclass(frozen=True, slots=True)
class Chain:
    """Moves with what they take."""

    amounts: Amounts
    moves: tuple[Move, ...]


def is_as_good(one: Amounts, other: Amounts) -> bool:
    """Whether something takes no more than another of either metric."""
    return one[0] <= other[0] and one[1] <= other[1]


@dataclass(frozen=True, slots=True)
class Chains:
    """The chains between placements, found once for each table and beginning."""

    metrics: tuple[AnyMetric, AnyMetric]
    _known: dict[tuple[int, int], dict[int, list[Chain]]] = field(default_factory=dict)
    _tables: dict[int, ReshardTable] = field(default_factory=dict)
    """Keeps the tables alive by whose ids chains are known."""

    def of(self, route: Route) -> list[Chain]:
        """Return the chains of a route, the best of the first metric first."""
        key = id(route.table), route.start
        if key not in self._known:
            self._tables[key[0]] = route.table
            self._known[key] = self._from(route.table, route.start)
        return sorted(self._known[key].get(route.end, []), key=lambda chain: chain.amounts)

    def _from(self, table: ReshardTable, start: int) -> dict[int, list[Chain]]:
        """Return the chains from a placement to each, by correcting labels.

        Source:
            Martins, "On a multicriteria shortest path problem", European Journal of Operational
            Research 16 (1984).
        """
        x, y = map(single, self.metrics)
        steps: dict[int, list[tuple[int, Amounts, Move]]] = {}
        for (before, after), move in table.single.items():
            own = move_units(move, x), move_units(move, y)
            steps.setdefault(before, []).append((after, own, move))
        found = {start: [Chain((0.0, 0.0), ())]}
        todo = deque([(start, found[start][0])])
        while todo:
            place, chain = todo.popleft()
            if chain not in found[place]:
                continue  # a better one came
            for after, own, move in steps.get(place, ()):
                amounts = chain.amounts[0] + own[0], chain.amounts[1] + own[1]
                others = found.setdefault(after, [])
                if any(is_as_good(other.amounts, amounts) for other in others):
                    continue
                longer = Chain(amounts, (*chain.moves, move))
                others[:] = [o for o in others if not is_as_good(amounts, o.amounts)] + [longer]
                todo.append((after, longer))
        return found
