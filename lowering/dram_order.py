"""The order of accesses to DRAM, which all tiles of a group share.

Two accesses at different positions of the program conflict when they share a byte and one of them
writes. If only accesses of the same tile can meet (each tile rereads its own piece), the order
within the tile is enough; otherwise a barrier of the whole group must lie between them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tilewright.lowering.accesses import Touch, find_meeting, span_bytes
from tilewright.lowering.isa import Engine, Space
from tilewright.lowering.micro import Buffer

NONE = -1
"""Position of no micro."""

_EXACT_LIMIT = 512
"""Accesses to one buffer compared one by one; when there are more, all count as conflicting."""


class Item(NamedTuple):
    """An access at a position of the program."""

    position: int
    engine: Engine
    touch: Touch


class _Group:
    """Accesses by one engine that differ only in their first byte, in order of their positions."""

    def __init__(self, item: Item) -> None:
        self.engine = item.engine
        self.like = item.touch
        self._table = np.zeros((2, 16), np.int64)
        self._first = self._after = 0

    def __len__(self) -> int:
        return self._after - self._first

    @property
    def lows(self) -> NDArray[np.int64]:
        """First byte of each access, relative to the buffer."""
        return self._table[0, self._first : self._after]

    @property
    def positions(self) -> NDArray[np.int64]:
        """Position of each access, ascending."""
        return self._table[1, self._first : self._after]

    def append(self, low: int, position: int) -> None:
        """Add an access."""
        if self._after == self._table.shape[1]:
            self._table = np.concatenate((self._table, np.zeros_like(self._table)), axis=1)
        self._table[:, self._after] = low, position
        self._after += 1

    def forget(self, position: int) -> bool:
        """Remove accesses up to a position; return whether there were any."""
        gone = int(self.positions.searchsorted(position, side="right"))
        self._first += gone
        return gone > 0


_Groups = dict[tuple[object, ...], _Group]


@dataclass(slots=True)
class _History:
    """Accesses to one buffer that no barrier covers yet, and the barriers of the others."""

    writes: _Groups = field(default_factory=dict)
    reads: _Groups = field(default_factory=dict)
    write_barrier: int = NONE
    """Position of the last barrier that covers a write (all covered writes precede it)."""
    read_barrier: int = NONE
    settled: int = 0
    """Barriers that are accounted for."""


class DramOrder:
    """Accesses to DRAM so far and the barriers between them."""

    def __init__(
        self, buffers: Sequence[Buffer], addresses: Sequence[int], sizes: tuple[int, ...]
    ) -> None:
        self._addresses = addresses
        self._sizes = sizes
        self._aliases = overlapping_buffers(buffers, addresses)
        self._histories: dict[int, _History] = {}
        # what each barrier covers: the queue of an engine up to a position
        self._barriers: list[tuple[int, Mapping[Engine, int]]] = []

    def find_conflicts(self, item: Item, found: set[int]) -> list[tuple[Engine, int]]:
        """Return engines and last positions of accesses that only a new barrier orders before this one.

        Positions of earlier barriers and of accesses that this tile orders by itself are added to
        `found`.
        """
        touch = item.touch
        remote: list[tuple[Engine, int]] = []
        for alias in self._aliases[touch.buffer]:
            history = self._histories.get(alias)
            if history is None:
                continue
            self._settle(history)
            found.add(history.write_barrier)
            earlier = list(history.writes.values())
            if touch.is_write:
                found.add(history.read_barrier)
                earlier += history.reads.values()
            distance = self._addresses[alias] - self._addresses[touch.buffer]
            is_exact = sum(map(len, earlier)) <= _EXACT_LIMIT
            for group in earlier:
                if group.engine is item.engine is Engine.CT:
                    continue  # host regions: the group runs them one after the other
                places = _meeting(touch, group, distance) if is_exact else slice(None)
                lows, positions = group.lows[places], group.positions[places]
                if alias == touch.buffer and self._is_own(touch, group.like):
                    own = lows == touch.low
                    found.update(positions[own][-1:].tolist())
                    positions = positions[~own]
                if len(positions):
                    remote.append((group.engine, int(positions[-1])))
        return remote

    def record(self, item: Item) -> None:
        """Remember an access."""
        touch = item.touch
        history = self._histories.setdefault(touch.buffer, _History())
        groups = history.writes if touch.is_write else history.reads
        key = (item.engine, *_layout(touch))
        if key not in groups:
            groups[key] = _Group(item)
        groups[key].append(touch.low, item.position)

    def add_barrier(self, position: int, covered: Mapping[Engine, int]) -> None:
        """Remember a barrier and the last position of each engine's queue that it covers."""
        if self._barriers:
            last = self._barriers[-1][1]
            covered = {engine: max(covered[engine], last[engine]) for engine in Engine}
        self._barriers.append((position, covered))

    def _settle(self, history: _History) -> None:
        """Fold accesses covered by the last barrier into the history's barriers."""
        if history.settled == len(self._barriers):
            return
        history.settled = len(self._barriers)
        position, covered = self._barriers[-1]
        if _forget(history.writes, covered):
            history.write_barrier = position
        if _forget(history.reads, covered):
            history.read_barrier = position

    def _is_own(self, a: Touch, b: Touch) -> bool:
        """Whether accesses with the same first byte touch the same bytes on each tile, its own."""
        if _layout(a) != _layout(b):
            return False
        for axis, size in enumerate(self._sizes):
            if size > 1 and not a.leader_axes >> axis & 1 and a.coefficients[axis] == 0:
                return False
        return all(
            distance >= span_bytes(a.terms[number + 1 :], a.item_bytes)
            for number, (distance, _) in enumerate(a.terms)
        )


def _layout(touch: Touch) -> tuple[object, ...]:
    """Return what two accesses have in common that differ only in their first byte."""
    return (touch.high - touch.low, *touch[4:])


def _meeting(touch: Touch, group: _Group, distance: int) -> NDArray[np.intp]:
    """Return which accesses of a group to a buffer at some distance may share a byte with another."""
    lows = group.lows
    return find_meeting(touch, group.like, lows + distance if distance else lows)


def _forget(groups: _Groups, covered: Mapping[Engine, int]) -> bool:
    """Remove the accesses that a barrier covers; return whether there were any."""
    gone = [group.forget(covered[group.engine]) for group in groups.values()]
    for key in [key for key, group in groups.items() if not len(group)]:
        del groups[key]
    return any(gone)


def overlapping_buffers(
    buffers: Sequence[Buffer], addresses: Sequence[int]
) -> dict[int, tuple[int, ...]]:
    """Return, for each DRAM buffer, the DRAM buffers that share a byte with it (itself too)."""
    dram = [b for b in buffers if b.space is Space.DRAM]
    dram.sort(key=lambda b: (addresses[b.number], b.number))
    aliases: dict[int, list[int]] = {b.number: [b.number] for b in dram}
    active: list[Buffer] = []
    for buffer in dram:
        low = addresses[buffer.number]
        active = [b for b in active if addresses[b.number] + b.size_bytes > low]
        if buffer.size_bytes:
            for other in active:
                aliases[other.number].append(buffer.number)
                aliases[buffer.number].append(other.number)
            active.append(buffer)
    return {number: tuple(sorted(others)) for number, others in aliases.items()}
