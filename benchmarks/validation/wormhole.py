"""Bandwidth between tiles and DRAM of Tenstorrent's Wormhole: the rows of its ISA documentation, simulated.

Source of all constants unless said otherwise: tenstorrent/tt-isa-documentation 3930471, WormholeB0:
NoC/README.md, NoC/RoutingPaths.md, NoC/Ordering.md, DRAMTile/README.md, Diagrams/Src/NoC.lua.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
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

WIDTH, HEIGHT = 10, 12
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
NIUS: tuple[Place, ...] = (
    *((0, 11), (0, 1), (0, 5), (0, 7), (5, 1), (5, 11)),
    *((5, 2), (5, 9), (5, 8), (5, 3), (5, 5), (5, 7)),
)
"""Of the three interfaces of each pair of DRAM channels, the one that the maker's software prefers for each.

Source: dram_preferred_worker_endpoint in tt_metal/soc_descriptors/wormhole_b0_80_arch.yaml of
tenstorrent/tt-metal 049e2880. Which interfaces were measured is not published.
"""
DRAM_CHANNELS = 12
TENSIX: tuple[Place, ...] = tuple(
    (x, y) for y in range(HEIGHT) for x in range(WIDTH) if x not in (0, 5) and y not in (0, 6)
)
DATELINE, RESPONSE = 8, 6
"""Parts of a virtual channel's number: dateline bit; class bits 0b11 of responses, above the buddy bit."""


class Mode(Enum):
    """What is measured."""

    READ = "read"
    WRITE_STATIC = "write, static VC"
    WRITE_DYNAMIC = "write, dynamic VC"


@dataclass(frozen=True, slots=True)
class Transfer:
    """A tile that moves its bytes to or from a DRAM channel."""

    tile: Place
    dram: int

    def ends(self, is_read: bool) -> tuple[Place, Place]:
        """Return where the data comes from and where it goes."""
        niu = NIUS[self.dram]
        return (niu, self.tile) if is_read else (self.tile, niu)


def _steps(noc: int, start: Place, end: Place) -> list[tuple[Place, int, bool]]:
    """Return (router, axis, past the dateline) for each link.

    NoC 0 goes right, then down; NoC 1 up, then left. Where the dateline is, the source does not say; here it
    is the edge at which coordinates wrap.
    """
    taken = []
    place, step = list(start), 1 if noc == 0 else -1
    for axis in (0, 1) if noc == 0 else (1, 0):
        size, past = (WIDTH, HEIGHT)[axis], False
        while place[axis] != end[axis]:
            past = past or not 0 <= place[axis] + step < size
            taken.append(((place[0], place[1]), axis, past))
            place[axis] = (place[axis] + step) % size
    return taken


class Noc:
    """One of the two networks: for each router a link on each axis, one from and one to its interface.

    `queue_packets` is what a DRAM controller takes in before the memory is ready for it: a number that nobody
    publishes, 0 unless asked for. It is a row of buffers like those of the routers.
    """

    def __init__(self, noc: int, queue_packets: int = 0) -> None:
        self.noc = noc
        self.queue = queue_packets * PACKET_DATA_FLITS // BUFFERS.limit_flits
        link = Channel(bytes_per_cycle=FLIT_BYTES, latency_cycles=HOP_CYCLES)
        niu = Channel(bytes_per_cycle=FLIT_BYTES, latency_cycles=NIU_CYCLES)
        memory = Channel(bytes_per_cycle=DRAM_BYTES_PER_CYCLE, is_memory=True)
        routers = WIDTH * HEIGHT
        self.channels = (
            *[link] * (2 * routers),
            *[niu] * (2 * routers),
            *[memory] * DRAM_CHANNELS,
            *[Channel(bytes_per_cycle=FLIT_BYTES)] * (self.queue * DRAM_CHANNELS),
        )

    def path(self, transfer: Transfer, is_read: bool, choices: int) -> Hop:
        """Return the data's way, the memory included, with a choice of so many virtual channels a hop."""
        ends = transfer.ends(is_read)
        routers = WIDTH * HEIGHT
        index = [place[1] * WIDTH + place[0] for place in ends]
        links = [
            (axis * routers + place[1] * WIDTH + place[0], DATELINE * past)
            for place, axis, past in _steps(self.noc, *ends)
        ]
        memory = (4 * routers + transfer.dram, 0)
        links = [(2 * routers + index[0], 0), *links, (3 * routers + index[1], 0)]
        first = 4 * routers + DRAM_CHANNELS + transfer.dram * self.queue
        queue = [(first + place, 0) for place in range(self.queue)]
        links = [memory, *links] if is_read else [*links, *queue, memory]
        then: tuple[Hop, ...] = ()
        for channel, virtual in reversed(links):
            # "Read requests ... will be processed in order of arrival", so one at a time.
            lanes = 1 if channel == memory[0] else choices
            then = (Hop(channel=channel, virtual=virtual, choices=lanes, then=then),)
        return then[0]

    def run(self, transfers: list[Transfer], mode: Mode, packets: int, log: int = 0) -> Delivery:
        """Simulate transfers of so many packets each, all at once."""
        is_read = mode is Mode.READ
        flows = []
        for transfer in transfers:
            # Responses choose between two virtual channels; dynamic requests between those of either
            # class, and an interface has one packet on each virtual channel.
            lanes = {
                Mode.READ: [RESPONSE],
                Mode.WRITE_STATIC: [0],
                Mode.WRITE_DYNAMIC: [0, 0, 2, 2],
            }[mode]
            root = self.path(transfer, is_read, 1 if mode is Mode.WRITE_STATIC else 2)
            flows += [
                Flow(
                    root=root,
                    packets=packets // len(lanes),
                    flits=1 + PACKET_DATA_FLITS,
                    link_bytes=FLIT_BYTES,
                    memory_bytes=FLIT_BYTES * PACKET_DATA_FLITS / (1 + PACKET_DATA_FLITS),
                    virtual=virtual,
                )
                for virtual in lanes
            ]
        return run_traffic(self.channels, BUFFERS, flows, log=log)


