"""Results in the place of operands: the program does the same, in less scratchpad, or is caught."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from backend_machine import check_backend, run_linear, some_time
from backend_programs import MESHES, Writer, make_target, random_program
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.errors import ProgramError
from tilewright.hwmodel.load import load_target
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.lowering import in_place
from tilewright.lowering.accesses import buffers_of
from tilewright.lowering.backend import assemble_backend
from tilewright.lowering.builder import ProgramBuilder
from tilewright.lowering.in_place import reuse_in_place
from tilewright.lowering.isa import Access, Engine, Instruction, Opcode, Post, Space, Wait
from tilewright.lowering.micro import LinearProgram
from tilewright.lowering.program import Program
from tilewright.simulator.functional import run_program
from tilewright.simulator.verifier.verify import verify

ALONE = LogicalMesh((), ())


@settings(max_examples=150)
@given(seed=st.integers(0, 10**6), steps=st.integers(1, 24), mesh=st.sampled_from(MESHES))
def test_every_read_sees_what_it_saw(seed: int, steps: int, mesh: LogicalMesh) -> None:
    linear = random_program(seed, steps, mesh)
    found = reuse_in_place(linear, mesh)
    assert run_linear(found, mesh, 2) == run_linear(linear, mesh, 2)


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6), mesh=st.sampled_from(MESHES))
def test_streams_keep_the_order_of_what_lies_in_one_place(seed: int, mesh: LogicalMesh) -> None:
    linear = reuse_in_place(random_program(seed, 16, mesh), mesh)
    check_backend(linear, mesh, make_target(), seed)


def vector(writer: Writer, dst: int, source: int, offset: int = 0, size: int = 8) -> None:
    """Add dst[offset...] = f(source[offset...])."""
    operands = [writer.operand(number, offset) for number in (dst, source)]
    writer.add(Opcode.VEC, Engine.VE, size, dst=operands[0], sources=(operands[1],))


def chain(late_read: bool = False, halves: tuple[int, ...] = (0,)) -> tuple[LinearProgram, int]:
    """Return x -> y -> z by element, y in pieces at the given places, and the number of buffers."""
    writer = Writer(random.Random(0), ALONE, 8)
    x = writer.filled(8)
    y, z = writer.buffer(Space.L1, 8), writer.buffer(Space.L1, 8)
    for offset in halves:
        vector(writer, y, x, offset, 8 // len(halves))
    if late_read:
        vector(writer, writer.buffer(Space.L1, 8), x)
    vector(writer, z, y)
    return writer.program(), len(writer.buffers)


def in_use(linear: LinearProgram) -> int:
    """Return how many buffers a program names."""
    return len({number for micro in linear.run for number in buffers_of(micro)})


@pytest.mark.parametrize("halves", [(0,), (0, 4), (4, 0)])
def test_a_chain_by_element_takes_one_buffer(halves: tuple[int, ...]) -> None:
    linear, _ = chain(halves=halves)
    found = reuse_in_place(linear, ALONE)
    assert in_use(found) == 1
    with patch("tilewright.lowering.backend.reuse_in_place", lambda linear, _: linear):
        apart = assemble_backend(linear, target=make_target(), mesh=ALONE, durations=some_time)
    made = assemble_backend(linear, target=make_target(), mesh=ALONE, durations=some_time)
    # with room to spare, memory rests before it is reused
    assert (apart.sram_bytes, made.sram_bytes) == (24, 8)


def test_what_is_read_later_keeps_its_place() -> None:
    """x is read after y is written, so y needs another place; the late reader may lie on x, z on y."""
    linear, buffers = chain(late_read=True)
    found = reuse_in_place(linear, ALONE)
    assert buffers == 4
    assert in_use(found) == 2
    assert {micro.dst.buffer for micro in found.run[:2] if micro.dst} == {0, 1}


@pytest.mark.parametrize("is_waited_for", [False, True])
def test_nobody_waits_for_a_place(is_waited_for: bool) -> None:
    """The matrix unit reads x first; y = f(x) lies there only if it needs the product anyway."""
    writer = Writer(random.Random(0), ALONE, 8)
    x, y, product = writer.filled(8), writer.buffer(Space.L1, 8), writer.buffer(Space.L1, 8)
    operands = [writer.operand(number) for number in (x, y, product)]
    writer.add(Opcode.MM, Engine.ME, 8, dst=operands[2], sources=(operands[0],) * 2)
    sources = (operands[0], operands[2]) if is_waited_for else (operands[0],)
    writer.add(Opcode.VEC, Engine.VE, 8, dst=operands[1], sources=sources)
    found = reuse_in_place(writer.program(), ALONE)
    assert in_use(found) == (2 if is_waited_for else 3)


def test_shifted_elements_are_not_in_place() -> None:
    """y[i] = x[i + 4] would write over what is read by y[4 + i] = x[i]."""
    writer = Writer(random.Random(0), ALONE, 8)
    x, y = writer.filled(8), writer.buffer(Space.L1, 8)
    for offset in (0, 4):
        dst, source = writer.operand(y, offset), writer.operand(x, 4 - offset)
        writer.add(Opcode.VEC, Engine.VE, 4, dst=dst, sources=(source,))
    assert in_use(reuse_in_place(writer.program(), ALONE)) == 2


def test_another_operand_of_the_same_buffer_is_not_in_place() -> None:
    """y = x + x[0]: the first element would be gone."""
    writer = Writer(random.Random(0), ALONE, 8)
    x, y = writer.filled(8), writer.buffer(Space.L1, 8)
    first = replace(writer.operand(x), strides=(0, 0))
    sources = (writer.operand(x), first)
    writer.add(Opcode.VEC, Engine.VE, 8, dst=writer.operand(y), sources=sources)
    assert in_use(reuse_in_place(writer.program(), ALONE)) == 2


def test_a_wrong_place_shows_in_what_is_read() -> None:
    """The comparison of the tests above sees a result that is put over what is still needed."""
    linear, _ = chain(late_read=True)
    with patch.object(in_place, "_fits", lambda *_: True):
        wrong = reuse_in_place(linear, ALONE)
    assert run_linear(wrong, ALONE, 1) != run_linear(linear, ALONE, 1)


# ---------------------------------------------------------------- as instructions


def activation(place_bytes: int, *, is_ordered: bool = False) -> Program:
    """Return z = x and y = -x, which lies so far behind x; the store of x may wait to be the first."""
    b = ProgramBuilder(load_target("toy"), LogicalMesh(("x",), (1,)), "activation")
    tensors = [b.input("x", (16,)), b.output("z", (16,)), b.output("y", (16,))]
    x, z, y = (b.access(Space.DRAM, tensor.address, (16,)) for tensor in tensors)
    at = b.scratch(256)
    old, new = (b.access(Space.L1, address, (16,)) for address in (at, at + place_bytes))

    def emit(opcode: Opcode, engine: Engine, dst: Access, source: Access, **rest: Any) -> None:
        fields = {"domain": (16,), "dst": dst, "sources": (source,), "fn": "", **rest}
        b.emit(Instruction(opcode=opcode, engine=engine, **fields))

    emit(Opcode.LD, Engine.DI, old, x, posts=(Post(1, 1), Post(2, 1)))
    emit(Opcode.ST, Engine.DO, z, old, waits=(Wait(2, 1),), posts=(Post(4, 1),) * is_ordered)
    waits = (Wait(1, 1), *[Wait(4, 1)] * is_ordered)
    emit(Opcode.VEC, Engine.VE, new, old, fn="neg", waits=waits, posts=(Post(3, 1),))
    emit(Opcode.ST, Engine.DO, y, new, waits=(Wait(3, 1),))
    return b.build()


@pytest.mark.parametrize(("place_bytes", "is_ordered"), [(64, False), (0, True)])
def test_a_right_place_runs(place_bytes: int, is_ordered: bool) -> None:
    values = np.arange(16, dtype=np.float32)
    made = activation(place_bytes, is_ordered=is_ordered)
    found = run_program(made, {"x": values}).outputs
    assert np.array_equal(found["z"], values)
    assert np.array_equal(found["y"], -values)


@pytest.mark.parametrize(
    ("place_bytes", "text"),
    [(0, "race"), (32, "race: its destination overlaps a source"), (-64, "outside|bounds|address")],
)
def test_a_wrong_place_is_caught(place_bytes: int, text: str) -> None:
    """On what is still to be stored, half over what is read, below the scratchpad."""
    made = activation(place_bytes)
    with pytest.raises(ProgramError, match=text):
        run_program(made, {"x": np.zeros(16, dtype=np.float32)})
    assert verify(made).refuted
