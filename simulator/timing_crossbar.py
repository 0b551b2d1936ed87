"""Routes between tiles of nested crossbars, for all tiles of a way at once.

The network finds one path at a time; a barrier of thousands of tiles asks for millions. In nested crossbars
a path leaves every unit of the source and enters every unit of the destination below the level where they
meet, so whole arrays of paths take a few operations on arrays.
"""

from __future__ import annotations

from math import prod
from typing import NamedTuple

import numpy as np

from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.hwmodel.network import Network, Route
from tilewright.hwmodel.target import Target, Topology
from tilewright.simulator.timing_state import Bools, Floats, Ints


class Trees(NamedTuple):
    """Routes from several sources, each to one or more tiles; sizes: s sources."""

    latency: Floats  # [s] cycles, to the farthest tile
    user: Ints  # for each use of a link: which source
    link: Ints


def is_crossbars(target: Target) -> bool:
    """Whether the machine has nothing but crossbars (a level of one unit counts as one)."""
    sizes = {axis.name: axis.size for axis in target.axes}
    return all(
        level.topology is Topology.CROSSBAR or all(sizes[name] == 1 for name in level.axes)
        for level in target.interconnects
    )


def sub_meshes(mesh: LogicalMesh, axes: int) -> tuple[Ints, Ints]:
    """Return the number of each position's sub-mesh along some axes, and the members of each sub-mesh.

    >>> number, members = sub_meshes(LogicalMesh(("x", "y"), (2, 3)), 0b01)
    >>> number.tolist(), members.tolist()
    ([0, 1, 2, 0, 1, 2], [[0, 3], [1, 4], [2, 5]])
    """
    masked = [axis for axis in range(mesh.rank) if axes >> axis & 1]
    size = prod(mesh.sizes[axis] for axis in masked)
    grid = np.arange(mesh.tiles).reshape(mesh.sizes)
    last = list(range(mesh.rank - len(masked), mesh.rank))
    members = np.moveaxis(grid, masked, last).reshape(-1, size)
    number = np.empty(mesh.tiles, dtype=np.int64)
    number[members] = np.arange(members.shape[0])[:, None]
    return number, members


