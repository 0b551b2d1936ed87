"""A naive interpreter of engine streams and of the linear programs that they come from.

It executes streams byte by byte on a few tiles with independent progress, an engine at a time chosen at
random or by an adversary. Every byte holds who wrote it (tile, micro), and an operation in flight poisons
what it writes; each read must see the writers that executing the linear program one micro at a time, on
all tiles at once, shows.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import product

from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.hwmodel.target import Target
from tilewright.lowering.allocation_check import check_allocation
from tilewright.lowering.backend import (
    DRAM_ALIGNMENT_BYTES,
    BackEnd,
    assemble_backend,
    live_buffers,
)
from tilewright.lowering.durations import MicroTime
from tilewright.lowering.isa import Engine, Instruction, Opcode, Space
from tilewright.lowering.micro import LinearProgram, Micro, Operand

POISON = (-1, -1)
UNSET = (-1, 0)
Version = tuple[int, int]
Key = tuple[int, int]
"""(tile or -1 for DRAM, address)."""
Reads = dict[tuple[int, int, int], tuple[Version, ...]]
"""What operation (round, tag, tile) read."""


def some_time(micro: Micro) -> MicroTime:
    """Return some duration that depends on the micro."""
    size = 1
    for n in micro.domain:
        size *= n
    return MicroTime(4.0 + size * (3 if micro.engine is Engine.DI else 1))


@dataclass(frozen=True)
class Effect:
    """Byte addresses that one operation touches on behalf of one tile."""

    reads: tuple[Key, ...]
    writes: tuple[Key, ...]


Locate = Callable[[object], tuple[Space, int, int, tuple[int, ...], tuple[int, ...]]]


def footprint(
    place: tuple[Space, int, int, tuple[int, ...], tuple[int, ...]],
    domain: tuple[int, ...],
    tile: int,
    coords: tuple[int, ...],
) -> list[Key]:
    space, base, item, coefficients, strides = place
    base += sum(c * k for c, k in zip(coefficients, coords, strict=True))
    owner = -1 if space is Space.DRAM else tile
    found = []
    for index in product(*map(range, domain)):
        start = base + sum(i * s for i, s in zip(index, strides, strict=True))
        found += [(owner, start + byte) for byte in range(item)]
    return found


def effect(
    op: Micro | Instruction, locate: Locate, mesh: LogicalMesh, coords: tuple[int, ...]
) -> Effect:
    """Return what an operation of one tile reads and writes (on any tile)."""
    tile = tile_of(coords, mesh)
    if op.opcode in (Opcode.WT, Opcode.PS, Opcode.HALT):
        return Effect((), ())
    assert op.dst is not None
    receivers = peers(op, mesh, coords)
    writes: list[Key] = []
    source_coords = coords
    if op.opcode is Opcode.SND:
        source_coords = receivers[0]
    elif op.opcode is Opcode.ST and any(k for a, k in enumerate(coords) if op.axes >> a & 1):
        return Effect((), ())
    elif op.opcode is not Opcode.MCS:
        receivers = [coords]
    for receiver in receivers:
        writes += footprint(locate(op.dst), op.domain, tile_of(receiver, mesh), coords)
    reads: list[Key] = []
    for number, source in enumerate(op.sources):
        if op.opcode is Opcode.GTH and number == 0:
            # any row may be read
            reads += footprint(locate(source), (op.count, *op.domain[1:]), tile, source_coords)
        else:
            reads += footprint(locate(source), op.domain, tile, source_coords)
    if op.accumulate:
        reads += writes
    return Effect(tuple(reads), tuple(writes))


def tile_of(coords: tuple[int, ...], mesh: LogicalMesh) -> int:
    number = 0
    for k, size in zip(coords, mesh.sizes, strict=True):
        number = number * size + k
    return number


def all_coords(mesh: LogicalMesh) -> list[tuple[int, ...]]:
    return list(product(*map(range, mesh.sizes)))


def peers(
    op: Micro | Instruction, mesh: LogicalMesh, coords: tuple[int, ...]
) -> list[tuple[int, ...]]:
    """Return the tiles that receive: one for SND, all of the sub-mesh otherwise."""
    if op.opcode is Opcode.SND:
        axis = op.axes.bit_length() - 1
        moved = list(coords)
        moved[axis] = (moved[axis] + op.shift) % mesh.sizes[axis]
        return [tuple(moved)]
    ranges = [
        range(size) if op.axes >> a & 1 else (coords[a],) for a, size in enumerate(mesh.sizes)
    ]
    return list(product(*ranges))


def run_linear(linear: LinearProgram, mesh: LogicalMesh, rounds: int) -> Reads:
    """Execute micros one by one on all tiles at once; return what each read."""

    def locate(operand: object) -> tuple[Space, int, int, tuple[int, ...], tuple[int, ...]]:
        assert isinstance(operand, Operand)
        buffer = linear.buffers[operand.buffer]
        # buffers far apart
        base = operand.offset_bytes + (operand.buffer << 32)
        coefficients = operand.coefficients or (0,) * mesh.rank
        return buffer.space, base, operand.dtype.itemsize_bytes, coefficients, operand.strides

    memory: dict[Key, Version] = {}
    reads: Reads = {}
    phases = [linear.load] + [linear.run] * rounds
    for number, micros in enumerate(phases):
        for micro in micros:
            if micro.opcode is Opcode.HOST:
                pieces = [host_effect(linear, micro, lambda n: n << 32)]
            else:
                pieces = [effect(micro, locate, mesh, coords) for coords in all_coords(mesh)]
            for tile, piece in enumerate(pieces):
                seen = tuple(memory.get(key, UNSET) for key in piece.reads)
                reads[number, micro.tag, tile] = seen
            for tile, piece in enumerate(pieces):
                for key in piece.writes:
                    memory[key] = (tile, micro.tag)
    return reads


def host_effect(linear: LinearProgram, micro: Micro, base: Callable[[int], int]) -> Effect:
    """Return a host region's effect: it reads its first tensor and writes the second."""
    keys = []
    for source in (*micro.sources, *(() if micro.dst is None else (micro.dst,))):
        start = base(source.buffer)
        keys.append(tuple((-1, start + i) for i in range(linear.buffers[source.buffer].size_bytes)))
    return Effect(keys[0], keys[1])


