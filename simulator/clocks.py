"""Happens-before between the engines of all tiles of a group, as vector clocks.

Programs are SPMD and synchronise symmetrically, so happens-before is the same seen from every tile: it
suffices to follow one tile and to say of other tiles where they are relative to it. A clock says of each
tile at distance d (coordinates modulo the axis sizes) and each of its engines how many instructions
are known to be complete.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tilewright.errors import ProgramError
from tilewright.lowering.isa import Engine, Instruction, Opcode
from tilewright.simulator.scheduling import Phase, arrivals, submesh_tiles

Counts = NDArray[np.int32]
Own = tuple[int, ...]

ENGINES = len(Engine)
NOTHING: Own = (0,) * ENGINES


@dataclass(frozen=True, slots=True)
class Clock:
    """Completed instructions of the five own engines, and of those of the other tiles.

    `peers` is [*mesh, engines] over distances; entry 0 (the tile itself) is unused and 0. None
    means that nothing is known of any other tile.
    """

    own: Own
    peers: Counts | None

    def completed(self, engine: int, count: int) -> Clock:
        """Return the clock when an own engine has completed `count` instructions."""
        return Clock((*self.own[:engine], count, *self.own[engine + 1 :]), self.peers)


START = Clock(NOTHING, None)


def _join_peers(a: Counts | None, b: Counts | None) -> Counts | None:
    if a is b or b is None:
        return a
    if a is None:
        return b
    joined = np.maximum(a, b)
    # keeping one object for equal contents makes later joins free
    if np.array_equal(joined, a):
        return a
    return b if np.array_equal(joined, b) else joined


def join(a: Clock, b: Clock) -> Clock:
    """Return what is known by whoever knows both."""
    peers = _join_peers(a.peers, b.peers)
    if a.own == b.own:
        return a if peers is a.peers else Clock(a.own, peers)
    return Clock(tuple(map(max, a.own, b.own)), peers)


def full(clock: Clock, sizes: tuple[int, ...]) -> Counts:
    """Return the clock as one array [*mesh, engines] with the tile itself at distance 0."""
    table = np.zeros((*sizes, ENGINES), np.int32) if clock.peers is None else clock.peers.copy()
    table[(0,) * len(sizes)] = clock.own
    return table


def _from_full(table: Counts) -> Clock:
    origin = (0,) * (table.ndim - 1)
    own = tuple(table[origin].tolist())
    table[origin] = 0
    return Clock(own, table)


def from_one(clock: Clock, sizes: tuple[int, ...], axis: int, distance: int) -> Clock:
    """Return what the clock of the tile at a distance along one axis says, seen from here."""
    return _from_full(np.roll(full(clock, sizes), distance, axis=axis))


def from_all(clock: Clock, sizes: tuple[int, ...], axes: int) -> Clock:
    """Return what the equal clocks of all other tiles of a sub-mesh say together, seen from here."""
    table = full(clock, sizes)
    inside = [a for a in range(len(sizes)) if axes >> a & 1]
    outside = [a for a in range(len(sizes)) if not axes >> a & 1]
    moved = table.transpose(*outside, *inside, len(sizes))
    tiles = int(np.prod([sizes[a] for a in inside]))
    flat = moved.reshape(-1, tiles, ENGINES)
    # the largest entry but for the place's own: the largest, or the second where that is the largest
    first = flat.max(axis=1, keepdims=True)
    place = flat.argmax(axis=1)
    rest = flat.copy()
    np.put_along_axis(rest, place[:, None, :], -1, axis=1)
    second = rest.max(axis=1, keepdims=True)
    at_first = np.arange(tiles)[None, :, None] == place[:, None, :]
    others = np.where(at_first, second, first).reshape(moved.shape)
    back = np.argsort([*outside, *inside, len(sizes)])
    return _from_full(np.ascontiguousarray(others.transpose(*back)))


Producer = tuple[object, ...]


@dataclass(slots=True)
class _Batch:
    """Tokens that one instruction (of one or all peers) added to a semaphore."""

    left: int
    several: bool
    """Whether several tiles contribute, so that only all tokens together say something of each."""
    partly: bool
    clock: Clock
    label: str


@dataclass(slots=True)
class _Semaphore:
    queue: deque[_Batch]
    ambiguous: bool
    """Whether tokens of different engines or tiles could arrive in another order."""
    waiter: int | None = None
    wait_number: int = 0
    wait_label: str = ""


def _producers(phase: Phase) -> dict[int, set[Producer]]:
    """Return who posts each semaphore; an entry ("all", …) stands for several tiles."""
    found: dict[int, set[Producer]] = {}
    for engine, stream in phase.streams.items():
        for i in stream:
            for post in i.posts:
                producer: Producer = ("own", engine)
                if post.remote and i.opcode == Opcode.SND:
                    producer = ("one", i.axes, i.shift % submesh_tiles(phase.mesh, i.axes), engine)
                elif post.remote:
                    tiles = submesh_tiles(phase.mesh, i.axes)
                    producer = ("all" if tiles > 2 else "one", i.axes, engine)
                found.setdefault(post.semaphore, set()).add(producer)
    return found


class ClockTracker:
    """Follows the clocks of the five engines of one tile through an execution order."""

    def __init__(self, phase: Phase) -> None:
        self._phase = phase
        self._sizes = phase.mesh.sizes
        self.running = [START] * ENGINES
        self._semaphores = {
            number: _Semaphore(deque(), len(who) > 1 or any(p[0] == "all" for p in who))
            for number, who in _producers(phase).items()
        }

    def begin(self, engine: Engine, index: int, instruction: Instruction) -> Clock:
        """Account for the waits of an instruction; return its clock."""
        clock = self.running[engine]
        for wait in instruction.waits:
            if wait.count:
                clock = self._consume(clock, engine, index, wait.semaphore, wait.count)
        self.running[engine] = clock
        return clock

    def end(self, engine: Engine, index: int, instruction: Instruction) -> None:
        """Account for the completion and the posts of an instruction."""
        clock = self.running[engine].completed(engine, index + 1)
        if instruction.opcode is Opcode.HOST:  # one event for all tiles
            clock = join(clock, from_all(clock, self._sizes, (1 << len(self._sizes)) - 1))
        self.running[engine] = clock
        for post in instruction.posts:
            amount = arrivals(instruction, post, self._phase.mesh)
            if not amount:
                continue
            several, seen = False, clock
            if post.remote:
                seen = self._remote(clock, instruction)
                several = (
                    instruction.opcode != Opcode.SND
                    and submesh_tiles(self._phase.mesh, instruction.axes) > 2
                )
            semaphore = self._semaphores[post.semaphore]
            label = self._phase.describe(engine, index)
            if semaphore.ambiguous and semaphore.waiter is not None:
                self._check_late(
                    semaphore, post.semaphore, clock, instruction, remote=post.remote, label=label
                )
            semaphore.queue.append(_Batch(amount, several, False, seen, label))

    def _remote(self, clock: Clock, instruction: Instruction) -> Clock:
        if instruction.opcode == Opcode.SND:
            axis = instruction.axes.bit_length() - 1
            return from_one(clock, self._sizes, axis, -instruction.shift % self._sizes[axis])
        return from_all(clock, self._sizes, instruction.axes)

    def _consume(self, clock: Clock, engine: Engine, index: int, number: int, count: int) -> Clock:
        semaphore = self._semaphores[number]
        label = self._phase.describe(engine, index)
        if semaphore.waiter not in (None, int(engine)):
            raise ProgramError(
                f"race: {semaphore.wait_label} and {label} both wait for semaphore {number}; "
                "which of them gets a post is a matter of timing"
            )
        semaphore.waiter, semaphore.wait_number, semaphore.wait_label = (
            int(engine),
            index + 1,
            label,
        )
        batches = 0
        while count:
            batch = semaphore.queue[0]
            taken = min(count, batch.left)
            batch.left -= taken
            count -= taken
            batches += 1
            if batch.left == 0:
                semaphore.queue.popleft()
                clock = join(clock, batch.clock)
            elif not batch.several:
                clock = join(clock, batch.clock)
            else:
                batch.partly = True
        first = semaphore.queue[0] if semaphore.queue else None
        harmless = first is not None and first.partly and batches == 1 and len(semaphore.queue) == 1
        if first is not None and semaphore.ambiguous and not harmless:
            raise ProgramError(
                f"race: {label} may be released by {semaphore.queue[-1].label} instead of an earlier post of "
                f"semaphore {number}; use one semaphore for each poster"
            )
        return clock

    def _check_late(
        self,
        semaphore: _Semaphore,
        number: int,
        clock: Clock,
        instruction: Instruction,
        *,
        remote: bool,
        label: str,
    ) -> None:
        """Raise unless a post can only happen after the last wait that did not need it."""
        assert semaphore.waiter is not None
        known: Iterable[int] = (clock.own[semaphore.waiter],)
        if remote:
            table = full(clock, self._sizes)[..., semaphore.waiter]
            index: list[slice | int] = [
                slice(None) if instruction.axes >> a & 1 else 0 for a in range(len(self._sizes))
            ]
            if instruction.opcode == Opcode.SND:
                axis = instruction.axes.bit_length() - 1
                index[axis] = instruction.shift % self._sizes[axis]
                known = (int(table[tuple(index)]),)
            else:
                known = table[tuple(index)].reshape(-1)[1:].tolist()
        if min(known) < semaphore.wait_number:
            raise ProgramError(
                f"race: {label} may post semaphore {number} before {semaphore.wait_label} has waited "
                "for earlier posts of others; use one semaphore for each poster"
            )
