"""Whole programs in packet mode: against fluid mode where nothing is shared, and against its own bounds."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from timing_cases import of_groups

from tilewright.dtypes import DType
from tilewright.errors import ProgramError
from tilewright.hwmodel.load import load_target
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.hwmodel.network import logical_mesh, network_of
from tilewright.hwmodel.target import Interconnect, LogicalAxis, MeshAxis, Target, Topology
from tilewright.lowering.isa import Access, Engine, Instruction, Opcode, Post, Space, Wait
from tilewright.lowering.program import Group, Program
from tilewright.simulator.timing import NetworkModel, TimingReport, simulate

HOP = 3.0
TOY = load_target("toy")


def torus(rows: int, columns: int, *, dram: float = 64.0) -> Target:
    """Return a torus of tiles with one DRAM port; links of 32 bytes a cycle."""
    toy = TOY
    level = Interconnect(
        axes=("a0", "a1"),
        topology=Topology.TORUS,
        port_bytes_per_cycle=32.0,
        link_bytes_per_cycle=32.0,
        hop_cycles=HOP,
    )
    memory = {
        "ports": 1,
        "port_bytes_per_cycle": dram,
        "efficiency": 1.0,
        "read_multicast": True,
        "attach_axis": None,
    }
    return toy.model_copy(
        update={
            "name": "test",
            "axes": (MeshAxis(name="a0", size=rows), MeshAxis(name="a1", size=columns)),
            "interconnects": (level,),
            "logical_axes": tuple(LogicalAxis(name=n, axes=(n,)) for n in ("a0", "a1")),
            "dram": toy.dram.model_copy(update=memory),
        }
    )


def instruction(opcode: Opcode, size: int, **more: Any) -> Instruction:
    far = Space.DRAM if opcode in (Opcode.LD, Opcode.ST) else Space.L1
    here, there = Access(Space.L1, DType.I8, 0, (), (1,)), Access(far, DType.I8, 0, (), (1,))
    dst, source = (here, there) if opcode is Opcode.LD else (there, here)
    engine = Engine.DI if opcode is Opcode.LD else Engine.DO
    return Instruction(
        opcode=opcode, engine=engine, domain=(size,), dst=dst, sources=(source,), **more
    )


def on_tile(target: Target, tile: int, *stream: Instruction) -> Program:
    """Return a program in which one tile does something; the others only exist."""
    one = LogicalMesh(("a0",), (1,))
    run: dict[Engine, tuple[Instruction, ...]] = {}
    for item in stream:
        run[item.engine] = (*run.get(item.engine, ()), item)
    return of_groups(target, Group(mesh=one, tiles=(tile,), load={}, run=run))


def everywhere(target: Target, *stream: Instruction) -> Program:
    run: dict[Engine, tuple[Instruction, ...]] = {}
    for item in stream:
        run[item.engine] = (*run.get(item.engine, ()), item)
    mesh = logical_mesh(target)
    return of_groups(target, Group(mesh=mesh, tiles=tuple(range(target.tiles)), load={}, run=run))


def both(program: Program) -> tuple[TimingReport, TimingReport]:
    fluid = simulate(program, symmetry=False)
    return fluid, simulate(program, network=NetworkModel.PACKET)


# ---------------------------------------------------------------- without contention


@pytest.mark.parametrize("tile", [0, 5, 15])
@pytest.mark.parametrize("opcode", [Opcode.LD, Opcode.ST])
def test_a_lone_transfer_takes_as_long_as_in_fluid_mode(opcode: Opcode, tile: int) -> None:
    fluid, packet = both(on_tile(torus(4, 4), tile, instruction(opcode, 64_000)))
    # A flit is 64 bytes: each channel on the way adds two cycles to its head's latency.
    assert fluid.cycles <= packet.cycles <= fluid.cycles + 2 * 8


@pytest.mark.parametrize("topology", [Topology.MESH, Topology.TORUS])
def test_neighbours_that_send_around_a_ring_do_not_meet(topology: Topology) -> None:
    target = torus(1, 6)
    level = target.interconnects[0].model_copy(update={"topology": topology})
    target = target.model_copy(update={"interconnects": (level,)})
    send = instruction(
        Opcode.SND, 32_000, axes=2, shift=1, posts=(Post(semaphore=0, count=1, remote=True),)
    )
    await_it = Instruction(opcode=Opcode.WT, engine=Engine.CT, waits=(Wait(semaphore=0, count=1),))
    fluid, packet = both(everywhere(target, send, await_it))
    # The ring of a mesh closes over all its links. Again two cycles for each channel on the longest way.
    longest = max(len(network_of(target).tile_path(tile, (tile + 1) % 6)) for tile in range(6))
    assert fluid.cycles <= packet.cycles <= fluid.cycles + 2 * longest


def test_a_multicast_takes_every_link_once() -> None:
    cast = instruction(Opcode.MCS, 32_000, axes=3)
    fluid, packet = both(on_tile(torus(1, 1), 0, cast))
    assert packet.cycles == fluid.cycles
    one = Group(
        mesh=LogicalMesh(("a0", "a1"), (4, 4)),
        tiles=tuple(range(16)),
        load={},
        run={Engine.DO: (cast,)},
    )
    fluid, packet = both(of_groups(torus(4, 4), one))
    # All tiles send at once: each link carries what the fluid model says, and some wait for each other.
    assert fluid.run.bound_cycles <= packet.cycles <= 1.2 * fluid.cycles


def test_latencies_along_a_path_are_those_of_the_route() -> None:
    for name in ("corsair", "wormhole_n150", "toy", "gemmini"):
        network = network_of(load_target(name))
        choice = random.Random(3)
        for _ in range(50):
            src, dst = (choice.randrange(network.target.tiles) for _ in range(2))
            route, path = network.route(src, dst), network.tile_path(src, dst)
            assert path == route.links
            assert sum(network.links[link].cycles for link in path) == route.latency_cycles
            port = choice.randrange(network.target.dram.ports)
            down = network.read_path(port, dst)
            assert set(down) <= set(network.dram_read(dst).links)
            up = network.write_path(dst, port)
            assert set(up) <= set(network.dram_write(dst).links)
            assert sum(network.links[link].cycles for link in down) <= (
                network.dram_read(dst).latency_cycles
            )


# ---------------------------------------------------------------- with contention


def test_tiles_that_share_a_port_take_turns() -> None:
    target = torus(2, 2, dram=16.0)
    fluid, packet = both(everywhere(target, instruction(Opcode.LD, 16_000)))
    # Four tiles take turns flit by flit, of four cycles each at the port: one turn of all apart at the end.
    assert fluid.cycles <= packet.cycles <= fluid.cycles + 4 * 4
    assert packet.run.cycles >= packet.run.bound_cycles
    assert packet.run.payload_bytes == pytest.approx(fluid.run.payload_bytes)
    held = dict(packet.run.engines[Engine.DI].contention)
    assert held["packet network"] > 0.4 * packet.cycles


def test_reads_that_fill_the_network_do_not_keep_writes_from_the_memory() -> None:
    stream = [
        piece
        for number in range(8)
        for piece in (
            instruction(Opcode.LD, 2000 + number),
            instruction(Opcode.SND, 3000, axes=2, shift=1),
            instruction(Opcode.ST, 1000),
            instruction(Opcode.SND, 3000, axes=1, shift=3),
        )
    ]
    fluid, packet = both(everywhere(torus(8, 8), *stream))  # else it would end in a deadlock
    # Much waits behind something else on the ways to and from the one port.
    assert fluid.cycles < packet.cycles < 2.5 * fluid.cycles


def test_every_tile_is_simulated() -> None:
    program = everywhere(torus(2, 2), instruction(Opcode.LD, 64))
    with pytest.raises(ProgramError, match="simulates every tile"):
        simulate(program, network=NetworkModel.PACKET, symmetry=True)
    report = simulate(program, network=NetworkModel.PACKET)
    assert report.run.simulated_tiles == 4
    assert any("says nothing of its routers" in note for note in report.notes)


@st.composite
def programs(draw: st.DrawFn) -> Program:
    target = torus(
        draw(st.integers(1, 3)), draw(st.integers(1, 4)), dram=draw(st.sampled_from([8.0, 40.0]))
    )
    stream = []
    for _ in range(draw(st.integers(1, 5))):
        size = draw(st.integers(1, 6_000))
        opcode = draw(st.sampled_from([Opcode.LD, Opcode.ST, Opcode.SND, Opcode.MCS]))
        more = {}
        if opcode is Opcode.SND:
            more = {"axes": draw(st.sampled_from([1, 2])), "shift": draw(st.integers(1, 3))}
        elif opcode is Opcode.MCS:
            more = {"axes": draw(st.integers(1, 3))}
        elif opcode is Opcode.LD:
            more = {"axes": draw(st.integers(0, 3))}
        stream.append(instruction(opcode, size, **more))
    return everywhere(target, *stream)


@settings(max_examples=60, deadline=None)
@given(programs())
def test_packets_end_and_keep_the_bounds(program: Program) -> None:
    fluid, packet = both(program)
    again = simulate(program, network=NetworkModel.PACKET)
    assert again == packet
    assert packet.run.bound_cycles <= packet.cycles * (1 + 1e-9)
    assert packet.run.bound_cycles == pytest.approx(fluid.run.bound_cycles)
    assert packet.run.payload_bytes == pytest.approx(fluid.run.payload_bytes)
    # No model of sharing is far from the other when the same bytes cross the same links.
    assert packet.cycles < 4 * fluid.cycles + 500
