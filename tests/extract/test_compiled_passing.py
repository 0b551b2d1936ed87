"""Compiled message passing against the one in numpy: bounds, messages and choices, number by number."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.extract.choice import FORBIDDEN, ChoiceProblem, Edge
from tilewright.extract.large.flat import flatten
from tilewright.extract.large.passing import CompiledPassing
from tilewright.extract.message_passing import MessagePassing


def random_problem(rng: np.random.Generator, count: int) -> ChoiceProblem:
    """A problem with parallel edges, shared matrices, ports that no option has, forbidden pairs."""
    sizes = rng.integers(1, 6, count)
    costs = tuple(rng.random(size) * 30 for size in sizes)
    shared = rng.random((4, 3)) * 20
    shared[rng.random(shared.shape) < 0.2] = FORBIDDEN
    edges = []
    for _ in range(int(rng.integers(0, 3 * count))):
        left, right = (int(v) for v in rng.integers(0, count, 2))
        if left != right:
            matrix = shared if rng.random() < 0.3 else rng.random((4, 3)) * 20
            ports = rng.integers(0, 4, sizes[left]), rng.integers(0, 3, sizes[right])
            edges.append(Edge(left, right, ports[0], ports[1], matrix))
    return ChoiceProblem(costs, tuple(edges), (), 0, 0.0)


@given(st.integers(0, 10**6), st.integers(1, 12))
@settings(max_examples=100, deadline=None)
def test_agrees_with_numpy_through_sweeps_and_changes_of_costs(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    problem = random_problem(rng, count)
    plain, fast = MessagePassing(problem), CompiledPassing(problem)
    for _ in range(3):
        costs = tuple(own + rng.random(len(own)) * 5 for own in problem.costs)
        for _ in range(2):
            assert fast.sweep(costs) == pytest.approx(plain.sweep(costs), rel=1e-12)
        for backwards in (True, False):
            choice = plain.decode(costs, backwards=backwards)
            assert fast.decode(costs, backwards=backwards) == choice
            assert fast.improve(costs, choice) == plain.improve(costs, choice)
        bound, above = fast.option_bounds(costs)
        plain_bound, plain_above = plain.option_bounds(costs)
        assert bound == pytest.approx(plain_bound, rel=1e-12)
        assert len(above) == len(plain_above)
        for own, plain_own in zip(above, plain_above, strict=True):
            np.testing.assert_allclose(own, plain_own, rtol=1e-12, atol=1e-4)


def test_several_sweeps_at_once_are_the_same_as_one_by_one() -> None:
    problem = random_problem(np.random.default_rng(4), 12)
    one, many = CompiledPassing(problem), CompiledPassing(problem)
    bounds = [one.sweep(problem.costs) for _ in range(5)]
    assert many.sweep(problem.costs, times=5) == bounds[-1]
    assert (np.diff(bounds) >= -1e-9).all()


def test_arrays_that_edges_share_are_kept_once() -> None:
    matrix, ports = np.arange(6.0).reshape(2, 3), np.array([0, 1, 1])
    edges = tuple(Edge(0, v, ports, ports, matrix) for v in (1, 2, 3))
    flat = flatten(ChoiceProblem((np.zeros(3),) * 4, edges, (), 0, 0.0))
    assert len(flat.ports) == 3
    assert flat.matrix.tolist() == [0, 1, 3, 4, 0, 3, 1, 4]


def test_no_variables() -> None:
    passing = CompiledPassing(ChoiceProblem((), (), (), 0, 0.0))
    assert passing.sweep(()) == 0
    assert passing.decode((), backwards=True) == ()
