"""The streams of the back end do what the linear program says, in whatever order tiles run.

A naive interpreter executes streams byte by byte on a few tiles with independent progress, an engine
at a time chosen at random or by an adversary. Every byte holds who wrote it (tile, micro), and an
operation in flight poisons what it writes; each read must see the writers that executing the
linear program one micro at a time, on all tiles at once, shows.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from math import prod
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.dtypes import DType
from tilewright.errors import InfeasibleError, ProgramError
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.hwmodel.target import Target
from tilewright.lowering import scheduled, synchronise
from tilewright.lowering.allocation import allocate
from tilewright.lowering.allocation_check import check_allocation
from tilewright.lowering.backend import (
    DRAM_ALIGNMENT_BYTES,
    BackEnd,
    assemble_backend,
    live_buffers,
)
from tilewright.lowering.dependencies import OrderedProgram, find_dependencies
from tilewright.lowering.isa import Engine, Instruction, Opcode, Space
from tilewright.lowering.micro import Buffer, LinearProgram, Micro, Operand
from tilewright.lowering.reorder import Freedom, cycles_of, pose_reorder
from tilewright.lowering.scheduled import Scheduling, schedule_backend
from tilewright.lowering.scheduling.bounds import lower_bound
from tilewright.lowering.scheduling.list_scheduling import list_schedule
from tilewright.lowering.synchronise import Signal, reduce_edges

POISON = (-1, -1)
UNSET = (-1, 0)
Version = tuple[int, int]
Key = tuple[int, int]
"""(tile or -1 for DRAM, address)."""
Reads = dict[tuple[int, int, int], tuple[Version, ...]]
"""What operation (round, tag, tile) read."""


def make_target(sram_bytes: int = 1 << 20, semaphores: int = 64) -> Target:
    """Return the parts of a target that the back end looks at."""
    dtypes = {dtype: 1 for dtype in DType}
    return Target.model_validate(
        {
            "name": "t",
            "description": "t",
            "clock_ghz": 1.0,
            "axes": [{"name": "x", "size": 3}],
            "interconnects": [
                {
                    "axes": ["x"],
                    "topology": "crossbar",
                    "port_bytes_per_cycle": 1,
                    "hop_cycles": 1,
                }
            ],
            "logical_axes": [{"name": "x", "axes": ["x"]}],
            "tile": {
                "matrix": {
                    "rows": 1,
                    "columns": dtypes,
                    "cycles_per_row": dtypes,
                    "weight_load_cycles": dtypes,
                    "weight_slots": 1,
                    "overlap_weight_load": False,
                    "fill_cycles": 0,
                },
                "vector": {"lanes": 1, "function_cycles": {}, "startup_cycles": 0},
                "sram": {
                    "size_bytes": sram_bytes,
                    "banks": 1,
                    "bytes_per_cycle": 1,
                    "alignment_bytes": 8,
                },
                "dma": {"in_bytes_per_cycle": 1, "out_bytes_per_cycle": 1, "startup_cycles": 0},
                "control": {"semaphores": semaphores},
            },
            "dram": {
                "size_bytes": 1 << 20,
                "ports": 1,
                "port_bytes_per_cycle": 1,
                "efficiency": 1,
                "latency_cycles": 1,
                "read_multicast": True,
            },
            "host": {"bytes_per_cycle": 1, "latency_cycles": 1},
            "energy": {
                "mac_pj": dtypes,
                "vector_op_pj": 1,
                "sram_pj_per_byte": 1,
                "noc_pj_per_byte_hop": 1,
                "dram_pj_per_byte": 1,
            },
            "evidence": {},
        }
    )


def cycles(micro: Micro) -> float:
    """Return some duration that depends on the micro."""
    size = 1
    for n in micro.domain:
        size *= n
    return 4.0 + size * (3 if micro.engine is Engine.DI else 1)


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
    back = assemble_backend(linear, target=target, mesh=mesh, durations=cycles)
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


class Writer:
    """Builds random programs that are right when executed one micro at a time."""

    def __init__(self, draw: random.Random, mesh: LogicalMesh, pieces: int) -> None:
        self.draw, self.mesh, self.pieces = draw, mesh, pieces
        self.tiles = mesh.tiles
        self.buffers: list[Buffer] = []
        self.micros: list[Micro] = []
        self.full: list[int] = []
        """L1 buffers written from end to end (`pieces` bytes or a multiple)."""
        self.stored: list[tuple[int, str]] = []
        self.tag = 0

    def buffer(self, space: Space, size_bytes: int, pinned: bool = False) -> int:
        number = len(self.buffers)
        name = f"{space.name.lower()}{number}"
        self.buffers.append(
            Buffer(number=number, name=name, space=space, size_bytes=size_bytes, pinned=pinned)
        )
        return number

    def operand(
        self, buffer: int, offset: int = 0, coefficients: tuple[int, ...] = (), stride: int = 1
    ) -> Operand:
        return Operand(
            buffer=buffer,
            dtype=DType.I8,
            offset_bytes=offset,
            coefficients=coefficients,
            strides=(stride, 0),
        )

    def along(self, axis: int, coefficient: int) -> tuple[int, ...]:
        return tuple(coefficient if a == axis else 0 for a in range(self.mesh.rank))

    def linear(self, coefficient: int) -> tuple[int, ...]:
        """Return coefficients by which every tile has its own slot."""
        sizes = self.mesh.sizes
        return tuple(coefficient * prod(sizes[a + 1 :]) for a in range(len(sizes)))

    def add(self, opcode: Opcode, engine: Engine, size: int, **fields: object) -> None:
        self.tag += 1
        domain = (size, 1)
        self.micros.append(
            Micro(opcode=opcode, engine=engine, domain=domain, tag=self.tag, **fields)  # type: ignore[arg-type]
        )

    def load(self, source: int) -> None:
        """Load a new buffer, in one or two parts."""
        dst = self.buffer(Space.L1, self.pieces)
        half = self.pieces // 2
        parts = self.draw.choice([[(0, self.pieces)], [(0, half), (half, self.pieces - half)]])
        for offset, size in parts:
            self.add(
                Opcode.LD,
                Engine.DI,
                size,
                dst=self.operand(dst, offset),
                sources=(self.operand(source, offset),),
            )
        self.full.append(dst)

    def compute(self) -> None:
        """Combine two buffers into a new or an old one, on ME or VE."""
        a, b = self.draw.choice(self.full), self.draw.choice(self.full)
        if self.draw.random() < 0.3:
            dst = self.draw.choice(self.full)
        else:
            dst = self.buffer(Space.L1, self.pieces)
        if dst in (a, b):
            a = b = dst
        opcode, engine = self.draw.choice([(Opcode.MM, Engine.ME), (Opcode.VEC, Engine.VE)])
        offset = self.draw.choice([0, 0, self.pieces // 2]) if dst in self.full else 0
        size = self.pieces - offset
        sources = (self.operand(a), self.operand(b, offset))
        accumulate = dst in self.full and dst not in (a, b) and self.draw.random() < 0.5
        self.add(
            opcode,
            engine,
            size,
            dst=self.operand(dst, offset),
            sources=sources,
            accumulate=accumulate,
        )
        if dst not in self.full:
            self.full.append(dst)

    def multicast(self, axis: int, chunks: int) -> None:
        """All-gather a buffer into slots of a new one, then fold the slots into another."""
        source = self.draw.choice(self.full)
        tiles, axes = self.mesh.sizes[axis], 1 << axis
        size = self.pieces * tiles
        dst = self.buffer(Space.L1, size)
        whole = self.operand(dst)
        self.add(Opcode.PS, Engine.CT, size, dst=whole, axes=axes, role="ready")
        chunk = self.pieces // chunks
        for number in range(chunks):
            self.add(
                Opcode.MCS,
                Engine.DO,
                chunk,
                dst=self.operand(dst, number * chunk, self.along(axis, self.pieces)),
                sources=(self.operand(source, number * chunk),),
                axes=axes,
                role="send" if number else "first_send",
            )
        arrivals = chunks * (tiles - 1)
        self.add(Opcode.WT, Engine.CT, size, dst=whole, axes=axes, role="arrive", arrivals=arrivals)
        self.fold(dst, tiles)

    def exchange(self, axis: int, shifts: list[int], into: int | None = None) -> None:
        """Send the receiver's slot to other tiles and fold what arrives."""
        tiles, axes = self.mesh.sizes[axis], 1 << axis
        source = self.buffer(Space.L1, self.pieces * tiles)
        self.add(Opcode.VEC, Engine.VE, self.pieces * tiles, dst=self.operand(source), fn="fill")
        slots = len(shifts)
        size = self.pieces * slots
        dst = self.buffer(Space.L1, size) if into is None else into
        whole = self.operand(dst)
        self.add(Opcode.PS, Engine.CT, size, dst=whole, axes=axes, role="ready")
        for number, shift in enumerate(shifts):
            self.add(
                Opcode.SND,
                Engine.DO,
                self.pieces,
                dst=self.operand(dst, number * self.pieces),
                sources=(self.operand(source, 0, self.along(axis, self.pieces)),),
                axes=axes,
                shift=shift,
                role="send" if number else "first_send",
            )
        self.add(Opcode.WT, Engine.CT, size, dst=whole, axes=axes, role="arrive", arrivals=slots)
        self.fold(dst, slots)

    def fold(self, source: int, slots: int) -> None:
        dst = self.buffer(Space.L1, self.pieces)
        for slot in range(slots):
            self.add(
                Opcode.VEC,
                Engine.VE,
                self.pieces,
                dst=self.operand(dst),
                sources=(self.operand(source, slot * self.pieces),),
                accumulate=slot > 0,
            )
        self.full.append(dst)

    def store(self) -> None:
        """Store a buffer: each tile its piece, interleaved columns of it, or the leader everything."""
        source = self.draw.choice(self.full)
        kind = self.draw.choice(["own", "own", "columns", "leader"])
        old = [b for b, k in self.stored if k == kind]
        is_new = not old or self.draw.random() < 0.6
        size = self.pieces * self.tiles
        dst = self.buffer(Space.DRAM, size) if is_new else self.draw.choice(old)
        if kind == "columns":
            for column in range(2):
                self.add(
                    Opcode.ST,
                    Engine.DO,
                    self.pieces // 2,
                    dst=self.operand(dst, column, self.linear(self.pieces), 2),
                    sources=(self.operand(source, column, stride=2),),
                )
        else:
            is_leader = kind == "leader"
            coefficients = () if is_leader else self.linear(self.pieces)
            axes = (1 << self.mesh.rank) - 1 if is_leader else 0
            self.add(
                Opcode.ST,
                Engine.DO,
                self.pieces,
                dst=self.operand(dst, 0, coefficients),
                sources=(self.operand(source),),
                axes=axes,
            )
        if is_new:
            self.stored.append((dst, kind))

    def reload(self) -> None:
        """Load something stored: the own piece or another tile's."""
        source, kind = self.draw.choice(self.stored)
        dst = self.buffer(Space.L1, self.pieces)
        own = kind != "leader" and self.draw.random() < 0.6
        slot = 0 if kind == "leader" else self.draw.randrange(self.tiles)
        if own:
            operand = self.operand(source, 0, self.linear(self.pieces))
        else:
            operand = self.operand(source, slot * self.pieces)
        self.add(Opcode.LD, Engine.DI, self.pieces, dst=self.operand(dst), sources=(operand,))
        self.full.append(dst)

    def host(self) -> None:
        """Run a host region on what was stored."""
        whole = [b for b, kind in self.stored if kind != "leader"]
        if not whole:
            return
        source = self.draw.choice(whole)
        dst = self.buffer(Space.DRAM, self.buffers[source].size_bytes)
        into = self.operand(dst)
        if self.draw.random() < 0.5:
            self.add(Opcode.HOST, Engine.CT, 1, dst=into, sources=(self.operand(source),))
        else:
            self.add(Opcode.HOST, Engine.CT, 1, sources=(self.operand(source), into))
        self.stored.append((dst, "own"))


