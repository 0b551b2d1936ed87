"""The linear relaxation, uses that exclude each other, and the search that builds on them, by brute force."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from choice_cases import optimum, optional_problem, random_problem
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.extract.choice import FORBIDDEN, ChoiceProblem, Edge, priced
from tilewright.extract.exclusive import Patterns, find_exclusive, find_patterns
from tilewright.extract.linear import linear_relaxation
from tilewright.extract.local_search import fits
from tilewright.extract.solve import SolveOptions, floor, lower_bound, solve

NEVER_EXACT = SolveOptions(exact_work=0)


def is_sensible(patterns: tuple[Patterns, ...], choice: tuple[int, ...]) -> bool:
    """Whether every optional variable is idle or demanded."""
    demanded = {
        variable
        for own, option in zip(patterns, choice, strict=True)
        for variable in own.demands[own.of_option[option]]
    }
    return all(
        own.idle in (-1, option) or variable in demanded
        for variable, (own, option) in enumerate(zip(patterns, choice, strict=True))
    )


def sensible_choices(problem: ChoiceProblem) -> list[tuple[int, ...]]:
    patterns = find_patterns(problem)
    choices = product(*(range(len(own)) for own in problem.costs))
    allowed = (c for c in choices if problem.cost(c) < FORBIDDEN and fits(problem, c))
    return [choice for choice in allowed if is_sensible(patterns, choice)]


@given(st.integers(0, 10**6), st.integers(4, 7), st.sampled_from([None, 14.0, 20.0]))
@settings(max_examples=60)
def test_bounds_of_options_hold_for_sensible_choices(
    seed: int, count: int, limit: float | None
) -> None:
    problem = optional_problem(np.random.default_rng(seed), count, limit=limit)
    found = linear_relaxation(problem)
    choices = sensible_choices(problem)
    if found is None:
        assert not choices
        return
    best = optimum(problem)
    assert found.bound <= best + 1e-6
    if best < FORBIDDEN:
        assert min(map(problem.cost, choices)) == pytest.approx(best)
    for choice in choices:
        cost = problem.cost(choice)
        for own, option in zip(found.above, choice, strict=True):
            assert found.bound + own[option] <= cost + 1e-6
        for edge, above in zip(problem.edges, found.edges_above, strict=True):
            ports = edge.left_ports[choice[edge.left]], edge.right_ports[choice[edge.right]]
            assert found.bound + above[ports] <= cost + 1e-6
    # prices and bound are of the Lagrangian relaxation, too
    at_prices = ChoiceProblem(priced(problem, found.prices), problem.edges, (), 0, 0.0)
    if choices:
        least = min(at_prices.cost(c) for c in choices)
        assert found.bound <= least - float(found.prices.sum()) * problem.limit + 1e-6


@given(st.integers(0, 10**6), st.integers(4, 7))
@settings(max_examples=60)
def test_no_sensible_choice_has_two_exclusive_uses(seed: int, count: int) -> None:
    problem = optional_problem(np.random.default_rng(seed), count, limit=None)
    patterns = find_patterns(problem)
    exclusive = find_exclusive(problem, patterns)
    for choice in sensible_choices(problem):
        chosen = {
            (v, int(own.of_option[o]))
            for v, (own, o) in enumerate(zip(patterns, choice, strict=True))
        }
        assert all(len(chosen & set(found.uses)) <= 1 for found in exclusive)


def shared_alternatives() -> ChoiceProblem:
    """Give a result two ways, both of which read a dear value, one of them through another value.

    Variables: the dear value (idle or made), the one in between, the result (straight or through).
    """
    costs = (np.array([0.0, 100.0]), np.array([0.0, 1.0]), np.array([2.0, 1.0]))
    pairs = np.arange(2)
    wanted = np.array([[0.0, FORBIDDEN], [0.0, 0.0]])
    straight, through = np.array([1, 0]), np.array([0, 1])
    edges = (
        Edge(0, 1, pairs, pairs, wanted),
        Edge(0, 2, pairs, straight, wanted),
        Edge(1, 2, pairs, through, wanted),
    )
    return ChoiceProblem(costs, edges, (), 0, 0.0)


def test_alternatives_do_not_share_a_fraction_of_what_both_read() -> None:
    problem = shared_alternatives()
    patterns = find_patterns(problem)
    assert [own.idle for own in patterns] == [0, 0, -1]
    (found,) = find_exclusive(problem, patterns)
    assert found.variable == 0
    assert {user for user, _ in found.uses} == {1, 2}
    relaxation = linear_relaxation(problem)
    assert relaxation is not None
    assert relaxation.bound == pytest.approx(optimum(problem)) == pytest.approx(102.0)


@given(st.integers(0, 10**6), st.integers(5, 8), st.sampled_from([None, 14.0, 20.0]))
@settings(max_examples=40)
def test_the_search_on_a_relaxation_brackets_the_optimum(
    seed: int, count: int, limit: float | None
) -> None:
    problem = optional_problem(np.random.default_rng(seed), count, limit=limit)
    best = optimum(problem)
    found = solve(problem, NEVER_EXACT)
    assert found.bound <= best + 1e-6
    if found.feasible:
        assert fits(problem, found.choice)
        assert found.cost == pytest.approx(problem.cost(found.choice))
        assert best - 1e-6 <= found.cost < FORBIDDEN
        bound = lower_bound(floor(problem, NEVER_EXACT), found.cost, found.multipliers, NEVER_EXACT)
        assert bound.bound <= best + 1e-6
    if best >= FORBIDDEN:
        assert not found.feasible
    elif limit is None:
        assert found.cost == pytest.approx(best)
        assert found.bound == pytest.approx(best, rel=1e-5)


@given(st.integers(0, 10**6), st.integers(5, 7))
@settings(max_examples=20)
def test_problems_without_optional_variables(seed: int, count: int) -> None:
    problem = random_problem(np.random.default_rng(seed), count=count, density=0.3, options=4)
    best = optimum(problem)
    found = solve(problem, NEVER_EXACT)
    assert found.cost == pytest.approx(best)
    assert found.bound == pytest.approx(best, rel=1e-5)
    only_messages = solve(problem, SolveOptions(exact_work=0, closing_work=0))
    assert only_messages.bound <= best + 1e-6


def test_a_limit_that_nothing_meets_has_no_relaxation() -> None:
    rng = np.random.default_rng(5)
    problem = optional_problem(rng, 6, limit=0.5)
    assert optimum(problem) >= FORBIDDEN
    assert linear_relaxation(problem) is None
    assert not solve(problem, NEVER_EXACT).feasible
