"""Routes over nested crossbars against the network's own paths, and the event loop's small parts."""

from __future__ import annotations

from math import prod
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from timing_cases import Streams, control, program, send

from tilewright.hwmodel.load import load_target
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.hwmodel.network import network_of
from tilewright.hwmodel.target import Interconnect, LogicalAxis, MeshAxis, Target, Topology
from tilewright.lowering.isa import Engine, Opcode, Post, Wait
from tilewright.simulator.timing import TimingReport, simulate
from tilewright.simulator.timing_crossbar import Crossbars, is_crossbars, sub_meshes
from tilewright.simulator.timing_routes import RouteBuilder, all_resources, sub_mesh
from tilewright.simulator.timing_sharing import sort


def crossbars(*sizes: int) -> Target:
    """Return nested crossbars with a hop latency of its own at each level."""
    names = tuple(f"a{i}" for i in range(len(sizes)))
    levels = tuple(
        Interconnect(
            axes=(name,), topology=Topology.CROSSBAR, port_bytes_per_cycle=16.0, hop_cycles=hop
        )
        for name, hop in zip(names, (100.0, 10.0, 1.0, 7.0), strict=False)
    )
    pairs = zip(names, sizes, strict=True)
    axes = tuple(MeshAxis(name=name, size=size) for name, size in pairs)
    logical = tuple(LogicalAxis(name=name, axes=(name,)) for name in names)
    fields = {"name": "test", "axes": axes, "interconnects": levels, "logical_axes": logical}
    return load_target("toy").model_copy(update=fields)


shapes = st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple)


@given(shapes, st.data())
def test_trees_are_the_multicasts_of_the_network(
    shape: tuple[int, ...], data: st.DataObject
) -> None:
    target = crossbars(*shape)
    network = network_of(target)
    tile = st.integers(0, target.tiles - 1)
    casts = data.draw(
        st.lists(st.tuples(tile, st.lists(tile, max_size=5, unique=True)), min_size=1, max_size=4)
    )
    user = np.array([i for i, (_, to) in enumerate(casts) for _ in to], dtype=np.int64)
    receiver = np.array([tile for _, to in casts for tile in to], dtype=np.int64)
    sources = np.array([source for source, _ in casts], dtype=np.int64)
    trees = Crossbars(network).trees(sources, user, receiver, with_links=True)
    for number, (source, to) in enumerate(casts):
        route = network.multicast(source, to)
        assert trees.latency[number] == pytest.approx(route.latency_cycles, rel=1e-12)
        assert sorted(trees.link[trees.user == number]) == sorted(route.links)


@given(shapes, st.data())
def test_reads_are_those_of_the_network(shape: tuple[int, ...], data: st.DataObject) -> None:
    target = crossbars(*shape)
    attach = data.draw(st.sampled_from([None, *range(len(shape))]))
    each = data.draw(st.integers(1, 3))
    units = 1 if attach is None else prod(shape[: attach + 1])
    name = None if attach is None else target.axes[attach].name
    dram = target.dram.model_copy(update={"ports": each * units, "attach_axis": name})
    network = network_of(target.model_copy(update={"dram": dram}))
    tile = st.integers(0, target.tiles - 1)
    tiles = data.draw(st.lists(tile, min_size=1, max_size=6, unique=True))
    read = Crossbars(network).read(np.array(tiles, dtype=np.int64))
    assert read == network.dram_read_multicast(tiles)


@given(st.lists(st.integers(1, 4), max_size=3).map(tuple), st.integers(0, 7))
def test_sub_meshes_list_what_sub_mesh_says(sizes: tuple[int, ...], axes: int) -> None:
    mesh = LogicalMesh(tuple(f"a{i}" for i in range(len(sizes))), sizes)
    number, members = sub_meshes(mesh, axes)
    for index in range(mesh.tiles):
        assert tuple(members[number[index]]) == sub_mesh(mesh, index, axes)


