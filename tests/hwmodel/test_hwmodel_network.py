"""Routes against a graph search, loads against plain sums over all tiles."""

from __future__ import annotations

from itertools import pairwise, product
from math import prod

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.hwmodel.check import check_target
from tilewright.hwmodel.grid import Grid, perimeter
from tilewright.hwmodel.load import load_target
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.hwmodel.network import Network, axis_group, network_of
from tilewright.hwmodel.target import (
    Interconnect,
    LogicalAxis,
    MeshAxis,
    Target,
    Topology,
)

CROSSBAR, MESH, TORUS = Topology.CROSSBAR, Topology.MESH, Topology.TORUS


def machine(
    levels: list[tuple[tuple[int, ...], Topology]], *, ports: int = 1, attach: int | None = None
) -> Target:
    """Return the toy tile in another machine: (shape, topology) of each level, outermost first."""
    toy = load_target("toy")
    names = iter("abcdefgh")
    axes, interconnects = [], []
    for shape, topology in levels:
        here = [MeshAxis(name=next(names), size=size) for size in shape]
        axes += here
        interconnects.append(
            Interconnect(
                axes=tuple(axis.name for axis in here),
                topology=topology,
                port_bytes_per_cycle=32.0,
                link_bytes_per_cycle=None if topology is CROSSBAR else 16.0,
                hop_cycles=float(10 ** (len(levels) - len(interconnects) - 1)),
            )
        )
    dram = toy.dram.model_copy(
        update={
            "ports": ports,
            "attach_axis": None if attach is None else interconnects[attach].axes[-1],
        }
    )
    changes = {
        "name": f"{levels}-{ports}-{attach}",
        "axes": tuple(axes),
        "interconnects": tuple(interconnects),
        "logical_axes": tuple(LogicalAxis(name=axis.name, axes=(axis.name,)) for axis in axes),
        "dram": dram,
    }
    target = toy.model_copy(update=changes)
    check_target(target, "machine")
    return target


def names(network: Network, links: tuple[int, ...]) -> list[str]:
    return [network.links[link].name for link in links]


@given(st.tuples(st.integers(1, 5), st.integers(1, 5)), st.booleans(), st.data())
@settings(max_examples=60, deadline=None)
def test_grid_steps_are_a_shortest_walk(
    shape: tuple[int, int], wraps: bool, data: st.DataObject
) -> None:
    grid = Grid(shape, wraps)
    graph = nx.grid_2d_graph(*shape, periodic=wraps)
    start, end = (data.draw(st.integers(0, prod(shape) - 1)) for _ in "se")
    steps = grid.steps(start, end)
    distance = nx.shortest_path_length(graph, divmod(start, shape[1]), divmod(end, shape[1]))
    assert len(steps) == distance
    place = start
    for position, direction in steps:
        assert position == place
        place = dict(grid.neighbours(position))[direction]
    assert place == end
    axes = [direction // 2 for _, direction in steps]
    assert axes == sorted(axes, reverse=True), "dimension order is last axis first"


def test_torus_ties_go_to_larger_coordinates() -> None:
    assert Grid((4,), wraps=True).steps(3, 1) == ((3, 0), (0, 0))
    assert Grid((4,), wraps=True).steps(1, 3) == ((1, 0), (2, 0))


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (4, 1), (2, 2), (3, 4), (5,), (1,)])
def test_perimeter_is_every_edge_position_once(shape: tuple[int, ...]) -> None:
    positions = [
        index
        for index, coords in enumerate(product(*(range(size) for size in shape)))
        if any(c in (0, size - 1) for c, size in zip(coords, shape, strict=True))
    ]
    edge = perimeter(shape)
    assert sorted(edge) == positions
    if len(shape) == 2 and min(shape) > 1:
        for before, after in pairwise(edge):
            (r, c), (s, d) = divmod(before, shape[1]), divmod(after, shape[1])
            assert abs(r - s) + abs(c - d) == 1


