"""The order of accesses to DRAM, which all tiles of a group share.

Two accesses at different positions of the program conflict when they share a byte and one of them
writes. If only accesses of the same tile can meet (each tile rereads its own piece), the order
within the tile is enough; otherwise a barrier of the whole group must lie between them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tilewright.lowering.accesses import Touch, are_disjoint, span_bytes
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


@dataclass(slots=True)
class _History:
    """Accesses to one buffer that no barrier covers yet, and the barriers of the others."""

    writes: list[Item] = field(default_factory=list)
    reads: list[Item] = field(default_factory=list)
    write_barrier: int = NONE
    """Position of the last barrier that covers a write (all covered writes precede it)."""
    read_barrier: int = NONE


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

    def find_conflicts(self, item: Item, found: set[int]) -> list[Item]:
        """Return earlier accesses that only a new barrier orders before this one.

        Positions of earlier barriers and of accesses that this tile orders by itself are added to
        `found`.
        """
        touch = item.touch
        remote: list[Item] = []
        for alias in self._aliases[touch.buffer]:
            history = self._histories.get(alias)
            if history is None:
                continue
            self._settle(history)
            found.add(history.write_barrier)
            earlier = history.writes
            if touch.is_write:
                found.add(history.read_barrier)
                earlier = earlier + history.reads
            distance = self._addresses[alias] - self._addresses[touch.buffer]
            is_exact = len(earlier) <= _EXACT_LIMIT
            for other in earlier:
                if is_exact and are_disjoint(touch, other.touch, distance):
                    continue
                if other.engine is item.engine is Engine.CT:
                    continue  # host regions: the group runs them one after the other
                if alias == touch.buffer and self._is_own(touch, other.touch):
                    found.add(other.position)
                else:
                    remote.append(other)
        return remote

    def record(self, item: Item) -> None:
        """Remember an access."""
        history = self._histories.setdefault(item.touch.buffer, _History())
        (history.writes if item.touch.is_write else history.reads).append(item)

    def add_barrier(self, position: int, covered: Mapping[Engine, int]) -> None:
        """Remember a barrier and the last position of each engine's queue that it covers."""
        if self._barriers:
            last = self._barriers[-1][1]
            covered = {engine: max(covered[engine], last[engine]) for engine in Engine}
        self._barriers.append((position, covered))

    def _settle(self, history: _History) -> None:
        """Fold accesses covered by the last barrier into the history's barriers."""
        if not self._barriers:
            return
        position, covered = self._barriers[-1]
        writes = [item for item in history.writes if item.position > covered[item.engine]]
        reads = [item for item in history.reads if item.position > covered[item.engine]]
        if len(writes) < len(history.writes):
            history.write_barrier = position
        if len(reads) < len(history.reads):
            history.read_barrier = position
        history.writes, history.reads = writes, reads

    def _is_own(self, a: Touch, b: Touch) -> bool:
        """Whether both access the same bytes on each tile, and tiles access different bytes."""
        if a[1:3] != b[1:3] or a[4:] != b[4:]:
            return False
        for axis, size in enumerate(self._sizes):
            if size > 1 and not a.leader_axes >> axis & 1 and a.coefficients[axis] == 0:
                return False
        return all(
            distance >= span_bytes(a.terms[number + 1 :], a.item_bytes)
            for number, (distance, _) in enumerate(a.terms)
        )


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