def random_program(seed: int, steps: int, mesh: LogicalMesh) -> LinearProgram:
    """Return a random program with resident data, collectives and DRAM round trips."""
    draw = random.Random(seed)
    writer = Writer(draw, mesh, draw.choice([4, 8]))
    # the load phase fills a resident buffer
    weights = writer.buffer(Space.DRAM, writer.pieces, pinned=True)
    writer.load(weights)
    writer.compute()
    resident = writer.full[-1:]
    load, writer.micros, writer.full = tuple(writer.micros), [], resident
    for _ in range(steps):
        kind = draw.choice(["load", "load", "compute", "compute", "compute", "store", "far"])
        if kind == "load":
            writer.load(weights)
        elif kind == "compute":
            writer.compute()
        elif kind == "store":
            writer.store()
            if draw.random() < 0.2:
                writer.host()
        elif writer.stored and draw.random() < 0.5:
            writer.reload()
        elif mesh.tiles > 1:
            axis = draw.choice([a for a, size in enumerate(mesh.sizes) if size > 1])
            size = mesh.sizes[axis]
            if draw.random() < 0.5:
                writer.multicast(axis, draw.choice([1, 2]))
            else:
                writer.exchange(axis, draw.choice([[1], list(range(1, size)), [1, size - 1]]))
    return LinearProgram(buffers=tuple(writer.buffers), load=load, run=tuple(writer.micros))


