"""The large solver on small random instances, by brute force over the contest's own definition."""

from __future__ import annotations

import json
import time
from itertools import product
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks.iopddl import evaluate
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.extract.choice import FORBIDDEN as FORBIDDEN_COST
from tilewright.extract.choice import ChoiceProblem, Edge, Usage
from tilewright.extract.large import worker
from tilewright.extract.large.assign import assign
from tilewright.extract.large.contest import read_contest
from tilewright.extract.large.contraction import contract
from tilewright.extract.large.flat import flatten
from tilewright.extract.large.rows import flatten_rows
from tilewright.extract.large.rows_core import use_of
from tilewright.extract.large.solve import LargeOptions, solve_large
from tilewright.extract.message_passing import MessagePassing
from tilewright.extract.solve import priced

FORBIDDEN = 10**18
Instance = dict[str, Any]


@pytest.fixture(autouse=True)
def short_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small problems need little work: reductions come after a few rounds."""
    monkeypatch.setattr(worker, "_ROUND", 200_000)
    monkeypatch.setattr(worker, "_CYCLE", 6)
    monkeypatch.setattr(worker, "_COLD", 2)


def random_instance(rng: np.random.Generator, tightness: float) -> Instance:
    """Return an instance with leaves and chains that others decide, self-loops and parallel edges."""
    count = int(rng.integers(2, 8))
    sizes = [int(size) for size in rng.integers(1, 5, count)]
    costs = [[int(c) for c in rng.integers(0, 40, size)] for size in sizes]
    usages = [[int(u) for u in rng.integers(0, 10, size)] for size in sizes]
    intervals = []
    for _ in range(count):
        low = int(rng.integers(0, 12))
        intervals.append([low, low + int(rng.integers(0, 7))])
    pairs, matrices = [], []
    for right in range(1, count):
        for left in {int(v) for v in rng.integers(0, right + (rng.random() < 0.1), 2)}:
            matrix = rng.integers(0, 30, (sizes[left], sizes[right]))
            kind = rng.random()
            if kind < 0.4:
                allowed = np.arange(sizes[left])[:, None] % sizes[right] == np.arange(sizes[right])
                matrix = np.where(allowed, matrix, FORBIDDEN)
            elif kind < 0.6:
                matrix = np.where(rng.random(matrix.shape) < 0.3, FORBIDDEN, matrix)
            pairs.append([left, right])
            matrices.append([int(c) for c in matrix.reshape(-1)])
    least = evaluate_peak(intervals, [min(u) for u in usages])
    most = evaluate_peak(intervals, [max(u) for u in usages])
    return {
        "problem": {
            "nodes": {"intervals": intervals, "costs": costs, "usages": usages},
            "edges": {"nodes": pairs, "costs": matrices},
            "usage_limit": round(least + tightness * (most - least)),
        }
    }


def evaluate_peak(intervals: list[list[int]], amounts: list[int]) -> int:
    return max(
        sum(a for (low, high), a in zip(intervals, amounts, strict=True) if low <= t < high)
        for t in range(20)
    )


def brute_force(instance: Instance) -> int | None:
    """Return the least cost within the limit, or none."""
    problem = instance["problem"]
    best = None
    for choice in product(*(range(len(own)) for own in problem["nodes"]["costs"])):
        cost, peak = evaluate(problem, choice)
        if peak <= problem["usage_limit"] and cost < FORBIDDEN and (best is None or cost < best):
            best = cost
    return best


def problem_of(instance: Instance, folder: Path) -> ChoiceProblem:
    path = folder / "instance.json"
    path.write_text(json.dumps(instance))
    contest = read_contest(path)
    assert contest.scale == 1.0
    return contest.problem


@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.1, 0.3, 1.0]))
@settings(max_examples=30, deadline=None)
def test_small_instances_are_solved_as_by_brute_force(
    tmp_path_factory: pytest.TempPathFactory, seed: int, tightness: float
) -> None:
    instance = random_instance(np.random.default_rng(seed), tightness)
    problem = problem_of(instance, tmp_path_factory.getbasetemp())
    best = brute_force(instance)
    solution = solve_large(problem, LargeOptions(rounds=30, seconds=inf))
    if best is None:
        assert not solution.feasible
        return
    cost, peak = evaluate(instance["problem"], solution.choice)
    assert solution.feasible
    assert peak <= instance["problem"]["usage_limit"]
    assert cost == pytest.approx(solution.cost)
    assert cost == best
    assert solution.bound <= best + 1e-6


@given(st.integers(0, 10**6))
@settings(max_examples=50, deadline=None)
def test_contraction_keeps_costs_uses_and_the_optimum(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    instance = random_instance(rng, 0.3)
    problem = problem_of(instance, tmp_path_factory.getbasetemp())
    contracted = contract(problem)
    if not contracted.is_possible:
        assert brute_force(instance) is None
        return
    smaller = contracted.problem
    assert len(smaller.costs) <= len(problem.costs) + 1
    best = None
    for choice in product(*(range(len(own)) for own in smaller.costs)):
        cost, use = smaller.cost(choice), smaller.use(choice)
        expanded = contracted.expand(np.array(choice))
        if cost < FORBIDDEN_COST:
            assert problem.cost(expanded) == pytest.approx(cost)
        np.testing.assert_allclose(problem.use(expanded), use)
        if (use <= smaller.limit).all() and cost < FORBIDDEN_COST:
            best = cost if best is None else min(best, cost)
    assert best == brute_force(instance)


@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.2, 0.6]))
@settings(max_examples=50, deadline=None)
def test_rows_left_out_never_overflow(
    tmp_path_factory: pytest.TempPathFactory, seed: int, tightness: float
) -> None:
    """A choice overflows a row that is left exactly if it overflows some row of the problem."""
    rng = np.random.default_rng(seed)
    problem = problem_of(random_instance(rng, tightness), tmp_path_factory.getbasetemp())
    flat, rows = flatten(problem), flatten_rows(problem)
    use = np.zeros(len(rows.room))
    for _ in range(20):
        choice = np.array([int(rng.integers(0, len(own))) for own in problem.costs])
        use_of(flat, rows, choice, use)
        assert bool((use <= rows.room).all()) == bool((problem.use(choice) <= problem.limit).all())
        np.testing.assert_allclose(
            rows.room - use, problem.limit - problem.use(choice)[rows.original]
        )


def larger_problem(seed: int, count: int = 60) -> ChoiceProblem:
    """A loopy problem whose rows bind."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(2, 7, count)
    costs = tuple(rng.integers(0, 60, size).astype(float) for size in sizes)
    edges = []
    for right in range(1, count):
        for left in sorted({int(v) for v in rng.integers(max(0, right - 6), right, 2)}):
            matrix = rng.integers(0, 40, (sizes[left], sizes[right])).astype(float)
            edges.append(Edge(left, right, np.arange(sizes[left]), np.arange(sizes[right]), matrix))
    usages = tuple(
        Usage(v, v, min(count, v + int(rng.integers(1, 9))), rng.integers(0, 10, size) * 1.0)
        for v, size in enumerate(sizes)
    )
    least = ChoiceProblem(costs, tuple(edges), usages, count, 0.0).use(
        [int(usage.amounts.argmin()) for usage in usages]
    )
    return ChoiceProblem(costs, tuple(edges), usages, count, round(1.3 * float(least.max())))


