"""Solving in cases against enumeration, and what checks it."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.extract import cases
from tilewright.extract.account import Account
from tilewright.extract.at_price import best_price, bound_at_price
from tilewright.extract.choice import FORBIDDEN, ChoiceProblem, Costs, Edge
from tilewright.extract.recheck import cases as checked
from tilewright.extract.recheck.spans import spans_bound


def random_demands(seed: int, count: int, ways: int) -> ChoiceProblem:
    """Return a problem as extraction makes them: values are idle, or made in ways that read others."""
    rng = np.random.default_rng(seed)
    costs = [rng.integers(1, 9, ways).astype(float)]
    edges = []
    for variable in range(1, count):
        is_optional = variable < count - 1
        own = rng.integers(0, 9, ways + is_optional).astype(float)
        if is_optional:
            own[-1] = 0.0
        reads = rng.integers(0, variable, ways)
        for other in sorted(set(reads.tolist())):
            ports = np.full(len(own), ways)
            ports[:ways][reads == other] = np.flatnonzero(reads == other)
            matrix = np.zeros((len(costs[other]), ways + 1))
            matrix[:, :ways] = rng.integers(0, 12, (len(matrix), ways))
            if other:
                matrix[-1, :ways] = FORBIDDEN
            edges.append(Edge(other, variable, np.arange(len(matrix)), ports, matrix))
        costs.append(own)
    return ChoiceProblem(tuple(costs), tuple(edges), (), 0, 1.0)


def least(problem: ChoiceProblem) -> float:
    return min(map(problem.cost, product(*(range(len(own)) for own in problem.costs))))


def whole(problem: ChoiceProblem) -> tuple[cases.Indices, ...]:
    return tuple(np.arange(len(own)) for own in problem.costs)


@given(st.integers(0, 10**6), st.integers(1, 6), st.sampled_from([0, 20]), st.booleans())
@settings(max_examples=200, deadline=None)
def test_the_least_of_all_cases_is_the_least_cost(
    seed: int, count: int, large: int, in_regions: bool
) -> None:
    problem = random_demands(seed, count, 3)
    expected = least(problem)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cases, "_LARGE", large)
        patch.setattr(cases, "_SMALL_CASE", large)
        patch.setattr(cases, "_ROUNDS", 1)
        patch.setattr(cases, "_FEW_NEIGHBOURS", 0)
        if in_regions:
            patch.setattr(cases, "_MOST_IN_CASES", -1)
        found = cases.least_by_cases(problem)
    assert found is not None
    assert found[1] == pytest.approx(expected)
    assert problem.cost(found[0]) == pytest.approx(expected)


@given(st.integers(0, 10**6), st.integers(1, 6), st.sampled_from([0, 20]))
@settings(max_examples=100, deadline=None)
def test_the_check_finds_the_same(seed: int, count: int, large: int) -> None:
    problem = random_demands(seed, count, 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checked, "_SMALL_CASE", large)
        found = checked.least_by_cases(problem, whole(problem), large)
    assert found == pytest.approx(least(problem))


def test_too_large_tables_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    costs = tuple(np.zeros(4) for _ in range(5))
    edges = tuple(
        Edge(a, b, np.arange(4), np.arange(4), rng.random((4, 4)) + 1)
        for a in range(5)
        for b in range(a + 1, 5)
    )
    problem = ChoiceProblem(costs, edges, (), 0, 1.0)
    monkeypatch.setattr(cases, "_LARGE", 0)
    monkeypatch.setattr(cases, "_MOST_IN_CASES", -1)
    assert cases.least_by_cases(problem) is not None
    monkeypatch.setattr(cases, "_MOST_ENTRIES", 3)
    assert cases.least_by_cases(problem) is None


def test_the_best_price_makes_lean_and_fast_choices_even() -> None:
    uses = [(100.0, 10.0), (40.0, 30.0), (90.0, 20.0)]
    assert best_price(uses, 15.0) == pytest.approx(3.0)  # 100 + 10 p = 40 + 30 p
    assert best_price(uses, 40.0) == 0.0


@given(st.integers(0, 10**6))
@settings(max_examples=50, deadline=None)
def test_bound_holds_for_repeats_that_differ(seed: int) -> None:
    """Two repeats, which share what they keep: no pair of choices that fits costs less than the bound."""
    problem = random_demands(seed, 4, 2)
    rng = np.random.default_rng(seed)
    kept: list[Costs] = [rng.integers(0, 9, len(own)).astype(float) for own in problem.costs]
    rows: list[Costs] = [rng.integers(1, 4, len(own)).astype(float) for own in problem.costs]
    limited = ChoiceProblem(problem.costs, problem.edges, (), 0, float(rng.integers(6, 30)))
    account = Account(own_bytes=tuple(rows), alive_bytes=tuple(rows), readers=((),) * 4)
    choices = list(product(*(range(len(own)) for own in problem.costs)))
    found = bound_at_price(limited, account, kept, choices[:3])
    assert found is not None
    bound, proof = found.bound, found.proof
    assert len(set(found.choices)) == len(found.choices)
    each = [
        (
            limited.cost(c) / 2,
            sum(own[o] for own, o in zip(kept, c, strict=True)) / 2,
            max(own[o] for own, o in zip(rows, c, strict=True)),
        )
        for c in choices
    ]
    pairs = [
        first[0] + second[0]
        for first, second in product(each, repeat=2)
        if first[1] + second[1] + max(first[2], second[2]) <= limited.limit
    ]
    assert all(bound <= cost + 1e-6 for cost in pairs)
    assert spans_bound(limited, account, kept, proof) == pytest.approx(bound, rel=1e-6, abs=1e-6)
