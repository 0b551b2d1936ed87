"""Other plans of a model: the best ones for prices that are off by random factors.

Each is a plan that planning might have come to, with shardings, tilings and memories of its own; what it
costs is added up at the true prices. How far prices are off grows from plan to plan, so that plans
reach from nearly the best to several times as slow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from tilewright.compiler import Compilation, extract_options
from tilewright.errors import InfeasibleError
from tilewright.extract.choice import FORBIDDEN, ChoiceProblem, Costs
from tilewright.extract.exploration.warm import resolve
from tilewright.extract.extraction import choose, prepare
from tilewright.extract.plan import Plan, Proof
from tilewright.extract.solution import Solution

SPREAD = (0.1, 1.5)
"""Standard deviations of the logarithms of the factors, of the first plan and the last."""
_NO_PROOF = (0.0, Proof(method="none"))


PLANS = 52
"""Tried by default."""


def alternative_plans(done: Compilation, count: int = PLANS, seed: int = 0) -> Iterator[Plan]:
    """Yield plans of a saturated model, each different from those before it.

    Args:
        done: The model with its alternatives.
        count: Plans that are tried; what does not fit the scratchpad or comes up again is left out.
        seed: Of the random factors.
    """
    assert done.rolled is not None, "the model is saturated"
    options = extract_options(done.options)
    model = (done.graph, done.rolled, done.alternatives, done.planning_target, done.mesh)
    setting = prepare(*model, options)
    seen = set[tuple[object, ...]]()
    for number, spread in enumerate(np.linspace(*SPREAD, count)):
        try:
            plan, _ = choose(setting, _misled((seed, number), float(spread)), lambda _: _NO_PROOF)
        except InfeasibleError:
            continue
        if (key := _choices(plan)) not in seen:
            seen.add(key)
            yield plan


def _misled(
    seed: tuple[int, int], spread: float
) -> Callable[[ChoiceProblem, Solution | None], Solution]:
    """Return a solver that sees prices multiplied by random factors, always the same ones."""

    def solved(problem: ChoiceProblem, last: Solution | None) -> Solution:
        random = np.random.default_rng(seed)

        def mistaken(prices: Costs) -> Costs:
            factors = np.exp(spread * random.standard_normal(prices.shape))
            return np.where(prices < FORBIDDEN, prices * factors, prices)

        costs = tuple(mistaken(own) for own in problem.costs)
        edges = tuple(replace(edge, matrix=mistaken(edge.matrix)) for edge in problem.edges)
        seen = replace(problem, costs=costs, edges=edges)
        return resolve(seen, (-1,) * len(costs), np.zeros(problem.rows))

    return solved


def _choices(plan: Plan) -> tuple[object, ...]:
    """Return what sets a plan apart: splits, tiles and placements of every op."""
    return tuple(
        (op.op.kind, op.split_dims, op.macros, op.tiling, op.resident, op.result) for op in plan.ops
    )
