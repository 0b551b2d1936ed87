"""Which micros must be complete before a micro may start, once buffers have addresses.

Within a tile, accesses are ordered by byte ranges. DRAM is shared by the tiles of a group: where an
access conflicts with one of another tile, a barrier of the group is inserted before it. A barrier is two
micros on the control engine: a PS to all other tiles that follows the earlier accesses, and a WT for theirs.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.lowering.accesses import Touch, touches
from tilewright.lowering.dram_order import NONE, DramOrder, Item
from tilewright.lowering.isa import Engine, Opcode, Space
from tilewright.lowering.micro import Buffer, Micro

BARRIER_POST = "barrier_post"
BARRIER_WAIT = "barrier_wait"

_UNTOUCHED = (NONE,) * (1 + len(Engine))


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderedProgram:
    """Micros of one phase, with barriers, and what each waits for.

    `edges[i]` are the positions of micros on other engines that must be complete before micro i
    starts, at most one for each engine (those before it are complete by then), ascending.
    Micros of one engine run in the order of their positions.
    """

    micros: tuple[Micro, ...]
    edges: tuple[tuple[int, ...], ...]
    touches: tuple[tuple[Touch, ...], ...]
    """Accesses of each micro on its own tile; none for barriers."""


class ByteOrder:
    """Last writer, and last reader on each engine, of every byte of a memory.

    Memory is cut into segments with equal history; a write joins the segments that it covers.
    A segment's state is (writer, reader on ME, VE, DI, DO, CT) as positions or -1.
    """

    def __init__(self) -> None:
        self._starts = [0]
        self._states: list[tuple[int, ...]] = [_UNTOUCHED]

    def _cut(self, address: int) -> int:
        """Return the segment that starts at an address; makes it if need be."""
        at = bisect_left(self._starts, address)
        if at == len(self._starts) or self._starts[at] != address:
            self._starts.insert(at, address)
            self._states.insert(at, self._states[at - 1])
        return at

    def read(self, low: int, high: int, position: int, engine: Engine, found: set[int]) -> None:
        """Record a read of [low, high) and add the writers that it sees to `found`."""
        first, after = self._cut(low), self._cut(high)
        slot = engine + 1
        for at in range(first, after):
            state = self._states[at]
            found.add(state[0])
            self._states[at] = (*state[:slot], position, *state[slot + 1 :])

    def write(self, low: int, high: int, position: int, found: set[int]) -> None:
        """Record a write of [low, high) and add earlier writers and readers to `found`."""
        first, after = self._cut(low), self._cut(high)
        for state in self._states[first:after]:
            found.update(state)
        self._starts[first:after] = [low]
        self._states[first:after] = [(position, *_UNTOUCHED[1:])]


def find_dependencies(
    micros: Sequence[Micro],
    buffers: tuple[Buffer, ...],
    addresses: Sequence[int],
    mesh: LogicalMesh,
) -> OrderedProgram:
    """Return the micros with barriers between them and the order that they need.

    Args:
        micros: One phase, in an order that is correct when executed one by one.
        buffers: Table of all buffers.
        addresses: Address of each buffer in its space.
        mesh: The logical mesh of the group; a group of one tile needs no barriers.
    """
    return _Builder(buffers, addresses, mesh).run(micros)


class _Builder:
    """State of one pass over the micros."""

    def __init__(
        self, buffers: tuple[Buffer, ...], addresses: Sequence[int], mesh: LogicalMesh
    ) -> None:
        self._buffers, self._addresses, self._mesh = buffers, addresses, mesh
        self._scratchpad, self._private_dram = ByteOrder(), ByteOrder()
        self._shared_dram = DramOrder(buffers, addresses, mesh.sizes)
        self._last_store = NONE
        self._ready: dict[int, int] = {}
        self._micros: list[Micro] = []
        self._barriers = 0
        self._edges: list[tuple[int, ...]] = []
        self._touches: list[tuple[Touch, ...]] = []

    def run(self, micros: Sequence[Micro]) -> OrderedProgram:
        for micro in micros:
            self._add(micro)
        return OrderedProgram(
            micros=tuple(self._micros), edges=tuple(self._edges), touches=tuple(self._touches)
        )

    def _add(self, micro: Micro) -> None:
        accesses = touches(micro, self._buffers, self._mesh.sizes)
        found: set[int] = set()
        is_shared = self._mesh.tiles > 1
        dram = [t for t in accesses if self._buffers[t.buffer].space is Space.DRAM]
        if is_shared and dram:
            # position is not known before the barriers are; only the record needs it
            items = [Item(NONE, micro.engine, touch) for touch in dram]
            conflicts = [c for item in items for c in self._shared_dram.find_conflicts(item, found)]
            if conflicts:
                found.add(self._add_barrier(micro, conflicts))
            for touch in dram:
                self._shared_dram.record(Item(len(self._micros), micro.engine, touch))
        position = len(self._micros)
        for touch in accesses:
            space = self._buffers[touch.buffer].space
            if space is Space.DRAM and is_shared:
                continue
            order = self._scratchpad if space is Space.L1 else self._private_dram
            base = self._addresses[touch.buffer]
            low, high = base + touch.low, base + touch.high
            if touch.is_write:
                order.write(low, high, position, found)
            else:
                order.read(low, high, position, micro.engine, found)
        if micro.opcode is Opcode.ST:
            self._last_store = position
        elif micro.role == "ready":
            self._ready[micro.axes] = position
        elif micro.role == "first_send":
            # so that a first send implies that all tiles are ready, this one too; see `synchronise`
            found.add(self._ready.get(micro.axes, NONE))
        self._append(micro, found, accesses)

    def _append(self, micro: Micro, found: set[int], accesses: tuple[Touch, ...] = ()) -> None:
        """Add a micro that depends on the latest micro found of each other engine."""
        found.discard(len(self._micros))
        latest: dict[Engine, int] = {}
        for position in sorted(found):
            if position != NONE:
                latest[self._micros[position].engine] = position
        latest.pop(micro.engine, None)
        self._micros.append(micro)
        self._touches.append(accesses)
        self._edges.append(tuple(sorted(latest.values())))

    def _add_barrier(self, before: Micro, conflicts: list[tuple[Engine, int]]) -> int:
        """Add a barrier that orders the conflicts, and all stores so far; return its position."""
        covered = dict.fromkeys(Engine, NONE)
        covered[Engine.DO] = self._last_store
        covered[Engine.CT] = len(self._micros) - 1
        for engine, position in conflicts:
            covered[engine] = max(covered[engine], position)
        axes = (1 << self._mesh.rank) - 1
        # A fast tile may post barrier k + 1 while a slow one still counts posts of barrier k, so
        # neighbouring barriers take turns with two semaphores; k + 2 cannot come before k is over.
        turn = self._barriers % 2
        self._barriers += 1
        post = Micro(
            opcode=Opcode.PS,
            engine=Engine.CT,
            axes=axes,
            shift=turn,
            role=BARRIER_POST,
            tag=before.tag,
        )
        wait = Micro(
            opcode=Opcode.WT,
            engine=Engine.CT,
            axes=axes,
            shift=turn,
            role=BARRIER_WAIT,
            arrivals=self._mesh.tiles - 1,
            tag=before.tag,
        )
        self._append(post, {covered[engine] for engine in Engine if engine is not Engine.CT})
        self._append(wait, set())
        position = len(self._micros) - 1
        self._shared_dram.add_barrier(position, covered)
        return position
