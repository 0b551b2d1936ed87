"""Halo exchanges against a naive sum of every transfer over every link."""

from __future__ import annotations

from collections import Counter
from itertools import product

import pytest

from tilewright.hwmodel.halo import halo_cost, shift_pattern
from tilewright.hwmodel.load import load_target
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.hwmodel.network import logical_mesh, network_of

TOY = load_target("toy")
CORSAIR = load_target("corsair")
CASES = [
    (TOY, logical_mesh(TOY), 0),
    (TOY, logical_mesh(TOY), 1),
    (load_target("mesh_3x5"), LogicalMesh(("y", "x"), (3, 5)), 1),
    (CORSAIR, logical_mesh(CORSAIR), 0),
    (CORSAIR, logical_mesh(CORSAIR), 2),
]


@pytest.mark.parametrize("step", [1, -1])
@pytest.mark.parametrize("case", range(len(CASES)))
def test_shift_loads_links_as_its_routes_do(case: int, step: int) -> None:
    target, mesh, axis = CASES[case]
    network = network_of(target)
    places = list(product(*map(range, mesh.sizes)))
    load: Counter[int] = Counter()
    latency = 0.0
    for tile, coords in enumerate(places):
        moved = list(coords)
        moved[axis] = (moved[axis] + step) % mesh.sizes[axis]
        route = network.route(tile, places.index(tuple(moved)))
        load.update(route.links)
        latency = max(latency, route.latency_cycles)
    found = shift_pattern(target, mesh, axis, step)
    slowest = max(n / network.links[link].bytes_per_cycle for link, n in load.items())
    assert found.cycles_per_byte == pytest.approx(slowest)
    assert found.hops == pytest.approx(load.total() / mesh.tiles)
    assert found.latency_cycles == latency


def test_known_cost_on_a_row_of_the_toy() -> None:
    """Four tiles in a line, 32 bytes a cycle: the way back of the wrap shares three links."""
    mesh, payload = logical_mesh(TOY), 320
    dma, issue = TOY.tile.dma.startup_cycles, TOY.tile.control.issue_cycles
    one = halo_cost(TOY, mesh, 1, payload, 0)
    farthest = 3 * 2  # three hops of two cycles, also for the handshake and the last post
    assert one.cycles == 3 * issue + farthest + dma + issue + payload / 32 + issue + farthest
    both = halo_cost(TOY, mesh, 1, payload, payload)
    assert both.cycles - one.cycles == dma + issue + payload / 32
    assert both.noc_bytes == 2 * payload
    assert both.energy_pj == pytest.approx(2 * one.energy_pj)


def test_two_tiles_hear_from_all_peers() -> None:
    target, mesh = load_target("mesh_1x2"), LogicalMesh(("y", "x"), (1, 2))
    cost = halo_cost(target, mesh, 1, 64, 0)
    hop, issue = 2, target.tile.control.issue_cycles
    assert cost.cycles == issue + hop + target.tile.dma.startup_cycles + issue + 2 + hop


@pytest.mark.parametrize(("axis", "low", "high"), [(0, 64, 64), (1, 0, 0)])
def test_nothing_to_send_costs_nothing(axis: int, low: int, high: int) -> None:
    target, mesh = load_target("mesh_1x2"), LogicalMesh(("y", "x"), (1, 2))
    cost = halo_cost(target, mesh, axis, low, high)
    assert (cost.cycles, cost.energy_pj, cost.noc_bytes) == (0.0, 0.0, 0.0)
