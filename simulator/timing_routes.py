"""Where payloads go: the resources, latency and receivers of every way that a program uses."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from typing import NamedTuple

import numpy as np

from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.hwmodel.network import Network
from tilewright.simulator.timing_banks import BankUse, Shares
from tilewright.simulator.timing_crossbar import Crossbars, is_crossbars, others, sub_meshes
from tilewright.simulator.timing_kinds import RouteKey
from tilewright.simulator.timing_state import DRAM, LINK, SORTS, SRAM, Bools, Floats, Ints

PORTS, BANKS = "SRAM ports", "SRAM banks"
"""What reports call the resources inside a tile."""


class Resources(NamedTuple):
    """All shared resources: the SRAM port of tile i is resource i, then the links of the network, then banks.

    Banks are there if they are blocks of addresses: those of tile 0 first.
    """

    capacity: Floats  # bytes/cycle
    sort: Ints
    report: Ints  # index into `names`
    names: tuple[str, ...]
    members: Ints  # how many real resources each one stands for


class Routes(NamedTuple):
    """Routes as a sparse matrix; sizes: p routes, t tiles."""

    route_of: Ints  # [ways, t] -1 for none
    way: Ints  # [p]
    latency: Floats  # [p]
    limit: Floats  # [p, sorts] least capacity / share of its own resources, infinite for none
    entry_route: Ints
    entry_resource: Ints
    entry_share: Floats
    peer_route: Ints
    peer_tile: Ints
    peer_count: Ints


def all_resources(network: Network) -> Resources:
    """Return the SRAM ports and links of a machine, with the class names that reports use."""
    target = network.target
    names = [PORTS]
    capacity = [target.tile.sram.bytes_per_cycle] * target.tiles
    sort, report = [SRAM] * target.tiles, [0] * target.tiles
    numbers: dict[str, int] = {}
    for index, link in enumerate(network.links):
        is_port = index in network.dram_ports
        name = "DRAM ports" if is_port else f"links of level {link.name.split('[')[0]}"
        if name not in numbers:
            numbers[name] = len(names)
            names.append(name)
        capacity.append(link.bytes_per_cycle)
        sort.append(DRAM if is_port else LINK)
        report.append(numbers[name])
    if target.tile.sram.has_blocks:
        banks = target.tiles * target.tile.sram.banks
        capacity += [target.tile.sram.bank_bytes_per_cycle] * banks
        sort, report = sort + [SRAM] * banks, report + [len(names)] * banks
        names.append(BANKS)
    members = np.ones(len(capacity), dtype=np.int64)
    return Resources(np.array(capacity), np.array(sort), np.array(report), tuple(names), members)


def sub_mesh(mesh: LogicalMesh, index: int, axes: int) -> tuple[int, ...]:
    """Return the linear coordinates of the sub-mesh spanned by some axes that holds `index`, ascending.

    >>> sub_mesh(LogicalMesh(("x", "y"), (2, 3)), 4, 0b10)
    (3, 4, 5)
    """
    members, stride = [index], 1
    for axis in reversed(range(mesh.rank)):
        size = mesh.sizes[axis]
        if axes >> axis & 1:
            coord = index // stride % size
            members = [m + (c - coord) * stride for m in members for c in range(size)]
        stride *= size
    return tuple(sorted(members))


def shifted(mesh: LogicalMesh, index: int, axes: int, shift: int) -> int:
    """Return the linear coordinate `shift` further, modulo the size, along the one axis of a mask."""
    axis = axes.bit_length() - 1
    stride = prod(mesh.sizes[axis + 1 :])
    coord = index // stride % mesh.sizes[axis]
    return index + ((coord + shift) % mesh.sizes[axis] - coord) * stride


class RouteBuilder:
    """Collects the routes of all tiles for each way that the kinds of a program name."""

    def __init__(self, network: Network, groups: tuple[tuple[int, ...], ...] = ()) -> None:
        self._network = network
        self._groups = groups
        self._crossbars = Crossbars(network) if is_crossbars(network.target) else None
        self._tiles = network.target.tiles
        self._rows: list[Ints] = []
        self._way: list[int] = []
        self._latency: list[Floats] = []
        self._entries: list[tuple[Ints, Ints, Floats]] = []  # routes, resources, shares
        self._peers: list[tuple[Ints, Ints]] = []  # routes, tiles

    def add_way(
        self,
        key: RouteKey,
        mesh: LogicalMesh,
        tiles: tuple[int, ...],
        wanted: Bools,
        banks: BankUse | None = None,
    ) -> None:
        """Find the routes of the next way for the wanted tiles of a group, and what they take of banks."""
        row = np.full(self._tiles, -1, dtype=np.int64)
        self._rows.append(row)
        if self._crossbars is not None and key[0] in ("send", "cast", "post"):
            self._add_trees(self._crossbars, key, mesh, np.array(tiles, dtype=np.int64), wanted)
        else:
            for index, tile in enumerate(tiles):
                # A tile may share the route of its sub-mesh's first tile.
                if wanted[tile] and row[tile] < 0:
                    self._add_route(key, mesh, tiles, index, row)
        if banks is not None:
            self._add_banks(key, mesh, tiles, row, banks)

    def _add_banks(
        self,
        key: RouteKey,
        mesh: LogicalMesh,
        tiles: tuple[int, ...],
        row: Ints,
        banks: BankUse,
    ) -> None:
        """Add what the routes of a way take of banks, each route once."""
        name, axes, shift = key
        done: set[int] = set()
        for index, tile in enumerate(tiles):
            route = int(row[tile])
            if route < 0 or route in done:
                continue
            done.add(route)
            self._take(route, tile, banks.own_at(index))
            match name:
                case "read" if axes:
                    for mate in sub_mesh(mesh, index, axes):
                        self._take(route, tiles[mate], banks.far_at(mate))
                case "send":
                    receiver = tiles[shifted(mesh, index, axes, shift)]
                    self._take(route, receiver, banks.far_at(index))
                case "cast":
                    for mate in sub_mesh(mesh, index, axes):
                        if mate != index:
                            self._take(route, tiles[mate], banks.far_at(index))
                case _:
                    pass

    def _take(self, route: int, tile: int, shares: Shares) -> None:
        sram = self._network.target.tile.sram
        first = self._tiles + len(self._network.links) + tile * sram.banks
        used = np.array([first + bank for bank, _ in shares], dtype=np.int64)
        parts = np.array([share for _, share in shares], dtype=np.float64)
        self._entries.append((np.full(used.size, route, dtype=np.int64), used, parts))

    def _add_trees(
        self, crossbars: Crossbars, key: RouteKey, mesh: LogicalMesh, tiles: Ints, wanted: Bools
    ) -> None:
        """Add the routes of all wanted tiles of a group at once."""
        name, axes, shift = key
        positions = np.flatnonzero(wanted[tiles])
        if name == "send":
            user = np.arange(positions.size)
            receiver = tiles[_shifted_all(mesh, axes, shift)[positions]]
        else:
            number, members = sub_meshes(mesh, axes)
            user, mates = others(members, number, positions)
            receiver = tiles[mates]
        first = len(self._way)
        trees = crossbars.trees(tiles[positions], user, receiver, with_links=name != "post")
        self._way += [len(self._rows) - 1] * positions.size
        self._latency.append(trees.latency)
        self._rows[-1][tiles[positions]] = first + np.arange(positions.size)
        self._peers.append((first + user, receiver))
        if name != "post":
            routes = np.concatenate([user, trees.user]) + first
            resources = np.concatenate([receiver, trees.link + self._tiles])
            self._entries.append((routes, resources, np.ones(routes.size)))

    def _add_route(
        self, key: RouteKey, mesh: LogicalMesh, tiles: tuple[int, ...], index: int, row: Ints
    ) -> None:
        name, axes, shift = key
        tile, number = tiles[index], len(self._way)
        if name == "here":
            self._way.append(len(self._rows) - 1)
            self._latency.append(np.zeros(1))
            row[tile] = number
            return
        users: tuple[int, ...] = (tile,)
        receivers: tuple[int, ...] = ()
        match name:
            case "read" if axes:
                users = receivers = tuple(tiles[i] for i in sub_mesh(mesh, index, axes))
                if self._crossbars is not None:
                    route = self._crossbars.read(np.array(users, dtype=np.int64))
                else:
                    route = self._network.dram_read_multicast(users)
            case "read":
                route = self._network.dram_read(tile)
            case "write":
                route = self._network.dram_write(tile)
            case "send":
                receivers = (tiles[shifted(mesh, index, axes, shift)],)
                route = self._network.route(tile, receivers[0])
            case "signal":
                receivers = self._groups[axes]
                route = self._network.multicast(tile, receivers)
            case _:
                receivers = tuple(tiles[i] for i in sub_mesh(mesh, index, axes) if i != index)
                route = self._network.multicast(tile, receivers)
        self._way.append(len(self._rows) - 1)
        self._latency.append(np.array([route.latency_cycles], dtype=np.float64))
        row[list(users)] = number
        arrivals = np.array(receivers, dtype=np.int64)
        if name != "read":
            self._peers.append((np.full(arrivals.size, number, dtype=np.int64), arrivals))
        if name not in ("post", "signal"):  # a bare post is not worth a share of bandwidth
            links = np.array(route.links, dtype=np.int64) + self._tiles
            resources = np.concatenate([arrivals, links])
            shares = np.concatenate(
                [np.ones(arrivals.size), np.array(route.weights, dtype=np.float64)]
            )
            routes = np.full(resources.size, number, dtype=np.int64)
            self._entries.append((routes, resources, shares))

    def finish(self, resources: Resources) -> Routes:
        """Return all routes."""
        rows = np.array(self._rows, dtype=np.int64).reshape(len(self._rows), self._tiles)
        peers = _concatenate([tiles for _, tiles in self._peers], np.int64)
        entry_route = _concatenate([routes for routes, _, _ in self._entries], np.int64)
        used = _concatenate([used for _, used, _ in self._entries], np.int64)
        shares = _concatenate([shares for _, _, shares in self._entries], np.float64)
        limit = np.full((len(self._way), SORTS), np.inf)
        np.minimum.at(limit, (entry_route, resources.sort[used]), resources.capacity[used] / shares)
        return Routes(
            route_of=rows,
            way=np.array(self._way, dtype=np.int64),
            latency=_concatenate(self._latency, np.float64),
            limit=limit,
            entry_route=entry_route,
            entry_resource=used,
            entry_share=shares,
            peer_route=_concatenate([routes for routes, _ in self._peers], np.int64),
            peer_tile=peers,
            peer_count=np.ones(peers.size, dtype=np.int64),
        )


def _shifted_all(mesh: LogicalMesh, axes: int, shift: int) -> Ints:
    """Return `shifted` of every position."""
    grid = np.arange(mesh.tiles).reshape(mesh.sizes)
    moved: Ints = np.roll(grid, -shift, axis=axes.bit_length() - 1).reshape(-1)
    return moved


def _concatenate[T: np.generic](
    arrays: Iterable[np.ndarray[tuple[int, ...], np.dtype[T]]], dtype: type[T]
) -> np.ndarray[tuple[int, ...], np.dtype[T]]:
    return np.concatenate([np.empty(0, dtype=dtype), *arrays])
