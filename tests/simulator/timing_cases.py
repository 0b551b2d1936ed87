"""A small machine, instructions and programs for tests of the timing simulator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tilewright.dtypes import DType
from tilewright.hwmodel.load import load_target
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.hwmodel.network import logical_mesh
from tilewright.hwmodel.target import Interconnect, LogicalAxis, MeshAxis, Target, Topology
from tilewright.lowering.isa import Access, Engine, Instruction, Opcode, Post, Space, Wait
from tilewright.lowering.program import Group, Program
from tilewright.simulator.timing import simulate

Streams = Mapping[Engine, tuple[Instruction, ...]]


def machine(
    *sizes: int, read_multicast: bool = True, dram: float = 8.0, port: float = 16.0, ports: int = 1
) -> Target:
    """Return nested crossbars: issue 1, DMA startup 5, DRAM latency 10, hop 3, vector 8 lanes."""
    toy = load_target("toy")
    names = tuple(f"a{i}" for i in range(len(sizes)))
    dma = toy.tile.dma.model_copy(
        update={
            "in_bytes_per_cycle": 32.0,
            "out_bytes_per_cycle": 32.0,
            "startup_cycles": 5.0,
            "burst_bytes": 32,
        }
    )
    vector = toy.tile.vector.model_copy(update={"lanes": 8, "startup_cycles": 2.0})
    memory = {
        "ports": ports,
        "port_bytes_per_cycle": dram,
        "efficiency": 1.0,
        "latency_cycles": 10.0,
        "read_multicast": read_multicast,
        "attach_axis": names[0] if ports > 1 else None,
    }
    levels = tuple(
        Interconnect(
            axes=(name,), topology=Topology.CROSSBAR, port_bytes_per_cycle=port, hop_cycles=3.0
        )
        for name in names
    )
    return toy.model_copy(
        update={
            "name": "test",
            "axes": tuple(
                MeshAxis(name=name, size=size) for name, size in zip(names, sizes, strict=True)
            ),
            "interconnects": levels,
            "logical_axes": tuple(LogicalAxis(name=name, axes=(name,)) for name in names),
            "tile": toy.tile.model_copy(update={"dma": dma, "vector": vector}),
            "dram": toy.dram.model_copy(update=memory),
        }
    )


def program(
    target: Target,
    *groups: Streams,
    load: Streams | None = None,
    sizes: tuple[int, ...] = (),
    **more: Any,
) -> Program:
    """Return a program: one group over all tiles of the target, or several of one tile each."""
    if len(groups) == 1:
        whole = sizes or logical_mesh(target).sizes
        mesh = LogicalMesh(tuple(f"a{i}" for i in range(len(whole))), whole)
        made: tuple[Group, ...] = (
            Group(mesh=mesh, tiles=tuple(range(mesh.tiles)), load=load or {}, run=groups[0]),
        )
    else:
        one = LogicalMesh(("a0",), (1,))
        made = tuple(
            Group(mesh=one, tiles=(i,), load={}, run=streams) for i, streams in enumerate(groups)
        )
    return of_groups(target, *made, **more)


def of_groups(target: Target, *groups: Group, **more: Any) -> Program:
    """Return a program of groups, without tensors unless `more` has some."""
    fields: dict[str, Any] = {
        "inputs": (),
        "outputs": (),
        "constants": (),
        "host_regions": (),
        **more,
    }
    return Program(
        name="test", target=target, groups=groups, dram_bytes=1 << 20, sram_bytes=1 << 16, **fields
    )


def at(space: Space, *strides: int) -> Access:
    return Access(space, DType.I8, 0, (), strides or (1,))


def load(n: int, **more: Any) -> Instruction:
    return Instruction(
        opcode=Opcode.LD,
        engine=Engine.DI,
        domain=(n,),
        dst=at(Space.L1),
        sources=(at(Space.DRAM),),
        **more,
    )


def store(n: int, **more: Any) -> Instruction:
    return Instruction(
        opcode=Opcode.ST,
        engine=Engine.DO,
        domain=(n,),
        dst=at(Space.DRAM),
        sources=(at(Space.L1),),
        **more,
    )


def send(
    n: int, opcode: Opcode = Opcode.SND, axes: int = 1, shift: int = 1, **more: Any
) -> Instruction:
    shift = shift if opcode is Opcode.SND else 0
    kept = at(Space.L1)
    return Instruction(
        opcode=opcode,
        engine=Engine.DO,
        domain=(n,),
        dst=kept,
        sources=(kept,),
        axes=axes,
        shift=shift,
        **more,
    )


def vector(n: int, **more: Any) -> Instruction:
    kept = at(Space.L1)
    return Instruction(
        opcode=Opcode.VEC,
        engine=Engine.VE,
        fn="abs",
        domain=(n,),
        dst=kept,
        sources=(kept,),
        **more,
    )


def control(
    *waits: Wait, posts: tuple[Post, ...] = (), axes: int = 0, engine: Engine = Engine.CT
) -> Instruction:
    opcode = Opcode.PS if posts else Opcode.WT
    return Instruction(opcode=opcode, engine=engine, waits=waits, posts=posts, axes=axes)


def cycles(made: Program) -> float:
    return simulate(made, symmetry=False).cycles
