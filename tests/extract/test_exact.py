"""The search over whole choices against brute force: needs of options and pairs, a price of fullness."""

from __future__ import annotations

from itertools import product
from math import inf

import numpy as np
import pytest
from choice_cases import random_problem
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.extract import exact
from tilewright.extract.choice import FORBIDDEN, ChoiceProblem
from tilewright.extract.copies import PairUsage
from tilewright.extract.exact import Evaluate, search_exactly

LIMIT = 60.0


def random_pairs(problem: ChoiceProblem, rng: np.random.Generator) -> tuple[PairUsage, ...]:
    """Return needs of all pairs of neighbours in number."""
    sizes = [len(costs) for costs in problem.costs]
    return tuple(
        PairUsage(v, v + 1, rng.integers(0, 30, (sizes[v], sizes[v + 1])).astype(float))
        for v in range(len(sizes) - 1)
    )


def judge(
    problem: ChoiceProblem, pairs: tuple[PairUsage, ...], use_price: float, sum_price: float
) -> Evaluate:
    """Return the exact cost of a whole choice."""

    def evaluate(choice: tuple[int, ...]) -> float:
        use = problem.use(choice)
        for pair in pairs:
            use[pair.consumer] += pair.amounts[choice[pair.producer], choice[pair.consumer]]
        cost = problem.cost(choice)
        if use.max() > problem.limit or cost >= FORBIDDEN:
            return inf
        return sum_price * cost + use_price * float(use.max())

    return evaluate


@given(
    st.integers(0, 10**6),
    st.integers(2, 5),
    st.sampled_from([(0.0, 1.0), (0.5, 1.0), (1.0, 0.0)]),
)
@settings(max_examples=60)
def test_the_best_choice_is_found_and_proven(
    seed: int, count: int, prices: tuple[float, float]
) -> None:
    rng = np.random.default_rng(seed)
    problem = random_problem(rng, count=count, density=0.6, limit=LIMIT)
    pairs = random_pairs(problem, rng)
    evaluate = judge(problem, pairs, *prices)
    best = min(map(evaluate, product(*(range(len(costs)) for costs in problem.costs))))
    found = search_exactly(
        problem, problem.usages, pairs, evaluate, inf, use_price=prices[0], sum_price=prices[1]
    )
    assert found is not None
    assert found.is_proven
    assert found.cost == (best if best == inf else pytest.approx(best, rel=1e-9))
    assert (found.choice is None) == (best == inf)
    if found.choice is not None:
        assert evaluate(found.choice) == found.cost


def test_a_search_that_is_cut_short_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = random_problem(np.random.default_rng(1), count=5, density=0.6, limit=LIMIT)
    evaluate = judge(problem, (), 0.0, 1.0)
    monkeypatch.setattr(exact, "_MOST_NODES", 2)
    found = search_exactly(problem, problem.usages, (), evaluate, inf)
    assert found is not None
    assert not found.is_proven
    asked = (problem, problem.usages, (), evaluate, inf)
    assert search_exactly(*asked, most_variables=4) is None
