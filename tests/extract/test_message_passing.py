"""Larger choice problems: chains by dynamic programming, others by eliminating variables one by one."""

from __future__ import annotations

import numpy as np
import pytest
from choice_cases import chain_optimum, optimum, optional_problem, random_problem
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tilewright.extract.choice import (
    FORBIDDEN,
    ChoiceProblem,
    Edge,
    Usage,
    priced,
    restricted,
)
from tilewright.extract.exploration.messages import among
from tilewright.extract.local_search import fits, improve_feasible, repair
from tilewright.extract.message_passing import MessagePassing
from tilewright.extract.solve import solve

Values = NDArray[np.float64]


def check(problem: ChoiceProblem, best: float) -> None:
    """Check bound <= optimum <= cost, or that nothing is claimed to fit when nothing does."""
    solution = solve(problem)
    assert solution.bound <= best * (1 + 1e-9) + 1e-6
    if best >= FORBIDDEN:
        assert not solution.feasible or solution.cost >= FORBIDDEN
        return
    if solution.feasible:
        assert fits(problem, solution.choice)
        assert solution.cost == pytest.approx(problem.cost(solution.choice))
        assert solution.cost >= best - 1e-6
        assert solution.bound <= solution.cost


@given(st.integers(0, 10**6), st.integers(10, 14), st.sampled_from([0.0, 0.25]))
@settings(max_examples=60)
def test_long_chains_are_solved_exactly(seed: int, count: int, forbidden: float) -> None:
    problem = random_problem(np.random.default_rng(seed), count=count, forbidden=forbidden)
    best = chain_optimum(problem)
    solution = solve(problem)
    if best < FORBIDDEN:
        assert solution.cost == pytest.approx(best)
        assert solution.bound == pytest.approx(best, abs=1e-3)
    assert solution.bound <= best + 1e-3


@given(st.integers(0, 10**6), st.integers(8, 11), st.sampled_from([0.0, 0.1]))
@settings(max_examples=30)
def test_loopy_problems_are_bounded(seed: int, count: int, forbidden: float) -> None:
    rng = np.random.default_rng(seed)
    problem = random_problem(rng, count=count, density=0.15, forbidden=forbidden, options=4)
    check(problem, optimum(problem))


@given(st.integers(0, 10**6), st.integers(8, 10), st.sampled_from([10.0, 16.0, 24.0]))
@settings(max_examples=30)
def test_capacity_prices_bound_and_choices_fit(seed: int, count: int, limit: float) -> None:
    rng = np.random.default_rng(seed)
    problem = random_problem(rng, count=count, density=0.1, limit=limit, options=4)
    check(problem, optimum(problem))


@given(st.integers(0, 10**6), st.integers(6, 10), st.sampled_from([None, 14.0, 20.0]))
@settings(max_examples=60)
def test_optional_variables(seed: int, count: int, limit: float | None) -> None:
    problem = optional_problem(np.random.default_rng(seed), count, limit=limit)
    check(problem, optimum(problem))


@given(st.integers(0, 10**6), st.sampled_from([14.0, 20.0]))
@settings(max_examples=60)
def test_what_is_called_feasible_breaks_no_prohibition(seed: int, limit: float) -> None:
    problem = optional_problem(np.random.default_rng(seed), 9, limit=limit)
    solution = solve(problem)
    if solution.feasible:
        assert solution.cost < FORBIDDEN


def test_nothing_allowed_is_not_feasible() -> None:
    two = (np.zeros(2), np.zeros(2))
    ports = np.zeros(2, dtype=np.int64)
    edge = Edge(0, 1, ports, ports, np.array([[FORBIDDEN]]))
    assert not solve(ChoiceProblem(two, (edge,), (), 0, 0.0)).feasible


def test_too_small_a_limit_gives_the_least_overflow_found() -> None:
    problem = ChoiceProblem(
        (np.array([1.0, 5.0]),), (), (Usage(0, 0, 1, np.array([9.0, 4.0])),), 1, 3.0
    )
    solution = solve(problem)
    assert not solution.feasible
    assert solution.choice == (1,)


@given(st.integers(0, 10**6))
@settings(max_examples=40)
def test_any_prices_and_any_number_of_sweeps_bound(seed: int) -> None:
    rng = np.random.default_rng(seed)
    problem = random_problem(rng, count=7, density=0.2, limit=15.0, options=4)
    best = optimum(problem)
    passing = MessagePassing(problem)
    last = -np.inf
    for _ in range(4):
        prices = rng.random(problem.rows) * rng.choice([0.0, 1.0, 5.0])
        costs = priced(problem, prices)
        for _ in range(3):
            dual = passing.sweep(costs)
            assert dual - prices.sum() * problem.limit <= best + 1e-6
    still = priced(problem, np.zeros(problem.rows))
    for _ in range(6):
        dual = passing.sweep(still)
        assert dual >= last - 1e-6, "the bound falls from sweep to sweep"
        last = dual


@given(st.integers(0, 10**6))
@settings(max_examples=40)
def test_priced_costs_charge_what_rows_are_used(seed: int) -> None:
    rng = np.random.default_rng(seed)
    problem = random_problem(rng, count=6, limit=15.0)
    prices = rng.random(problem.rows)
    choice = tuple(int(rng.integers(0, len(c))) for c in problem.costs)
    costs = ChoiceProblem(priced(problem, prices), problem.edges, (), 0, 0.0)
    charged = costs.cost(choice) - problem.cost(choice)
    assert charged == pytest.approx(float(prices @ problem.use(choice)))


@given(st.integers(0, 10**6))
@settings(max_examples=40)
def test_single_changes_keep_what_they_promise(seed: int) -> None:
    rng = np.random.default_rng(seed)
    problem = random_problem(rng, count=8, density=0.2, limit=16.0)
    choice = tuple(int(rng.integers(0, len(c))) for c in problem.costs)
    fixed = repair(problem, choice)
    if fixed is None:
        return
    assert fits(problem, fixed)
    better = improve_feasible(problem, fixed)
    assert fits(problem, better)
    assert problem.cost(better) <= problem.cost(fixed) + 1e-9


@given(st.integers(0, 10**6))
@settings(max_examples=25)
def test_messages_carried_to_a_part_of_the_problem_bound_it(seed: int) -> None:
    rng = np.random.default_rng(seed)
    problem = random_problem(rng, count=6, density=0.3)
    first = MessagePassing(problem)
    for _ in range(5):
        first.sweep(problem.costs)
    again = MessagePassing(problem, first.sent)
    assert again.sweep(problem.costs) == first.sweep(problem.costs)

    kept = tuple(
        np.flatnonzero((rng.random(len(own)) < 0.6) | (np.arange(len(own)) == 0))
        for own in problem.costs
    )
    few = restricted(problem, kept)
    some = [one if rng.random() < 0.7 else None for one in among(problem, first.sent, kept)]
    bound = MessagePassing(few, some).sweep(few.costs)
    assert bound <= optimum(few) + 1e-6


def test_use_counts_half_open_ranges() -> None:
    usages = (Usage(0, 0, 2, np.array([3.0])), Usage(0, 1, 3, np.array([4.0])))
    problem = ChoiceProblem((np.zeros(1),), (), usages, 4, 100.0)
    assert problem.use((0,)).tolist() == [3.0, 7.0, 4.0, 0.0]
