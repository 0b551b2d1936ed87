"""Cost of DRAM transfers by all tiles at once: ports, engines, links, and the relay of shared reads."""

from __future__ import annotations

from math import ceil

import numpy as np

from tilewright.hwmodel.cost import KernelCost
from tilewright.hwmodel.network import network_of
from tilewright.hwmodel.port_sharing import Readers, fair_read_cycles
from tilewright.hwmodel.target import Relay, Target


def padded_bytes(target: Target, total_bytes: int, contiguous_run_bytes: int) -> float:
    """Return the bytes that DRAM ports move when each contiguous run is padded to whole bursts."""
    burst = target.tile.dma.burst_bytes
    if contiguous_run_bytes <= 0:
        return float(total_bytes)
    return total_bytes / contiguous_run_bytes * (ceil(contiguous_run_bytes / burst) * burst)


def dram_cycles(
    target: Target, total_bytes_read: int, bytes_per_tile: int, contiguous_run_bytes: int
) -> float:
    """Return the cycles until every tile has read its bytes from DRAM, all at the same time.

        latency + startup + max(port time, engine time, link time) (+ the relay's cast)

    A link's load is what it carries when every tile reads bytes of its own, but no more than what
    it carries when all tiles read all `total_bytes_read` by multicast.

    Args:
        target: Gives the ports, the network, the DMA engine and whether reads can be multicast.
        total_bytes_read: Different bytes that all tiles read together.
        bytes_per_tile: Bytes that arrive in each tile; `total_bytes_read` is between this and
            `tiles * bytes_per_tile` (the latter is taken when the target has no read multicast).
        contiguous_run_bytes: Length of the contiguous runs in DRAM; short runs are padded to bursts.
    """
    return _read_cycles(target, total_bytes_read, bytes_per_tile, contiguous_run_bytes)[0]


def dram_readers(
    target: Target, total_bytes_read: int, bytes_per_tile: int, contiguous_run_bytes: int
) -> Readers:
    """Return who reads from DRAM in a read by all tiles; the arguments are those of `dram_cycles`."""
    total = _served_bytes(target, total_bytes_read, bytes_per_tile)
    return Readers(
        tiles=total / bytes_per_tile,
        size_bytes=bytes_per_tile,
        padding=padded_bytes(target, total, contiguous_run_bytes) / total,
        bytes_per_cycle=_reader_bytes_per_cycle(target, total, bytes_per_tile),
    )


def _read_cycles(
    target: Target,
    total_bytes_read: int,
    bytes_per_tile: int,
    contiguous_run_bytes: int,
    beside: Readers | None = None,
) -> tuple[float, float]:
    """Return the cycles of `dram_cycles`, and those of the busiest link."""
    if bytes_per_tile == 0:
        return 0.0, 0.0
    total = _served_bytes(target, total_bytes_read, bytes_per_tile)
    own, shared, rates = network_of(target).read_kinds
    loads = np.minimum(own * bytes_per_tile, shared * total)
    link_cycles = float((loads / rates).max(initial=0.0))
    if beside is None:
        padded = padded_bytes(target, total, contiguous_run_bytes)
        rate = _reader_bytes_per_cycle(target, total, bytes_per_tile)
        cycles = max(padded / target.dram_bytes_per_cycle, bytes_per_tile / rate)
    else:
        readers = dram_readers(target, total, bytes_per_tile, contiguous_run_bytes)
        cycles = fair_read_cycles(target.dram_bytes_per_cycle, readers, beside)
    if _relay(target, total, bytes_per_tile) is None:
        cycles = max(cycles, link_cycles)
    cast_cycles = relay_cast_cycles(target, total, bytes_per_tile)
    return dram_lead_cycles(target) + cycles + cast_cycles, link_cycles


def dram_lead_cycles(target: Target) -> float:
    """Return the cycles before bytes from DRAM come: latency and startup."""
    latency_cycles = target.dram.latency_cycles + network_of(target).dram_latency_cycles
    return latency_cycles + target.tile.dma.startup_cycles


def dram_ahead_cycles(target: Target, total_bytes_read: int, bytes_per_tile: int) -> float:
    """Return the cycles of a read that pass while the bytes of the one before come.

    That is its lead if the engine asks ahead. A tile that relays is busy until its bytes have left.

    Args:
        target: The machine.
        total_bytes_read: Different bytes that all tiles read together.
        bytes_per_tile: Bytes that arrive in each tile.
    """
    relays = _relay(target, total_bytes_read, bytes_per_tile) is not None
    return dram_lead_cycles(target) if target.tile.dma.asks_ahead and not relays else 0.0


def relay_cast_cycles(target: Target, total_bytes_read: int, bytes_per_tile: int) -> float:
    """Return the cycles in which relaying tiles cast what they have read; the memory rests meanwhile.

    The arguments are those of `dram_ahead_cycles`.
    """
    relay = _relay(target, total_bytes_read, bytes_per_tile)
    if relay is None:
        return 0.0
    is_for_all = total_bytes_read <= bytes_per_tile
    axes = sum(size > 1 for size in target.shape)
    return relay.cast_cycles(bytes_per_tile, axes if is_for_all else 1)


