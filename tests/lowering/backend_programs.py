"""Targets and random linear programs for tests of the back end."""

from __future__ import annotations

import random
from math import prod

from tilewright.dtypes import DType
from tilewright.errors import InfeasibleError
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.hwmodel.target import Target
from tilewright.lowering.allocation import allocate
from tilewright.lowering.backend import (
    live_buffers,
)
from tilewright.lowering.isa import Engine, Opcode, Space
from tilewright.lowering.micro import Buffer, LinearProgram, Micro, Operand


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


class Writer:
    """Builds random programs that are right when executed one micro at a time."""

    def __init__(
        self,
        draw: random.Random,
        mesh: LogicalMesh,
        pieces: int,
        load_engines: tuple[Engine, ...] = (Engine.DI,),
    ) -> None:
        self.draw, self.mesh, self.pieces = draw, mesh, pieces
        self.load_engines = load_engines
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

    def filled(self, size_bytes: int) -> int:
        """Return a new buffer of the scratchpad, filled with a constant."""
        number = self.buffer(Space.L1, size_bytes)
        self.add(Opcode.VEC, Engine.VE, size_bytes, dst=self.operand(number), fn="fill")
        return number

    def program(self, load: tuple[Micro, ...] = ()) -> LinearProgram:
        """Return what was written as the run phase of a program."""
        return LinearProgram(buffers=tuple(self.buffers), load=load, run=tuple(self.micros))

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

    def load_engine(self) -> Engine:
        """Return an engine that may load."""
        first, *more = self.load_engines
        return self.draw.choice((first, *more)) if more else first

    def load(self, source: int) -> None:
        """Load a new buffer, in one or two parts."""
        dst = self.buffer(Space.L1, self.pieces)
        half = self.pieces // 2
        parts = self.draw.choice([[(0, self.pieces)], [(0, half), (half, self.pieces - half)]])
        for offset, size in parts:
            self.add(
                Opcode.LD,
                self.load_engine(),
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
        source = self.filled(self.pieces * tiles)
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
        engine = self.load_engine()
        self.add(Opcode.LD, engine, self.pieces, dst=self.operand(dst), sources=(operand,))
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
    engines = draw.choice([(Engine.DI,), (Engine.DI, Engine.DO)])
    writer = Writer(draw, mesh, draw.choice([4, 8]), engines)
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
    return writer.program(load)


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