def test_the_prices_prove_the_bound_and_the_gap_is_small() -> None:
    """Until options are left out the bound is that of plain message passing under the row prices."""
    problem = larger_problem(1)
    solution = solve_large(problem, LargeOptions(rounds=40))
    assert solution.feasible
    assert (problem.use(solution.choice) <= problem.limit).all()
    assert problem.cost(solution.choice) == pytest.approx(solution.cost)
    passing = MessagePassing(problem)
    costs = priced(problem, solution.multipliers)
    dual = max(passing.sweep(costs) for _ in range(60))
    proved = dual - float(solution.multipliers.sum()) * problem.limit
    assert solution.bound == pytest.approx(proved, rel=2e-3)
    assert solution.cost <= 1.05 * solution.bound


def test_rounds_and_seed_decide_the_result() -> None:
    problem = larger_problem(2)
    one, two = (solve_large(problem, LargeOptions(rounds=70, seed=5)) for _ in range(2))
    assert one.choice == two.choice
    assert one.bound == two.bound
    assert one.multipliers.tolist() == two.multipliers.tolist()


def test_time_is_kept() -> None:
    solve_large(larger_problem(3), LargeOptions(rounds=1))
    start = time.monotonic()
    solution = solve_large(larger_problem(3, 400), LargeOptions(seconds=1.0, gap=-1.0))
    assert time.monotonic() - start < 2.0
    assert solution.feasible


def test_no_limit_no_edges_and_no_nodes(tmp_path: Path) -> None:
    nodes = {"intervals": [[0, 3], [1, 2]], "costs": [[4, 2], [7]], "usages": [[1, 9], [5]]}
    path = tmp_path / "free.json"
    path.write_text(json.dumps({"problem": {"nodes": nodes, "edges": {"nodes": [], "costs": []}}}))
    found = assign(path, 10.0)
    assert (found.strategies, found.cost, found.bound, found.gap) == ((1, 0), 9.0, 9.0, 0.0)
    nodes = {"intervals": [], "costs": [], "usages": []}
    empty = {"problem": {"nodes": nodes, "edges": {"nodes": [], "costs": []}, "usage_limit": 3}}
    path.write_text(json.dumps(empty))
    assert assign(path, 10.0).strategies == ()


def test_large_costs_are_scaled_exactly(tmp_path: Path) -> None:
    big = 3_073_339_293_761
    nodes = {"intervals": [[0, 1]] * 2, "costs": [[big, big + 7], [1]], "usages": [[5, 1], [1]]}
    edges = {"nodes": [[0, 1]], "costs": [[FORBIDDEN, 2]]}
    path = tmp_path / "big.json"
    instance = {"problem": {"nodes": nodes, "edges": edges, "usage_limit": 9}}
    path.write_text(json.dumps(instance))
    found = assign(path, 10.0)
    assert found.strategies == (1, 0)
    assert found.cost == big + 10 == evaluate(instance["problem"], found.strategies)[0]
