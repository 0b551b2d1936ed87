"""Bounds of repeats that keep different residents, by brute force over all that they can do together."""

from __future__ import annotations

from itertools import combinations_with_replacement, product

import numpy as np
import pytest
from choice_cases import optional_problem, random_problem
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.extract import spans
from tilewright.extract.account import Account, Reader, consistent
from tilewright.extract.choice import FORBIDDEN, ChoiceProblem, Costs
from tilewright.extract.projection import project
from tilewright.extract.spans import bound_by_spans


def random_account(rng: np.random.Generator, problem: ChoiceProblem) -> Account:
    """Return what options need, with readers a few variables later, some of which see the same bytes."""
    sizes = [len(own) for own in problem.costs]
    readers: list[tuple[Reader, ...]] = []
    for variable, size in enumerate(sizes):
        own = []
        for later in range(variable + 1, min(variable + 4, len(sizes))):
            if rng.random() < 0.6:
                shape = (size, sizes[later])
                reads = rng.random(sizes[later]) < 0.7
                copied = rng.integers(1, 8, shape) * (rng.random(shape) < 0.4) * reads
                arrived = copied // 2
                is_same = (rng.random(shape) < 0.3) & reads
                reader = Reader(
                    variable=later,
                    reads=reads,
                    copied_bytes=copied * 1.0,
                    arrived_bytes=arrived * 1.0,
                    is_same=is_same,
                )
                own.append(reader)
        readers.append(tuple(own))
    return Account(
        own_bytes=tuple(rng.integers(0, 12, size).astype(float) for size in sizes),
        alive_bytes=tuple(rng.integers(0, 9, size).astype(float) for size in sizes),
        readers=tuple(readers),
    )


def naive_use(account: Account, choice: tuple[int, ...]) -> list[float]:
    """Return the bytes of each row: whoever is read, directly or through views, is alive until then."""

    def is_alive(variable: int, row: int) -> bool:
        return any(
            reader.reads[choice[reader.variable]]
            and (
                reader.variable >= row
                or (
                    reader.is_same[choice[variable], choice[reader.variable]]
                    and is_alive(reader.variable, row)
                )
            )
            for reader in account.readers[variable]
        )

    rows = []
    for row, option in enumerate(choice):
        bytes_ = float(account.own_bytes[row][option])
        for variable in range(row):
            if is_alive(variable, row):
                bytes_ += float(account.alive_bytes[variable][choice[variable]])
            for reader in account.readers[variable]:
                if reader.variable == row:
                    bytes_ += float(reader.copied_bytes[choice[variable], option])
        rows.append(bytes_)
    return rows


def choices_of(problem: ChoiceProblem) -> list[tuple[int, ...]]:
    return list(product(*(range(len(own)) for own in problem.costs)))


@given(st.integers(0, 10**6), st.integers(2, 5), st.floats(8, 40))
@settings(max_examples=30, deadline=None)
def test_options_that_fit_are_left(seed: int, count: int, limit: float) -> None:
    rng = np.random.default_rng(seed)
    problem = random_problem(rng, count=count, options=3, forbidden=0.3)
    account = random_account(rng, problem)
    every = tuple(np.arange(len(own)) for own in problem.costs)
    fitting = account.fitting(every, limit)
    allowed = None if fitting is None else consistent(problem, fitting)
    for choice in choices_of(problem):
        use = account.use(choice)
        assert use.tolist() == pytest.approx(naive_use(account, choice))
        reasons = account.reasons(choice, limit)
        assert all(mask[choice[variable]] for variable, mask in reasons)
        if use.max() > limit:
            # options that all meet the conditions are too many together
            kept = [np.arange(len(own)) for own in problem.costs]
            for variable, mask in reasons:
                kept[variable] = np.intersect1d(kept[variable], np.flatnonzero(mask))
            assert account.fitting(tuple(kept), limit) is None
        elif problem.cost(choice) < FORBIDDEN:
            assert fitting is not None
            assert allowed is not None
            for left in (fitting, allowed):
                assert all(option in own for option, own in zip(choice, left, strict=True))


