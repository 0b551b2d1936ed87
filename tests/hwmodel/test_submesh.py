"""Parts of machines: which there are, where they lie, what a stage on them sees."""

from __future__ import annotations

from itertools import product
from math import prod

import pytest
from benchmarks.stream.machines import mesh

from tilewright.hwmodel.load import load_target
from tilewright.hwmodel.network import logical_mesh, network_of
from tilewright.hwmodel.submesh import (
    boxes_near_port,
    fits_at,
    submesh_target,
    submeshes,
    tiles_of,
    whole_machine,
)
from tilewright.hwmodel.target import Topology

NAMES = ("toy", "wormhole_n150", "corsair")


@pytest.mark.parametrize("name", NAMES)
def test_runs_of_tiles_are_sub_rectangles(name: str) -> None:
    target = load_target(name)
    network = network_of(target)
    shapes = submeshes(target, 1 / 12)
    assert shapes[0] == whole_machine(target)
    for shape in shapes:
        size = prod(shape)
        for first in range(0, target.tiles - size + 1, max(1, target.tiles // 72)):
            tiles = [network.coordinates(tile) for tile in range(first, first + size)]
            spans = [sorted(set(column)) for column in zip(*tiles, strict=True)]
            is_box = [len(s) for s in spans] == list(shape) and set(tiles) == set(product(*spans))
            is_contiguous = all(s[-1] - s[0] == len(s) - 1 for s in spans)
            assert fits_at(target, shape, first) == (is_box and is_contiguous)


def test_any_number_of_rows_is_a_part() -> None:
    assert submeshes(load_target("wormhole_n150"), 1 / 8) == tuple((r, 9) for r in range(8, 0, -1))
    assert submeshes(load_target("toy"), 1 / 8) == ((4, 4), (3, 4), (2, 4), (1, 4), (1, 3), (1, 2))


@pytest.mark.parametrize("name", NAMES)
def test_a_part_has_its_share_of_the_memory(name: str) -> None:
    target = load_target(name)
    for shape in submeshes(target, 1 / 12):
        part = submesh_target(target, shape, reserved_semaphores=4)
        share = part.tiles / target.tiles
        assert part.dram_bytes_per_cycle == pytest.approx(share * target.dram_bytes_per_cycle)
        assert part.tiles == logical_mesh(part).tiles
        assert part.tile.control.semaphores == target.tile.control.semaphores - 4
        assert network_of(part).dram_read(part.tiles - 1).links


def test_parts_side_by_side_load_with_one_engine() -> None:
    target = load_target("wormhole_n150")
    assert target.tile.dma.load_engines == 2
    for shape in ((4, 9), (8, 9)):
        assert submesh_target(target, shape).tile.dma.load_engines == 1
        assert submesh_target(target, shape, is_alone=True).tile.dma.load_engines == 2


def test_a_cut_torus_is_a_mesh() -> None:
    target = load_target("wormhole_n150")
    part = submesh_target(target, (4, 9))
    assert part.interconnects[0].topology is Topology.MESH
    assert target.interconnects[0].topology is Topology.TORUS


def test_parts_near_a_port_that_is_faster_than_its_links() -> None:
    # Links carry 16 bytes a cycle, along the row first: of 2 x 3 tiles, 4 read over one link, so all 24.
    near = {shape: rate for shape, rate in RATES.items() if rate > 24}
    assert boxes_near_port(mesh(2, 3, 1, 64)) == tuple(sorted(near, key=lambda s: (-near[s], s)))


RATES = {(1, 1): 64, (1, 2): 32, (2, 1): 32, (2, 2): 32, (1, 3): 24}
"""Bytes per cycle that parts of 2 x 3 tiles read over a port of 64, by hand."""


def test_a_slow_port_and_several_ports_leave_no_tile_idle() -> None:
    assert boxes_near_port(mesh(4, 4, 1, 16)) == ()
    assert boxes_near_port(load_target("toy")) == ()
    assert boxes_near_port(load_target("corsair")) == ()


def test_a_part_that_is_alone_has_the_whole_port() -> None:
    target = mesh(4, 4, 1, 64)
    assert submesh_target(target, (2, 2)).dram_bytes_per_cycle == 16
    assert submesh_target(target, (2, 2), is_alone=True).dram_bytes_per_cycle == 64


def test_tiles_of_a_box_lie_apart_in_the_whole_machine() -> None:
    target = mesh(3, 4, 1, 64)
    assert tiles_of(target, (2, 2)) == (0, 1, 4, 5)
    assert tiles_of(target, (2, 2), 5) == (5, 6, 9, 10)
    assert tiles_of(target, (1, 4), 8) == (8, 9, 10, 11)
