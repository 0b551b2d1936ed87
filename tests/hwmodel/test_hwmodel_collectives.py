"""Collectives against a naive sum of every transfer over every link."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.dtypes import DType
from tilewright.hwmodel.collectives import (
    Collective,
    collective_cost,
    exchange_pattern,
    multicast_pattern,
    reduces_in_two_steps,
)
from tilewright.hwmodel.cost import vector_cycles
from tilewright.hwmodel.load import load_target
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.hwmodel.network import Network, logical_mesh
from tilewright.hwmodel.target import Target

TOY = load_target("toy")
MESH = logical_mesh(TOY)
CORSAIR_SMALL = load_target("corsair").model_copy(
    update={
        "name": "corsair_small",
        "axes": tuple(
            axis.model_copy(update={"size": min(axis.size, 2)})
            for axis in load_target("corsair").axes
        ),
        "dram": load_target("corsair").dram.model_copy(update={"ports": 4}),
    }
)
CASES = [
    (TOY, MESH),
    (load_target("mesh_3x5"), LogicalMesh(("y", "x"), (3, 5))),
    (load_target("mesh_2x4"), LogicalMesh(("all",), (8,))),
    (load_target("mesh_2x4"), LogicalMesh(("y", "x", "z"), (2, 2, 2))),
    (load_target("wormhole_n150"), LogicalMesh(("y", "x"), (8, 9))),
    (CORSAIR_SMALL, logical_mesh(CORSAIR_SMALL)),
]


def groups(mesh: LogicalMesh, axis: int) -> list[list[int]]:
    """Return the groups of an axis from coordinates, without strides."""
    found: dict[tuple[int, ...], list[int]] = {}
    for tile in range(mesh.tiles):
        rest, coords = tile, []
        for size in reversed(mesh.sizes):
            rest, coord = divmod(rest, size)
            coords.append(coord)
        coords.reverse()
        found.setdefault(tuple(coords[:axis] + coords[axis + 1 :]), []).append(tile)
    return list(found.values())


@pytest.mark.parametrize(("target", "mesh"), CASES, ids=[f"{t.name}-{m.sizes}" for t, m in CASES])
def test_patterns_equal_a_naive_sum_over_links(target: Target, mesh: LogicalMesh) -> None:
    network = Network(target)
    for axis in range(mesh.rank):
        exchanged: Counter[int] = Counter()
        gathered: Counter[int] = Counter()
        latency_cycles = 0.0
        for group in groups(mesh, axis):
            for src in group:
                tree: set[int] = set()
                for dst in group:
                    route = network.route(src, dst)
                    exchanged.update(route.links)
                    tree.update(route.links)
                    latency_cycles = max(latency_cycles, route.latency_cycles)
                gathered.update(tree)
        for pattern, load in (
            (exchange_pattern(target, mesh, axis), exchanged),
            (multicast_pattern(target, mesh, axis), gathered),
        ):
            busiest = max(n / network.links[link].bytes_per_cycle for link, n in load.items())
            assert pattern.cycles_per_byte == pytest.approx(busiest)
            assert pattern.hops == pytest.approx(load.total() / target.tiles)
            assert pattern.latency_cycles == latency_cycles
            for level in range(len(target.interconnects)):
                ingress = sum(load[link] for link in network.level_ingress(level))
                assert pattern.level_bytes[level] == pytest.approx(ingress / target.tiles)


def test_all_gather_on_the_toy_mesh_by_hand() -> None:
    # A row of four at 32 bytes a cycle: a tile takes in three shards, that is the busiest port;
    # 3 posts of a cycle, 3 hops of 2 cycles for the posts and for the data, 16 + 1 to start.
    cost = collective_cost(TOY, MESH, 1, Collective.ALL_GATHER, 3200)
    assert cost.cycles == 3 + 6 + (16 + 1) + 6 + 3 * 3200 / 32
    assert cost.noc_bytes == 3 * 3200
    assert cost.link_cycles == 3 * 3200 / 32
    assert cost.core_cycles == 5 * 3200 / TOY.tile.sram.bytes_per_cycle
    # A shard leaves by one port and passes 3 mesh links and 3 ports; it is read once, written 4 times.
    assert cost.energy_pj == pytest.approx(3200 * (1 + 3 + 3) * 0.5 + 5 * 3200 * 1.0)


def test_reduce_scatter_adds_the_vector_sum() -> None:
    exchange = collective_cost(TOY, MESH, 0, "all_to_all", 4096)
    reduced = collective_cost(TOY, MESH, 0, "reduce_scatter", 4096)
    additions = 3 * (vector_cycles(TOY.tile, "add", DType.F32, 256) + TOY.tile.control.issue_cycles)
    assert reduced.cycles == exchange.cycles + additions
    assert reduced.noc_bytes == exchange.noc_bytes == 3 * 1024


def test_all_reduce_is_two_steps_only_when_the_elements_divide() -> None:
    assert reduces_in_two_steps(4, 4096, DType.F32)
    assert not reduces_in_two_steps(4, 4 * 3, DType.F32)
    two = collective_cost(TOY, MESH, 0, "all_reduce", 4096)
    parts = collective_cost(TOY, MESH, 0, "reduce_scatter", 4096) + collective_cost(
        TOY, MESH, 0, "all_gather", 1024
    )
    assert two == parts
    whole = collective_cost(TOY, MESH, 0, "all_reduce", 12)
    assert whole.noc_bytes == collective_cost(TOY, MESH, 0, "all_gather", 12).noc_bytes
    assert whole.cycles > collective_cost(TOY, MESH, 0, "all_gather", 12).cycles


def test_slice_moves_nothing_over_the_network() -> None:
    cost = collective_cost(TOY, MESH, 0, "slice", 4096)
    assert cost.noc_bytes == 0
    assert cost.cycles == vector_cycles(TOY.tile, "identity", DType.F32, 256) + 1


@pytest.mark.parametrize("kind", list(Collective))
def test_axis_of_one_tile_is_free(kind: Collective) -> None:
    mesh = LogicalMesh(("one", "all"), (1, 16))
    assert collective_cost(TOY, mesh, 0, kind, 4096).cycles == 0
    assert collective_cost(TOY, mesh, 1, kind, 0).cycles == 0


@pytest.mark.parametrize("kind", list(Collective))
@given(local_bytes=st.integers(1, 10**6), axis=st.integers(0, 1))
@settings(max_examples=25, deadline=None)
def test_cost_is_monotone(kind: Collective, local_bytes: int, axis: int) -> None:
    local_bytes *= 16  # the same way of all_reduce for all
    cost = collective_cost(TOY, MESH, axis, kind, local_bytes)
    assert collective_cost(TOY, MESH, axis, kind, local_bytes + 64).cycles >= cost.cycles
    level = TOY.interconnects[0]
    wide = {"port_bytes_per_cycle": 64.0, "link_bytes_per_cycle": 64.0}
    faster = TOY.model_copy(
        update={"name": "toy_wide", "interconnects": (level.model_copy(update=wide),)}
    )
    assert collective_cost(faster, MESH, axis, kind, local_bytes).cycles <= cost.cycles


def test_every_collective_of_large_machines_costs_something() -> None:
    corsair, mesh = load_target("corsair"), load_target("mesh_32x64")
    for target in (corsair, mesh):
        logical = logical_mesh(target)
        for axis in range(logical.rank):
            for kind in Collective:
                assert collective_cost(target, logical, axis, kind, 4096).cycles > 0


def test_corsair_prefers_inner_axes() -> None:
    corsair = load_target("corsair")
    mesh = logical_mesh(corsair)
    cycles = [collective_cost(corsair, mesh, axis, "all_to_all", 65536).cycles for axis in range(3)]
    assert cycles[0] > cycles[1] > cycles[2]
