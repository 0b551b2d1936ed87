"""Cost of collectives on one logical axis, when all groups of the axis run it at the same time.

The machine runs them so: every tile first tells its peers that its buffer is ready (a remote post
each). Then all_gather is one multicast from each tile to its group; all_to_all is n - 1 sends, to
the peers at distance 1, 2, ..., n - 1; reduce_scatter is the same into n slots, which the vector
unit adds up; all_reduce is reduce_scatter and all_gather where the elements divide by n, else an
all_gather of whole partials and a local sum; slice copies the tile's own piece and sends nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from math import prod

from tilewright.dtypes import DType
from tilewright.hwmodel.cost import vector_cycles
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.hwmodel.network import Network, Route, axis_group, network_of
from tilewright.hwmodel.target import Target


class Collective(StrEnum):
    """A redistribution along one logical axis."""

    ALL_GATHER = "all_gather"
    REDUCE_SCATTER = "reduce_scatter"
    ALL_REDUCE = "all_reduce"
    ALL_TO_ALL = "all_to_all"
    SLICE = "slice"


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectiveCost:
    """Duration of a collective; bytes and energy are those of one tile (the mean over all)."""

    cycles: float = 0.0
    core_cycles: float = 0.0
    """Of the scratchpad's port and of the vector unit, one after the other."""
    link_cycles: float = 0.0
    """Of the busiest link, or port of a unit."""
    noc_bytes: float = 0.0
    """Bytes that arrive in the tile over the network."""
    energy_pj: float = 0.0
    level_bytes: tuple[float, ...] = ()
    """Bytes through ingress ports of each interconnect level, outermost first."""

    def __add__(self, other: CollectiveCost) -> CollectiveCost:
        """Return the cost of one collective after the other."""
        levels = zip(self.level_bytes, other.level_bytes, strict=True)
        return CollectiveCost(
            cycles=self.cycles + other.cycles,
            core_cycles=self.core_cycles + other.core_cycles,
            link_cycles=self.link_cycles + other.link_cycles,
            noc_bytes=self.noc_bytes + other.noc_bytes,
            energy_pj=self.energy_pj + other.energy_pj,
            level_bytes=tuple(a + b for a, b in levels),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """What a communication pattern does to the network for every payload byte of each tile."""

    cycles_per_byte: float
    """Time of the busiest link."""
    latency_cycles: float
    """Latency to the farthest peer."""
    hops: float
    """Links that a payload byte of a tile passes, all copies together."""
    level_bytes: tuple[float, ...]


def collective_cost(
    target: Target,
    mesh: LogicalMesh,
    axis: int,
    kind: Collective | str,
    local_bytes: int,
    dtype: DType = DType.F32,
) -> CollectiveCost:
    """Return the cost of a collective that every group of an axis runs at once.

        cycles = handshake + sends (startup + issue) + latency
                 + max(busiest link, DMA engine, SRAM port) + vector work

    Args:
        target: The machine.
        mesh: The mesh that plans shard over; it covers all tiles.
        axis: Index of the logical axis, n tiles long.
        kind: What is done.
        local_bytes: Bytes of the tile's input: the shard for all_gather, the whole partial value for
            reduce_scatter and all_reduce, the whole local tensor for all_to_all and slice.
        dtype: Element type, which sets the cost of additions.

    Returns:
        The cost; zero on an axis of one tile or for no bytes.
    """
    kind = Collective(kind)
    size = mesh.sizes[axis]
    if size == 1 or local_bytes == 0:
        return CollectiveCost(level_bytes=(0.0,) * len(target.interconnects))
    if kind is Collective.SLICE:
        return _copy(target, local_bytes / size, dtype)
    if kind is Collective.ALL_GATHER:
        return _gather(target, mesh, axis, local_bytes)
    if kind is Collective.ALL_TO_ALL:
        return _exchange(target, mesh, axis, local_bytes)
    if kind is Collective.REDUCE_SCATTER:
        exchange = _exchange(target, mesh, axis, local_bytes)
        return exchange + _sum(target, size, local_bytes / size, dtype)
    if reduces_in_two_steps(size, local_bytes, dtype):
        piece = local_bytes // size
        exchange = _exchange(target, mesh, axis, local_bytes)
        total = exchange + _sum(target, size, piece, dtype)
        return total + _gather(target, mesh, axis, piece)
    return _gather(target, mesh, axis, local_bytes) + _sum(target, size, local_bytes, dtype)


def reduces_in_two_steps(size: int, local_bytes: int, dtype: DType) -> bool:
    """Whether an all_reduce over `size` tiles is a reduce_scatter and an all_gather."""
    return local_bytes // dtype.itemsize_bytes % size == 0


@lru_cache(maxsize=256)
def multicast_pattern(target: Target, mesh: LogicalMesh, axis: int) -> Pattern:
    """Return what it costs the network that every tile multicasts a byte to its group."""
    network = network_of(target)

    def route_of(tile: int) -> Route:
        return network.multicast(tile, _peers(mesh, axis, tile))

    return _pattern(network, mesh, axis, route_of)


@lru_cache(maxsize=256)
def exchange_pattern(target: Target, mesh: LogicalMesh, axis: int) -> Pattern:
    """Return what it costs the network that every tile sends a byte to each tile of its group."""
    network = network_of(target)

    def route_of(tile: int) -> Route:
        counts: dict[int, float] = {}
        latency_cycles = 0.0
        for peer in _peers(mesh, axis, tile):
            route = network.route(tile, peer)
            latency_cycles = max(latency_cycles, route.latency_cycles)
            for link in route.links:
                counts[link] = counts.get(link, 0.0) + 1.0
        return Route(tuple(counts), tuple(counts.values()), latency_cycles)

    return _pattern(network, mesh, axis, route_of)


def _peers(mesh: LogicalMesh, axis: int, tile: int) -> tuple[int, ...]:
    return tuple(peer for peer in axis_group(mesh, axis, tile) if peer != tile)


def _pattern(
    network: Network, mesh: LogicalMesh, axis: int, route_of: Callable[[int], Route]
) -> Pattern:
    routes: dict[int, Route] = {}

    def remembered(tile: int) -> Route:
        if tile not in routes:
            routes[tile] = route_of(tile)
        return routes[tile]

    target = network.target
    moving = target.tiles
    if network.is_vertex_transitive:
        load = network.symmetric_load(remembered)
    elif _is_grid_line(target, mesh, axis):
        # Groups are parallel lines of the grid, which share no link: one stands for all.
        group = axis_group(mesh, axis, 0)
        load, moving = network.load(remembered, group), len(group)
    else:
        load = network.load(remembered, range(target.tiles))
    levels = range(len(target.interconnects))
    return Pattern(
        cycles_per_byte=float((load / network.rates).max()),
        latency_cycles=max(route.latency_cycles for route in routes.values()),
        hops=float(load.sum()) / moving,
        level_bytes=tuple(float(load[network.level_ingress(x)].sum()) / moving for x in levels),
    )


def _is_grid_line(target: Target, mesh: LogicalMesh, axis: int) -> bool:
    """Whether the groups of a logical axis are lines of a machine that is one grid."""
    if len(target.interconnects) > 1:
        return False
    sizes = target.shape
    lines = [(size, prod(sizes[number + 1 :])) for number, size in enumerate(sizes)]
    return (mesh.sizes[axis], prod(mesh.sizes[axis + 1 :])) in lines


def _gather(target: Target, mesh: LogicalMesh, axis: int, shard_bytes: int) -> CollectiveCost:
    """Return the cost of an all_gather: one multicast, and n shards written by each tile."""
    pattern = multicast_pattern(target, mesh, axis)
    size = mesh.sizes[axis]
    return _transfer(target, pattern, size, 1, shard_bytes, shard_bytes, (size + 1) * shard_bytes)


def _exchange(target: Target, mesh: LogicalMesh, axis: int, local_bytes: int) -> CollectiveCost:
    """Return the cost of n - 1 sends of one n-th each; the own piece is copied to its slot."""
    pattern = exchange_pattern(target, mesh, axis)
    size = mesh.sizes[axis]
    piece = local_bytes / size
    return _transfer(target, pattern, size, size - 1, piece, (size - 1) * piece, 2 * local_bytes)


def _transfer(
    target: Target,
    pattern: Pattern,
    size: int,
    sends: int,
    payload_bytes: float,
    engine_bytes: float,
    sram_bytes: float,
) -> CollectiveCost:
    tile, energy = target.tile, target.energy
    handshake = (size - 1) * tile.control.issue_cycles + pattern.latency_cycles
    busy = max(
        pattern.cycles_per_byte * payload_bytes,
        engine_bytes / tile.dma.out_bytes_per_cycle,
        sram_bytes / tile.sram.bytes_per_cycle,
    )
    starts = sends * (tile.dma.startup_cycles + tile.control.issue_cycles)
    noc_pj = pattern.hops * payload_bytes * energy.noc_pj_per_byte_hop
    return CollectiveCost(
        cycles=handshake + starts + pattern.latency_cycles + busy,
        core_cycles=sram_bytes / tile.sram.bytes_per_cycle,
        link_cycles=pattern.cycles_per_byte * payload_bytes,
        noc_bytes=(size - 1) * payload_bytes,
        energy_pj=noc_pj + sram_bytes * energy.sram_pj_per_byte,
        level_bytes=tuple(share * payload_bytes for share in pattern.level_bytes),
    )


def _sum(target: Target, size: int, slot_bytes: float, dtype: DType) -> CollectiveCost:
    """Return the cost of adding up n slots on the vector unit: n - 1 additions."""
    return _vector(target, "add", size - 1, slot_bytes, 3, dtype)


def _copy(target: Target, piece_bytes: float, dtype: DType) -> CollectiveCost:
    return _vector(target, "identity", 1, piece_bytes, 2, dtype)


def _vector(
    target: Target, fn: str, times: int, piece_bytes: float, operands: int, dtype: DType
) -> CollectiveCost:
    tile, energy = target.tile, target.energy
    elements = max(1, round(piece_bytes / dtype.itemsize_bytes))
    moved = operands * piece_bytes
    work = vector_cycles(tile, fn, dtype, elements)
    each = max(work, moved / tile.sram.bytes_per_cycle) + tile.control.issue_cycles
    pj = elements * energy.vector_op_pj + moved * energy.sram_pj_per_byte
    levels = (0.0,) * len(target.interconnects)
    return CollectiveCost(
        cycles=times * each,
        core_cycles=times * each,
        energy_pj=times * pj,
        level_bytes=levels,
    )
