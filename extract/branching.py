"""Branch and bound on the linear program of a choice problem: for small ones whose gap stays wide.

Where alternatives share much, the linear relaxation is far below every choice: half of each of two ways to
compute a value may reuse the same halves of what both read. HiGHS cuts such points off, finds choices, and
proves a bound; it is stopped after the root of the search tree, where most of that happens. All limits
count work, not seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from tilewright.extract.choice import ChoiceProblem
from tilewright.extract.linear import LinearProgram
from tilewright.extract.local_search import fits

MOST_COLUMNS = 15_000
"""Of the program; larger ones take longer than they are worth."""

_NODES = 1

_MARGIN = 1e-6
"""Of the bound, relative: more than the solver's tolerances amount to."""


@dataclass(frozen=True, slots=True)
class Branched:
    """A bound of every choice that fits, and the best choice found, if any."""

    bound: float
    choice: tuple[int, ...] | None


def branch_and_bound(problem: ChoiceProblem, gap: float = 0.0) -> Branched | None:
    """Return a bound and a choice of a small problem; None if it is too large or nothing was proven.

    `gap` between choice and bound, relative, ends the search early.
    """
    columns = sum(map(len, problem.costs)) + sum(edge.matrix.size for edge in problem.edges)
    if columns > 2 * MOST_COLUMNS:
        return None
    program = LinearProgram(problem)
    if program.columns > MOST_COLUMNS:
        return None
    rows = program.rows()
    is_choice = np.zeros(program.columns)
    for first, options in zip(program.first, program.options, strict=True):
        is_choice[first : first + len(options)] = 1
    found = milp(
        rows.costs,
        constraints=[
            LinearConstraint(rows.equal, rows.equal_right, rows.equal_right),
            LinearConstraint(rows.most, -np.inf, rows.most_right),
        ],
        integrality=is_choice,
        bounds=Bounds(0.0, rows.upper),
        options={"node_limit": _NODES, "mip_rel_gap": gap},
    )
    bound = found.mip_dual_bound
    if bound is None or not np.isfinite(bound):
        return None
    choice = None if found.x is None else program.choice(found.x)
    if choice is not None and not fits(problem, choice):
        choice = None  # by what the solver tolerates
    return Branched(float(bound) - _MARGIN * abs(float(bound)), choice)