def tight_target(linear: LinearProgram) -> Target:
    """Return a target with (almost) no scratchpad to spare, so that addresses are reused."""
    _, chosen = live_buffers(linear, Space.L1)
    roomy = allocate(chosen, capacity_bytes=1 << 20, alignment_bytes=8)
    for eighths in range(8, 16):
        capacity_bytes = roomy.lower_bound_bytes * eighths // 8
        try:
            allocate(chosen, capacity_bytes=capacity_bytes, alignment_bytes=8)
        except InfeasibleError:
            continue
        return make_target(capacity_bytes)
    raise AssertionError("no packing within twice the lower bound")


MESHES = tuple(
    LogicalMesh(tuple("xyz"[: len(sizes)]), sizes) for sizes in ((1,), (2,), (3,), (2, 2), (1, 3))
)


@settings(max_examples=80)
@given(
    seed=st.integers(0, 10**6),
    steps=st.integers(1, 24),
    mesh=st.sampled_from(MESHES),
    is_tight=st.booleans(),
)
def test_streams_do_what_the_linear_program_says(
    seed: int, steps: int, mesh: LogicalMesh, is_tight: bool
) -> None:
    linear = random_program(seed, steps, mesh)
    target = tight_target(linear) if is_tight else make_target()
    check_backend(linear, mesh, target, seed)


