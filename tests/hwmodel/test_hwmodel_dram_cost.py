"""The cost of DRAM transfers against hand counts and naive sums over links."""

from __future__ import annotations

from collections import Counter

import pytest

from tilewright.hwmodel.dram_cost import (
    dram_cycles,
    dram_read_cost,
    dram_write_cost,
    dram_write_cycles,
    padded_bytes,
)
from tilewright.hwmodel.load import load_target
from tilewright.hwmodel.network import Network, Route
from tilewright.hwmodel.port_sharing import Readers
from tilewright.hwmodel.target import Relay

TOY = load_target("toy")


def test_a_relayed_read_is_its_reading_and_its_cast() -> None:
    relay = Relay(read_bytes_per_cycle=8.0, line_bytes_per_cycle=4.0, grid_bytes_per_cycle=2.0)
    target = TOY.model_copy(update={"dram": TOY.dram.model_copy(update={"relay": relay})})
    start = 100 + 6 * 2 + 16
    # Four groups of four, then all sixteen tiles, read the same; nobody relays what each reads alone.
    assert dram_cycles(target, 4 * 1024, 1024, 1024) == pytest.approx(start + 128 + 256)
    assert dram_cycles(target, 1024, 1024, 1024) == pytest.approx(start + 128 + 512)
    assert dram_cycles(target, 16 * 1024, 1024, 64) == dram_cycles(TOY, 16 * 1024, 1024, 64)
    # What another engine reads passes the same ports; it does not slow the cast. Of 57.6 bytes a cycle each
    # of twenty tiles gets a twentieth until all have their bytes.
    others = Readers(tiles=16, size_bytes=4096, padding=1.0, bytes_per_cycle=32.0)
    beside = dram_read_cost(target, 4 * 1024, 1024, 1024, others)
    assert beside.dma_in_cycles == pytest.approx(start + 1024 / (57.6 / 20) + 256)


def test_dram_time_by_hand() -> None:
    # 4 ports x 16 bytes x 0.9; 100 cycles of latency, 6 hops of 2, 16 to start.
    start = 100 + 6 * 2 + 16
    assert dram_cycles(TOY, 16 * 1024, 1024, 1024) == pytest.approx(start + 16 * 1024 / 57.6)
    # All tiles read the same: the tile's own port of 32 bytes is the limit.
    assert dram_cycles(TOY, 1024, 1024, 1024) == pytest.approx(start + 1024 / 32)
    # Runs of 16 bytes are padded to bursts of 64.
    assert dram_cycles(TOY, 16 * 1024, 1024, 16) == pytest.approx(start + 4 * 16 * 1024 / 57.6)
    assert dram_write_cycles(TOY, 1024, 1024) == pytest.approx(start + 16 * 1024 / 57.6)
    assert dram_cycles(TOY, 0, 0, 64) == 0
    assert [padded_bytes(TOY, 96, run) for run in (0, 32, 64, 96)] == [96, 192, 96, 128]


@pytest.mark.parametrize("name", ["toy", "mesh_3x5", "wormhole_n150"])
def test_occupancy_of_transfers_equals_a_naive_sum_over_links(name: str) -> None:
    target, each = load_target(name), 4096
    network, tiles = Network(target), range(target.tiles)
    inner = set(range(len(network.links))) - set(network.dram_ports)

    def busiest(routes: list[Route]) -> float:
        load: Counter[int] = Counter()
        for route in routes:
            for link, weight in zip(route.links, route.weights, strict=True):
                load[link] += weight * each  # type: ignore[assignment]
        return max(load[link] / network.links[link].bytes_per_cycle for link in inner)

    reads = dram_read_cost(target, target.tiles * each, each, each).occupancy(target)
    assert reads.link_cycles == pytest.approx(busiest([network.dram_read(t) for t in tiles]))
    assert reads.dram_bytes == target.tiles * each
    assert reads.dram_cycles == reads.dram_bytes / target.dram_bytes_per_cycle
    writes = dram_write_cost(target, each, each).occupancy(target)
    assert writes.link_cycles == pytest.approx(busiest([network.dram_write(t) for t in tiles]))
    assert writes.dram_bytes == reads.dram_bytes
    shared = dram_read_cost(target, each, each, each)
    if target.dram.read_multicast:
        assert shared.link_cycles == pytest.approx(busiest([network.dram_read_multicast(tiles)]))
    port_cycles = each / target.tile.sram.bytes_per_cycle
    assert reads.core_cycles == writes.core_cycles == port_cycles, "no engine computes"


def test_dram_without_multicast_serves_each_tile() -> None:
    dram = TOY.dram.model_copy(update={"read_multicast": False})
    alone = TOY.model_copy(update={"dram": dram})
    assert dram_cycles(alone, 1024, 1024, 1024) == dram_cycles(TOY, 16 * 1024, 1024, 1024)
    assert dram_read_cost(alone, 1024, 1024, 64).dram_bytes == 1024
    assert dram_read_cost(TOY, 1024, 1024, 64).dram_bytes == 1024 // 16


def test_corsair_reads_are_limited_by_the_link_between_packages() -> None:
    target = load_target("corsair")
    small, large = (dram_cycles(target, 2048 * size, size, size) for size in (2**16, 2**17))
    # Half of what the 1024 tiles of a package read lies in the other package, 55.1 bytes a cycle off.
    assert (large - small) / 2**16 == pytest.approx(1024 / 2 / 55.1)
