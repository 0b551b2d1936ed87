"""What links between instances cost at least, against all choices of all instances counted out."""

from __future__ import annotations

from itertools import product

import numpy as np
from choice_cases import optimum
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.extract.between import Between, with_links_as_costs
from tilewright.extract.choice import FORBIDDEN, ChoiceProblem, Edge

HEAD, FIRST, LAST, TAIL = range(4)
"""A value before a repeated block, the block's two variables, and one behind it."""


def chain(seed: int, repeats: int) -> tuple[ChoiceProblem, list[Between], list[int]]:
    """Return a repeated block between two values, links that join its instances, and how many there are."""
    rng = np.random.default_rng(seed)
    instances, most = [1, repeats, repeats, 1], 3 if repeats < 3 else 2
    costs = tuple(n * rng.integers(0, 30, most if n == 1 else 2) * 1.0 for n in instances)
    inside = Edge(
        *(FIRST, LAST, rng.integers(0, 2, len(costs[FIRST])), rng.integers(0, 2, len(costs[LAST]))),
        repeats * rng.integers(0, 20, (2, 2)) * 1.0,
    )

    def link(producer: int, consumer: int, argument: int, uses: list[tuple[int, int]]) -> Between:
        matrix = len(uses) * rng.integers(0, 20, (3, 3)) * 1.0
        matrix[rng.random(matrix.shape) < 0.15] = FORBIDDEN
        return Between(
            producer=producer,
            consumer=consumer,
            argument=argument,
            producer_ports=rng.integers(0, 3, len(costs[producer])),
            consumer_ports=rng.integers(0, 3, len(costs[consumer])),
            matrix=matrix,
            producers=tuple(maker for maker, _ in uses),
            consumers=tuple(reader for _, reader in uses),
        )

    on = [(n, n + 1) for n in range(repeats - 1)]
    links = [link(HEAD, FIRST, 0, [(0, 0)]), link(LAST, TAIL, 0, [(repeats - 1, 0)])]
    if on:
        links.append(link(LAST, FIRST, 0, on))
    if on and rng.random() < 0.5:  # the first instance reads something else
        links.append(link(FIRST, LAST, 1, on))
    if on and rng.random() < 0.5:
        links.append(link(LAST, LAST, 2, on))
    if rng.random() < 0.5:  # one value is read by all instances
        links.append(link(HEAD, LAST, 3, [(0, n) for n in range(repeats)]))
    return ChoiceProblem(costs, (inside,), (), 0, 0.0), links, instances


def best_of_differing(problem: ChoiceProblem, links: list[Between], instances: list[int]) -> float:
    """Return the least cost of instances that each have a choice of their own."""
    own = [(v, n) for v, count in enumerate(instances) for n in range(count)]
    number = {one: place for place, one in enumerate(own)}
    (edge,) = problem.edges
    repeats = instances[FIRST]
    best = np.inf
    for choice in product(*(range(len(problem.costs[v])) for v, _ in own)):
        cost = sum(problem.costs[v][choice[number[v, n]]] / instances[v] for v, n in own)
        for n in range(repeats):
            left, right = choice[number[FIRST, n]], choice[number[LAST, n]]
            cost += edge.matrix[edge.left_ports[left], edge.right_ports[right]] / repeats
        for link in links:
            for maker, reader in zip(link.producers, link.consumers, strict=True):
                made = link.producer_ports[choice[number[link.producer, maker]]]
                wanted = link.consumer_ports[choice[number[link.consumer, reader]]]
                cost += link.matrix[made, wanted] / len(link.producers)
        best = min(best, float(cost))
    return best


@given(st.integers(0, 10**6), st.integers(1, 3))
@settings(max_examples=30, deadline=None)
def test_costs_of_links_bound_instances_that_differ(seed: int, repeats: int) -> None:
    problem, links, instances = chain(seed, repeats)
    best = best_of_differing(problem, links, instances)
    found = optimum(with_links_as_costs(problem, links, instances)[0])
    assert found <= best + 1e-6 * max(1.0, abs(best))


def test_links_of_a_tree_without_repeats_cost_what_they_cost() -> None:
    """The relaxation of a tree is exact, so nothing is lost where nothing repeats."""
    for seed in range(20):
        problem, links, instances = chain(seed, 1)
        best = best_of_differing(problem, links[:2], instances)
        found = optimum(with_links_as_costs(problem, links[:2], instances)[0])
        assert best >= FORBIDDEN / 2 or np.isclose(found, best)


def test_links_say_more_than_none() -> None:
    """Most bounds get nearer to the best choice, and some reach it."""
    nearer = reached = 0
    for seed in range(24):
        problem, links, instances = chain(seed, 3)
        best = best_of_differing(problem, links, instances)
        without, found = (
            optimum(problem),
            optimum(with_links_as_costs(problem, links, instances)[0]),
        )
        assert found >= without - 1e-6
        nearer += found > without + 1e-6
        reached += abs(found - best) < 1e-6
    assert nearer >= 16
    assert reached >= 1
