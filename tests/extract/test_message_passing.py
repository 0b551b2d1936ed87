"""Larger choice problems: chains by dynamic programming, others by eliminating variables one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tilewright.extract.choice import FORBIDDEN, ChoiceProblem, Edge, Usage
from tilewright.extract.message_passing import MessagePassing
from tilewright.extract.solve import fits, improve_feasible, priced, repair, solve

Values = NDArray[np.float64]


def random_problem(
    rng: np.random.Generator,
    *,
    count: int,
    density: float = 0.0,
    forbidden: float = 0.0,
    limit: float | None = None,
    options: int = 5,
) -> ChoiceProblem:
    """Return a chain with extra edges; each row's use is that of a few neighbouring variables."""
    sizes = rng.integers(2, options + 1, count)
    costs = tuple(rng.integers(0, 30, size).astype(float) for size in sizes)
    pairs = [(v, v + 1) for v in range(count - 1)]
    pairs += [(a, b) for b in range(count) for a in range(b - 1) if rng.random() < density]
    edges = []
    for left, right in pairs:
        matrix = rng.integers(0, 20, (4, 3)).astype(float)
        matrix[rng.random(matrix.shape) < forbidden] = FORBIDDEN
        left_ports, right_ports = rng.integers(0, 4, sizes[left]), rng.integers(0, 3, sizes[right])
        edges.append(Edge(left, right, left_ports, right_ports, matrix))
    usages = [
        Usage(v, v, min(v + int(rng.integers(1, 4)), count), rng.integers(0, 10, sizes[v]) * 1.0)
        for v in range(count)
        if limit is not None
    ]
    rows = count if limit is not None else 0
    return ChoiceProblem(costs, tuple(edges), tuple(usages), rows, limit or 0.0)


def optional_problem(rng: np.random.Generator, count: int, *, limit: float | None) -> ChoiceProblem:
    """Return an AND/OR choice: option 0 of most variables is "not computed", consumers forbid it."""
    costs, edges, usages = [], [], []
    for v in range(count):
        size = int(rng.integers(2, 5))
        own = rng.integers(1, 30, size).astype(float)
        if v < count - 1:
            own[0] = 0.0
        costs.append(own)
        amounts = rng.integers(0, 10, size).astype(float)
        if v < count - 1:
            amounts[0] = 0.0
        usages.append(Usage(v, v, min(v + 2, count), amounts))
        users = [u for u in range(v) if v - u <= 3 and rng.random() < 0.6]
        for u in users:
            needs = (rng.random(size) < 0.5).astype(np.int64)
            if v < count - 1:
                needs[0] = 0
            made = np.minimum(np.arange(len(costs[u])), 2).astype(np.int64)
            matrix = np.array([[0.0, FORBIDDEN], [0.0, float(rng.integers(0, 9))], [0.0, 3.0]])
            edges.append(Edge(u, v, made, needs, matrix))
    if limit is None:
        return ChoiceProblem(tuple(costs), tuple(edges), (), 0, 0.0)
    return ChoiceProblem(tuple(costs), tuple(edges), tuple(usages), count, limit)


def chain_optimum(problem: ChoiceProblem) -> float:
    """Return the optimum of a chain by Viterbi's recursion."""
    best = problem.costs[0].copy()
    for edge in problem.edges:
        full = edge.matrix[np.ix_(edge.left_ports, edge.right_ports)]
        best = (best[:, None] + full).min(axis=0) + problem.costs[edge.right]
    return float(best.min())


def all_costs(problem: ChoiceProblem) -> Values:
    """Return the cost of every choice as an array with an axis for each variable; for few variables."""
    count = len(problem.costs)
    total = np.zeros((1,) * count)
    for v, own in enumerate(problem.costs):
        total = total + own.reshape([-1 if axis == v else 1 for axis in range(count)])
    for edge in problem.edges:
        full = edge.matrix[np.ix_(edge.left_ports, edge.right_ports)]
        shape = [1] * count
        shape[edge.left], shape[edge.right] = full.shape
        total = total + (full if edge.left < edge.right else full.T).reshape(shape)
    return np.asarray(total)


def all_fitting(problem: ChoiceProblem) -> NDArray[np.bool_]:
    """Return for every choice whether it is within the limit in each row."""
    count = len(problem.costs)
    fitting = np.ones((1,) * count, dtype=bool)
    for row in range(problem.rows):
        use = np.zeros((1,) * count)
        for usage in problem.usages:
            if usage.low <= row < usage.high:
                axes = [-1 if axis == usage.variable else 1 for axis in range(count)]
                use = use + usage.amounts.reshape(axes)
        fitting = fitting & (use <= problem.limit)
    return np.asarray(fitting)


def optimum(problem: ChoiceProblem) -> float:
    costs = np.where(all_fitting(problem), all_costs(problem), np.inf)
    return float(costs.min())


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


def test_use_counts_half_open_ranges() -> None:
    usages = (Usage(0, 0, 2, np.array([3.0])), Usage(0, 1, 3, np.array([4.0])))
    problem = ChoiceProblem((np.zeros(1),), (), usages, 4, 100.0)
    assert problem.use((0,)).tolist() == [3.0, 7.0, 4.0, 0.0]
