"""Division into stages side by side against all cuts and all places on the tiles, item by item."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, pairwise, product

import numpy as np
import pytest
from test_pipeline_search import fits

from tilewright.extract.pipeline.paths import divide_into_paths
from tilewright.extract.pipeline.search import Goal, Room

Reads = tuple[tuple[int, ...], ...]
Costs = dict[tuple[int, int, int], list[float]]
"""Cycles of each item of a stage (first, last, shape), then those of its exchange."""

SIZES = (6, 3, 2, 1)
ROOM = Room(tiles=6, sizes=SIZES, fits_at=lambda shape, tile: tile % SIZES[shape] == 0)
SHAPES: dict[str, Reads] = {
    "two towers": ((), (0,), (), (2,), (1, 3)),
    "fork": ((), (0,), (0,), (1, 2), (3,)),
    "skip": ((), (0,), (1,), (0, 2), ()),
    "apart": ((), (), (), (), ()),
    "row": ((), (0,), (1,), (2,), (3,)),
}


def end_of(edges: tuple[int, ...], shapes: tuple[int, ...], costs: Costs, reads: Reads) -> float:
    """When the last stage has ended, going through the items one by one."""
    ends = dict[int, float]()
    for (first, last), shape in zip(pairwise(edges), shapes, strict=True):
        *items, exchange = costs[first, last, shape]
        now = 0.0
        for item, cycles in zip(range(first, last), items, strict=True):
            now = max([now, *(ends[made] for made in reads[item] if made < first)]) + cycles
        ends |= dict.fromkeys(range(first, last), now + exchange)
    return max(ends.values())


@pytest.mark.parametrize("reads", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("seed", range(4))
def test_best_of_all_divisions(reads: Reads, seed: int) -> None:
    draw = np.random.default_rng(seed)
    items, costs = len(reads), Costs()
    prices = np.full((items, items + 1, len(SIZES)), np.inf)
    for first, last in combinations(range(items + 1), 2):
        for shape in range(len(SIZES)):
            if draw.random() < 0.8:
                parts = draw.integers(1, 9, last - first + 1).astype(float).tolist()
                costs[first, last, shape] = parts
                prices[first, last, shape] = sum(parts)

    def left(first: int, last: int, shape: int, item: int) -> float:
        return sum(costs[first, last, shape][item - first :])

    values: dict[int, list[float]] = {count: [] for count in range(5)}
    for count in range(1, 5):
        for cuts in combinations(range(1, items), count - 1):
            edges = (0, *cuts, items)
            for shapes in product(range(len(SIZES)), repeat=count):
                stages = [
                    (*edge, shape) for edge, shape in zip(pairwise(edges), shapes, strict=True)
                ]
                if all(stage in costs for stage in stages) and fits(ROOM, shapes):
                    values[count].append(end_of(edges, shapes, costs, reads))
    values[0] = [value for found in values.values() for value in found]
    for count, known in values.items():
        counts = (count,) if count else (1, 2, 3, 4)
        goal = Goal(sum_weight=1.0, slowest_weight=0.0, counts=counts)
        found = divide_into_paths(prices, left, reads, ROOM, goal)
        assert (found is None) == (not known)
        if found is None:
            continue
        assert found.value == min(known)
        edges = (*(stage.first for stage in found.stages), items)
        shapes = tuple(stage.shape for stage in found.stages)
        assert end_of(edges, shapes, costs, reads) == found.value
        ends = [stage.first_tile + SIZES[stage.shape] for stage in found.stages]
        assert all(end <= s.first_tile for end, s in zip(ends, found.stages[1:], strict=False))
        limited = replace(goal, latency_limit=min(known) - 1)
        assert divide_into_paths(prices, left, reads, ROOM, limited) is None


def test_branches_are_worth_parts_of_their_own() -> None:
    """Two items of 10 cycles on any tiles, and a short one that joins them."""
    reads: Reads = ((), (), (0, 1))
    own = np.array([10.0, 10.0, 1.0])
    prices = np.full((3, 4, 1), np.inf)
    for first, last in combinations(range(4), 2):
        prices[first, last, 0] = own[first:last].sum()
    room = Room(tiles=2, sizes=(1,), fits_at=lambda shape, tile: True)
    found = divide_into_paths(
        prices,
        lambda first, last, shape, item: float(own[item:last].sum()),
        reads,
        room,
        Goal(sum_weight=1.0, slowest_weight=0.0, counts=(1, 2, 3)),
    )
    assert found is not None
    assert found.value == 11.0
    assert [(s.first, s.last, s.first_tile) for s in found.stages] == [(0, 1, 0), (1, 3, 1)]