@pytest.mark.parametrize(
    "key", [("send", 0b10, -1), ("send", 1, 2), ("cast", 0b11, 0), ("post", 0b10, 0)]
)
def test_whole_ways_equal_routes_one_by_one(key: tuple[str, int, int]) -> None:
    target = crossbars(3, 2, 2)
    network, resources = network_of(target), all_resources(network_of(target))
    mesh = LogicalMesh(("x", "y"), (3, 3))
    tiles = (11, 2, 5, 7, 1, 0, 9, 10, 4)
    wanted = np.ones(target.tiles, dtype=np.bool_)
    wanted[5] = False
    made: list[list[object]] = []
    for vectorised in (True, False):
        with patch("tilewright.simulator.timing_routes.is_crossbars", return_value=vectorised):
            builder = RouteBuilder(network)
        builder.add_way(("read", 0, 0), mesh, tiles, wanted)
        builder.add_way(key, mesh, tiles, wanted)
        routes = builder.finish(resources)
        by_tile: list[object] = []
        for tile in range(target.tiles):
            route = routes.route_of[1, tile]
            if route < 0:
                by_tile.append(None)
                continue
            mine, peers = routes.entry_route == route, routes.peer_route == route
            uses = zip(routes.entry_resource[mine], routes.entry_share[mine], strict=True)
            limits = tuple(routes.limit[route])
            heard = sorted(routes.peer_tile[peers])
            by_tile.append((routes.latency[route], routes.way[route], limits, sorted(uses), heard))
        made.append(by_tile)
    assert made[0] == made[1]
    assert [tile for tile, route in enumerate(made[0]) if route is None] == [3, 5, 6, 8]


def test_only_wide_meshes_are_not_crossbars() -> None:
    assert is_crossbars(crossbars(2, 1, 3))
    assert is_crossbars(load_target("corsair"))
    assert not is_crossbars(load_target("toy"))


@given(st.lists(st.integers(-50, 50)), st.integers(0, 3))
def test_sort_touches_the_first_values_only(values: list[int], rest: int) -> None:
    array = np.array([*values, *([7] * rest)], dtype=np.int64)
    plain: Any = sort  # compiled, it has no entry point for Python
    plain.py_func(array, len(values))
    assert array.tolist() == sorted(values) + [7] * rest


# ---------------------------------------------------------------- waiting


def run(target: Target, streams: Streams) -> TimingReport:
    return simulate(program(target, streams), symmetry=False)


@pytest.mark.parametrize("late", [0, 1])
def test_an_engine_that_waits_for_two_semaphores_hears_both(late: int) -> None:
    # ME posts the early semaphore after 1 cycle, VE the late one after 4
    streams = {
        Engine.ME: (control(engine=Engine.ME, posts=(Post(1 - late, 1),)),),
        Engine.VE: (
            *[control(engine=Engine.VE)] * 3,
            control(engine=Engine.VE, posts=(Post(late, 1),)),
        ),
        Engine.CT: (control(Wait(0, 1), Wait(1, 1)),),
    }
    report = run(crossbars(2), streams)
    assert report.cycles == pytest.approx(5)
    assert dict(report.run.engines[Engine.CT].waits) == {"vector": pytest.approx(4)}


def test_two_engines_that_wait_for_one_semaphore_each_get_their_count() -> None:
    # DI needs 3, CT 1: the first post serves CT, the next three DI
    posts = [control(engine=Engine.ME, posts=(Post(2, 1),))] * 4
    streams = {
        Engine.ME: tuple(posts),
        Engine.DI: (control(Wait(2, 3), engine=Engine.DI),),
        Engine.CT: (control(Wait(2, 1)),),
    }
    report = run(crossbars(2), streams)
    assert dict(report.run.engines[Engine.CT].waits) == {"matrix": pytest.approx(1)}
    assert dict(report.run.engines[Engine.DI].waits) == {"matrix": pytest.approx(4)}
    assert report.cycles == pytest.approx(5)


@hypothesis_settings(deadline=None, max_examples=10)
@given(st.integers(1, 6))
def test_room_for_messages_grows_without_a_trace(room: int) -> None:
    cast = send(96, Opcode.MCS, axes=0b11, posts=(Post(3, 1, True),))
    barrier = control(Wait(3, 2 * 5), posts=(Post(7, 1, True),), axes=0b11)
    streams = {Engine.DO: (cast, cast), Engine.CT: (barrier, control(Wait(7, 5)))}
    roomy = run(crossbars(2, 3), streams)
    with patch("tilewright.simulator.timing_state.MESSAGE_ROOM", room):
        assert run(crossbars(2, 3), streams) == roomy
