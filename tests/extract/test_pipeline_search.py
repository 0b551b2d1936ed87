"""Division into stages against all cuts and all places on the tiles."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest

from tilewright.extract.pipeline.search import Goal, Permitted, Prices, Room, divide


def every_value(
    prices: Prices, room: Room, goal: Goal, permitted: Permitted | None = None
) -> list[float]:
    """Values of all divisions, one by one."""
    items, found = prices.shape[0], []
    for count in goal.counts:
        for cuts in combinations(range(1, items), count - 1):
            edges = (0, *cuts, items)
            for shapes in product(range(len(room.sizes)), repeat=count):
                stages = enumerate(zip(edges, edges[1:], shapes, strict=False))
                if permitted is not None and not all(permitted[n, *stage] for n, stage in stages):
                    continue
                paid = tuple(
                    float(prices[edges[k], edges[k + 1], shape]) for k, shape in enumerate(shapes)
                )
                takes = sum(paid) + goal.waits * max(paid)
                if takes <= goal.latency_limit and takes < np.inf and fits(room, shapes):
                    found.append(goal.value(paid))
    return found


def fits(room: Room, shapes: tuple[int, ...], tile: int = 0) -> bool:
    """Whether sub-rectangles can lie one behind the other, with gaps."""
    if not shapes:
        return True
    return any(
        room.fits_at(shapes[0], at) and fits(room, shapes[1:], at + room.sizes[shapes[0]])
        for at in range(tile, room.tiles - room.sizes[shapes[0]] + 1)
    )


@pytest.mark.parametrize("seed", range(12))
def test_best_of_all_divisions(seed: int) -> None:
    draw = np.random.default_rng(seed)
    sizes = (6, 3, 2, 1)
    room = Room(tiles=6, sizes=sizes, fits_at=lambda shape, tile: tile % sizes[shape] == 0)
    prices = draw.integers(1, 40, (4, 5, 4)).astype(float)
    prices[draw.random(prices.shape) < 0.2] = np.inf
    unlimited = ((0.0, 1.0), (1.0, 0.0), (1.0, 3.0), (0.0, 4.0))
    cases = [(weights, np.inf, 0.0) for weights in unlimited]
    cases += [((0.0, 1.0), limit, waits) for limit in (10, 20, 40) for waits in (0.0, 2.0)]
    for weights, limit, waits in cases:
        for counts in ((1, 2, 3), (1,), (2,), (3,)):
            goal = Goal(
                sum_weight=weights[0],
                slowest_weight=weights[1],
                counts=counts,
                latency_limit=limit,
                waits=waits,
            )
            values = every_value(prices, room, goal)
            found = divide(prices, room, goal)
            assert (found is None) == (not values)
            if found is not None:
                assert found.value == min(values)
                assert fits(room, tuple(s.shape for s in found.stages))
                ends = [s.first_tile + sizes[s.shape] for s in found.stages]
                assert all(a <= s.first_tile for a, s in zip(ends, found.stages[1:], strict=False))


@pytest.mark.parametrize("seed", range(12))
def test_best_of_the_permitted_divisions(seed: int) -> None:
    draw = np.random.default_rng(seed)
    sizes = (6, 3, 2, 1)
    room = Room(tiles=6, sizes=sizes, fits_at=lambda shape, tile: tile % sizes[shape] == 0)
    prices = draw.integers(1, 40, (4, 5, 4)).astype(float)
    found = 0
    for weights in ((0.0, 1.0), (1.0, 0.0), (1.0, 2.0)):
        for counts in ((1, 2, 3), (2,), (1, 3)):
            permitted = draw.random((3, *prices.shape)) < 0.4
            goal = Goal(sum_weight=weights[0], slowest_weight=weights[1], counts=counts)
            values = every_value(prices, room, goal, permitted)
            best = divide(prices, room, goal, permitted)
            assert (None if best is None else best.value) == min(values, default=None)
            found += best is not None
    assert found
