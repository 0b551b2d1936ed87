"""Cost of a halo exchange: every tile sends to its two neighbours on one logical axis, all at once."""

from __future__ import annotations

from functools import lru_cache

from tilewright.hwmodel.collectives import CollectiveCost, Pattern
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.hwmodel.network import axis_group, network_of
from tilewright.hwmodel.target import Target


def halo_cost(
    target: Target, mesh: LogicalMesh, axis: int, low_bytes: int, high_bytes: int
) -> CollectiveCost:
    """Return the cost of sending `low_bytes` to the successor and `high_bytes` to the predecessor.

        cycles = handshake + latency + sum over sends of
                 startup + issue + max(busiest link, DMA engine, SRAM port)

    Neighbours are taken modulo the axis: the tiles at its ends send too, what arrives there is not
    used. Where some peer is no neighbour, every tile says last that it has sent (one post).

    Args:
        target: The machine.
        mesh: The mesh that plans shard over; it covers all tiles.
        axis: Index of the logical axis.
        low_bytes: Payload of a tile to its successor, which lies before the piece there.
        high_bytes: Payload of a tile to its predecessor.

    Returns:
        The cost of one tile (the mean over all); zero on an axis of one tile or for no bytes.
    """
    total = CollectiveCost(level_bytes=(0.0,) * len(target.interconnects))
    size, tile, energy = mesh.sizes[axis], target.tile, target.energy
    sends = [(step, n) for step, n in ((1, low_bytes), (-1, high_bytes)) if n]
    if size == 1 or not sends:
        return total
    farthest = 0.0
    for step, payload in sends:
        pattern = shift_pattern(target, mesh, axis, step)
        farthest = max(farthest, pattern.latency_cycles)
        moved = 2 * payload
        busy = max(
            pattern.cycles_per_byte * payload,
            payload / tile.dma.out_bytes_per_cycle,
            moved / tile.sram.bytes_per_cycle,
        )
        noc_pj = pattern.hops * payload * energy.noc_pj_per_byte_hop
        total += CollectiveCost(
            cycles=tile.dma.startup_cycles + tile.control.issue_cycles + busy,
            core_cycles=moved / tile.sram.bytes_per_cycle,
            link_cycles=pattern.cycles_per_byte * payload,
            noc_bytes=payload,
            energy_pj=noc_pj + moved * energy.sram_pj_per_byte,
            level_bytes=tuple(share * payload for share in pattern.level_bytes),
        )
    handshake = (size - 1) * tile.control.issue_cycles + _group_latency(target, mesh, axis)
    posts = tile.control.issue_cycles + _group_latency(target, mesh, axis)
    last = farthest if reaches_all_peers(size, low_bytes, high_bytes) else max(farthest, posts)
    exposed = CollectiveCost(cycles=handshake + last, level_bytes=(0.0,) * len(total.level_bytes))
    return total + exposed


def reaches_all_peers(size: int, low: int, high: int) -> bool:
    """Whether the neighbours that a tile hears from are all peers of its group."""
    return size - 1 <= bool(low) + bool(high)


@lru_cache(maxsize=256)
def shift_pattern(target: Target, mesh: LogicalMesh, axis: int, step: int) -> Pattern:
    """Return what it costs the network that every tile sends a byte `step` further, modulo the axis."""
    network = network_of(target)
    routes = []
    for tile in range(target.tiles):
        group = axis_group(mesh, axis, tile)
        routes.append(network.route(tile, group[(group.index(tile) + step) % len(group)]))
    load = network.load(routes.__getitem__, range(target.tiles))
    levels = range(len(target.interconnects))
    return Pattern(
        cycles_per_byte=float((load / network.rates).max()),
        latency_cycles=max(route.latency_cycles for route in routes),
        hops=float(load.sum()) / target.tiles,
        level_bytes=tuple(
            float(load[network.level_ingress(x)].sum()) / target.tiles for x in levels
        ),
    )


@lru_cache(maxsize=256)
def _group_latency(target: Target, mesh: LogicalMesh, axis: int) -> float:
    """Return the latency between the farthest tiles of a group."""
    network = network_of(target)
    group = axis_group(mesh, axis, 0)
    return max(network.route(a, b).latency_cycles for a in group for b in group)
