"""The network of a target as a list of link resources, and the routes that transfers take over it.

A machine has one network for each level of its hierarchy inside each unit of the level above. A
transfer climbs from its source to the deepest network that holds both ends, crosses it, and
descends. Leaving or entering a unit takes that unit's egress or ingress port. Inside a crossbar
there are no further links; inside a mesh or torus a transfer follows links in dimension order (last
axis first; equal reads of a group in either order, where there is a network for each), and enters or
leaves towards the level above at the gateway, the unit with position 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from math import prod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tilewright.hwmodel.grid import Grid, perimeter
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.hwmodel.target import Target, Topology
from tilewright.hwmodel.working import coordinates


@dataclass(frozen=True, slots=True)
class Link:
    """A resource that carries bytes one way: a unit's port, a mesh link or a DRAM port."""

    name: str
    bytes_per_cycle: float
    cycles: float = 0.0
    """Latency from this link to the next one; the latencies along a path add up to that of its route."""
    ring: int = -1
    """Direction in a mesh or torus, the same for all its links; -1 for ports."""
    wraps: bool = False
    """Whether it closes a ring of a torus."""
    enters: bool = False
    """Whether it leads from the level above into a unit."""


@dataclass(frozen=True, slots=True)
class Route:
    """The links of a transfer, and the bytes that each carries for every byte of payload.

    `weights` are 1 except for DRAM transfers, whose addresses are interleaved over all ports.
    `latency_cycles` is that of the network alone, for the farthest destination or port.
    """

    links: tuple[int, ...]
    weights: tuple[float, ...]
    latency_cycles: float


class _Point(NamedTuple):
    """A place in the network of `level` inside unit `instance` of the level above.

    A tile is the point at level `len(levels)` inside itself.
    """

    level: int
    instance: int
    position: int = 0


