"""Whether the least costs that steps of `spans` claim are ones, part by part.

The best choice of a part within rows of a limit is in some leaf of the tree of splits. So it costs no less
than the cheapest choice of a leaf, of the options that fit rows of the limit, whatever it needs itself.
What is found for a limit holds for lower ones. Of large leaves, only options are looked at that multipliers
do not prove too dear; multipliers may come from anywhere, and come from the search's linear program. What is
still large is solved in cases.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from math import inf

import numpy as np

from tilewright.extract.account import Account
from tilewright.extract.certificate import Spans, Split
from tilewright.extract.choice import ChoiceProblem, Costs, restricted
from tilewright.extract.linear import LinearProgram
from tilewright.extract.plan_error import PlanError
from tilewright.extract.recheck.cases import least_by_cases
from tilewright.extract.recheck.dual import proven_by
from tilewright.extract.recheck.exclusive import check_cuts
from tilewright.extract.recheck.min_sum import TooLargeError, least_cost, unbeaten
from tilewright.extract.recheck.rows import Kept, fitting

_RELATIVE = 1e-8
"""By so much a least cost may be lower than claimed: more than rounding."""

_LITTLE_WORK = 30_000_000
"""Entries of tables up to which a leaf is solved exactly; of others, only options near the claim are."""

_SPREAD = 0.02
"""Relative distance from a claim up to which costs are found if they can be, for later claims."""


def spans_bound(
    problem: ChoiceProblem, account: Account, shared: Sequence[Costs], spans: Spans
) -> float:
    """Return what the steps prove of all repeats together.

    Args:
        problem: The choice for one repeat of each variable, its costs those of all repeats. Its usages
            are not looked at, the limit is.
        account: What a repeat needs in its rows, in whole bytes.
        shared: What an option keeps in every row in all repeats together, [bytes] by variable and option.
        spans: The steps.

    Raises:
        PlanError: A step claims more than is true, or steps leave out rows.
    """
    if not spans.price >= 0:
        raise PlanError("the price of a byte is negative")
    parts = _checked_parts(problem, spans.parts)
    costs = tuple(own + spans.price * kept for own, kept in zip(problem.costs, shared, strict=True))
    priced = replace(problem, costs=costs, usages=(), rows=0)
    least = max(float(own.min()) for own in account.own_bytes)
    leaves = [
        [_Leaf(priced, account, kept) for kept in _leaves(problem, part, splits)]
        for part, splits in zip(parts, spans.splits, strict=True)
    ]
    if not spans.steps or spans.steps[0].most < np.floor(problem.limit):
        raise PlanError("the steps do not begin with all of the scratchpad")
    bound = inf
    after = [step.most for step in spans.steps[1:]] + [least - 1]
    for step, following in zip(spans.steps, after, strict=True):
        for part, claimed in zip(leaves, step.values, strict=True):
            for leaf in part:
                leaf.check(claimed, step.most)
        if step.most >= least:  # rows of fewer bytes hold no plan
            lowest = max(following + 1, least)
            bound = min(bound, sum(step.values) - spans.price * (problem.limit - lowest))
    return bound


def _checked_parts(
    problem: ChoiceProblem, parts: Sequence[Sequence[int]]
) -> Sequence[Sequence[int]]:
    """Return the parts if each variable is in one and no edge joins two."""
    part_of = {variable: number for number, part in enumerate(parts) for variable in part}
    whole = sorted(variable for part in parts for variable in part)
    if whole != list(range(len(problem.costs))):
        raise PlanError("the parts do not have each variable once")
    if any(part_of[edge.left] != part_of[edge.right] for edge in problem.edges):
        raise PlanError("an edge joins two parts")
    return parts


def _leaves(problem: ChoiceProblem, part: Sequence[int], splits: Sequence[Split]) -> list[Kept]:
    """Return the options of each leaf of a tree of splits."""
    nodes: dict[int, Kept] = {0: {v: np.arange(len(problem.costs[v])) for v in part}}
    for number, split in enumerate(splits):
        kept = nodes.pop(split.node)  # fails for what was split before
        own = kept[split.variable]
        is_inside = split.inside[own]
        nodes[2 * number + 1] = {**kept, split.variable: own[is_inside]}
        nodes[2 * number + 2] = {**kept, split.variable: own[~is_inside]}
    return list(nodes.values())


@dataclass(slots=True)
class _Leaf:
    """Some options of a part, with what a choice of them costs at least."""

    problem: ChoiceProblem
    account: Account
    kept: Kept | None
    known: float = -inf

    def check(self, claimed: float, most: float) -> None:
        """Raise PlanError unless each choice within rows of a limit costs what is claimed."""
        enough = claimed - _RELATIVE * max(1.0, abs(claimed)) if claimed < inf else claimed
        if self.known >= enough or self.kept is None:
            return
        self.kept = fitting(self.problem, self.account, self.kept, most)
        if self.kept is None:
            return
        self.known = _least_of(self.problem, self.kept, enough)
        if self.known < enough:
            raise PlanError(
                f"within rows of {most:.0f} bytes a part costs {self.known:.6g}, not {claimed:.6g}"
            )


def _least_of(problem: ChoiceProblem, kept: Kept, enough: float) -> float:
    """Return the least cost of the variables of a part, or as much of it as is enough, if that is easier."""
    number = {v: n for n, v in enumerate(sorted(kept))}
    part = ChoiceProblem(
        costs=tuple(problem.costs[v] for v in number),
        edges=tuple(
            replace(edge, left=number[edge.left], right=number[edge.right])
            for edge in problem.edges
            if edge.left in number
        ),
        usages=(),
        rows=0,
        limit=problem.limit,
    )
    options = tuple(kept[v] for v in number)
    with suppress(TooLargeError):
        return least_cost(part, options, _LITTLE_WORK)
    few = restricted(part, unbeaten(part, options))
    relaxation = LinearProgram(few).solve()
    if relaxation is None or relaxation.dual is None:
        raise PlanError("a linear program has no solution")
    # whatever the program says, what follows is what its multipliers prove
    check_cuts(few, relaxation.dual.cuts, relaxation.dual.idle)
    passed = proven_by(few, relaxation.dual)
    if passed.bound >= enough:
        return passed.bound
    # options that are too dear are in no choice that costs less than what is asked for, or a little more
    for goal in (enough + _SPREAD * abs(enough), enough):
        near = tuple(np.flatnonzero(above <= goal - passed.bound) for above in passed.above)
        if not all(map(len, near)):
            return goal
        with suppress(TooLargeError):
            return min(goal, least_cost(few, near))
    return least_by_cases(few, tuple(np.arange(len(own)) for own in few.costs))