def best_together(
    problem: ChoiceProblem, account: Account, shared: tuple[Costs, ...], repeats: int
) -> float:
    """Return the least cost of repeats whose residents are beside the fullest row of all."""
    choices = [choice for choice in choices_of(problem) if problem.cost(choice) < FORBIDDEN]
    costs = [problem.cost(choice) / repeats for choice in choices]
    kept = [sum(s[o] for s, o in zip(shared, c, strict=True)) / repeats for c in choices]
    rows = [max(naive_use(account, choice)) for choice in choices]
    return min(
        (
            sum(costs[c] for c in each)
            for each in combinations_with_replacement(range(len(choices)), repeats)
            if sum(kept[c] for c in each) + max(rows[c] for c in each) <= problem.limit
        ),
        default=np.inf,
    )


@given(st.integers(0, 10**6), st.integers(1, 3), st.booleans())
@settings(max_examples=25, deadline=None)
def test_bounds_hold_for_repeats_that_differ(seed: int, repeats: int, is_optional: bool) -> None:
    rng = np.random.default_rng(seed)
    problem = (
        optional_problem(rng, 4, limit=None)
        if is_optional
        else random_problem(rng, count=4, density=0.4, options=3, forbidden=0.1)
    )
    limit = float(rng.integers(10, 50))
    problem = ChoiceProblem(problem.costs, problem.edges, (), 0, limit)
    account = random_account(rng, problem)
    shared = tuple(repeats * rng.integers(0, 9, len(own)) * 1.0 for own in problem.costs)
    best = best_together(problem, account, shared, repeats)
    for price in (0.0, 0.5, 2.0):
        for splits in (0, 100):
            bound, _ = bound_by_spans(problem, account, shared, price, most_splits=splits)
            assert bound <= best + 1e-6
            assert bound_by_spans(problem, account, shared, price, bound - 1.0)[0] <= bound


def test_bounds_are_the_lagrangian_ones() -> None:
    """With splits to spare, the bound is the least over all rows, of what is best at the price of bytes."""
    closed = 0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        problem = random_problem(rng, count=4, options=3)
        problem = ChoiceProblem(problem.costs, problem.edges, (), 0, 40.0)
        account = random_account(rng, problem)
        shared = tuple(rng.integers(0, 9, len(own)) * 1.0 for own in problem.costs)
        lagrangian = min(
            problem.cost(c)
            + sum(s[o] for s, o in zip(shared, c, strict=True))
            - (problem.limit - max(naive_use(account, c)))
            for c in choices_of(problem)
            if max(naive_use(account, c)) <= problem.limit
        )
        found, _ = bound_by_spans(problem, account, shared, 1.0)
        assert found <= lagrangian + 1e-6
        closed += found >= lagrangian - 1e-3
    assert closed >= 8


@pytest.mark.parametrize("spread", [0.0, 0.05, 10.0])
def test_a_projection_is_the_least_cost(spread: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tilewright.extract.projection._SPREAD", spread)
    for seed in range(12):
        problem = random_problem(
            np.random.default_rng(seed), count=5, density=0.5, forbidden=0.3, options=4
        )
        every = [np.arange(len(own)) for own in problem.costs]
        found = project(problem, every, (1, 2, 3, 4), 0)
        assert found is not None
        costs = [own * (v > 0) for v, own in enumerate(problem.costs)]
        free = ChoiceProblem(tuple(costs), problem.edges, (), 0, 0.0)
        for option, cost in enumerate(found.costs):
            least = min(free.cost(c) for c in choices_of(free) if c[0] == option)
            assert cost <= min(least, FORBIDDEN) + 1e-6 or least >= FORBIDDEN
            if spread == 10.0 and least < FORBIDDEN:
                others = found.options(option)
                assert free.cost((option, *(others[v] for v in (1, 2, 3, 4)))) == pytest.approx(
                    least
                )
                assert cost == pytest.approx(least)


def test_pendants_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Projections do not change the bound: with and without them it is the same."""
    differ = 0
    for seed in range(8):
        rng = np.random.default_rng(seed)
        problem = random_problem(rng, count=7, options=2)
        problem = ChoiceProblem(problem.costs, problem.edges, (), 0, 1000.0)
        account = random_account(rng, problem)
        shared = tuple(np.zeros(len(own)) for own in problem.costs)
        monkeypatch.setattr(spans, "_FEWEST", 2)
        projected, _ = bound_by_spans(problem, account, shared, 1.0)
        monkeypatch.setattr(spans, "_FEWEST", 99)
        whole, _ = bound_by_spans(problem, account, shared, 1.0)
        differ += abs(projected - whole) > 1e-3
    assert differ == 0