def test_mesh_route_names_its_links() -> None:
    network = network_of(load_target("toy"))
    route = network.route(1, 11)
    assert names(network, route.links) == [
        "row-column[1].out",
        "row-column[1->2]",
        "row-column[2->3]",
        "row-column[3->7]",
        "row-column[7->11]",
        "row-column[11].in",
    ]
    assert route.latency_cycles == 4 * 2
    assert route.weights == (1.0,) * 6
    assert network.route(5, 5).links == ()


def test_hierarchical_route_climbs_only_as_far_as_needed() -> None:
    network = Network(machine([((2,), CROSSBAR), ((3,), CROSSBAR), ((4,), CROSSBAR)]))
    near = network.route(0, 1)
    assert names(network, near.links) == ["c[0].out", "c[1].in"]
    assert near.latency_cycles == 1
    middle = network.route(0, 4)
    assert names(network, middle.links) == ["c[0].out", "b[0].out", "b[1].in", "c[4].in"]
    assert middle.latency_cycles == 1 + 10 + 1
    far = network.route(0, 23)
    assert names(network, far.links) == [
        "c[0].out", "b[0].out", "a[0].out", "a[1].in", "b[5].in", "c[23].in",
    ]  # fmt: skip
    assert far.latency_cycles == 1 + 10 + 100 + 10 + 1


def test_inner_mesh_is_left_through_its_gateway() -> None:
    network = Network(machine([((2,), CROSSBAR), ((2, 2), MESH)]))
    route = network.route(3, 5)
    assert names(network, route.links) == [
        "b-c[3].out", "b-c[3->2]", "b-c[2->0]", "a[0].out", "a[1].in", "b-c[4->5]", "b-c[5].in",
    ]  # fmt: skip


MACHINES = [
    machine([((2,), CROSSBAR), ((3,), CROSSBAR), ((2,), CROSSBAR)], ports=6, attach=1),
    machine([((2,), CROSSBAR), ((2,), CROSSBAR)], ports=4, attach=0),
    machine([((2,), CROSSBAR), ((3,), CROSSBAR)], ports=6, attach=1),
    machine([((3, 4), TORUS)], ports=12, attach=0),
    machine([((6,), CROSSBAR)], ports=2),
    machine([((3, 3), MESH)], ports=4),
    machine([((3, 4), TORUS)], ports=4),
    machine([((2,), CROSSBAR), ((2, 2), MESH)], ports=4, attach=0),
]
TRANSITIVE = [True, True, True, True, True, False, False, False]


@pytest.mark.parametrize(("target", "expected"), list(zip(MACHINES, TRANSITIVE, strict=True)))
def test_transitivity(target: Target, expected: bool) -> None:
    assert Network(target).is_vertex_transitive == expected


@pytest.mark.parametrize("target", MACHINES)
def test_symmetric_load_is_the_sum_over_all_tiles(target: Target) -> None:
    network = Network(target)
    tiles = range(target.tiles)
    for route_of in (network.dram_read, network.dram_write):
        full = network.load(route_of, tiles)
        np.testing.assert_allclose(network.symmetric_load(route_of), full)
    for axis in range(len(target.axes)):
        mesh = LogicalMesh(
            tuple(item.name for item in target.axes), tuple(item.size for item in target.axes)
        )
        np.testing.assert_allclose(
            network.symmetric_load(
                lambda t, a=axis, m=mesh: network.multicast(t, axis_group(m, a, t))
            ),
            network.load(
                lambda t, a=axis, m=mesh: network.multicast(t, axis_group(m, a, t)), tiles
            ),
        )