class Crossbars:
    """The links of nested crossbars by level and unit."""

    def __init__(self, network: Network) -> None:
        target = network.target
        assert is_crossbars(target), f"{target.name} has levels other than crossbars"
        sizes = {axis.name: axis.size for axis in target.axes}
        shape = [prod(sizes[name] for name in level.axes) for level in target.interconnects]
        numbers = {link.name: index for index, link in enumerate(network.links)}
        tiles = np.array(network.places)
        units, out, into = [], [], []
        for depth, level in enumerate(target.interconnects):
            name, count = "-".join(level.axes), prod(shape[: depth + 1])
            units.append(tiles // prod(shape[depth + 1 :]))
            out.append([numbers[f"{name}[{unit}].out"] for unit in range(count)])
            into.append([numbers[f"{name}[{unit}].in"] for unit in range(count)])
        self._unit = np.array(units, dtype=np.int64).reshape(len(shape), target.tiles)
        self._out = [np.array(links, dtype=np.int64) for links in out]
        self._into = [np.array(links, dtype=np.int64) for links in into]
        self._network = network
        self._port_units = [
            np.array(network.port_units(depth), dtype=np.int64) for depth in range(len(shape))
        ]
        hops = [level.hop_cycles for level in target.interconnects]
        # Paths that meet at a level cross it once, and each level below it on the way up and down.
        self._latency = np.array(
            [hop + 2 * sum(hops[depth + 1 :]) for depth, hop in enumerate(hops)] + [0.0]
        )

    def _meeting(self, source: Ints, target: Ints) -> Ints:
        """Return the level where each path turns down; the number of levels if it goes nowhere."""
        level = np.full(source.size, self._unit.shape[0], dtype=np.int64)
        for depth in reversed(range(self._unit.shape[0])):
            level[self._unit[depth, source] != self._unit[depth, target]] = depth
        return level

    def trees(self, sources: Ints, user: Ints, receiver: Ints, with_links: bool) -> Trees:
        """Return a tree from each source to its receivers, every link once, those of the way up first.

        Args:
            sources: Tile of each source.
            user: Index into `sources` of each receiver.
            receiver: Tile of each receiver.
            with_links: Whether to list the links, not the latencies only.
        """
        level = self._meeting(sources[user], receiver)
        highest = np.full(sources.size, self._unit.shape[0], dtype=np.int64)
        np.minimum.at(highest, user, level)
        latency = np.zeros(sources.size)
        np.maximum.at(latency, user, self._latency[level])
        users, links = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.int64)]
        depths = range(self._unit.shape[0] if with_links else 0)
        for depth in reversed(depths):
            climbing = np.flatnonzero(highest <= depth)
            users.append(climbing)
            links.append(self._out[depth][self._unit[depth, sources[climbing]]])
        for depth in depths:
            into = self._into[depth]
            keys = np.unique((user * into.size + self._unit[depth, receiver])[level <= depth])
            users.append(keys // into.size)
            links.append(into[keys % into.size])
        return Trees(latency, np.concatenate(users), np.concatenate(links))

    def read(self, tiles: Ints) -> Route:
        """Return the trees from all DRAM ports to a group of tiles that read the same bytes.

        A unit is left by what its ports read, if some of the tiles are elsewhere, and entered by what
        the other ports read, if some of the tiles are in it. The links come in the order in which the
        network's own paths first use them: by port, tile and place on the path.
        """
        ports = len(self._network.dram_ports)
        port = np.arange(ports)
        found: list[tuple[Ints, Floats, Ints, Ints, Ints]] = [
            (port + self._network.dram_ports.start, np.ones(ports), port, port * 0 - 1, port * 0)
        ]
        levels = len(self._port_units)
        for depth, homes in enumerate(self._port_units):
            here = self._unit[depth, tiles]
            inside = np.bincount(homes, minlength=self._out[depth].size)
            units, first = np.unique(homes, return_index=True)
            away = _first_other(here, units)
            units, first, away = units[away >= 0], first[away >= 0], away[away >= 0]
            place = np.full(units.size, levels - depth)
            count = inside[units].astype(np.float64)
            found.append((self._out[depth][units], count, first.astype(np.int64), away, place))
            units, first = np.unique(here, return_index=True)
            away = _first_other(homes, units) if homes.size else np.zeros_like(units)
            units, first, away = units[away >= 0], first[away >= 0], away[away >= 0]
            place = np.full(units.size, levels + 1 + depth)
            count = (ports - inside[units]).astype(np.float64)
            found.append((self._into[depth][units], count, away, first.astype(np.int64), place))
        link, weight, *keys = map(np.concatenate, zip(*found, strict=True))
        order = np.lexsort(keys[::-1])
        return Route(
            tuple(link[order].tolist()),
            tuple((weight[order] * (1.0 / ports)).tolist()),
            self._network.dram_read(int(tiles[0])).latency_cycles,  # that of every tile
        )


def _first_other(values: Ints, of: Ints) -> Ints:
    """Return, for each number, where the values first differ from it; -1 for nowhere.

    >>> _first_other(np.array([2, 2, 1]), np.array([1, 2])).tolist()
    [0, 2]
    """
    different = values != values[0]
    second = int(np.argmax(different)) if different.any() else -1
    places: Ints = np.where(of == values[0], second, 0)
    return places


def others(members: Ints, number: Ints, positions: Ints) -> tuple[Ints, Ints]:
    """Pair each position with the other members of its sub-mesh.

    Returns:
        Index into `positions` and member, for each pair.
    """
    mates = members[number[positions]]
    different: Bools = mates != positions[:, None]
    return np.nonzero(different)[0], mates[different]
