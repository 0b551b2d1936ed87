"""Whole fronts of small models, what no weights reach included, against all plans.

The enumeration multiplies out the options of all tensors, and of each delivery all chains of moves that visit
no placement twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache, reduce
from itertools import pairwise, product

import numpy as np
import pytest
from extract_cases import Enumeration
from test_objectives_brute_force import _slow, case_of, enumerated, front_of, peaks_of

from tilewright.extract.front import Outline, front
from tilewright.extract.front_gaps import Line, room
from tilewright.extract.objective import Metric, Objective, single
from tilewright.extract.option import Option
from tilewright.extract.plan import Placement
from tilewright.extract.reshard import dram_placement, single_moves
from tilewright.extract.validate import validate_plan
from tilewright.graph import TensorType

Vector = tuple[float, float]
"""Cycles and picojoules."""

MOVES = 3
"""Of the longest chain; there are no better ones that are longer on two axes."""


def best_of(vectors: Iterable[Vector]) -> tuple[Vector, ...]:
    """Return the vectors that no other one is as good as."""
    found: list[Vector] = []
    for cycles, energy in sorted(vectors):
        if not found or energy < found[-1][1]:
            found.append((cycles, energy))
    return tuple(found)


def summed(one: Iterable[Vector], other: Iterable[Vector]) -> tuple[Vector, ...]:
    return best_of((a + c, b + d) for (a, b), (c, d) in product(one, other))


class Oracle:
    """What all plans of a model of one block take."""

    def __init__(self, number: int) -> None:
        self.case = case_of(number)
        self.found: Enumeration = enumerated(number, Objective.LATENCY, False)[0]
        self.block = self.found.alternatives[0]
        self.dram = dram_placement(self.case.mesh)
        self.classes = [c for _, c in self.found.tables.variables]

    @cache  # noqa: B019  # oracles live as long as a test
    def chains(self, tensor: TensorType, start: Placement, end: Placement) -> tuple[Vector, ...]:
        def walk(place: Placement, seen: tuple[Placement, ...], sum_: Vector) -> Iterator[Vector]:
            if place == end:
                yield sum_
                return
            if len(seen) > MOVES:
                return
            for move in single_moves(place, tensor, self.case.mesh, self.case.target):
                if move.after not in seen:
                    longer = (sum_[0] + move.cycles, sum_[1] + move.energy_pj)
                    yield from walk(move.after, (*seen, move.after), longer)

        return best_of(walk(start, (start,), (0.0, 0.0)))

    def kernel(self, option: Option) -> Vector:
        own = [
            single(metric).kernel_units(option.cost, self.case.target)
            for metric in (Metric.LATENCY, Metric.ENERGY)
        ]
        return own[0], own[1]

    def arriving(self, option: Option, made: dict[int, Option]) -> tuple[Vector, ...]:
        """Return what the deliveries of an option's operands take; nothing if there is no way."""
        assert option.node is not None
        total: tuple[Vector, ...] = ((0.0, 0.0),)
        for position, (argument, wanted) in enumerate(
            zip(option.node.args, option.operands, strict=True)
        ):
            if wanted is None:
                continue
            is_late = position == option.late.position
            start = self.dram
            if argument in made:
                maker = made[argument]
                if maker.result is None:
                    return ()
                start = maker.result
                if maker.uses_network and option.late.asks_alone and not is_late:
                    return ()
            tensor = self.block.classes[argument].type
            cover = option.late.cover_cycles if is_late else 0.0
            ways = self.chains(tensor, start, wanted)
            total = summed(total, ((max(0.0, c - cover), e) for c, e in ways))
        return total

    def front(self) -> tuple[Vector, ...]:
        best: tuple[Vector, ...] = ()
        for combination in product(*self.found.tables.options):
            made = dict(zip(self.classes, combination, strict=True))
            parts: list[tuple[Vector, ...]] = []
            for number, option in made.items():
                if option.node is not None:
                    parts += [(self.kernel(option),), self.arriving(option, made)]
                if number in self.block.outputs:
                    tensor = self.block.classes[number].type
                    is_made = option.result is not None
                    parts.append(self.chains(tensor, option.result, self.dram) if is_made else ())
            best = best_of((*best, *reduce(summed, parts)))
        return best


@cache
def outline(number: int) -> Outline:
    return front(front_of(number, (Metric.LATENCY, Metric.ENERGY)), 1000)


@cache
def oracle_front(number: int) -> tuple[Vector, ...]:
    return Oracle(number).front()


def vectors(found: Outline) -> list[Vector]:
    return [(p.amounts[Metric.LATENCY], p.amounts[Metric.ENERGY]) for p in found.points]