@pytest.mark.parametrize("target", MACHINES)
def test_dram_bytes_are_conserved(target: Target) -> None:
    network = Network(target)
    ports = list(network.dram_ports)
    inner = network.level_ingress(len(target.interconnects) - 1)
    for tile in range(target.tiles):
        read = network.dram_read(tile)
        weight = dict(zip(read.links, read.weights, strict=True))
        assert sum(weight[port] for port in ports) == pytest.approx(1.0)
        assert len({weight[port] for port in ports}) == 1, "interleaving is even"
        attached_inside = target.dram.attach_axis == target.axes[-1].name
        if not attached_inside:
            assert weight[inner[tile]] == pytest.approx(1.0)
    assert network.dram_read_load[ports].sum() == pytest.approx(target.tiles)


def test_multicast_takes_each_link_once() -> None:
    network = network_of(load_target("toy"))
    tree = network.multicast(0, (1, 2, 3, 7))
    assert len(set(tree.links)) == len(tree.links)
    union = {link for dst in (1, 2, 3, 7) for link in network.route(0, dst).links}
    assert set(tree.links) == union
    assert tree.latency_cycles == network.route(0, 7).latency_cycles


def test_dram_multicast_loads_a_port_once() -> None:
    network = network_of(load_target("toy"))
    both = network.dram_read_multicast((0, 5))
    weight = dict(zip(both.links, both.weights, strict=True))
    assert [weight[port] for port in network.dram_ports] == [0.25] * 4


@pytest.mark.parametrize(
    "target",
    [
        *MACHINES,
        machine([((2,), CROSSBAR), ((3,), CROSSBAR), ((2,), CROSSBAR)], ports=12, attach=1),
        machine([((2,), CROSSBAR), ((3,), CROSSBAR)], ports=12, attach=1),
        machine([((1,), CROSSBAR), ((3,), CROSSBAR), ((1, 1), MESH)], ports=2),
        load_target("corsair"),
    ],
)
def test_dram_multicast_load_is_that_of_the_trees(target: Target) -> None:
    network = Network(target)
    route = network.dram_read_multicast(range(target.tiles))
    expected = np.zeros(len(network.links))
    expected[list(route.links)] = route.weights
    np.testing.assert_allclose(network.dram_multicast_load, expected, rtol=1e-12)


@given(st.integers(0, 2047))
@settings(max_examples=30, deadline=None)
def test_coordinates_round_trip(tile: int) -> None:
    network = network_of(load_target("corsair"))
    coords = network.coordinates(tile)
    assert network.tile_at(coords) == tile
    assert coords == np.unravel_index(tile, (2, 4, 4, 4, 16))


def test_axis_group_is_the_line_through_a_tile() -> None:
    mesh = LogicalMesh(("x", "y", "z"), (2, 3, 4))
    ids = np.arange(24).reshape(2, 3, 4)
    assert axis_group(mesh, 0, 23) == tuple(ids[:, 2, 3])
    assert axis_group(mesh, 1, 0) == tuple(ids[0, :, 0])
    assert axis_group(mesh, 2, 17) == tuple(ids[1, 1, :])


def test_shared_reads_take_the_order_with_fewer_links() -> None:
    plain = machine([((4, 5), TORUS)], ports=2)
    level = plain.interconnects[0].model_copy(update={"either_order": True})
    both = Network(plain.model_copy(update={"name": "both", "interconnects": (level,)}))
    one = Network(plain)
    row, column = tuple(range(5, 10)), tuple(range(2, 20, 5))
    # A column is reached by walking along a row first; a row, by walking along a column first.
    assert both.dram_read_multicast(column) == one.dram_read_multicast(column)
    turned = both.dram_read_multicast(row)
    assert sum(turned.weights) < sum(one.dram_read_multicast(row).weights)
    for port, position in enumerate((0, 19)):  # half the edge apart
        walks = [both._grids[0].steps(position, tile, first_axis_first=True) for tile in row]  # type: ignore[union-attr]
        links = {step for walk in walks for step in walk}
        mine = {both._mesh_links[0][step] for step in links}
        assert mine <= set(turned.links), port
    assert both.dram_read(7) == one.dram_read(7)
    assert both.route(0, 13) == one.route(0, 13)