@settings(max_examples=25)
@given(
    seed=st.integers(0, 10**6),
    steps=st.integers(1, 20),
    mesh=st.sampled_from(MESHES),
    budget_bytes=st.integers(0, 100),
)
def test_other_orders_do_the_same(
    seed: int, steps: int, mesh: LogicalMesh, budget_bytes: int
) -> None:
    """Whatever a schedule says, its order reads what the old one read, and no order beats the bound."""
    linear = random_program(seed, steps, mesh)
    reorder = pose_reorder(linear, mesh, cycles)
    draw = random.Random(seed)
    starts = [draw.randrange(100) for _ in linear.run]
    moved = reorder.order_by(starts, budget_bytes)
    assert sorted(m.tag for m in moved.run) == sorted(m.tag for m in linear.run)
    assert run_linear(moved, mesh, 2) == run_linear(linear, mesh, 2)
    back = assemble_backend(moved, target=make_target(), mesh=mesh, durations=cycles)
    bound, _ = lower_bound(reorder.problem(Freedom()))
    assert cycles_of(bound) <= back.schedule.makespan_cycles


def two_chains() -> LinearProgram:
    """Return two independent chains on two engines, one behind the other."""
    writer = Writer(random.Random(0), LogicalMesh((), ()), 8)
    for _ in range(2):
        value = writer.buffer(Space.L1, 8)
        writer.add(Opcode.VEC, Engine.VE, 8, dst=writer.operand(value), fn="fill")
        for step in range(6):
            fresh = writer.buffer(Space.L1, 8)
            sources = (writer.operand(value), writer.operand(value))
            opcode, engine = ((Opcode.MM, Engine.ME), (Opcode.VEC, Engine.VE))[step % 2]
            writer.add(opcode, engine, 8, dst=writer.operand(fresh), sources=sources)
            value = fresh
    return LinearProgram(buffers=tuple(writer.buffers), load=(), run=tuple(writer.micros))


def test_freedom_limits_what_may_overtake() -> None:
    """In steps each engine keeps its order, however many chains; in windows of one nothing moves."""
    chains = two_chains()
    run = tuple(replace(micro, tag=1) for micro in chains.run)
    reorder = pose_reorder(replace(chains, run=run), LogicalMesh((), ()), lambda micro: 1.0)
    solution = list_schedule(reorder.problem(Freedom(is_step_in_order=True)))
    for engine in (Engine.ME, Engine.VE):
        starts = [s for s, m in zip(solution.starts, run, strict=True) if m.engine is engine]
        assert starts == sorted(starts)
    free = list_schedule(reorder.problem(Freedom()))
    still = list_schedule(reorder.problem(Freedom(window=1)))
    assert [cycles_of(s.makespan) for s in (free, still)] == [8.0, 14.0]
    assert still.starts == tuple(sorted(still.starts))
    assert free.makespan <= solution.makespan <= still.makespan


