"""Local search: the overuse that options lead to, against rows added up one by one."""

from __future__ import annotations

import numpy as np
import pytest
from tests.extract.choice_cases import random_problem

from tilewright.extract.local_search import _LocalSearch


@pytest.mark.parametrize("seed", range(10))
def test_overuse_by_option_is_that_of_the_changed_choice(seed: int) -> None:
    rng = np.random.default_rng(seed)
    problem = random_problem(rng, count=6, limit=9.0)
    choice = tuple(int(rng.integers(len(own))) for own in problem.costs)
    search = _LocalSearch(problem, choice)
    for variable, own in enumerate(problem.costs):
        found = search.overflow_by_option(variable)
        for option in range(len(own)):
            changed = (*choice[:variable], option, *choice[variable + 1 :])
            use = problem.use(changed)
            assert found[option] == sum(max(row - problem.limit, 0.0) for row in use)
        some = np.flatnonzero(rng.random(len(own)) < 0.5)
        assert (search.overflow_by_option(variable, some) == found[some]).all()
