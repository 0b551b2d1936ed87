"""Options that another option of the same variable beats whatever the other variables take.

Option a beats option b if a is cheaper by at least what its edges may cost more, taken over every
option of the neighbours, and uses no more of any row. Many options go that way: a dear way to lay a
value out loses to a cheap one and the moves from there. What is left has the same optimum, also
under any prices of rows.

Source:
    Goldstein, "Efficient rotamer elimination applied to protein side-chains and related spin glasses",
    Biophysical Journal 66 (1994).
"""

from __future__ import annotations

import numpy as np

from tilewright.extract.certificate import Dropped
from tilewright.extract.choice import ChoiceProblem, Costs, Indices, Mask, restricted
from tilewright.extract.dominance_core import add_worst, find_beaten

_PASSES = 3
_MOST_OPTIONS = 1500
"""Variables with more options are left alone: pairs of options take memory."""

Room = tuple[Indices, Indices, Indices, Costs, Costs]
"""To work in, see `add_worst`."""

Incident = tuple[int, Costs, Indices, Indices]
"""The other end of an edge, costs by (own port, other port), own ports, other ports."""


def without_dominated(problem: ChoiceProblem) -> tuple[ChoiceProblem, tuple[Indices, ...]]:
    """Return the problem without dominated options, and the numbers of those that are left."""
    kept, _ = find_dominated(problem)
    return restricted(problem, kept), kept


def find_dominated(problem: ChoiceProblem) -> tuple[tuple[Indices, ...], tuple[Dropped, ...]]:
    """Return the numbers of options that are left, and the others in the order in which they went."""
    kept = [np.arange(len(own)) for own in problem.costs]
    incident: list[list[Incident]] = [[] for _ in problem.costs]
    for e in problem.edges:
        incident[e.left].append((e.right, e.matrix, e.left_ports, e.right_ports))
        incident[e.right].append((e.left, e.matrix.T, e.right_ports, e.left_ports))
    amounts: list[list[Costs]] = [[] for _ in problem.costs]
    for usage in problem.usages:
        amounts[usage.variable].append(usage.amounts)
    room = _room(problem)
    dropped: list[Dropped] = []
    for _ in range(_PASSES):
        before = sum(map(len, kept))
        for variable, own in enumerate(problem.costs):
            if 1 < len(kept[variable]) <= _MOST_OPTIONS:
                beaten, by = _beaten(
                    own, incident[variable], amounts[variable], kept, variable, room
                )
                if beaten.any():
                    dropped.append(Dropped(variable, kept[variable][beaten], by))
                    kept[variable] = kept[variable][~beaten]
        if sum(map(len, kept)) == before:
            break
    return tuple(kept), tuple(dropped)


def _beaten(
    costs: Costs,
    edges: list[Incident],
    amounts: list[Costs],
    kept: list[Indices],
    variable: int,
    room: Room,
) -> tuple[Mask, Indices]:
    """Return which of the variable's options that are left another one beats, and by which that stays."""
    options = kept[variable]
    # more[a, b]: what a may cost more than b
    more = costs[options][:, None] - costs[options][None, :]
    for other, matrix, ports, other_ports in edges:
        add_worst(matrix, ports[options], other_ports[kept[other]], *room, more)
    used = np.array([amount[options] for amount in amounts]).reshape(len(amounts), len(options))
    beaten, cheapest = np.empty(len(options), dtype=bool), np.empty(len(options), dtype=np.int64)
    find_beaten(more, used, beaten, cheapest)
    return beaten, options[cheapest[beaten]]


def _room(problem: ChoiceProblem) -> Room:
    """Return what `add_worst` needs to work in, for any edge of a problem."""
    shapes = [edge.matrix.shape for edge in problem.edges]
    most = max((max(shape) for shape in shapes), default=0)
    entries = max((rows * columns for rows, columns in shapes), default=0)
    own, other, place = np.empty((3, most), dtype=np.int64)
    return own, other, place, np.empty(entries), np.empty(most * most)