@pytest.mark.parametrize("scheduling", [Scheduling.LIST, Scheduling.EXACT])
def test_chains_are_interleaved_within_the_old_scratchpad(scheduling: Scheduling) -> None:
    """Each chain takes 7 steps of 10 cycles, its 4 on the vector engine the most: 14 steps become 8."""
    mesh, target = LogicalMesh((), ()), make_target()
    own, found = (
        schedule_backend(
            two_chains(), target=target, mesh=mesh, durations=lambda micro: 10.0, scheduling=how
        )
        for how in (Scheduling.PROGRAM, scheduling)
    )
    assert own.back.schedule.makespan_cycles == 140.0
    assert found.back.schedule.makespan_cycles == found.bound_cycles == 80.0
    assert found.order == scheduling.value
    assert found.back.sram_bytes <= own.back.sram_bytes
    assert found.instructions <= own.instructions
    assert found.facts["schedule_resource_cycles"] == "80.0"
    assert found.facts["schedule_critical_path_cycles"] == "70.0"


@settings(max_examples=15)
@given(
    seed=st.integers(0, 10**6),
    steps=st.integers(1, 20),
    mesh=st.sampled_from(MESHES),
    is_tight=st.booleans(),
)
def test_the_schedulers_never_make_a_program_worse(
    seed: int, steps: int, mesh: LogicalMesh, is_tight: bool
) -> None:
    linear = random_program(seed, steps, mesh)
    target = tight_target(linear) if is_tight else make_target()
    own, found = (
        schedule_backend(linear, target=target, mesh=mesh, durations=cycles, scheduling=how)
        for how in (Scheduling.PROGRAM, Scheduling.LIST)
    )
    before, after = own.back.schedule, found.back.schedule
    assert found.bound_cycles <= after.makespan_cycles <= before.makespan_cycles
    assert found.back.sram_bytes <= own.back.sram_bytes
    assert found.instructions <= own.instructions


@pytest.mark.parametrize("error", [InfeasibleError, ProgramError])
def test_orders_that_cannot_be_assembled_are_passed_over(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    mesh, target = LogicalMesh((), ()), make_target()

    def refuse(linear: LinearProgram, **options: Any) -> BackEnd:
        if linear.run != two_chains().run:
            raise error("no")
        return assemble_backend(linear, **options)

    monkeypatch.setattr(scheduled, "assemble_backend", refuse)
    found = schedule_backend(two_chains(), target=target, mesh=mesh, durations=cycles)
    assert found.order == "program"
    assert found.bound_cycles > 0.0


def test_a_long_program_keeps_its_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduled, "_MICROS", 13)
    mesh, target = LogicalMesh((), ()), make_target()
    found = schedule_backend(two_chains(), target=target, mesh=mesh, durations=cycles)
    assert (found.order, found.bound_cycles) == ("program", 0.0)
    assert found.note == "14 micros keep their order, at most 13 are ordered"


def round_trip(tiles: int) -> tuple[LinearProgram, LogicalMesh]:
    """Return: load, compute, gather from all tiles, fold, store, load another tile's, store."""
    mesh = LogicalMesh(("x",), (tiles,))
    writer = Writer(random.Random(0), mesh, 4)
    source = writer.buffer(Space.DRAM, 4, pinned=True)
    for _ in range(3):
        writer.load(source)
        writer.full = writer.full[-1:]
        writer.compute()
        writer.full = writer.full[-1:]
    writer.multicast(0, 1)
    for number in range(2):
        writer.full = writer.full[-1:]
        dst = writer.buffer(Space.DRAM, 4 * tiles, pinned=True)
        writer.add(
            Opcode.ST,
            Engine.DO,
            4,
            dst=writer.operand(dst, 0, (4,)),
            sources=(writer.operand(writer.full[-1]),),
        )
        if number == 0:
            writer.stored = [(dst, "columns")]
            fresh = writer.buffer(Space.L1, 4)
            theirs = writer.operand(dst, 4)
            writer.add(Opcode.LD, Engine.DI, 4, dst=writer.operand(fresh), sources=(theirs,))
            writer.full.append(fresh)
    return LinearProgram(buffers=tuple(writer.buffers), load=(), run=tuple(writer.micros)), mesh


