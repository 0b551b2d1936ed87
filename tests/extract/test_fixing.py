"""Costs of options above the bound are true, and what they leave has the same optimum."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_elimination import random_problem

from tilewright.extract.choice import ChoiceProblem
from tilewright.extract.elimination import Elimination
from tilewright.extract.fixing import solve_by_fixing
from tilewright.extract.message_passing import MessagePassing


def swept(problem: ChoiceProblem, sweeps: int) -> MessagePassing:
    passing = MessagePassing(problem)
    for _ in range(sweeps):
        passing.sweep(problem.costs)
    return passing


@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(0, 5), st.sampled_from([0.1, 0.4]))
@settings(max_examples=80, deadline=None)
def test_no_choice_is_cheaper_than_its_options_say(
    seed: int, count: int, sweeps: int, density: float
) -> None:
    problem = random_problem(seed, count, density, 4)
    bound, above = swept(problem, sweeps).option_bounds(problem.costs)
    choices = list(product(*(range(len(costs)) for costs in problem.costs)))
    costs = [problem.cost(choice) for choice in choices]
    assert bound <= min(costs) + 1e-6
    for variable, own in enumerate(above):
        assert own.min() >= -1e-6
        for option, least in enumerate(own):
            with_it = [
                c for c, choice in zip(costs, choices, strict=True) if choice[variable] == option
            ]
            assert bound + least <= min(with_it) + 1e-6


@given(st.integers(0, 10**6), st.integers(2, 7), st.sampled_from([0.2, 0.5]))
@settings(max_examples=60, deadline=None)
def test_what_is_left_has_the_same_optimum(seed: int, count: int, density: float) -> None:
    problem = random_problem(seed, count, density, 5)
    known = (0,) * count
    choice, proved = solve_by_fixing(
        problem, swept(problem, 4), problem.costs, known, most_entries=10**6, rounds=1
    )
    _, optimum = Elimination(problem).solve(problem.costs)
    assert proved == pytest.approx(optimum)
    assert problem.cost(choice) == pytest.approx(optimum)


def test_tables_too_large_for_the_limit_still_give_a_better_choice() -> None:
    problem = random_problem(5, 14, 0.5, 6)
    known = tuple(len(costs) - 1 for costs in problem.costs)
    choice, proved = solve_by_fixing(
        problem, swept(problem, 1), problem.costs, known, most_entries=20, rounds=3
    )
    assert proved is None
    assert problem.cost(choice) < problem.cost(known)


def test_fixing_leaves_tables_that_fit() -> None:
    """With these seeds the whole problem has tables beyond the limit; the rest of it has not."""
    solved = 0
    for seed in range(12):
        problem = random_problem(seed, 12, 0.15, 6)
        whole = Elimination(problem)
        passing = swept(problem, 30)
        known = passing.improve(problem.costs, passing.decode(problem.costs, backwards=True))
        limit = whole.entries - 1
        choice, proved = solve_by_fixing(
            problem, passing, problem.costs, known, most_entries=limit, rounds=2
        )
        if proved is not None:
            solved += 1
            assert proved == pytest.approx(whole.solve(problem.costs)[1])
            assert problem.cost(choice) == pytest.approx(proved)
    assert solved > 3
