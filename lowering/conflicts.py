"""Which micros must keep their order, whatever the engines: those that a permutation must not swap.

Two micros conflict when they touch a common byte of a buffer and one of them writes, or when both are parts
of collectives on the same axes. Accesses count with their hulls. Reads between the same two writes may
swap.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from tilewright.lowering.accesses import touches
from tilewright.lowering.isa import Opcode
from tilewright.lowering.micro import Buffer, Micro


class _Bytes:
    """Who wrote each byte of a buffer last and who has read it since, as segments of equal history."""

    def __init__(self) -> None:
        self._starts = [0]
        self._writers: list[tuple[int, ...]] = [()]
        self._readers: list[tuple[int, ...]] = [()]

    def _cut(self, address: int) -> int:
        """Return the segment that starts at an address; makes it if need be."""
        at = bisect_left(self._starts, address)
        if at == len(self._starts) or self._starts[at] != address:
            self._starts.insert(at, address)
            self._writers.insert(at, self._writers[at - 1])
            self._readers.insert(at, self._readers[at - 1])
        return at

    def read(self, low: int, high: int, position: int) -> set[int]:
        """Record a read of [low, high); return the writers that it sees."""
        first, after = self._cut(low), self._cut(high)
        found: set[int] = set()
        for at in range(first, after):
            found.update(self._writers[at])
            self._readers[at] = (*self._readers[at], position)
        return found

    def write(self, low: int, high: int, position: int) -> set[int]:
        """Record a write of [low, high); return the writers and readers before it."""
        first, after = self._cut(low), self._cut(high)
        found: set[int] = set()
        for at in range(first, after):
            # a reader comes after the writers that it has seen
            found.update(self._readers[at] or self._writers[at])
        self._starts[first:after] = [low]
        self._writers[first:after] = [(position,)]
        self._readers[first:after] = [()]
        return found


def find_conflicts(
    micros: Sequence[Micro], buffers: tuple[Buffer, ...], sizes: tuple[int, ...]
) -> tuple[tuple[int, ...], ...]:
    """Return, for each micro, earlier ones that must stay in front of it, ascending.

    The others that it conflicts with are in front of these in turn.

    Args:
        micros: In an order that is correct when executed one by one.
        buffers: Table of all buffers.
        sizes: Size of each logical axis.
    """
    memory: dict[int, _Bytes] = {}
    collective: dict[int, int] = {}
    host = -1
    found: list[tuple[int, ...]] = []
    for position, micro in enumerate(micros):
        before: set[int] = set()
        for touch in touches(micro, buffers, sizes):
            history = memory.setdefault(touch.buffer, _Bytes())
            if touch.high > touch.low:
                act = history.write if touch.is_write else history.read
                before |= act(touch.low, touch.high, position)
        if micro.role:
            before.add(collective.get(micro.axes, -1))
            collective[micro.axes] = position
        if micro.opcode is Opcode.HOST:
            before.add(host)
            host = position
        found.append(tuple(sorted(before - {-1, position})))
    return tuple(found)
