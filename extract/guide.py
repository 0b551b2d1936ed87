"""Guidance for a large problem from the relaxation of one below it, which bounds it.

The problem that bounds differs from the one whose choice is sought in few edges and in some uses of rows.
What its relaxation moves between ports, or nearly does, is what a good choice moves, too; so the linear
program of the sought choice has those columns only, a fraction of all. Its prices of rows and distances of
options guide the search as well as those of the whole program; they prove nothing.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from tilewright.extract.choice import ChoiceProblem, Edge, Mask
from tilewright.extract.linear import linear_relaxation
from tilewright.extract.solution import Relaxation

_NEAR = 0.001
"""Distance from the bound, relative to it, within which pairs of ports are considered."""


def guiding_relaxation(
    problem: ChoiceProblem, below: ChoiceProblem, relaxation: Relaxation
) -> Relaxation | None:
    """Return what guides the search of a problem; None if too little of it is near the bound.

    Args:
        problem: The problem, perhaps without some options.
        below: A problem of the same variables and options whose optimum is no higher.
        relaxation: That of the problem below.
    """
    most = _NEAR * abs(relaxation.bound)
    single = {ends: number for ends, number in _numbers(below).items() if number >= 0}
    own = _numbers(problem)
    allowed = [
        _near(edge, below.edges[single[ends]], relaxation.edges_above[single[ends]] <= most)
        if (ends := (edge.left, edge.right)) in single and own[ends] >= 0
        else None
        for edge in problem.edges
    ]
    return linear_relaxation(problem, allowed)


def _numbers(problem: ChoiceProblem) -> dict[tuple[int, int], int]:
    """Return the number of the edge between two variables, -1 if there are several."""
    ends = [(edge.left, edge.right) for edge in problem.edges]
    count = Counter(ends)
    return {pair: number if count[pair] == 1 else -1 for number, pair in enumerate(ends)}


def _near(edge: Edge, below: Edge, is_near: Mask) -> Mask:
    """Return which pairs of an edge's ports belong to options whose ports below are near the bound."""
    left = np.unique(np.stack([edge.left_ports, below.left_ports], axis=1), axis=0)
    right = np.unique(np.stack([edge.right_ports, below.right_ports], axis=1), axis=0)
    allowed = np.zeros(edge.matrix.shape, dtype=bool)
    ports = (left[:, 0][:, None], right[:, 0][None, :])
    np.logical_or.at(allowed, ports, is_near[np.ix_(left[:, 1], right[:, 1])])
    return allowed
