"""How much the banks of a scratchpad are in each other's way: what waits because its bank serves others too.

Of scratchpads whose banks are blocks of addresses. Each access in a static schedule is a stream: bytes at a
steady rate from the start of its micro to the end, no faster than one bank serves, spread evenly over the
hull of the access. Tiles move in lock step, so a tile receives while it sends. Where the streams of a bank
come faster than it serves, they wait:

    lost cycles = sum over times and banks of max(0, bytes per cycle - rate of a bank) / rate of a bank
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.hwmodel.target import Scratchpad, Target
from tilewright.lowering.accesses import touches
from tilewright.lowering.isa import Opcode, Space
from tilewright.lowering.micro import Buffer
from tilewright.lowering.schedule import Schedule
from tilewright.lowering.traffic import MOVERS, moved_bytes

Floats = NDArray[np.float64]

_WORKERS = (Opcode.MM, Opcode.VEC, Opcode.RED)


class Stream(NamedTuple):
    """Bytes of a buffer that move at a steady rate for some time."""

    buffer: int
    low: int
    """First byte, relative to the buffer."""
    high: int
    """One past the last byte."""
    bytes_per_cycle: float
    start: float
    end: float


def streams_of(
    schedule: Schedule, buffers: tuple[Buffer, ...], target: Target, mesh: LogicalMesh
) -> tuple[Stream, ...]:
    """Return the streams of the scratchpad in a static schedule."""
    found = []
    for micro, start, end in zip(schedule.micros, schedule.starts, schedule.ends, strict=True):
        if end <= start or micro.opcode not in (*MOVERS, *_WORKERS):
            continue
        # touches leave out what a send writes elsewhere, and other tiles write it here
        seen = replace(micro, opcode=Opcode.MCS) if micro.opcode is Opcode.SND else micro
        accesses = touches(seen, buffers, mesh.sizes)
        for touch, size_bytes in zip(accesses, moved_bytes(micro, target), strict=True):
            if buffers[touch.buffer].space is Space.L1:
                rate = min(size_bytes / (end - start), target.tile.sram.bank_bytes_per_cycle)
                found.append(Stream(touch.buffer, touch.low, touch.high, rate, start, end))
    return tuple(found)


def bank_shares(sram: Scratchpad, low: Floats, high: Floats) -> Floats:
    """Return which part of each range of addresses lies in each bank, [..., banks].

    Args:
        sram: The scratchpad.
        low: First bytes, of any shape.
        high: One past the last bytes, of the same shape.
    """
    first = np.arange(sram.banks, dtype=np.float64) * sram.bank_bytes
    inside = np.minimum(high[..., None], first + sram.bank_bytes) - np.maximum(
        low[..., None], first
    )
    shares: Floats = np.maximum(inside, 0.0) / (high - low)[..., None]
    return shares


class BankLoad:
    """What each bank is asked for over time, buffer by buffer."""

    def __init__(self, streams: Sequence[Stream], sram: Scratchpad) -> None:
        """Cut time wherever a stream begins or ends."""
        self._sram = sram
        times = np.unique([t for s in streams for t in (s.start, s.end)])
        self._cycles = np.diff(times)
        starts = np.searchsorted(times, [s.start for s in streams])
        ends = np.searchsorted(times, [s.end for s in streams])
        by_buffer: dict[int, list[tuple[int, int, Stream]]] = {}
        for first, last, stream in zip(starts.tolist(), ends.tolist(), streams, strict=True):
            by_buffer.setdefault(stream.buffer, []).append((first, last, stream))
        self._parts = {buffer: _Part(items) for buffer, items in by_buffer.items()}
        self._demand = np.zeros((len(self._cycles), sram.banks))

    def lost_cycles(self, addresses: Sequence[int]) -> float:
        """Return what is lost with each buffer at its address."""
        self.place(addresses)
        return float(self._lost(self._demand, slice(None)))

    def clear(self) -> None:
        """Take all buffers away."""
        self._demand[:] = 0.0

    def place(self, addresses: Sequence[int]) -> None:
        """Put all buffers to their addresses."""
        self.clear()
        for buffer in self._parts:
            self.add(buffer, addresses[buffer])

    def add(self, buffer: int, address: int) -> None:
        """Put one more buffer to an address."""
        if part := self._parts.get(buffer):
            self._demand[part.rows] += part.demand(self._sram, address)

    def take(self, buffer: int, address: int) -> None:
        """Take a buffer away from its address."""
        if part := self._parts.get(buffer):
            self._demand[part.rows] -= part.demand(self._sram, address)

    def losses_with(self, buffer: int, candidates: Sequence[int]) -> Floats:
        """Return what is lost while a buffer that is away is in use, with it at each of some addresses."""
        if (part := self._parts.get(buffer)) is None:
            return np.zeros(len(candidates))
        others = self._demand[part.rows]
        return self._lost(others + part.demand(self._sram, np.array(candidates)), part.rows)

    def shares(self, addresses: Sequence[int], size_bytes: int) -> Floats:
        """Return which part of a buffer each bank holds at some addresses, [addresses, banks]."""
        low = np.array(addresses, dtype=np.float64)
        return bank_shares(self._sram, low, low + size_bytes)

    def loss_of(self, buffer: int) -> float:
        """Return what is lost while a buffer is in use, 0 for one that never is."""
        part = self._parts.get(buffer)
        return 0.0 if part is None else float(self._lost(self._demand[part.rows], part.rows))

    def _lost(self, demand: Floats, rows: slice | NDArray[np.intp]) -> Floats:
        """Return what is lost in some rows of time, for demands [..., rows, banks]."""
        over = np.maximum(demand / self._sram.bank_bytes_per_cycle - 1.0, 0.0).sum(axis=-1)
        lost: Floats = over @ self._cycles[rows]
        return lost


class _Part:
    """The streams of one buffer: ranges of bytes, and how fast each moves in each row of time."""

    def __init__(self, items: Sequence[tuple[int, int, Stream]]) -> None:
        ranges = sorted({(stream.low, stream.high) for _, _, stream in items})
        column = {pair: n for n, pair in enumerate(ranges)}
        busy = sorted({row for first, last, _ in items for row in range(first, last)})
        self.rows = np.array(busy, dtype=np.intp)
        place = {row: n for n, row in enumerate(busy)}
        self._rates = np.zeros((len(busy), len(ranges)))
        for first, last, stream in items:
            mine = slice(place[first], place[last - 1] + 1)
            self._rates[mine, column[stream.low, stream.high]] += stream.bytes_per_cycle
        self._low = np.array([low for low, _ in ranges], dtype=np.float64)
        self._high = np.array([high for _, high in ranges], dtype=np.float64)

    def demand(self, sram: Scratchpad, address: int | NDArray[np.int64]) -> Floats:
        """Return what is asked of each bank in the rows of time, [..., rows, banks], in bytes a cycle."""
        base = np.asarray(address)[..., None]
        shares = bank_shares(sram, self._low + base, self._high + base)
        result: Floats = self._rates @ shares
        return result