@dataclass
class Machine:
    """Tiles that execute the streams of one phase, an engine at a time."""

    streams: Mapping[Engine, tuple[Instruction, ...]]
    mesh: LogicalMesh
    memory: dict[Key, Version]
    host: Mapping[int, Effect]
    choose: Callable[[list[tuple[int, Engine]]], tuple[int, Engine]]
    reads: Reads
    number: int
    counts: dict[tuple[int, int], int] = field(default_factory=lambda: defaultdict(int))
    positions: dict[tuple[int, Engine], int] = field(default_factory=lambda: defaultdict(int))
    flying: dict[tuple[int, Engine], tuple[Effect, tuple[Version, ...]]] = field(
        default_factory=dict
    )

    def locate(self, access: object) -> tuple[Space, int, int, tuple[int, ...], tuple[int, ...]]:
        a = access
        return a.space, a.base, a.dtype.itemsize_bytes, a.coefficients, a.strides  # type: ignore[attr-defined]

    def current(self, tile: int, engine: Engine) -> Instruction:
        return self.streams[engine][self.positions[tile, engine]]

    def is_enabled(self, tile: int, engine: Engine) -> bool:
        if (tile, engine) in self.flying:
            return True
        op = self.current(tile, engine)
        if op.opcode is Opcode.HALT:
            return False
        if op.opcode is Opcode.HOST and not all(
            self.current(other, engine) == op and self.has_counts(other, op)
            for other in range(self.mesh.tiles)
            if self.positions[other, engine] <= self.positions[tile, engine]
        ):
            return False
        return self.has_counts(tile, op)

    def has_counts(self, tile: int, op: Instruction) -> bool:
        return all(self.counts[tile, w.semaphore] >= w.count for w in op.waits)

    def step(self, tile: int, engine: Engine) -> None:
        op = self.current(tile, engine)
        coords = all_coords(self.mesh)[tile]
        if (tile, engine) not in self.flying:
            for w in op.waits:
                self.counts[tile, w.semaphore] -= w.count
            if op.opcode is Opcode.HOST:
                # the group's first tile stands for the host
                is_first = all(
                    self.positions[t, engine] <= self.positions[tile, engine]
                    and (t, engine) not in self.flying
                    for t in range(self.mesh.tiles)
                )
                what = self.host[op.tag] if is_first else Effect((), ())
            else:
                is_first = True
                what = effect(op, self.locate, self.mesh, coords)
            seen = tuple(self.memory.get(key, UNSET) for key in what.reads)
            reported = 0 if op.opcode is Opcode.HOST else tile
            if is_first and op.opcode not in (Opcode.WT, Opcode.PS):
                self.reads[self.number, op.tag, reported] = seen
            for key in what.writes:
                self.memory[key] = POISON
            self.flying[tile, engine] = (what, seen)
            return
        what, seen = self.flying.pop((tile, engine))
        if not set(what.reads) & set(what.writes):
            now = tuple(self.memory.get(key, UNSET) for key in what.reads)
            assert now == seen, f"{op.opcode.name} of {op.tag} on tile {tile}: sources changed"
        for key in what.writes:
            self.memory[key] = (0 if op.opcode is Opcode.HOST else tile, op.tag)
        for post in op.posts:
            receivers = [coords]
            if post.remote:
                receivers = [
                    r
                    for r in peers(op, self.mesh, coords)
                    if r != coords or op.opcode is Opcode.SND
                ]
            for receiver in receivers:
                self.counts[tile_of(receiver, self.mesh), post.semaphore] += post.count
        self.positions[tile, engine] += 1

    def run(self) -> None:
        while True:
            enabled = [
                (tile, engine)
                for tile in range(self.mesh.tiles)
                for engine in Engine
                if self.is_enabled(tile, engine)
            ]
            if not enabled:
                break
            self.step(*self.choose(enabled))
        for tile in range(self.mesh.tiles):
            for engine in Engine:
                assert self.current(tile, engine).opcode is Opcode.HALT, "deadlock"
        assert not any(self.counts.values()), f"semaphores left over: {dict(self.counts)}"