@pytest.mark.parametrize("number", [_slow(0), _slow(1), 2, 3])
def test_the_front_is_that_of_all_plans(number: int) -> None:
    found = outline(number)
    np.testing.assert_allclose(vectors(found), oracle_front(number), rtol=1e-9)
    assert len(found.rooms) == len(found.points) - 1
    assert not any(found.rooms), "everything between the points is excluded"
    for point in found.points:
        validate_plan(point.plan, case_of(number).target)
        assert point.plan.gap <= 1e-9
    is_behind = [point.most is not None for point in found.points]
    assert any(is_behind) == (number == 2)


def test_points_behind_the_hull_are_of_no_weights() -> None:
    found = outline(2)
    behind = [p for p in found.points if p.most is not None]
    assert len(behind) > 1
    for point in behind:
        x, y = point.amounts[Metric.LATENCY], point.amounts[Metric.ENERGY]
        assert point.most == (Metric.LATENCY, x)
        assert point.plan.cost == pytest.approx(y, rel=1e-12)
        for share in np.linspace(0, 1, 2001):
            costs = [share * a / x + (1 - share) * b / y for a, b in vectors(found)]
            assert min(costs) < 1 - 1e-9


@pytest.mark.parametrize("count", [2, 3, 4, 5, 6])
def test_no_plan_has_more_room_than_is_said(count: int) -> None:
    """With few points, some that are known are left out, and others are not looked for."""
    found = front(front_of(2, (Metric.LATENCY, Metric.ENERGY)), count)
    assert len(found.points) == count
    for (first, last), most in zip(pairwise(vectors(found)), found.rooms, strict=True):
        real = [
            min(last[0] / x, first[1] / y) - 1
            for x, y in oracle_front(2)
            if first[0] < x < last[0] and last[1] < y < first[1]
        ]
        assert max(real, default=0.0) <= most * (1 + 1e-9)


def test_the_room_below_a_line() -> None:
    """Of plans on and above lines, none is better than both neighbours by more, and one is by as much."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        first, last = (1.0, 1 + rng.random()), (1 + rng.random(), 1.0)
        rates = [(0.1 + rng.random(), 0.1 + rng.random()) for _ in range(2)]
        lines = [
            Line(own, min(own[0] * x + own[1] * y for x, y in (first, last)) * 0.97)
            for own in rates
        ]
        most = room((first, last), lines, (), is_complete=False)
        points = rng.uniform((1.0, 1.0), (last[0], first[1]), (20_000, 2))
        allowed = np.all([points @ line.rates >= line.bound for line in lines], axis=0)
        real = (np.array([last[0], first[1]]) / points[allowed]).min(axis=1).max() - 1
        assert real <= most * (1 + 1e-9)
        assert most <= real * 1.1 + 0.01


@pytest.mark.parametrize("number", [_slow(0), 3])
def test_the_front_with_the_footprint_is_that_of_all_plans(number: int) -> None:
    """Chains of moves are the fastest."""
    found = front(front_of(number, (Metric.LATENCY, Metric.SRAM)), 200)
    costs = enumerated(number, Objective.LATENCY, True)[1]
    fullest = peaks_of(number, Objective.LATENCY)
    expected = best_of(zip(costs[np.isfinite(costs)], fullest[np.isfinite(costs)], strict=True))
    got = [(p.amounts[Metric.LATENCY], p.amounts[Metric.SRAM]) for p in found.points]
    np.testing.assert_allclose(got, expected, rtol=1e-9)
    assert not any(found.rooms)


def test_the_room_between_limits() -> None:
    """A front of few points with the footprint says how much better the others may be."""
    costs = enumerated(3, Objective.LATENCY, True)[1]
    fullest = peaks_of(3, Objective.LATENCY)
    all_ = best_of(zip(costs[np.isfinite(costs)], fullest[np.isfinite(costs)], strict=True))
    found = front(front_of(3, (Metric.LATENCY, Metric.SRAM)), 3)
    got = [(p.amounts[Metric.LATENCY], p.amounts[Metric.SRAM]) for p in found.points]
    assert len(got) == 3 < len(all_)
    for (first, last), most in zip(pairwise(got), found.rooms, strict=True):
        inside = [own for own in all_ if first[0] < own[0] * (1 - 1e-9) and last[1] < own[1]]
        inside = [own for own in inside if own[0] < last[0] * (1 - 1e-9) and own[1] < first[1]]
        real = max((min(last[0] / x, first[1] / y) - 1 for x, y in inside), default=0.0)
        assert real <= most * (1 + 1e-9)
