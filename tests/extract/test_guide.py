"""Guidance by a part of the linear program, and what the search makes of it, by brute force."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from choice_cases import optimum, optional_problem
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.extract import solve as solving
from tilewright.extract.choice import FORBIDDEN, ChoiceProblem
from tilewright.extract.guide import guiding_relaxation
from tilewright.extract.linear import linear_relaxation
from tilewright.extract.local_search import fits
from tilewright.extract.solve import SolveOptions, floor, solve

NEVER_EXACT = SolveOptions(exact_work=0)


def problem_and_one_below(seed: int) -> tuple[ChoiceProblem, ChoiceProblem]:
    """Return a problem with scratchpad, and it without an edge and with half of each use."""
    rng = np.random.default_rng(seed)
    problem = optional_problem(rng, int(rng.integers(5, 8)), limit=20.0)
    left_out = int(rng.integers(len(problem.edges)))
    edges = problem.edges[:left_out] + problem.edges[left_out + 1 :]
    halves = tuple(replace(u, amounts=u.amounts / 2) for u in problem.usages)
    return problem, replace(problem, edges=edges, usages=halves)


@given(st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_a_guided_search_brackets_the_optimum(seed: int) -> None:
    problem, below = problem_and_one_below(seed)
    best = optimum(problem)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(solving, "_GUIDED_COLUMNS", 0)
        found = solve(problem, NEVER_EXACT, below=floor(below, NEVER_EXACT))
    assert found.bound <= best + 1e-6
    if found.feasible:
        assert fits(problem, found.choice)
        assert best - 1e-6 <= found.cost == pytest.approx(problem.cost(found.choice))
    if best >= FORBIDDEN:
        assert not found.feasible


def test_guidance_leaves_moves_out_and_never_finds_a_cheaper_relaxation() -> None:
    """Fewer columns cannot lower the optimum of a linear program."""
    dearer = found = 0
    for seed in range(30):
        problem, below = problem_and_one_below(seed)
        relaxation, whole = linear_relaxation(below), linear_relaxation(problem)
        if relaxation is None or whole is None:
            continue
        guide = guiding_relaxation(problem, below, relaxation)
        if guide is not None:
            found += 1
            assert guide.bound >= whole.bound - 1e-6
            dearer += guide.bound > whole.bound + 1e-6
    assert found >= 10
    assert 0 < dearer < found


def test_all_moves_of_the_same_problem_guide_like_its_relaxation() -> None:
    for seed in range(10):
        problem, _ = problem_and_one_below(seed)
        whole = linear_relaxation(problem)
        if whole is None:
            continue
        every = replace(whole, edges_above=tuple(0.0 * e.matrix for e in problem.edges))
        guide = guiding_relaxation(problem, problem, every)
        assert guide is not None
        assert guide.bound == pytest.approx(whole.bound)