def is_caught(linear: LinearProgram, mesh: LogicalMesh, target: Target) -> bool:
    """Whether some interleaving shows that the program is wrong."""
    for seed in range(40):
        try:
            check_backend(linear, mesh, target, seed)
        except AssertionError:
            return True
    return False


def test_every_token_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    linear, mesh = round_trip(3)
    target = tight_target(linear)
    back = check_backend(linear, mesh, target)
    ordered = find_dependencies(back.linear.run, linear.buffers, back.addresses, mesh)
    kept = reduce_edges(ordered)
    assert len(kept) >= 12
    for dropped in kept:

        def without(
            phase: OrderedProgram, dropped: tuple[int, int] = dropped
        ) -> tuple[tuple[int, int], ...]:
            return tuple(edge for edge in reduce_edges(phase) if edge != dropped)

        monkeypatch.setattr(synchronise, "reduce_edges", without)
        assert is_caught(linear, mesh, target), dropped


@pytest.mark.parametrize("kind", ["ready", "arrived", "barrier"])
def test_every_remote_signal_is_needed(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    linear, mesh = round_trip(3)
    target = tight_target(linear)
    original = synchronise._remote_signals

    def without(micro: Micro, on: LogicalMesh) -> list[tuple[bool, Signal]]:
        return [pair for pair in original(micro, on) if pair[1].channel.kind != kind]

    monkeypatch.setattr(synchronise, "_remote_signals", without)
    assert is_caught(linear, mesh, target)


def test_a_tile_does_not_send_before_it_is_ready_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    # a ring shift needs data of one neighbour only, so tiles may be a collective apart
    mesh = LogicalMesh(("x",), (3,))
    writer = Writer(random.Random(0), mesh, 4)
    early = writer.buffer(Space.L1, 4)
    writer.full = [early]
    writer.add(Opcode.VEC, Engine.VE, 4, dst=writer.operand(early), fn="fill")
    late = writer.buffer(Space.L1, 4)
    slow = {"dst": writer.operand(late), "sources": (writer.operand(early),)}
    writer.add(Opcode.MM, Engine.ME, 4, **slow)
    writer.exchange(0, [1], into=early)
    writer.exchange(0, [1])
    linear = LinearProgram(buffers=tuple(writer.buffers), load=(), run=tuple(writer.micros))
    target = make_target()
    check_backend(linear, mesh, target)

    def without(phase: OrderedProgram) -> tuple[tuple[int, int], ...]:
        roles = [micro.role for micro in phase.micros]
        return tuple(
            (a, b)
            for a, b in reduce_edges(phase)
            if (roles[a], roles[b]) != ("ready", "first_send")
        )

    monkeypatch.setattr(synchronise, "reduce_edges", without)
    assert is_caught(linear, mesh, target)


def test_one_tile_needs_no_barriers_and_own_pieces_neither() -> None:
    for tiles, barriers in ((1, 0), (3, 1)):
        mesh = LogicalMesh(("x",), (tiles,))
        writer = Writer(random.Random(0), mesh, 4)
        full = writer.buffer(Space.L1, 4)
        writer.add(Opcode.VEC, Engine.VE, 4, dst=writer.operand(full), fn="fill")
        dram = writer.buffer(Space.DRAM, 4 * tiles)
        writer.full = [full]
        own = writer.operand(dram, 0, (4,))
        store = {"dst": own, "sources": (writer.operand(full),)}
        writer.add(Opcode.ST, Engine.DO, 4, **store)
        for operand in (own, own, writer.operand(dram, 0), writer.operand(dram, 0)):
            fresh = writer.buffer(Space.L1, 4)
            writer.add(Opcode.LD, Engine.DI, 4, dst=writer.operand(fresh), sources=(operand,))
        linear = LinearProgram(buffers=tuple(writer.buffers), load=(), run=tuple(writer.micros))
        back = check_backend(linear, mesh, make_target())
        roles = [micro.role for micro in back.schedule.micros]
        assert roles.count("barrier_post") == roles.count("barrier_wait") == barriers
        # the own pieces come before the barrier
        loads = [m.opcode.name for m in back.schedule.micros if m.engine in (Engine.DI, Engine.CT)]
        assert loads == ["LD", "LD", *["PS", "WT"] * barriers, "LD", "LD"]


def test_loads_run_ahead_of_compute() -> None:
    mesh = LogicalMesh((), ())
    writer = Writer(random.Random(0), mesh, 64)
    source = writer.buffer(Space.DRAM, 64, pinned=True)
    total = writer.buffer(Space.L1, 64)
    writer.add(Opcode.VEC, Engine.VE, 64, dst=writer.operand(total), fn="fill")
    for _ in range(20):
        part = writer.buffer(Space.L1, 64)
        writer.add(
            Opcode.LD, Engine.DI, 64, dst=writer.operand(part), sources=(writer.operand(source),)
        )
        writer.add(
            Opcode.MM,
            Engine.ME,
            64,
            dst=writer.operand(total),
            sources=(writer.operand(part), writer.operand(part)),
            accumulate=True,
        )
    linear = LinearProgram(buffers=tuple(writer.buffers), load=(), run=tuple(writer.micros))

    def makespan(sram_bytes: int) -> float:
        back = assemble_backend(
            linear,
            target=make_target(sram_bytes),
            mesh=mesh,
            durations=lambda micro: 10.0,
        )
        return back.schedule.makespan_cycles

    # room for the sum and one part: load and compute take turns; with two parts they overlap
    assert makespan(128) == 400.0
    assert makespan(256) == 210.0
    assert makespan(4096) == 210.0


def test_assembly_is_deterministic() -> None:
    mesh = LogicalMesh(("x",), (3,))
    linear = random_program(5, 20, mesh)
    first, second = (
        assemble_backend(linear, target=make_target(), mesh=mesh, durations=cycles)
        for _ in range(2)
    )
    assert first == second


def test_too_large_a_program_says_where_and_what() -> None:
    mesh = LogicalMesh((), ())
    writer = Writer(random.Random(0), mesh, 64)
    source = writer.buffer(Space.DRAM, 64, pinned=True)
    writer.load(source)
    writer.load(source)
    a, b = writer.full
    writer.add(
        Opcode.VEC,
        Engine.VE,
        64,
        dst=writer.operand(a),
        sources=(writer.operand(a), writer.operand(b)),
    )
    linear = LinearProgram(buffers=tuple(writer.buffers), load=(), run=tuple(writer.micros))
    with pytest.raises(InfeasibleError) as caught:
        assemble_backend(linear, target=make_target(100), mesh=mesh, durations=cycles)
    last = len(writer.micros) - 1
    opcode = writer.micros[last - 1].opcode.name
    assert str(caught.value).startswith("scratchpad: 128 bytes alive at run micro ")
    assert f"({opcode} of plan step " in str(caught.value)
    assert "capacity 100 bytes, short by 28 bytes; largest of 2 live buffers: " in str(caught.value)


def test_too_few_semaphores_is_an_error() -> None:
    linear, mesh = round_trip(2)
    with pytest.raises(ProgramError, match=r"needs \d+ semaphores, the tile has 3"):
        assemble_backend(linear, target=make_target(semaphores=3), mesh=mesh, durations=cycles)


def test_dimensions_of_size_one_are_dropped_but_the_gather_count_stays() -> None:
    mesh = LogicalMesh((), ())
    buffers = (
        Buffer(number=0, name="table", space=Space.DRAM, size_bytes=40, pinned=True),
        Buffer(number=1, name="index", space=Space.L1, size_bytes=4),
        Buffer(number=2, name="row", space=Space.L1, size_bytes=8),
    )

    def operand(buffer: int, dtype: DType, *strides: int) -> Operand:
        return Operand(buffer=buffer, dtype=dtype, strides=strides)

    fill = Micro(
        opcode=Opcode.VEC, engine=Engine.VE, domain=(1,), dst=operand(1, DType.I32, 4), fn="fill"
    )
    gather = Micro(
        opcode=Opcode.GTH,
        engine=Engine.DI,
        domain=(1, 1, 4),
        dst=operand(2, DType.I16, 8, 8, 2),
        sources=(operand(0, DType.I16, 8, 8, 2), operand(1, DType.I32, 4, 0, 0)),
        count=5,
    )
    linear = LinearProgram(buffers=buffers, load=(), run=(fill, gather))
    back = assemble_backend(linear, target=make_target(), mesh=mesh, durations=cycles)
    assert back.streams_run[Engine.VE][0].domain == ()
    assert back.streams_run[Engine.DI][0].domain == (1, 4)
    assert back.streams_run[Engine.DI][0].sources[1].strides == (4, 0)
