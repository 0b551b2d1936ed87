"""A reduced choice problem with classes and alternatives numbered from 0."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from tilewright.extract.general.components import components
from tilewright.extract.general.egraph import EGraph
from tilewright.extract.general.workspace import Origin, Workspace


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What a workspace left to decide; column j is an alternative.

    Attributes:
        cost, owner, needs, origin: Of each alternative.
        alternatives: The alternatives of each class.
        is_required: Whether a class must be chosen, by class.
        is_tainted: Whether a class may be wanted for negative costs below, by class.
        cycles: The classes of each strongly connected component with more than one.
        paid: The cost of what is decided already, not part of `cost`.
        decided: Origins of what is decided already.
    """

    cost: tuple[float, ...]
    owner: tuple[int, ...]
    needs: tuple[tuple[int, ...], ...]
    origin: tuple[Origin, ...]
    alternatives: tuple[tuple[int, ...], ...]
    is_required: tuple[bool, ...]
    is_tainted: tuple[bool, ...]
    cycles: tuple[tuple[int, ...], ...]
    paid: float
    decided: tuple[Origin, ...]

    def users(self) -> list[list[int]]:
        """List the alternatives that need each class."""
        found: list[list[int]] = [[] for _ in self.alternatives]
        for column, needs in enumerate(self.needs):
            for group in needs:
                found[group].append(column)
        return found

    def as_egraph(self) -> EGraph:
        """Return what is left to decide as an e-graph of its own."""
        return EGraph(
            owner=self.owner,
            cost=self.cost,
            children=self.needs,
            roots=tuple(group for group, required in enumerate(self.is_required) if required),
            class_count=len(self.alternatives),
        )

    def cyclic_groups(self, columns: Iterable[int]) -> list[list[int]]:
        """Find sets of classes that need each other when these alternatives are chosen."""
        below = {self.owner[column]: self.needs[column] for column in columns}
        found = components(below, lambda group: below.get(group, ()))
        return [sorted(group) for group in found if len(group) > 1]


def take_snapshot(work: Workspace) -> Snapshot:
    """Copy what is left of a reduced workspace, numbered anew."""
    groups = sorted(work.live)
    place = {group: i for i, group in enumerate(groups)}
    alternatives: list[tuple[int, ...]] = []
    numbers: list[int] = []
    for group in groups:
        mine = sorted(work.alternatives[group])
        alternatives.append(tuple(range(len(numbers), len(numbers) + len(mine))))
        numbers.extend(mine)
    cycles: dict[int, list[int]] = {}
    for group in groups:
        if work.is_on_a_cycle(group):
            cycles.setdefault(work.component[group], []).append(place[group])
    return Snapshot(
        cost=tuple(work.cost[a] for a in numbers),
        owner=tuple(place[work.owner[a]] for a in numbers),
        needs=tuple(tuple(sorted(place[child] for child in work.needs[a])) for a in numbers),
        origin=tuple(work.origin[a] for a in numbers),
        alternatives=tuple(alternatives),
        is_required=tuple(group in work.required for group in groups),
        is_tainted=tuple(group in work.tainted for group in groups),
        cycles=tuple(tuple(cycles[number]) for number in sorted(cycles)),
        paid=math.fsum(work.paid),
        decided=tuple(work.decided),
    )
