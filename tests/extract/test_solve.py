"""The solver against brute force on small problems."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.extract.choice import ChoiceProblem, Edge, Usage
from tilewright.extract.local_search import fits
from tilewright.extract.solve import solve


def random_problem(seed: int, *, tree: bool, capacity: bool) -> ChoiceProblem:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(2, 6))
    sizes = rng.integers(1, 5, count)
    costs = tuple(rng.integers(0, 20, size).astype(float) for size in sizes)
    edges = []
    for right in range(1, count):
        lefts = (
            [int(rng.integers(0, right))]
            if tree
            else [v for v in range(right) if rng.random() < 0.6]
        )
        for left in lefts:
            left_ports = rng.integers(0, 3, sizes[left])
            right_ports = rng.integers(0, 3, sizes[right])
            matrix = rng.integers(0, 15, (3, 3)).astype(float)
            edges.append(Edge(left, right, left_ports, right_ports, matrix))
    usages = []
    rows = 4
    if capacity:
        for variable in range(count):
            low = int(rng.integers(0, rows))
            high = int(rng.integers(low + 1, rows + 1))
            usages.append(
                Usage(variable, low, high, rng.integers(0, 10, sizes[variable]).astype(float))
            )
    return ChoiceProblem(costs, tuple(edges), tuple(usages), rows, 12.0 if capacity else 0.0)


def brute_force(problem: ChoiceProblem) -> float:
    choices = product(*(range(len(costs)) for costs in problem.costs))
    return min((problem.cost(c) for c in choices if fits(problem, c)), default=float("inf"))


@given(st.integers(0, 10**6))
@settings(max_examples=80, deadline=None)
def test_trees_are_solved_and_proven(seed: int) -> None:
    problem = random_problem(seed, tree=True, capacity=False)
    solution = solve(problem)
    assert solution.cost == pytest.approx(brute_force(problem))
    assert solution.bound == pytest.approx(solution.cost, rel=1e-6, abs=1e-6)


@given(st.integers(0, 10**6))
@settings(max_examples=80, deadline=None)
def test_bound_holds_on_loopy_problems(seed: int) -> None:
    problem = random_problem(seed, tree=False, capacity=False)
    solution, optimum = solve(problem), brute_force(problem)
    assert solution.bound <= optimum + 1e-6
    assert solution.cost >= optimum - 1e-6
    assert solution.cost == pytest.approx(problem.cost(solution.choice))
    assert solution.cost <= 1.3 * optimum + 3


@given(st.integers(0, 10**6))
@settings(max_examples=120, deadline=None)
def test_capacity_is_respected_and_bounded(seed: int) -> None:
    problem = random_problem(seed, tree=False, capacity=True)
    solution, optimum = solve(problem), brute_force(problem)
    if solution.feasible:
        assert fits(problem, solution.choice)
        assert solution.cost >= optimum - 1e-6
    assert solution.bound <= optimum + 1e-6
