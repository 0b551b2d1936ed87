"""Elimination against enumeration, and against message passing where it is too large to enumerate."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from extract_cases import OBJECTIVES, Enumeration, tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.extract.choice import ChoiceProblem, Edge
from tilewright.extract.elimination import Elimination, polish
from tilewright.extract.message_passing import MessagePassing
from tilewright.extract.objective import Objective


def random_problem(seed: int, count: int, density: float, options: int) -> ChoiceProblem:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, options + 1, count)
    costs = tuple(rng.integers(0, 30, size).astype(float) for size in sizes)
    edges = []
    for left, right in product(range(count), repeat=2):
        if left != right and rng.random() < density:
            ports = rng.integers(0, 3, sizes[left]), rng.integers(0, 3, sizes[right])
            edges.append(Edge(left, right, *ports, rng.integers(0, 20, (3, 3)).astype(float)))
    return ChoiceProblem(costs, tuple(edges), (), 0, 0.0)


@given(st.integers(0, 10**6), st.integers(1, 6), st.sampled_from([0.1, 0.3, 0.6]))
@settings(max_examples=120)
def test_small_problems(seed: int, count: int, density: float) -> None:
    """Edges go both ways, several may join two variables, some variables are alone."""
    problem = random_problem(seed, count, density, 4)
    choices = list(product(*(range(len(costs)) for costs in problem.costs)))
    best = min(problem.cost(choice) for choice in choices)
    choice, cost = Elimination(problem).solve(problem.costs)
    assert cost == pytest.approx(best)
    assert problem.cost(choice) == pytest.approx(best)


@given(st.integers(0, 10**6))
@settings(max_examples=40)
def test_other_costs_of_the_same_problem(seed: int) -> None:
    problem = random_problem(seed, 5, 0.3, 5)
    elimination = Elimination(problem)
    rng = np.random.default_rng(seed + 1)
    for _ in range(3):
        costs = tuple(own + rng.random(len(own)) * 20 for own in problem.costs)
        other = ChoiceProblem(costs, problem.edges, (), 0, 0.0)
        choices = product(*(range(len(own)) for own in costs))
        best = min(other.cost(choice) for choice in choices)
        choice, cost = elimination.solve(costs)
        assert cost == pytest.approx(best)
        assert other.cost(choice) == pytest.approx(best)


@given(st.integers(0, 10**6))
@settings(max_examples=30)
def test_between_message_passing_s_bound_and_choice(seed: int) -> None:
    problem = random_problem(seed, 14, 0.08, 6)
    elimination = Elimination(problem)
    assert elimination.is_small
    choice, cost = elimination.solve(problem.costs)
    assert problem.cost(choice) == pytest.approx(cost)
    passing = MessagePassing(problem)
    bound = max(passing.sweep(problem.costs) for _ in range(20))
    decoded = passing.improve(problem.costs, passing.decode(problem.costs, backwards=True))
    assert bound <= cost + 1e-6
    assert cost <= problem.cost(decoded) + 1e-6


def test_dense_problems_are_declined() -> None:
    problem = random_problem(3, 30, 0.9, 9)
    elimination = Elimination(problem)
    assert not elimination.is_small


@given(st.integers(0, 10**6), st.sampled_from([30, 200, 1000]))
@settings(max_examples=60)
def test_with_an_incumbent_the_rest_is_optimal(seed: int, most: int) -> None:
    problem = random_problem(seed, 6, 0.5, 5)
    rng = np.random.default_rng(seed)
    incumbent = tuple(int(rng.integers(0, len(own))) for own in problem.costs)
    elimination = Elimination(problem, incumbent, most_entries=most)
    choice, cost = elimination.solve(problem.costs)
    polished = polish(problem, problem.costs, incumbent, most_entries=most)
    options = [
        [incumbent[v]] if v in elimination.fixed else range(len(own))
        for v, own in enumerate(problem.costs)
    ]
    best = min(problem.cost(other) for other in product(*options))
    assert cost == pytest.approx(best)
    assert problem.cost(choice) == pytest.approx(best)
    assert all(choice[v] == incumbent[v] for v in elimination.fixed)
    assert problem.cost(polished) <= best + 1e-9


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_softmax_and_its_two_products(objective: Objective) -> None:
    case = tiny("attention_scores", 1, 2)
    alternatives, pricing, tables = case.tables(objective)
    best = Enumeration(case, alternatives, pricing, tables).costs().min()
    _, cost = Elimination(tables.problem).solve(tables.problem.costs)
    assert cost / tables.scale == pytest.approx(best, rel=1e-6)
