"""Branch and bound on the linear program of a choice problem: for small ones whose gap stays wide.

Where alternatives share much, the linear relaxation is far below every choice: half of each of two ways to
compute a value may reuse the same halves of what both read. HiGHS cuts such points off, finds choices, and
proves a bound; it is stopped after the root of the search tree, where most of that happens. All limits
count work, not seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy
from scipy.sparse import csr_matrix, hstack, vstack

from tilewright.extract.choice import ChoiceProblem, Costs
from tilewright.extract.linear import LinearProgram, Matrices
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


def branch_and_bound(
    problem: ChoiceProblem, gap: float = 0.0, shared_price: float = 0.0
) -> Branched | None:
    """Return a bound and a choice of a small problem; None if it is too large or nothing was proven.

    Args:
        problem: The problem.
        gap: Between choice and bound, relative; ends the search early.
        shared_price: Of a unit of what is used in every row, if repeats of a variable may differ. They
            share that alone: at a price for it, and for the fullest row beside it, what is best for one
            repeat is best for all, so that a bound of equal ones holds for all.
    """
    columns = sum(map(len, problem.costs)) + sum(edge.matrix.size for edge in problem.edges)
    if columns > 2 * MOST_COLUMNS:
        return None
    own = _with_shared_priced(problem, shared_price) if shared_price else problem
    program = LinearProgram(own)
    if program.columns > MOST_COLUMNS:
        return None
    rows = program.rows()
    is_choice = np.zeros(program.columns)
    for first, options in zip(program.first, program.options, strict=True):
        is_choice[first : first + len(options)] = 1
    if shared_price:
        rows = _with_peak(rows, program.first_use, shared_price * problem.limit)
        is_choice = np.append(is_choice, 0.0)
    found = scipy.optimize.milp(
        rows.costs,
        constraints=[
            scipy.optimize.LinearConstraint(rows.equal, rows.equal_right, rows.equal_right),
            scipy.optimize.LinearConstraint(rows.most, -np.inf, rows.most_right),
        ],
        integrality=is_choice,
        bounds=scipy.optimize.Bounds(0.0, rows.upper),
        options={"node_limit": _NODES, "mip_rel_gap": gap},
    )
    bound = found.mip_dual_bound
    if bound is None or not np.isfinite(bound):
        return None
    choice = None if found.x is None else program.choice(found.x)
    if choice is not None and not fits(problem, choice):
        choice = None  # by what the solver tolerates, or with what is shared
    margin = _MARGIN * abs(float(bound))
    return Branched(float(bound) - margin - shared_price * problem.limit, choice)


def is_shared(problem: ChoiceProblem) -> list[bool]:
    """Return of each usage whether it is of every row, as constants are that stay between inferences."""
    return [usage.low == 0 and usage.high == problem.rows for usage in problem.usages]


def _with_shared_priced(problem: ChoiceProblem, price: float) -> ChoiceProblem:
    """Return the problem with a price for shared use, which its rows then do not count."""
    costs: list[Costs] = [own.copy() for own in problem.costs]
    left = []
    for usage, shared in zip(problem.usages, is_shared(problem), strict=True):
        if shared:
            costs[usage.variable] += price * usage.amounts
        else:
            left.append(usage)
    return replace(problem, costs=tuple(costs), usages=tuple(left))


def _with_peak(rows: Matrices, first_use: int, price: float) -> Matrices:
    """Return the program with one more column, the fullest row as a part of the limit, at a price."""
    count = rows.most.shape[1] - first_use
    uses = np.arange(count)
    use = csr_matrix((np.ones(count), (uses, first_use + uses)), (count, rows.most.shape[1]))
    peak = csr_matrix(np.concatenate([np.zeros(rows.most.shape[0]), -np.ones(count)])[:, None])
    return Matrices(
        costs=np.append(rows.costs, price),
        equal=hstack([rows.equal, csr_matrix((rows.equal.shape[0], 1))], format="csr"),
        equal_right=rows.equal_right,
        most=hstack([vstack([rows.most, use]), peak], format="csr"),
        most_right=np.concatenate([rows.most_right, np.zeros(count)]),
        upper=np.append(rows.upper, 1.0),
    )
