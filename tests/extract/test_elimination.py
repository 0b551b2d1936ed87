"""Elimination against enumeration, and against message passing where it is too large to enumerate."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from extract_cases import OBJECTIVES, Enumeration, tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.extract import elimination
from tilewright.extract.choice import ChoiceProblem, Edge
from tilewright.extract.elimination import Elimination, Factor, polish, without
from tilewright.extract.message_passing import MessagePassing
from tilewright.extract.objective import Objective

Places = tuple[int, ...]

Found = tuple[float, int]


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


def by_hand(factors: list[Factor], scope: tuple[int, ...], variable: int) -> dict[Places, Found]:
    """Return the least sum of each place of a scope and the first group that gives it, one by one."""
    sizes = {u: size for f in factors for u, size in zip(f.scope, f.table.shape, strict=True)}
    least: dict[Places, Found] = {}
    for place in product(*(range(sizes[u]) for u in scope)):
        at = dict(zip(scope, place, strict=True))
        sums = [
            sum(float(f.table[tuple((at | {variable: g})[u] for u in f.scope)]) for f in factors)
            for g in range(sizes[variable])
        ]
        least[place] = min(sums), sums.index(min(sums))
    return least


@pytest.mark.parametrize("compiled_entries", [0, 10**9], ids=["compiled", "numpy"])
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(0, 4))
@settings(max_examples=60)
def test_tables_without_a_variable(
    compiled_entries: int, seed: int, neighbours: int, more: int
) -> None:
    """Of any sizes, also 1, with the variable anywhere among its neighbours; sums of integers are exact."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 5, neighbours + 1)
    variable = int(rng.integers(0, neighbours + 1))
    scopes = [tuple(range(neighbours + 1)), (variable,)]
    for _ in range(more):
        some = rng.choice(neighbours + 1, int(rng.integers(1, neighbours + 2)), replace=False)
        scopes.append(tuple(sorted({variable, *some.tolist()})))
    factors = [
        Factor(scope, rng.integers(0, 9, [sizes[u] for u in scope]).astype(float))
        for scope in scopes
    ]
    scope = tuple(u for u in range(neighbours + 1) if u != variable)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(elimination, "_COMPILED_ENTRIES", compiled_entries)
        least, best = without(factors, scope, variable)
    for place, (cost, group) in by_hand(factors, scope, variable).items():
        assert least[place] == cost
        assert best[place] == group