class Network:
    """Links and memoised routes of a target; all results are deterministic."""

    def __init__(self, target: Target) -> None:
        self.target = target
        sizes = {axis.name: axis.size for axis in target.axes}
        shapes = [tuple(sizes[name] for name in level.axes) for level in target.interconnects]
        self._sizes = tuple(prod(shape) for shape in shapes)
        self._units = tuple(prod(self._sizes[: depth + 1]) for depth in range(len(shapes)))
        self._hops = tuple(level.hop_cycles for level in target.interconnects)
        self._grids = tuple(
            None
            if level.topology is Topology.CROSSBAR
            else Grid(shape, wraps=level.topology is Topology.TORUS)
            for level, shape in zip(target.interconnects, shapes, strict=True)
        )
        places = np.ravel_multi_index(np.ix_(*target.units), [axis.size for axis in target.axes])
        self._tiles = tuple(_Point(len(shapes), place) for place in places.ravel().tolist())
        self._first_egress: list[int] = []
        self._first_ingress: list[int] = []
        self._mesh_links: list[dict[tuple[int, int], int]] = []
        self._ports = self._place_ports()
        self._make_links()
        self._has_both_orders = any(level.either_order for level in target.interconnects)
        self._routes: dict[tuple[_Point, _Point, bool], tuple[tuple[int, ...], float]] = {}
        self._reads: dict[int, Route] = {}
        self._writes: dict[int, Route] = {}

    # ------------------------------------------------------------------ coordinates

    def coordinates(self, tile: int) -> tuple[int, ...]:
        """Return the coordinates of a tile on the physical axes, among the units that are used."""
        return coordinates(tile, self.target.shape)

    def tile_at(self, coords: tuple[int, ...]) -> int:
        """Return the linear id of the tile at some coordinates, see `coordinates`."""
        tile = 0
        for axis, size, coord in zip(self.target.axes, self.target.shape, coords, strict=True):
            assert 0 <= coord < size, f"coordinate {coord} is outside axis {axis.name}"
            tile = tile * size + coord
        return tile

    @property
    def places(self) -> tuple[int, ...]:
        """The linear id of each tile among all there are, disabled ones and those left out with them too."""
        return tuple(point.instance for point in self._tiles)

    # ------------------------------------------------------------------ routes

    def route(self, src_tile: int, dst_tile: int) -> Route:
        """Return the route of a transfer between two tiles; a tile reaches itself over no link."""
        links, latency_cycles = self._path(self._tile(src_tile), self._tile(dst_tile))
        return Route(links, (1.0,) * len(links), latency_cycles)

    def multicast(self, src_tile: int, dst_tiles: Iterable[int]) -> Route:
        """Return the tree of a multicast: every link once, the latency of the farthest tile."""
        source = self._tile(src_tile)
        paths = [self._path(source, self._tile(dst)) for dst in dst_tiles]
        links = tuple(dict.fromkeys(link for path, _ in paths for link in path))
        return Route(links, (1.0,) * len(links), max((cycles for _, cycles in paths), default=0.0))

    def tile_path(self, src_tile: int, dst_tile: int) -> tuple[int, ...]:
        """Return the links between two tiles in order."""
        return self._path(self._tile(src_tile), self._tile(dst_tile))[0]

    def read_path(self, port: int, tile: int) -> tuple[int, ...]:
        """Return the links from one DRAM port to a tile in order, the port itself first."""
        return (self.dram_ports[port], *self._path(self._ports[port], self._tile(tile))[0])

    def write_path(self, tile: int, port: int) -> tuple[int, ...]:
        """Return the links from a tile to one DRAM port in order, the port itself last."""
        return (*self._path(self._tile(tile), self._ports[port])[0], self.dram_ports[port])

    def dram_read(self, tile: int) -> Route:
        """Return the route from all DRAM ports to a tile."""
        if tile not in self._reads:
            self._reads[tile] = self.dram_read_multicast((tile,))
        return self._reads[tile]

    def dram_read_multicast(self, tiles: Iterable[int]) -> Route:
        """Return the trees from all DRAM ports to a group of tiles that read the same bytes."""
        points = [self._tile(tile) for tile in tiles]

        def tree(is_turned: bool) -> Route:
            return self._dram_route(
                lambda port: [self._path(port, point, is_turned) for point in points]
            )

        orders = (False, True) if self._has_both_orders and len(points) > 1 else (False,)
        return min(map(tree, orders), key=lambda found: sum(found.weights))

    def dram_write(self, tile: int) -> Route:
        """Return the route from a tile to all DRAM ports."""
        if tile not in self._writes:
            point = self._tile(tile)
            self._writes[tile] = self._dram_route(lambda port: [self._path(point, port)])
        return self._writes[tile]

    def port_units(self, level: int) -> tuple[int, ...]:
        """Return the unit of a level in which each DRAM port sits; empty if they sit further out."""
        if self._ports[0].level <= level:
            return ()
        return tuple(self._ancestors(port)[level + 1].instance for port in self._ports)

    # ------------------------------------------------------------------ loads

    @property
    def is_vertex_transitive(self) -> bool:
        """Whether the machine looks the same from every tile.

        True when all levels are crossbars, or a lone torus, DRAM ports do not sit on an edge, and all tiles
        are used.
        """
        if self.target.disabled_tiles:
            return False
        lone = sum(size > 1 for size in self._sizes) <= 1
        for size, grid in zip(self._sizes, self._grids, strict=True):
            if size > 1 and grid is not None and not (grid.wraps and lone):
                return False
        ports = [(point.level, point.position) for point in self._ports]
        at_switch = all(
            level == len(self._sizes) or self._sizes[level] == 1 or self._grids[level] is None
            for level, _ in ports
        )
        return at_switch

    def load(self, route_of: Callable[[int], Route], tiles: Iterable[int]) -> NDArray[np.float64]:
        """Return the bytes on each link when every one of some tiles moves a byte by its route."""
        load = np.zeros(len(self.links))
        for tile in tiles:
            route = route_of(tile)
            np.add.at(load, np.array(route.links, dtype=np.int64), route.weights)
        return load

    def symmetric_load(self, route_of: Callable[[int], Route]) -> NDArray[np.float64]:
        """Return the bytes on each link when all tiles do the same.

        On a vertex-transitive machine equal links are equally loaded, so one tile's route, times
        the number of tiles, shared out over the links of each class, gives the exact load.
        """
        tiles = self.target.tiles
        if not self.is_vertex_transitive:
            return self.load(route_of, range(tiles))
        one = self.load(route_of, (0,))
        totals = np.bincount(self._classes, weights=one) * tiles / np.bincount(self._classes)
        shared: NDArray[np.float64] = totals[self._classes]
        return shared

    @cached_property
    def rates(self) -> NDArray[np.float64]:
        """Bytes per cycle of each link."""
        return np.array([link.bytes_per_cycle for link in self.links])

    @cached_property
    def dram_read_load(self) -> NDArray[np.float64]:
        """Bytes on each link when every tile reads a byte of its own."""
        return self.symmetric_load(self.dram_read)

    @cached_property
    def dram_write_load(self) -> NDArray[np.float64]:
        """Bytes on each link when every tile writes a byte."""
        return self.symmetric_load(self.dram_write)

    @cached_property
    def dram_multicast_load(self) -> NDArray[np.float64]:
        """Bytes on each link when all tiles read the same byte."""
        load = np.zeros(len(self.links))
        if not self.target.disabled_tiles and all(
            size == 1 or grid is None for size, grid in zip(self._sizes, self._grids, strict=True)
        ):
            self._add_crossbar_trees(load)
            return load
        route = self.dram_read_multicast(range(self.target.tiles))
        load[np.array(route.links, dtype=np.int64)] = route.weights
        return load

    @cached_property
    def read_kinds(self) -> tuple[NDArray[np.float64], ...]:
        """Loads when tiles read bytes of their own, when all the same, and rates, of links but ports."""
        return self._kinds(self.dram_read_load, self.dram_multicast_load, self.rates)

    @cached_property
    def write_kinds(self) -> tuple[NDArray[np.float64], ...]:
        """Loads when every tile writes a byte, and rates, of links but ports."""
        return self._kinds(self.dram_write_load, self.rates)

    def _kinds(self, *of_links: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
        inner = slice(0, self.dram_ports.start)  # links that are alike count once
        kinds = np.unique(np.stack([values[inner] for values in of_links]), axis=1)
        return tuple(kinds)

    def _add_crossbar_trees(self, load: NDArray[np.float64]) -> None:
        """Add the trees from DRAM ports to all tiles: a unit sends what its ports read and gets the rest."""
        ports = len(self._ports)
        load[self.dram_ports.start :] = 1 / ports
        for depth, units in enumerate(self._units):
            inside = np.zeros(units)
            for port in self._ports:
                if port.level > depth:
                    inside[self._ancestors(port)[depth + 1].instance] += 1
            out, into = self._first_egress[depth], self._first_ingress[depth]
            load[out : out + units] = inside / ports if units > 1 else 0.0
            load[into : into + units] = (ports - inside) / ports

    @cached_property
    def dram_latency_cycles(self) -> float:
        """Network latency of the farthest tile from its farthest DRAM port."""
        tiles = (0,) if self.is_vertex_transitive else range(self.target.tiles)
        return max(self.dram_read(tile).latency_cycles for tile in tiles)

    def level_ingress(self, level: int) -> range:
        """Return the ids of the ingress ports of a level's units."""
        first = self._first_ingress[level]
        return range(first, first + self._units[level])

    @property
    def dram_ports(self) -> range:
        """The link ids of the DRAM ports."""
        return range(len(self.links) - self.target.dram.ports, len(self.links))

    # ------------------------------------------------------------------ construction

    def _make_links(self) -> None:
        links: list[Link] = []
        classes: list[int] = []
        for depth, level in enumerate(self.target.interconnects):
            name = "-".join(level.axes)
            units = range(self._units[depth])
            self._first_egress.append(len(links))
            rate, out, into = (
                level.port_bytes_per_cycle,
                self._switch(depth),
                self._switch(depth + 1),
            )
            links += [Link(f"{name}[{unit}].out", rate, out) for unit in units]
            self._first_ingress.append(len(links))
            links += [Link(f"{name}[{unit}].in", rate, into, enters=True) for unit in units]
            classes += [6 * depth] * len(units) + [6 * depth + 1] * len(units)
            table: dict[tuple[int, int], int] = {}
            grid, link_rate = self._grids[depth], level.link_bytes_per_cycle
            if grid is not None:
                assert link_rate is not None, (
                    f"{name} has no link bandwidth; the loader checks this"
                )
                for unit in units:
                    instance, position = divmod(unit, self._sizes[depth])
                    for direction, other in grid.neighbours(position):
                        table[unit, direction] = len(links)
                        end = instance * self._sizes[depth] + other
                        links.append(
                            Link(
                                f"{name}[{unit}->{end}]",
                                link_rate,
                                self._hops[depth],
                                ring=4 * depth + direction,
                                wraps=(other < position) == (direction % 2 == 0),
                            )
                        )
                        classes.append(6 * depth + 2 + direction)
            self._mesh_links.append(table)
        dram = self.target.dram
        rate = dram.port_bytes_per_cycle * dram.efficiency
        after = [self._switch(point.level) for point in self._ports]
        links += [Link(f"dram[{port}]", rate, after[port]) for port in range(dram.ports)]
        classes += [6 * len(self._sizes)] * dram.ports
        self.links = tuple(links)
        numbers = {old: new for new, old in enumerate(dict.fromkeys(classes))}
        self._classes = np.array([numbers[old] for old in classes], dtype=np.int64)

    def _switch(self, level: int) -> float:
        """Return the cycles to cross the network of a level if that is a crossbar, which has no links."""
        crosses = level < len(self._sizes) and self._grids[level] is None
        return self._hops[level] if crosses else 0.0

    def _place_ports(self) -> tuple[_Point, ...]:
        dram = self.target.dram
        level, units = 0, 1
        if dram.attach_axis is not None:
            ends = [item.axes[-1] for item in self.target.interconnects]
            level = ends.index(dram.attach_axis) + 1
            units = self._units[level - 1]
        each = dram.ports // units
        grid = self._grids[level] if level < len(self._grids) else None
        edge = (0,) if grid is None else perimeter(grid.shape)
        return tuple(
            _Point(level, port // each, edge[port % each * len(edge) // each])
            for port in range(dram.ports)
        )

    # ------------------------------------------------------------------ paths

    def _tile(self, tile: int) -> _Point:
        assert 0 <= tile < len(self._tiles), f"tile {tile} is not one of {len(self._tiles)}"
        return self._tiles[tile]

    def _path(
        self, src: _Point, dst: _Point, is_turned: bool = False
    ) -> tuple[tuple[int, ...], float]:
        """Return links and latency; `is_turned`: first axis first, in levels with a network for that."""
        key = src, dst, is_turned
        if key not in self._routes:
            self._routes[key] = self._find_path(src, dst, is_turned)
        return self._routes[key]

    def _find_path(
        self, src: _Point, dst: _Point, is_turned: bool
    ) -> tuple[tuple[int, ...], float]:
        up, down = self._ancestors(src), self._ancestors(dst)
        cross = partial(self._cross, is_turned)
        level = min(src.level, dst.level)
        while up[level].instance != down[level].instance:
            level -= 1
        links: list[int] = []
        latency_cycles = 0.0
        for depth in range(src.level, level, -1):
            latency_cycles += cross(depth, up[depth].instance, up[depth].position, 0, links)
            links.append(self._first_egress[depth - 1] + up[depth].instance)
        meeting = up[level]
        latency_cycles += cross(
            level, meeting.instance, meeting.position, down[level].position, links
        )
        for depth in range(level + 1, dst.level + 1):
            links.append(self._first_ingress[depth - 1] + down[depth].instance)
            inner = down[depth]
            latency_cycles += cross(depth, inner.instance, 0, inner.position, links)
        return tuple(links), latency_cycles

    def _ancestors(self, point: _Point) -> list[_Point]:
        """Return, for each level down to the point's own, the place that stands for it there."""
        chain = [point]
        for level in range(point.level - 1, -1, -1):
            instance, position = divmod(chain[-1].instance, self._sizes[level])
            chain.append(_Point(level, instance, position))
        return chain[::-1]

    def _cross(
        self, is_turned: bool, level: int, instance: int, start: int, end: int, links: list[int]
    ) -> float:
        """Append the links from one position to another inside a network; return the latency."""
        if level == len(self._sizes):  # inside a tile
            return 0.0
        grid = self._grids[level]
        if grid is None:
            return self._hops[level]
        turns = is_turned and self.target.interconnects[level].either_order
        steps = grid.steps(start, end, first_axis_first=turns)
        base = instance * self._sizes[level]
        links += [self._mesh_links[level][base + place, direction] for place, direction in steps]
        return self._hops[level] * len(steps)

    def _dram_route(
        self, paths_of: Callable[[_Point], list[tuple[tuple[int, ...], float]]]
    ) -> Route:
        share = 1.0 / len(self._ports)
        counts: dict[int, int] = {}
        latency_cycles = 0.0
        for link, port in zip(self.dram_ports, self._ports, strict=True):
            paths = paths_of(port)
            latency_cycles = max(latency_cycles, *(cycles for _, cycles in paths))
            for used in dict.fromkeys((link, *(item for path, _ in paths for item in path))):
                counts[used] = counts.get(used, 0) + 1
        weights = tuple(count * share for count in counts.values())
        return Route(tuple(counts), weights, latency_cycles)


@lru_cache(maxsize=8)
def network_of(target: Target) -> Network:
    """Return the network of a target; the last few are kept with their routes."""
    return Network(target)


def logical_mesh(target: Target) -> LogicalMesh:
    """Return the mesh that plans for a target shard over."""
    sizes = dict(zip((axis.name for axis in target.axes), target.shape, strict=True))
    return LogicalMesh(
        tuple(axis.name for axis in target.logical_axes),
        tuple(prod(sizes[name] for name in axis.axes) for axis in target.logical_axes),
    )


def logical_tile_ids(target: Target, mesh: LogicalMesh) -> tuple[int, ...]:
    """Return the tile id of each logical linear coordinate (row-major over the mesh).

    Logical axes merge neighbouring physical axes in order, so both orders are the same.
    """
    assert mesh.tiles == target.tiles, f"mesh of {mesh.tiles} on {target.tiles} tiles"
    return tuple(range(target.tiles))


def axis_group(mesh: LogicalMesh, axis: int, tile: int) -> tuple[int, ...]:
    """Return the tiles that differ from `tile` only on one logical axis, by their coordinate there."""
    stride = prod(mesh.sizes[axis + 1 :])
    first = tile - tile // stride % mesh.sizes[axis] * stride
    return tuple(first + coord * stride for coord in range(mesh.sizes[axis]))