def _served_bytes(target: Target, total_bytes_read: int, bytes_per_tile: int) -> int:
    """Return the bytes that the memory serves, without padding."""
    if target.dram.read_multicast:
        return max(total_bytes_read, bytes_per_tile)
    return target.tiles * bytes_per_tile


def _reader_bytes_per_cycle(target: Target, total_bytes_read: int, bytes_per_tile: int) -> float:
    """Return the rate of a tile that reads, for itself or for a group."""
    rate, relay = (
        target.tile.dma.in_bytes_per_cycle,
        _relay(target, total_bytes_read, bytes_per_tile),
    )
    return rate if relay is None else min(rate, relay.read_bytes_per_cycle)


def _relay(target: Target, total_bytes_read: int, bytes_per_tile: int) -> Relay | None:
    """Return how tiles relay a read, None if each gets its bytes from the memory."""
    is_shared = target.dram.read_multicast and total_bytes_read < target.tiles * bytes_per_tile
    return target.dram.relay if is_shared else None


def dram_write_cycles(target: Target, bytes_per_tile: int, contiguous_run_bytes: int) -> float:
    """Return the cycles until every tile has written its bytes to DRAM, all at the same time.

    As `dram_cycles`, without multicast: `tiles * bytes_per_tile` bytes pass the ports.
    """
    return _write_cycles(target, bytes_per_tile, contiguous_run_bytes)[0]


def _write_cycles(
    target: Target, bytes_per_tile: int, contiguous_run_bytes: int
) -> tuple[float, float]:
    """Return the cycles of `dram_write_cycles`, and those of the busiest link."""
    if bytes_per_tile == 0:
        return 0.0, 0.0
    network, dma = network_of(target), target.tile.dma
    padded = padded_bytes(target, target.tiles * bytes_per_tile, contiguous_run_bytes)
    loads, rates = network.write_kinds
    link_cycles = float((loads * bytes_per_tile / rates).max(initial=0.0))
    cycles = (
        target.dram.latency_cycles
        + network.dram_latency_cycles
        + dma.startup_cycles
        + max(
            padded / target.dram_bytes_per_cycle,
            bytes_per_tile / dma.out_bytes_per_cycle,
            link_cycles,
        )
    )
    return cycles, link_cycles


def dram_read_cost(
    target: Target,
    total_bytes_read: int,
    bytes_per_tile: int,
    contiguous_run_bytes: int,
    beside: Readers | None = None,
) -> KernelCost:
    """Return one tile's cost of a read from DRAM by all tiles, as in `dram_cycles`.

    `dram_bytes` and the DRAM's energy are this tile's share of the total.

    Args:
        target: As for `dram_cycles`, like the next three.
        total_bytes_read: Different bytes that all tiles read together.
        bytes_per_tile: Bytes that arrive in each tile.
        contiguous_run_bytes: Length of the contiguous runs in DRAM.
        beside: Who reads at the same time for another engine of the tiles.
    """
    shared = target.dram.read_multicast
    total = total_bytes_read if shared else target.tiles * bytes_per_tile
    share = ceil(padded_bytes(target, total, contiguous_run_bytes) / target.tiles)
    cycles, links = _read_cycles(
        target, total_bytes_read, bytes_per_tile, contiguous_run_bytes, beside
    )
    return _dma_cost(target, share, bytes_per_tile, dma_in_cycles=cycles, link_cycles=links)


def dram_write_cost(target: Target, bytes_per_tile: int, contiguous_run_bytes: int) -> KernelCost:
    """Return one tile's cost of a write to DRAM by all tiles, as in `dram_write_cycles`."""
    share = ceil(padded_bytes(target, bytes_per_tile, contiguous_run_bytes))
    cycles, links = _write_cycles(target, bytes_per_tile, contiguous_run_bytes)
    return _dma_cost(target, share, bytes_per_tile, dma_out_cycles=cycles, link_cycles=links)


def _dma_cost(
    target: Target,
    dram_bytes: int,
    tile_bytes: int,
    *,
    dma_in_cycles: float = 0.0,
    dma_out_cycles: float = 0.0,
    link_cycles: float,
) -> KernelCost:
    network, energy = network_of(target), target.energy
    tile_links = network.dram_read(0).weights
    hops = sum(tile_links) - 1.0  # the port itself belongs to the DRAM's energy
    return KernelCost(
        dma_in_cycles=dma_in_cycles,
        dma_out_cycles=dma_out_cycles,
        sram_cycles=tile_bytes / target.tile.sram.bytes_per_cycle,
        link_cycles=link_cycles,
        sram_bytes=tile_bytes,
        dram_bytes=dram_bytes,
        noc_bytes=tile_bytes,
        energy_pj=dram_bytes * (energy.dram_pj_per_byte + hops * energy.noc_pj_per_byte_hop)
        + tile_bytes * energy.sram_pj_per_byte,
    )