def choosers(seed: int) -> list[Callable[[list[tuple[int, Engine]]], tuple[int, Engine]]]:
    """Return ways to pick who moves: at random, and adversaries that let some lag as far as they can."""
    rng = random.Random(seed)
    engines = list(Engine)
    rng.shuffle(engines)
    rank = {engine: n for n, engine in enumerate(engines)}
    laggard = (rng.randrange(3), engines[0])

    def without_laggard(enabled: list[tuple[int, Engine]]) -> tuple[int, Engine]:
        return rng.choice([e for e in enabled if e != laggard] or enabled)

    return [
        without_laggard,
        rng.choice,
        lambda enabled: min(enabled, key=lambda e: (e[0], rank[e[1]])),
        lambda enabled: max(enabled, key=lambda e: (e[0], rank[e[1]])),
        lambda enabled: min(enabled, key=lambda e: (rank[e[1]], -e[0])),
        lambda enabled: max(enabled, key=lambda e: (rank[e[1]], e[0])),
    ]


def run_streams(
    back: BackEnd,
    linear: LinearProgram,
    mesh: LogicalMesh,
    rounds: int,
    choose: Callable[[list[tuple[int, Engine]]], tuple[int, Engine]],
) -> Reads:
    """Execute the streams; return what each operation read."""
    reads: Reads = {}
    memory: dict[Key, Version] = {}
    host = {
        m.tag: host_effect(linear, m, lambda n: back.addresses[n])
        for m in (*linear.load, *linear.run)
        if m.opcode is Opcode.HOST
    }
    for number in range(rounds + 1):
        streams = back.streams_run if number else back.streams_load
        Machine(streams, mesh, memory, host, choose, reads, number).run()
    return reads


def check_backend(
    linear: LinearProgram, mesh: LogicalMesh, target: Target, seed: int = 0, rounds: int = 2
) -> BackEnd:
    """Assemble a program and check addresses and execution."""
    back = assemble_backend(linear, target=target, mesh=mesh, durations=some_time)
    expected = run_linear(linear, mesh, rounds)
    for choose in choosers(seed):
        actual = run_streams(back, linear, mesh, rounds, choose)
        for key, seen in expected.items():
            assert actual.get(key, ()) == seen, f"(round, tag, tile) {key}"
    sram = target.tile.sram
    for space, peak, alignment in (
        (Space.L1, back.sram_bytes, sram.alignment_bytes),
        (Space.DRAM, back.dram_bytes, DRAM_ALIGNMENT_BYTES),
    ):
        buffers, live = live_buffers(back.linear, space)
        check_allocation(
            live,
            [back.addresses[b.number] for b in buffers],
            capacity_bytes=peak,
            alignment_bytes=alignment,
        )
    for stream in (*back.streams_load.values(), *back.streams_run.values()):
        assert stream[-1].opcode is Opcode.HALT
        for i in stream:
            assert len(i.waits) <= 2
            assert len(i.posts) <= 2
            assert all(n >= 2 for n in i.domain) or i.opcode is Opcode.GTH
    return back
