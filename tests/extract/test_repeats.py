"""Repeats of a variable that may differ: what bounds equal ones must bound them, too, by brute force."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations_with_replacement, product

import numpy as np
from choice_cases import optimum, random_problem
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.extract.choice import ChoiceProblem, Usage
from tilewright.extract.solve import SolveOptions, floor, lower_bound, solve

LINEAR = SolveOptions(exact_work=0, closing_work=0)
WAYS = (
    LINEAR,
    SolveOptions(exact_work=0),
    replace(LINEAR, branching_gap=0.0),
    SolveOptions(),
)
"""The relaxation alone, with elimination of what is near it, with branch and bound, elimination alone."""


def repeated(seed: int, repeats: int) -> ChoiceProblem:
    """Return a block of which all variables also keep something in every row."""
    rng = np.random.default_rng(seed)
    problem = random_problem(rng, count=3, density=0.5, limit=1.0, options=3)
    kept = tuple(
        Usage(v, 0, problem.rows, repeats * rng.integers(0, 9, len(own)) * 1.0)
        for v, own in enumerate(problem.costs)
    )
    most = sum(float(usage.amounts.max()) for usage in (*problem.usages, *kept))
    return replace(problem, usages=(*problem.usages, *kept), limit=round(0.4 * most))


def best_of_differing(problem: ChoiceProblem, repeats: int) -> float:
    """Return the least cost of so many repeats, each by its own choice, together within every row."""
    choices = list(product(*(range(len(own)) for own in problem.costs)))
    single = replace(problem, usages=tuple(u for u in problem.usages if u.high - u.low < 3))
    shared = replace(problem, usages=tuple(u for u in problem.usages if u.high - u.low == 3))
    costs = [problem.cost(choice) / repeats for choice in choices]
    kept = [float(shared.use(choice).max(initial=0.0)) / repeats for choice in choices]
    rows = [float(single.use(choice).max(initial=0.0)) for choice in choices]
    return min(
        (
            sum(costs[c] for c in each)
            for each in combinations_with_replacement(range(len(choices)), repeats)
            if sum(kept[c] for c in each) + max(rows[c] for c in each) <= problem.limit
        ),
        default=np.inf,
    )


@given(st.integers(0, 10**6), st.integers(2, 3))
@settings(max_examples=25, deadline=None)
def test_bounds_hold_for_repeats_that_differ(seed: int, repeats: int) -> None:
    problem = repeated(seed, repeats)
    best, equal = best_of_differing(problem, repeats), optimum(problem)
    assert best <= equal + 1e-9
    for options in WAYS:
        prices = solve(problem, options).multipliers
        found = lower_bound(floor(problem, options), equal, prices, options, repeats_differ=True)
        assert found.bound <= best + 1e-6


def test_the_best_equal_repeats_bound_nothing() -> None:
    """Differing repeats are better than the best equal ones in some cases: then their proof is too high."""
    too_high = 0
    for seed in range(20):
        problem = repeated(seed, 3)
        best, equal = best_of_differing(problem, 3), optimum(problem)
        if best < equal - 1e-6 and equal < np.inf:
            options = replace(LINEAR, branching_gap=0.0)
            prices = solve(problem, options).multipliers
            found = lower_bound(floor(problem, options), equal, prices, options)
            too_high += found.bound > best + 1e-6
    assert too_high >= 3
