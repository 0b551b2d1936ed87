"""The check of bounds: it accepts what searches prove, and nothing above the optimum, by brute force."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations, product

import numpy as np
import pytest
from choice_cases import all_costs, optimum, optional_problem, random_problem
from hypothesis import given, settings
from hypothesis import strategies as st
from test_between import best_of_differing, chain
from test_spans import best_together, naive_use, random_account

from tilewright.extract import linear
from tilewright.extract.between import with_links_as_costs
from tilewright.extract.certificate import Dual, Priced, Spans
from tilewright.extract.choice import FORBIDDEN, ChoiceProblem, Costs, Edge
from tilewright.extract.plan_error import PlanError
from tilewright.extract.recheck.bound import priced_bound
from tilewright.extract.recheck.links import with_links
from tilewright.extract.recheck.min_sum import least_cost
from tilewright.extract.recheck.rows import fitting
from tilewright.extract.recheck.spans import spans_bound
from tilewright.extract.solve import SolveOptions, floor, lower_bound
from tilewright.extract.spans import bound_by_spans

WAYS = {
    "elimination": SolveOptions(),
    "relaxation": SolveOptions(exact_work=0, closing_work=0),
    "closing": SolveOptions(exact_work=0, price_steps=6),
    "messages": SolveOptions(exact_work=0, closing_work=0),
}
LITTLE = 1e-6


def a_problem(rng: np.random.Generator, *, optional: bool, limit: float | None) -> ChoiceProblem:
    if optional:
        return optional_problem(rng, 6, limit=limit)
    return random_problem(rng, count=5, density=0.5, forbidden=0.1, limit=limit)


def bounded(
    problem: ChoiceProblem, best: float, way: str, patch: pytest.MonkeyPatch
) -> tuple[float, Priced]:
    """Return the bound that a search proves, knowing the optimum, with its proof."""
    options = WAYS[way]
    with patch.context() as own:
        if way == "messages":
            own.setattr(linear, "MOST_COLUMNS", 0)
        below = floor(problem, options)
        found = lower_bound(below, best, np.zeros(problem.rows), options)
    assert found.proof is not None
    return found.bound, found.proof


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("optional", [False, True])
@pytest.mark.parametrize("limit", [None, 16.0])
def test_bounds_of_searches_are_accepted_and_none_above_the_optimum(
    way: str, optional: bool, limit: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    tight = 0
    for seed in range(6):
        problem = a_problem(np.random.default_rng(seed), optional=optional, limit=limit)
        best = optimum(problem)
        if best >= FORBIDDEN / 2:
            continue
        bound, proof = bounded(problem, best, way, monkeypatch)
        assert priced_bound(problem, proof, bound) >= bound - LITTLE
        for aim in (1.01 * best + 0.01, 2 * best + 5, FORBIDDEN):
            assert priced_bound(problem, proof, aim) <= best + LITTLE
        tight += bound >= best - LITTLE
    assert tight >= (way != "messages")


def joined_all_over(rng: np.random.Generator) -> ChoiceProblem:
    """Return a problem whose relaxation is weak: an edge between any two variables."""
    costs = tuple(rng.integers(0, 40, 6).astype(float) for _ in range(6))
    ports = np.arange(6)
    edges = tuple(
        Edge(left, right, ports, ports, rng.integers(0, 20, (6, 6)).astype(float))
        for left, right in combinations(range(6), 2)
    )
    return ChoiceProblem(costs, edges, (), 0, 0.0)


@pytest.mark.parametrize("seed", [0, 3, 7, 9])
def test_a_part_of_a_gap_is_closed_where_all_of_it_takes_too_much(seed: int) -> None:
    """Bounds rise with what elimination may take, and none is above the optimum."""
    problem = joined_all_over(np.random.default_rng(seed))
    best, found = optimum(problem), []
    below = floor(problem, SolveOptions(exact_work=0))
    for work in 2.0 ** np.arange(8, 17, 0.5):
        options = SolveOptions(closing_work=int(work), price_steps=1, closes_parts=True)
        one = lower_bound(below, best, np.zeros(0), options)
        assert one.bound <= best + LITTLE
        assert one.proof is not None
        assert priced_bound(problem, one.proof, one.bound) >= one.bound - LITTLE
        found.append(one.bound)
    assert found == sorted(found)
    assert found[-1] == pytest.approx(best)
    assert any(found[0] + LITTLE < bound < best - LITTLE for bound in found)


def shaken(rng: np.random.Generator, values: Costs, by: float) -> Costs:
    return np.asarray(
        values + by * rng.normal(size=values.shape) * (rng.random(values.shape) < 0.5)
    )


def spoilt(rng: np.random.Generator, proof: Priced) -> Priced:
    """Return a proof with other numbers; some of what it says of options may be wrong, too."""
    by = float(rng.choice([0.0, 0.1, 5.0]))
    dual = proof.dual
    if dual is not None:
        dual = Dual(
            prices=np.maximum(shaken(rng, dual.prices, by), 0.0),
            messages=tuple((shaken(rng, a, by), shaken(rng, b, by)) for a, b in dual.messages),
            cuts=tuple(
                replace(cut, price=cut.price + by * float(rng.random())) for cut in dual.cuts
            ),
            idle=dual.idle,
        )
        if dual.cuts and rng.random() < 0.5:
            cut, *others = dual.cuts
            users = tuple((n, rng.random(len(mask)) < 0.5) for n, mask in cut.users)
            dual = replace(dual, cuts=(replace(cut, users=users), *others))
    dropped = proof.dropped
    if dropped and rng.random() < 0.3:
        place = int(rng.integers(len(dropped)))
        one = dropped[place]
        other = replace(one, options=one.by, by=one.options)
        dropped = (*dropped[:place], other, *dropped[place + 1 :])
    prices = np.maximum(shaken(rng, proof.prices, by), 0.0)
    return replace(proof, dual=dual, prices=prices, dropped=dropped)


@given(st.integers(0, 10**6), st.sampled_from(["elimination", "relaxation"]), st.booleans())
@settings(max_examples=25, deadline=None)
def test_wrong_numbers_prove_nothing_wrong(seed: int, way: str, optional: bool) -> None:
    rng = np.random.default_rng(seed)
    problem = a_problem(rng, optional=optional, limit=16.0 if seed % 2 else None)
    best = optimum(problem)
    if best >= FORBIDDEN / 2:
        return
    _, proof = bounded(problem, best, way, pytest.MonkeyPatch())
    for _ in range(4):
        try:
            proven = priced_bound(problem, spoilt(rng, proof), 2 * best + 5)
        except PlanError:
            continue
        assert proven <= best + LITTLE


def test_cuts_are_needed_and_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some bounds rest on cuts; one that is about options that need not exclude each other is refused."""
    resting = refused = 0
    for seed in range(30):
        problem = optional_problem(np.random.default_rng(seed), 7, limit=None)
        best = optimum(problem)
        if best >= FORBIDDEN / 2:
            continue
        bound, proof = bounded(problem, best, "relaxation", monkeypatch)
        if proof.dual is None or not proof.dual.cuts:
            continue
        plain = replace(proof, dual=replace(proof.dual, cuts=()))
        resting += priced_bound(problem, plain, -FORBIDDEN) < bound - LITTLE
        cut = proof.dual.cuts[0]
        every = tuple((number, np.ones_like(mask)) for number, mask in cut.users)
        wide = replace(proof.dual, cuts=(replace(cut, users=every),))
        with pytest.raises(PlanError, match="variable"):
            priced_bound(problem, replace(proof, dual=wide), -FORBIDDEN)
        refused += 1
    assert resting >= 1
    assert refused >= 1


