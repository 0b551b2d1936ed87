"""Bandwidth between tiles and DRAM of Tenstorrent's Wormhole: the rows of its ISA documentation, simulated.

Source of all constants unless said otherwise: tenstorrent/tt-isa-documentation 3930471, WormholeB0:
NoC/README.md, NoC/RoutingPaths.md, NoC/Ordering.md, DRAMTile/README.md, Diagrams/Src/NoC.lua.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from tilewright.simulator.timing_traffic import (
    Buffers,
    Channel,
    Delivery,
    Flow,
    Hop,
    run_traffic,
)

Place = tuple[int, int]
"""Column and row, as drawn for NoC #0."""

COLUMNS, ROWS = 10, 12
FLIT_BYTES = 32
PACKET_DATA_FLITS = 256
HOP_CYCLES, NIU_CYCLES = 9.0, 5.0
CLOCK_GHZ = 1.0
DRAM_BYTES_PER_CYCLE = 24.0 * 0.92
"""12 GT/s of 16 bits, of which "approximately 92%" can be had."""
BUFFERS = Buffers(
    virtual_channels=16,
    guaranteed_flits=1,  # "each virtual channel has a guaranteed 32 bytes"
    limit_flits=16,  # "able to claim up to 480 bytes from this shared pool"
    pool_flits=48,  # "the remaining 1 1/2 KiB is dynamically shared"
    # Not published. A lane's 16 flits must cover a hop's round trip, or no single packet could reach
    # the published one flit a cycle: 16 - 9 - 1 at most.
    credit_cycles=6.0,
)
NIUS: tuple[tuple[Place, ...], ...] = (
    ((0, 0), (0, 1), (0, 11)),
    ((0, 5), (0, 6), (0, 7)),
    ((5, 0), (5, 1), (5, 11)),
    ((5, 2), (5, 9), (5, 10)),
    ((5, 3), (5, 4), (5, 8)),
    ((5, 5), (5, 6), (5, 7)),
)
"""Where the three interfaces of each pair of DRAM channels are."""
DRAM_CHANNELS = 12
TENSIX: tuple[Place, ...] = tuple(
    (x, y) for y in range(ROWS) for x in range(COLUMNS) if x not in (0, 5) and y not in (0, 6)
)
DATELINE, RESPONSE, WRITE = 8, 6, 0
"""Parts of a virtual channel's number: the dateline bit; responses' class 0b11; a request's class 0b00."""


class Mode(Enum):
    """What is measured."""

    READ = "read"
    WRITE_STATIC = "write, static VC"
    WRITE_DYNAMIC = "write, dynamic VC"


@dataclass(frozen=True, slots=True)
class Transfer:
    """A tile that moves its bytes to or from a DRAM channel through one of its interfaces."""

    tile: Place
    dram: int
    niu: Place


def _steps(noc: int, start: Place, end: Place) -> list[tuple[Place, int, bool]]:
    """Return (router, axis, past the dateline) for each link: NoC 0 goes right, then down; NoC 1 up, then left.

    Where the dateline is, the source does not say; here it is the edge at which coordinates wrap.
    """
    taken = []
    place, step = list(start), 1 if noc == 0 else -1
    for axis in (0, 1) if noc == 0 else (1, 0):
        size, past = (COLUMNS, ROWS)[axis], False
        while place[axis] != end[axis]:
            past = past or not 0 <= place[axis] + step < size
            taken.append(((place[0], place[1]), axis, past))
            place[axis] = (place[axis] + step) % size
    return taken


class Noc:
    """One of the two networks: for each router a link on each axis, one from and one to its interface."""

    def __init__(self, noc: int) -> None:
        self.noc = noc
        link = Channel(bytes_per_cycle=FLIT_BYTES, latency_cycles=HOP_CYCLES)
        niu = Channel(bytes_per_cycle=FLIT_BYTES, latency_cycles=NIU_CYCLES)
        memory = Channel(bytes_per_cycle=DRAM_BYTES_PER_CYCLE, is_memory=True)
        routers = COLUMNS * ROWS
        self.channels = (*[link] * (2 * routers), *[niu] * (2 * routers), *[memory] * DRAM_CHANNELS)

    def path(self, transfer: Transfer, is_read: bool) -> Hop:
        """Return the data's way, the memory included."""
        ends = (transfer.niu, transfer.tile) if is_read else (transfer.tile, transfer.niu)
        routers = COLUMNS * ROWS
        index = [place[1] * COLUMNS + place[0] for place in ends]
        links = [
            (axis * routers + place[1] * COLUMNS + place[0], DATELINE * past)
            for place, axis, past in _steps(self.noc, *ends)
        ]
        memory = (4 * routers + transfer.dram, 0)
        links = [(2 * routers + index[0], 0), *links, (3 * routers + index[1], 0)]
        links = [memory, *links] if is_read else [*links, memory]
        then: tuple[Hop, ...] = ()
        for channel, virtual in reversed(links):
            then = (Hop(channel=channel, virtual=virtual, then=then),)
        return then[0]

    def run(self, transfers: list[Transfer], mode: Mode, packets: int, log: int = 0) -> Delivery:
        """Simulate transfers of so many packets each, all at once."""
        is_read = mode is Mode.READ
        flows = []
        for transfer in transfers:
            root = self.path(transfer, is_read)
            # Responses choose between two virtual channels. So do dynamic requests, of either class; an
            # interface has one packet on each virtual channel.
            lanes = [(RESPONSE, 2)] if is_read else [(WRITE, 1)]
            if mode is Mode.WRITE_DYNAMIC:
                lanes = [(0, 2), (0, 2), (2, 2), (2, 2)]
            flows += [
                Flow(
                    root=root,
                    packets=packets // len(lanes),
                    flits=1 + PACKET_DATA_FLITS,
                    link_bytes=FLIT_BYTES,
                    memory_bytes=FLIT_BYTES * PACKET_DATA_FLITS / (1 + PACKET_DATA_FLITS),
                    virtual=virtual,
                    choices=choices,
                )
                for virtual, choices in lanes
            ]
        return run_traffic(self.channels, BUFFERS, flows, log=log)
