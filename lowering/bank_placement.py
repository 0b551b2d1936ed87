"""Buffers that are in use at the same time go to different banks, where that takes no more room.

Starts are the packing at hand and packings that are built with the banks in mind. From each start one buffer
at a time moves to where the banks lose the fewest cycles (`bank_conflicts`), all others in place, until no
move helps. So the capacity is kept, and what is returned loses no more than the packing at hand.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from tilewright.hwmodel.target import Scratchpad
from tilewright.lowering.bank_conflicts import BankLoad, Floats, Stream
from tilewright.lowering.live_buffer import LiveBuffer

_SWEEPS = 8
"""Times that every buffer is looked at."""
_LEAST_GAIN_CYCLES = 0.5
_ROUNDS = 6
"""Packings that are begun from each order."""
_PLACEMENTS = 20_000
"""Buffers that are placed in all of them."""


class _Tie(Enum):
    """Which of the places at which banks lose the same a buffer takes."""

    LOWEST = "lowest"
    EMPTIEST = "emptiest"


def spread_over_banks(
    buffers: Sequence[LiveBuffer],
    offsets: Sequence[int],
    streams: Sequence[Stream],
    sram: Scratchpad,
    *,
    capacity_bytes: int,
) -> tuple[int, ...]:
    """Return addresses at which banks lose fewer cycles, or the same ones.

    Args:
        buffers: What was placed; without gaps and fixed addresses. What rests lives longer.
        offsets: A packing of them.
        streams: What moves when; they count buffers as `buffers` does.
        sram: The scratchpad.
        capacity_bytes: How much of it may be used.
    """
    search = _Search(buffers, streams, sram, capacity_bytes)
    best, least = tuple(offsets), search.load.lost_cycles(offsets)
    for start in (list(offsets), *search.packings()):
        found = search.descend(start)
        lost = search.load.lost_cycles(found)
        if lost <= least - _LEAST_GAIN_CYCLES:
            best, least = tuple(found), lost
    return best


class _Search:
    """Places buffers of one problem again and again."""

    def __init__(
        self,
        buffers: Sequence[LiveBuffer],
        streams: Sequence[Stream],
        sram: Scratchpad,
        capacity_bytes: int,
    ) -> None:
        self.load = BankLoad(streams, sram)
        self._room = _Room(buffers, sram, capacity_bytes)
        self._sram = sram
        self._sizes = np.array([b.size_bytes for b in buffers], dtype=np.int64)
        self._lengths = np.array([b.end - b.start for b in buffers], dtype=np.int64)
        self._traffic = np.zeros(len(buffers))
        for stream in streams:
            moved = stream.bytes_per_cycle * (stream.end - stream.start)
            self._traffic[stream.buffer] += moved

    def descend(self, addresses: list[int]) -> list[int]:
        """Move buffers, those first while which most is lost, until nothing helps; return where they are."""
        load, everything = self.load, np.ones(len(addresses), dtype=np.bool_)
        load.place(addresses)
        for _ in range(_SWEEPS):
            losses = [(load.loss_of(n), n) for n in range(len(addresses))]
            is_better = False
            for lost, n in sorted(losses, key=lambda item: (-item[0], item[1])):
                if lost < _LEAST_GAIN_CYCLES:
                    break
                candidates = [addresses[n], *self._room.candidates(n, addresses, everything)]
                load.take(n, addresses[n])
                found = load.losses_with(n, candidates)
                best = int(found.argmin())
                if found[best] <= found[0] - _LEAST_GAIN_CYCLES:
                    addresses[n] = candidates[best]
                    is_better = True
                load.add(n, addresses[n])
            if not is_better:
                break
        return addresses

    def packings(self) -> Iterator[list[int]]:
        """Yield packings that fit: what could not be placed comes earlier in the next one."""
        position = np.arange(len(self._sizes))
        by_traffic = np.lexsort((position, -self._traffic))
        by_length = np.lexsort((position, -self._sizes, -self._lengths))
        left = _PLACEMENTS
        for order in (by_length, by_traffic):
            for tie in _Tie:
                rank = np.empty(len(order))
                rank[order] = position
                for _ in range(_ROUNDS):
                    left -= len(order)
                    if left < 0:
                        return
                    found, lacking = self._pack(np.argsort(rank, kind="stable"), tie)
                    if lacking is None:
                        yield found
                        break
                    rank[lacking] -= max(1.0, len(order) / 4)

    def _pack(self, order: NDArray[np.intp], tie: _Tie) -> tuple[list[int], int | None]:
        """Place buffers one by one where banks lose the least; also return one that finds no place."""
        load, addresses = self.load, [0] * len(order)
        placed = np.zeros(len(order), dtype=np.bool_)
        filled = np.zeros(self._sram.banks)
        load.clear()
        for n in order.tolist():
            candidates = self._room.candidates(n, addresses, placed)
            if not candidates:
                return addresses, n
            size = int(self._sizes[n])
            losses = np.round(load.losses_with(n, candidates), 3)
            crowding: Floats = np.zeros(len(candidates))
            if tie is _Tie.EMPTIEST:
                crowding = load.shares(candidates, size) @ filled
            best = int(np.lexsort((np.array(candidates), crowding, losses))[0])
            addresses[n], placed[n] = candidates[best], True
            load.add(n, candidates[best])
            filled += load.shares([candidates[best]], size)[0] * size * float(self._lengths[n])
        return addresses, None


class _Room:
    """Where a buffer may go while others stay."""

    def __init__(
        self, buffers: Sequence[LiveBuffer], sram: Scratchpad, capacity_bytes: int
    ) -> None:
        self._sizes = np.array([b.size_bytes for b in buffers], dtype=np.int64)
        self._starts = np.array([b.start for b in buffers], dtype=np.int64)
        self._ends = np.array([b.end for b in buffers], dtype=np.int64)
        self._sram, self._capacity = sram, capacity_bytes

    def candidates(
        self, chosen: int, addresses: Sequence[int], placed: NDArray[np.bool_]
    ) -> list[int]:
        """Return addresses to try, ascending: both ends of each free range, and those at a bank's edge.

        That is in front of it, behind it, and half on either side.
        """
        align, size = self._sram.alignment_bytes, int(self._sizes[chosen])
        edges = [bank * self._sram.bank_bytes for bank in range(1, self._sram.banks)]
        found: set[int] = set()
        for low, high in self._free(chosen, np.array(addresses, dtype=np.int64), placed):
            first, last = -(-low // align) * align, high // align * align
            if first > last:
                continue
            found |= {first, last}
            for edge in edges:
                near = (edge - part // align * align for part in (0, size // 2, size + align - 1))
                found |= {at for at in near if first <= at <= last}
        return sorted(found)

    def _free(
        self, chosen: int, addresses: NDArray[np.int64], placed: NDArray[np.bool_]
    ) -> Iterator[tuple[int, int]]:
        """Yield the ranges of addresses, both ends included, at which a buffer meets no other one."""
        near = (self._starts < self._ends[chosen]) & (self._ends > self._starts[chosen]) & placed
        near[chosen] = False
        size, here = int(self._sizes[chosen]), 0
        lows = addresses[near]
        order = np.argsort(lows, kind="stable")
        highs = (lows + self._sizes[near])[order].tolist()
        for low, high in zip(lows[order].tolist(), highs, strict=True):
            if low - size >= here:
                yield here, low - size
            here = max(here, high)
        if here + size <= self._capacity:
            yield here, self._capacity - size
