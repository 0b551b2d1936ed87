"""Where the packets of a program's payloads go: trees of channels for every way and tile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tilewright.hwmodel.network import Network
from tilewright.hwmodel.target import Router, Target
from tilewright.lowering.program import Group
from tilewright.simulator.timing_kinds import RouteKey
from tilewright.simulator.timing_lowered import Way
from tilewright.simulator.timing_packet_state import NODE, Floats, Ints, Net, new_net
from tilewright.simulator.timing_routes import Routes, shifted, sub_mesh

ASSUMED_ROUTER = Router(flit_bytes=64, packet_bytes=4096, lane_bytes=1024, credit_cycles=2.0)
"""Of targets whose makers publish nothing about their routers."""
LANES = 4
DATELINE, DESCENT = 1, 2
"""Parts of a virtual channel's number, which keep the ways through buffers free of cycles: past the
link that closes a ring; on the way down from the level where the ways of source and destination meet."""


class PacketWork(NamedTuple):
    """What the event loop needs of the program's payloads; sizes: k kinds, p routes, s slots."""

    roots: Ints  # of all routes' trees
    sinks: Ints  # of each tree
    start: Ints  # [p + 1] a route's trees
    late: Ints  # [k] whether the route's latency comes before the payload
    moving: Ints  # [s] payload of each slot, -1 for none
    phase: Ints  # [s] of the slot's payload: MOVING, LATE or HELD
    hold: Floats  # [s] when the engine's own part of the payload was over
    figures: Floats  # FLIT_BYTES, PACKET_BYTES, BUFFER_BYTES


FLIT_BYTES, PACKET_BYTES, BUFFER_BYTES = 0, 1, 2
"""What is sent as one, the most data of a packet, and a virtual channel's buffer in whole flits."""
MOVING, LATE, HELD = 0, 1, 2
"""The engine and its SRAM port move the payload; the route's latency passes; packets hold the engine up."""


def router_of(target: Target) -> Router:
    """Return the target's router, or the assumed one."""
    return target.router or ASSUMED_ROUTER


class _Trees:
    """Trees as NODE rows."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self.rows: list[list[int]] = []
        self.roots: list[int] = []
        self.sinks: list[int] = []

    def add(self, paths: Sequence[tuple[int, ...]]) -> None:
        """Add the tree that paths from one source make; they have a first link in common."""
        children: dict[tuple[int, int], int] = {}
        last: dict[int, int] = {}
        ends = set()
        for path in paths:
            node = -1
            for link, virtual in self._virtual(path):
                if (node, link) not in children:
                    number = len(self.rows)
                    children[node, link] = number
                    self.rows.append([link, virtual, 1, -1, -1])
                    if node >= 0:
                        if node in last:
                            self.rows[last[node]][4] = number
                        else:
                            self.rows[node][3] = number
                        last[node] = number
                node = children[node, link]
            ends.add(node)
        self.roots.append(children[-1, paths[0][0]])
        self.sinks.append(len(ends))

    def _virtual(self, path: tuple[int, ...]) -> list[tuple[int, int]]:
        """Return each link of a path with its virtual channel."""
        found = []
        ring, past, descent = -1, 0, 0
        for number in path:
            link = self._network.links[number]
            if link.ring != ring:
                ring, past = link.ring, 0
            past |= DATELINE * link.wraps
            descent |= DESCENT * link.enters
            found.append((number, past | descent))
        if path[-1] in self._network.dram_ports:
            # Reads that fill the network must not keep writes, which would make room in it, from the memory.
            found[-1] = (path[-1], LANES - 1)
        return found


def packet_work(
    network: Network,
    ways: Sequence[Way],
    routes: Routes,
    late: Ints,
    slots: int,
) -> tuple[PacketWork, Net]:
    """Return the trees of all routes, and the network that they go through.

    Args:
        network: Of the target.
        ways: Those of `routes`.
        routes: Those of all tiles, none standing for others.
        late: Whether the route's latency comes before the payload, by kind.
        slots: Number of slots.
    """
    trees = _Trees(network)
    count = routes.way.size
    start = np.zeros(count + 1, dtype=np.int64)
    user = np.full(count, -1, dtype=np.int64)
    for row in routes.route_of:
        for tile in np.flatnonzero(row >= 0)[::-1]:
            user[row[tile]] = tile
    for route in range(count):
        way = ways[routes.way[route]]
        for paths in _paths(network, way.key, way.group, int(user[route])):
            trees.add(paths)
        start[route + 1] = len(trees.roots)
    router = router_of(network.target)
    flits = router.lane_bytes // router.flit_bytes
    links = network.links
    net = new_net(
        rates=network.rates,
        latencies=np.array([link.cycles for link in links], dtype=np.float64),
        is_memory=np.isin(np.arange(len(links)), np.array(network.dram_ports)),
        nodes=np.array([tuple(row) for row in trees.rows], dtype=NODE),
        lanes=LANES,
        guaranteed_flits=flits,
        limit_flits=flits,
        pool_flits=0,
        credit_cycles=router.credit_cycles,
        flows=1024,
        starts=int(np.diff(start).max(initial=1)),
    )
    work = PacketWork(
        roots=np.array(trees.roots, dtype=np.int64),
        sinks=np.array(trees.sinks, dtype=np.int64),
        start=start,
        late=late,
        moving=np.full(slots, -1, dtype=np.int64),
        phase=np.zeros(slots, dtype=np.int64),
        hold=np.zeros(slots),
        figures=np.array(
            [router.flit_bytes, router.packet_bytes, flits * router.flit_bytes], dtype=np.float64
        ),
    )
    return work, net


def _paths(network: Network, key: RouteKey, group: Group, tile: int) -> list[list[tuple[int, ...]]]:
    """Return the paths of each of a route's trees; bare posts have none."""
    name, axes, shift = key
    mesh, tiles = group.mesh, group.tiles
    index = tiles.index(tile) if tile >= 0 else -1
    ports = range(network.target.dram.ports)
    match name:
        case "read":
            is_cast = axes and network.target.dram.relay is None
            users = [tiles[i] for i in sub_mesh(mesh, index, axes)] if is_cast else [tile]
            return [[network.read_path(port, one) for one in users] for port in ports]
        case "write":
            return [[network.write_path(tile, port)] for port in ports]
        case "send":
            path = network.tile_path(tile, tiles[shifted(mesh, index, axes, shift)])
            return [[path]] if path else []
        case "cast":
            others = [tiles[i] for i in sub_mesh(mesh, index, axes) if i != index]
            return [[network.tile_path(tile, other) for other in others]]
        case _:
            return []
