"""The streams of the back end do what the linear program says, in whatever order tiles run."""

from __future__ import annotations

import random
import re

import pytest
from backend_machine import check_backend, some_time
from backend_programs import MESHES, Writer, make_target, random_program, tight_target
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.dtypes import DType
from tilewright.errors import InfeasibleError
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.hwmodel.target import Target
from tilewright.lowering import synchronise
from tilewright.lowering.backend import (
    assemble_backend,
)
from tilewright.lowering.dependencies import OrderedProgram, find_dependencies
from tilewright.lowering.durations import MicroTime
from tilewright.lowering.isa import Engine, Opcode, Space
from tilewright.lowering.micro import Buffer, LinearProgram, Micro, Operand
from tilewright.lowering.synchronise import SemaphoreError, Signal, reduce_edges


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
    return writer.program(), mesh


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
    early = writer.filled(4)
    writer.full = [early]
    late = writer.buffer(Space.L1, 4)
    slow = {"dst": writer.operand(late), "sources": (writer.operand(early),)}
    writer.add(Opcode.MM, Engine.ME, 4, **slow)
    writer.exchange(0, [1], into=early)
    writer.exchange(0, [1])
    linear = writer.program()
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
        full = writer.filled(4)
        dram = writer.buffer(Space.DRAM, 4 * tiles)
        writer.full = [full]
        own = writer.operand(dram, 0, (4,))
        store = {"dst": own, "sources": (writer.operand(full),)}
        writer.add(Opcode.ST, Engine.DO, 4, **store)
        for operand in (own, own, writer.operand(dram, 0), writer.operand(dram, 0)):
            fresh = writer.buffer(Space.L1, 4)
            writer.add(Opcode.LD, Engine.DI, 4, dst=writer.operand(fresh), sources=(operand,))
        linear = writer.program()
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
    total = writer.filled(64)
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
    linear = writer.program()

    def makespan(sram_bytes: int) -> float:
        back = assemble_backend(
            linear,
            target=make_target(sram_bytes),
            mesh=mesh,
            durations=lambda micro: MicroTime(10.0),
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
        assemble_backend(linear, target=make_target(), mesh=mesh, durations=some_time)
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
    linear = writer.program()
    with pytest.raises(InfeasibleError) as caught:
        assemble_backend(linear, target=make_target(100), mesh=mesh, durations=some_time)
    last = len(writer.micros) - 1
    opcode = writer.micros[last - 1].opcode.name
    assert str(caught.value).startswith("scratchpad: 128 bytes alive at run micro ")
    assert f"({opcode} of plan step " in str(caught.value)
    assert "capacity 100 bytes, short by 28 bytes; largest of 2 live buffers: " in str(caught.value)


def test_too_few_semaphores_is_an_error() -> None:
    linear, mesh = round_trip(2)
    message = (
        r"needs (\d+) semaphores of a tile \((\d+) between its engines, 2 to exchange with others, "
        r"(\d+) for barriers\), it has 3, (\d+) short; .* a target with (\d+) semaphores or more"
    )
    with pytest.raises(SemaphoreError, match=message) as caught:
        assemble_backend(linear, target=make_target(semaphores=3), mesh=mesh, durations=some_time)
    found = re.search(message, str(caught.value))
    assert found is not None
    demand, engines, barriers, short, wanted = map(int, found.groups())
    assert demand == engines + 2 + barriers == short + 3 == wanted == caught.value.demand
    assert caught.value.axes == (0,)
    assemble_backend(linear, target=make_target(semaphores=demand), mesh=mesh, durations=some_time)


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
    back = assemble_backend(linear, target=make_target(), mesh=mesh, durations=some_time)
    assert back.streams_run[Engine.VE][0].domain == ()
    assert back.streams_run[Engine.DI][0].domain == (1, 4)
    assert back.streams_run[Engine.DI][0].sources[1].strides == (4, 0)