# ---------------------------------------------------------------- what was measured


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row of the documentation's tables, DRAMTile/README.md, Performance."""

    tiles: int
    drams: int
    is_careful: bool
    mode: Mode
    noc: int
    measured_gbs: float

    @property
    def name(self) -> str:
        """What a person calls it."""
        place = "careful" if self.is_careful else "random"
        channels = "1 channel" if self.drams == 1 else f"{self.drams} channels"
        return f"{self.tiles} tiles, {channels}, {place}, {self.mode.value}, NoC {self.noc}"


def _rows(tiles: int, drams: int, careful: bool, *figures: float) -> tuple[Row, ...]:
    """Return rows: reads on NoC 0 and 1, writes with static and with dynamic channels on NoC 0 and 1."""
    modes = [(mode, noc) for mode in Mode for noc in (0, 1)]
    return tuple(
        Row(tiles=tiles, drams=drams, is_careful=careful, mode=mode, noc=noc, measured_gbs=figure)
        for (mode, noc), figure in zip(modes, figures, strict=True)
    )


ROWS = (
    *_rows(1, 1, False, 22.2, 22.3, 21.9, 21.9, 21.8, 21.8),
    *_rows(12, 1, False, 22.3, 22.3, 22.0, 22.0, 7.6, 8.0),
    *_rows(48, 1, False, 22.3, 22.3, 22.0, 21.9, 7.9, 6.7),
    *_rows(12, 12, True, 265.5, 265.3, 261.3, 262.0, 255.1, 255.5),
    *_rows(48, 12, True, 267.5, 267.5, 263.7, 256.2, 81.7, 79.3),
    *_rows(12, 12, False, 189.8, 82.1, 56.5, 154.5, 77.4, 173.2),
    *_rows(48, 12, False, 200.3, 78.2, 52.3, 133.7, 18.2, 54.5),
)
"""Reads with static requests; with dynamic ones they differ by at most 2 %."""


def placements(row: Row, count: int, seed: int = 7) -> Iterator[list[Transfer]]:
    """Yield placements of a row's kind, each channel with the same number of tiles.

    Careful ones have every tile in the row of its channel's interface, before it on the data's way. Random
    ones are uniform over those that can have been measured: on none of the links lie so many transfers
    that the reads measured on either network would exceed the link's rate. (Reads repeated with another
    setting agree to 0.1 GB/s, so each number of tiles was measured on one placement.)
    """
    if row.is_careful:
        yield _careful(row)
        return
    choice = random.Random(seed)
    drams = range(row.drams)
    while count > 0:
        picked = [choice.choice(range(DRAM_CHANNELS))] if row.drams == 1 else drams
        tiles = choice.sample(TENSIX, row.tiles)
        found = [Transfer(tile, picked[i % row.drams]) for i, tile in enumerate(tiles)]
        if row.drams == 1 or _is_feasible(row, found):
            count -= 1
            yield found


def _careful(row: Row) -> list[Transfer]:
    is_read = row.mode is Mode.READ
    found = []
    for dram in range(row.drams):
        column, line = NIUS[dram]
        # NoC 0 flows right, NoC 1 left: reads go to tiles behind the interface, writes come from before it.
        step = 1 if (row.noc == 0) == is_read else -1
        for away in range(1, row.tiles // row.drams + 1):
            found.append(Transfer(((column + step * away) % WIDTH, line), dram))
    return found


def link_load(transfers: list[Transfer], noc: int, is_read: bool) -> int:
    """Return how many transfers the busiest link carries."""
    loads = Counter(
        (place, axis)
        for transfer in transfers
        for place, axis, _ in _steps(noc, *transfer.ends(is_read))
    )
    return max(loads.values())


def _is_feasible(row: Row, transfers: list[Transfer]) -> bool:
    reads = [r for r in ROWS if r.tiles == row.tiles and r.drams == row.drams and not r.is_careful]
    data = PACKET_DATA_FLITS / (1 + PACKET_DATA_FLITS)
    return all(
        row.tiles * FLIT_BYTES * CLOCK_GHZ * data / link_load(transfers, read.noc, True)
        >= read.measured_gbs
        for read in reads
        if read.mode is Mode.READ
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the simulation says of a row: mean and extremes over placements, [GB/s]."""

    row: Row
    mean_gbs: float
    least_gbs: float
    most_gbs: float
    events: int

    @property
    def error(self) -> float:
        """The mean against the measurement."""
        return self.mean_gbs / self.row.measured_gbs - 1.0


def simulate_row(row: Row, *, packets: int, count: int, queue_packets: int = 0) -> Outcome:
    """Simulate a row over some placements; speed is all bytes over the time until the last has arrived.

    Args:
        row: What to simulate.
        packets: Of 8 KiB, moved by each tile; 128 were measured.
        count: Number of random placements.
        queue_packets: See `Noc`.
    """
    speeds, events = [], 0
    noc = Noc(row.noc, queue_packets)
    for transfers in placements(row, count):
        done = noc.run(transfers, row.mode, packets)
        moved = row.tiles * packets * PACKET_DATA_FLITS * FLIT_BYTES
        speeds.append(moved / done.cycles * CLOCK_GHZ)
        events += done.events
    return Outcome(
        row=row,
        mean_gbs=sum(speeds) / len(speeds),
        least_gbs=min(speeds),
        most_gbs=max(speeds),
        events=events,
    )