def test_prices_of_repeats_must_be_the_relaxations() -> None:
    """A choice that is too dear for all repeats may be right for some of them, so prices may not move."""
    from test_repeats import repeated

    problem = repeated(4, 3)
    options = SolveOptions(exact_work=0)
    below = floor(problem, options)
    found = lower_bound(below, optimum(problem), np.zeros(problem.rows), options)
    assert found.proof is not None
    other = replace(found.proof, prices=found.proof.prices + 1.0)
    with pytest.raises(PlanError, match="other prices"):
        priced_bound(problem, other, FORBIDDEN, repeats_differ=True)


@given(st.integers(0, 10**6), st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_the_least_cost_is_one(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    problem = random_problem(rng, count=count, density=0.6, forbidden=0.2)
    kept = tuple(np.flatnonzero(rng.random(len(own)) < 0.8) for own in problem.costs)
    if all(map(len, kept)):
        least = all_costs(problem)[np.ix_(*kept)].min()
        assert min(least_cost(problem, kept), FORBIDDEN) == pytest.approx(min(least, FORBIDDEN))


@given(st.integers(0, 10**6), st.integers(2, 5), st.floats(8, 40))
@settings(max_examples=30, deadline=None)
def test_options_of_choices_that_fit_are_left(seed: int, count: int, limit: float) -> None:
    rng = np.random.default_rng(seed)
    problem = random_problem(rng, count=count, options=3, forbidden=0.3)
    account = random_account(rng, problem)
    every = {v: np.arange(len(own)) for v, own in enumerate(problem.costs)}
    left = fitting(problem, account, every, limit)
    for choice in product(*(range(len(own)) for own in problem.costs)):
        if problem.cost(choice) < FORBIDDEN and max(naive_use(account, choice)) <= limit:
            assert left is not None
            assert all(option in left[v] for v, option in enumerate(choice))


@given(st.integers(0, 10**6), st.integers(1, 3))
@settings(max_examples=30, deadline=None)
def test_links_are_bounded_whatever_their_prices_are(seed: int, repeats: int) -> None:
    problem, links, instances = chain(seed, repeats)
    best = best_of_differing(problem, links, instances)
    linked, prices = with_links_as_costs(problem, links, instances)
    if prices is None:
        return
    checked = with_links(problem, links, instances, prices)
    assert optimum(checked) >= optimum(linked) - LITTLE
    rng = np.random.default_rng(seed)
    for by in (0.0, 1.0, 20.0):
        other = replace(
            prices,
            made=tuple(shaken(rng, own, by) for own in prices.made),
            wanted=tuple(shaken(rng, own, by) for own in prices.wanted),
            added=tuple(shaken(rng, own, by) for own in prices.added),
        )
        checked = with_links(problem, links, instances, other)
        assert optimum(checked) <= best + LITTLE * max(1.0, abs(best))


def raised(spans: Spans, rng: np.random.Generator) -> Spans:
    step = int(rng.integers(len(spans.steps)))
    own = spans.steps[step]
    values = tuple(1.01 * value + 0.01 for value in own.values)
    return replace(
        spans, steps=(*spans.steps[:step], replace(own, values=values), *spans.steps[step + 1 :])
    )


def without_a_step(spans: Spans, rng: np.random.Generator) -> Spans:
    step = int(rng.integers(len(spans.steps)))
    return replace(spans, steps=(*spans.steps[:step], *spans.steps[step + 1 :]))


def at_another_price(spans: Spans, rng: np.random.Generator) -> Spans:
    return replace(spans, price=spans.price * float(rng.uniform(0.5, 2)))


def without_a_part(spans: Spans, rng: np.random.Generator) -> Spans:
    return replace(spans, parts=spans.parts[1:], splits=spans.splits[1:])


@pytest.mark.parametrize("change", [raised, without_a_step, at_another_price, without_a_part])
def test_spans_are_accepted_and_none_above_the_best_repeats(
    change: Callable[[Spans, np.random.Generator], Spans],
) -> None:
    refused = proven = 0
    for seed in range(15):
        rng = np.random.default_rng(seed)
        problem = random_problem(rng, count=4, density=0.4, options=3, forbidden=0.1)
        problem = ChoiceProblem(problem.costs, problem.edges, (), 0, float(rng.integers(14, 50)))
        account = random_account(rng, problem)
        repeats = 1 + seed % 3
        shared = tuple(repeats * rng.integers(0, 9, len(own)) * 1.0 for own in problem.costs)
        best = best_together(problem, account, shared, repeats)
        bound, spans = bound_by_spans(problem, account, shared, 0.5 * (1 + seed % 4))
        assert spans_bound(problem, account, shared, spans) >= bound - LITTLE * max(1, abs(bound))
        proven += bound < np.inf
        try:
            found = spans_bound(problem, account, shared, change(spans, rng))
        except PlanError:
            refused += 1
        else:
            assert found <= best + LITTLE
    assert proven >= 9
    assert refused >= (9 if change is raised else 0)
