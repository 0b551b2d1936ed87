"""Branch and bound: its bound is below every choice, its choice fits, by brute force."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from choice_cases import optimum, optional_problem, random_problem
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.extract import branching
from tilewright.extract.branching import branch_and_bound
from tilewright.extract.choice import FORBIDDEN
from tilewright.extract.linear import linear_relaxation
from tilewright.extract.local_search import fits
from tilewright.extract.solve import SolveOptions, floor, lower_bound, solve

POLISHED = SolveOptions(exact_work=0, closing_work=0, price_steps=1)


@given(st.integers(0, 10**6), st.integers(4, 7), st.sampled_from([None, 14.0, 20.0]))
@settings(max_examples=40)
def test_bound_and_choice_enclose_the_optimum(seed: int, count: int, limit: float | None) -> None:
    problem = optional_problem(np.random.default_rng(seed), count, limit=limit)
    best, found = optimum(problem), branch_and_bound(problem)
    if best >= FORBIDDEN:
        assert found is None or found.choice is None
        return
    assert found is not None
    assert found.bound <= best
    relaxed = linear_relaxation(problem)
    assert relaxed is not None
    assert found.bound >= relaxed.bound - 1e-5 * abs(relaxed.bound)
    if found.choice is not None:
        assert fits(problem, found.choice)
        assert best - 1e-6 <= problem.cost(found.choice)


def test_wide_gaps_are_narrowed() -> None:
    """Weak relaxations of dense problems: closer on both sides, never across the optimum."""
    narrower = 0
    for seed in range(8):
        problem = random_problem(
            np.random.default_rng(seed), count=6, density=0.9, limit=40.0 if seed % 2 else None
        )
        best = optimum(problem)
        plain, branched = (
            solve(problem, options) for options in (POLISHED, replace(POLISHED, branching_gap=0.01))
        )
        if best == np.inf:
            assert not branched.feasible
            continue
        assert plain.bound <= branched.bound <= best + 1e-6
        assert best - 1e-6 <= branched.cost <= plain.cost
        narrower += branched.bound > plain.bound + 1e-3
        options = replace(POLISHED, branching_gap=0.01)
        known = lower_bound(floor(problem, options), best, plain.multipliers, options)
        assert plain.bound - 1e-6 <= known.bound <= best + 1e-6
    assert narrower >= 3


def test_large_problems_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = random_problem(np.random.default_rng(1), count=5, density=0.9)
    monkeypatch.setattr(branching, "MOST_COLUMNS", 3)
    assert branch_and_bound(problem) is None
