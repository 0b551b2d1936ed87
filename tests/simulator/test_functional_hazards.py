"""Wrong synchronisation, addresses and initialisation are refused; the corrected program is accepted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tilewright.dtypes import DType
from tilewright.errors import ProgramError
from tilewright.hwmodel.load import load_target
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.lowering.builder import ProgramBuilder
from tilewright.lowering.isa import Access, Engine, Instruction, Opcode, Post, Space, Wait
from tilewright.lowering.program import Program
from tilewright.simulator.functional import run_program
from tilewright.simulator.hazards import check_hazards

L1, DRAM = Space.L1, Space.DRAM


def builder(sizes: tuple[int, ...]) -> ProgramBuilder:
    return ProgramBuilder(load_target("corsair"), LogicalMesh(tuple("xyz"[: len(sizes)]), sizes))


def copy(
    opcode: Opcode, dst: Access, source: Access, domain: tuple[int, ...], **rest: Any
) -> Instruction:
    engine = {Opcode.LD: Engine.DI, Opcode.VEC: Engine.VE}.get(opcode, Engine.DO)
    fn = "identity" if opcode == Opcode.VEC else ""
    return Instruction(
        opcode=opcode, engine=engine, domain=domain, dst=dst, sources=(source,), fn=fn, **rest
    )


def fill(dst: Access, domain: tuple[int, ...], **rest: Any) -> Instruction:
    return Instruction(
        opcode=Opcode.VEC, engine=Engine.VE, domain=domain, dst=dst, fn="fill", **rest
    )


def posts(*entries: int) -> tuple[Post, ...]:
    return tuple(Post(s, 1) for s in entries)


def waits(*entries: int) -> tuple[Wait, ...]:
    return tuple(Wait(s, 1) for s in entries)


def changed(program: Program, engine: Engine, index: int, **fields: Any) -> Program:
    """Return the program with some fields of one instruction of the run phase replaced."""
    (group,) = program.groups
    stream = list(group.run[engine])
    stream[index] = replace(stream[index], **fields)
    return replace(program, groups=(replace(group, run={**group.run, engine: tuple(stream)}),))


def test_deadlock_names_the_cycle() -> None:
    b = builder(())
    for engine, wait, post in ((Engine.ME, 1, 2), (Engine.VE, 2, 1)):
        b.emit(Instruction(opcode=Opcode.WT, engine=engine, waits=waits(wait), posts=posts(post)))
    with pytest.raises(ProgramError) as caught:
        check_hazards(b.build())
    text = str(caught.value)
    assert "ME 0 WT waits for 1 of semaphore 1, which holds 0; next posted by VE" in text
    assert "cycle ME -> VE -> ME" in text


def test_deadlock_names_the_missing_post() -> None:
    b = builder(())
    b.emit(Instruction(opcode=Opcode.WT, engine=Engine.CT, waits=waits(9), tag=1))
    with pytest.raises(ProgramError, match=r"CT 0 WT \(conv1\) waits .* nobody posts it any more"):
        run_program(b.build(["conv1"]), {}, check=False)


def test_unbalanced_and_overflowing_semaphores() -> None:
    b = builder(())
    b.emit(Instruction(opcode=Opcode.PS, engine=Engine.CT, posts=(Post(4, 2),)))
    with pytest.raises(ProgramError, match="semaphores s4=2 at the end, expected 0"):
        check_hazards(b.build())
    b.emit(Instruction(opcode=Opcode.PS, engine=Engine.CT, posts=(Post(4, 65535),)))
    with pytest.raises(ProgramError, match="semaphore 4 reaches 65537, the limit is 65535"):
        check_hazards(b.build())


def load_then_use() -> Program:
    """DI loads twice into one buffer, VE negates it in between; s0 full, s1 free."""
    b = builder((2,))
    x = b.input("x", (2, 4))
    buffer, other = b.scratch(16), b.scratch(16)
    source = b.access(DRAM, x.address, (4,), coefficients=(16,))
    local, result = b.access(L1, buffer, (4,)), b.access(L1, other, (4,))
    b.emit(copy(Opcode.LD, local, source, (4,), posts=posts(0)))
    b.emit(copy(Opcode.VEC, result, local, (4,), waits=waits(0), posts=posts(1)))
    b.emit(copy(Opcode.LD, local, source, (4,), waits=waits(1)))
    return b.build()


def test_local_races() -> None:
    program = load_then_use()
    check_hazards(program)
    early_use = changed(changed(program, Engine.VE, 0, waits=()), Engine.DI, 0, posts=())
    with pytest.raises(ProgramError, match=r"uninitialised|race"):
        check_hazards(early_use)
    early_load = changed(changed(program, Engine.VE, 0, posts=()), Engine.DI, 1, waits=())
    with pytest.raises(ProgramError, match=r"race: it reads L1 .* which .*DI 1 LD writes"):
        check_hazards(early_load)


def test_disjoint_columns_of_one_buffer_do_not_race() -> None:
    """DI writes the left columns while VE writes the right ones."""
    for gap in (16, 12):
        b = builder((2,))
        x = b.input("x", (8, 4))
        buffer = b.scratch(8 * 32)
        left = b.access(L1, buffer, (8, 4), strides=(8, 1))
        right = b.access(L1, buffer + gap, (8, 4), strides=(8, 1))
        b.emit(copy(Opcode.LD, left, b.access(DRAM, x.address, (8, 4)), (8, 4)))
        b.emit(fill(right, (8, 4)))
        if gap == 16:
            check_hazards(b.build())
        else:
            with pytest.raises(ProgramError, match="race"):
                check_hazards(b.build())


def gather_twice(sizes: tuple[int, ...], *, slot_bytes: int = 16) -> Program:
    """Two all-gathers into one buffer, which DO stores after each."""
    b = builder(sizes)
    n = b.mesh.tiles
    x, y = b.input("x", (n, 4)), b.output("y", (n, n, 4))
    at, buffer = b.scratch(16), b.scratch(16 * n)
    own = tuple(int(np.prod(sizes[a + 1 :], dtype=int)) * 16 for a in range(len(sizes)))
    slot = tuple(c * slot_bytes // 16 for c in own)
    axes = (1 << len(sizes)) - 1
    b.emit(
        copy(
            Opcode.LD,
            b.access(L1, at, (4,)),
            b.access(DRAM, x.address, (4,), coefficients=own),
            (4,),
            posts=posts(0),
        )
    )
    target = b.access(DRAM, y.address, (n * 4,), coefficients=tuple(c * n for c in own))
    for round_number in range(2):
        # s2 ready, s3 arrived, s4 all here, s5 stored
        first = waits(5) if round_number else ()
        b.emit(
            Instruction(
                opcode=Opcode.PS,
                engine=Engine.CT,
                axes=axes,
                waits=first,
                posts=(Post(2, 1, remote=True),),
            )
        )
        b.emit(
            copy(
                Opcode.MCS,
                b.access(L1, buffer, (4,), coefficients=slot),
                b.access(L1, at, (4,)),
                (4,),
                axes=axes,
                waits=(Wait(2, n - 1), *(() if round_number else waits(0))),
                posts=(Post(3, 1, remote=True), Post(6, 1)),
            )
        )
        b.emit(
            Instruction(
                opcode=Opcode.WT,
                engine=Engine.CT,
                waits=(Wait(3, n - 1), Wait(6, 1)),
                posts=posts(4),
            )
        )
        local = b.access(L1, buffer, (n * 4,))
        b.emit(
            copy(
                Opcode.ST,
                target,
                local,
                (n * 4,),
                waits=waits(4),
                posts=() if round_number else posts(5),
            )
        )
    return b.build()


@pytest.mark.parametrize("sizes", [(2,), (4,), (2, 3), (2, 2, 2)])
def test_all_gather_with_handshake_is_accepted(
    sizes: tuple[int, ...], rng: np.random.Generator
) -> None:
    program = gather_twice(sizes)
    x = rng.normal(size=program.inputs[0].shape).astype("f4")
    result = run_program(program, {"x": x}).outputs["y"]
    np.testing.assert_array_equal(result, np.broadcast_to(x, result.shape))


@pytest.mark.parametrize("sizes", [(2,), (2, 3)])
def test_all_gather_without_parts_of_the_handshake(sizes: tuple[int, ...]) -> None:
    program = gather_twice(sizes)
    n = program.groups[0].mesh.tiles
    # the second ready post does not wait until the buffer has been stored
    hasty = changed(changed(program, Engine.CT, 2, waits=()), Engine.DO, 1, posts=())
    with pytest.raises(ProgramError, match="race"):
        check_hazards(hasty)
    # the consumer waits for the own part only, the arrivals are taken later
    blind = changed(program, Engine.CT, 1, waits=(Wait(6, 1),))
    blind = changed(blind, Engine.CT, 3, waits=(Wait(3, 2 * (n - 1)), Wait(6, 1)))
    with pytest.raises(ProgramError, match="race"):
        check_hazards(blind)


def test_senders_that_share_a_slot_race() -> None:
    with pytest.raises(ProgramError, match="race: it writes some bytes more than once"):
        check_hazards(gather_twice((4,), slot_bytes=8))


def spill(*, barrier: bool, own_piece: bool) -> Program:
    """Each tile stores a piece to DRAM and loads back its own, or the whole."""
    b = builder((2, 3))
    y, middle = b.output("y", (6, 6)), b.tensor("middle", (6,), DType.F32)
    at, back = b.scratch(4), b.scratch(24)
    own = (12, 4)
    b.step(fill(b.access(L1, at, ()), (), immediates=(3.0, 0.0)))
    piece = b.access(DRAM, middle.address, (), coefficients=own)
    b.step(copy(Opcode.ST, piece, b.access(L1, at, ()), ()))
    if barrier:
        b.barrier()
    if own_piece:
        b.step(copy(Opcode.LD, b.access(L1, back, ()), piece, ()))
        target = b.access(DRAM, y.address, (), coefficients=own)
        b.step(copy(Opcode.ST, target, b.access(L1, back, ()), ()))
        return replace(b.build(), outputs=(replace(y, shape=(6,)),))
    b.step(copy(Opcode.LD, b.access(L1, back, (6,)), b.access(DRAM, middle.address, (6,)), (6,)))
    target = b.access(DRAM, y.address, (6,), coefficients=(72, 24))
    b.step(copy(Opcode.ST, target, b.access(L1, back, (6,)), (6,)))
    return b.build()


def test_dram_of_other_tiles_needs_a_barrier() -> None:
    for barrier, own_piece in ((True, False), (False, True), (True, True)):
        program = spill(barrier=barrier, own_piece=own_piece)
        outputs = run_program(program, {}).outputs
        np.testing.assert_array_equal(outputs["y"], np.full(outputs["y"].shape, 3, "f4"))
    with pytest.raises(
        ProgramError, match=r"race: it reads DRAM .* which .* ST \(of any tile\) writes"
    ):
        check_hazards(spill(barrier=False, own_piece=False))


def test_stores_of_all_tiles_to_one_place_race() -> None:
    b = builder((2, 3))
    y, at = b.output("y", (4,)), b.scratch(16)
    b.step(fill(b.access(L1, at, (4,)), (4,)))
    b.step(
        copy(Opcode.ST, b.access(DRAM, y.address, (4,)), b.access(L1, at, (4,)), (4,), axes=0b11)
    )
    program = b.build()
    check_hazards(program)
    for axes in (0b00, 0b01, 0b10):
        with pytest.raises(ProgramError, match="race: it writes some bytes more than once"):
            check_hazards(changed(program, Engine.DO, 0, axes=axes))


def test_uninitialised_reads() -> None:
    b = builder((4,))
    x = b.input("x", (4, 3))
    buffer, other = b.scratch(16), b.scratch(16)
    # row i of the tile's two rows, on tile i
    own = b.access(L1, buffer, (3,), coefficients=(4,))
    b.step(copy(Opcode.LD, own, b.access(DRAM, x.address, (3,), coefficients=(12,)), (3,)))
    b.step(copy(Opcode.VEC, b.access(L1, other, (3,), coefficients=(0,)), own, (3,)))
    with pytest.raises(ProgramError, match="out of bounds: L1"):
        check_hazards(replace(b.build(), sram_bytes=20))
    program = replace(b.build(), sram_bytes=128)
    check_hazards(program)
    shifted = replace(own, base=own.base + 4)
    with pytest.raises(
        ProgramError, match=r"VEC.identity: uninitialised: it reads bytes of \[0x4, 0x1c\)"
    ):
        check_hazards(changed(program, Engine.VE, 0, sources=(shifted,)))
    with pytest.raises(ProgramError, match="LD: uninitialised"):
        check_hazards(replace(program, inputs=(), dram_bytes=64))


def test_columns_written_one_by_one_initialise_the_whole() -> None:
    b = builder(())
    buffer, other = b.scratch(48), b.scratch(48)
    for column in range(3):
        b.step(fill(b.access(L1, buffer + 4 * column, (4,), strides=(3,)), (4,)))
    b.step(copy(Opcode.VEC, b.access(L1, other, (12,)), b.access(L1, buffer, (12,)), (12,)))
    program = b.build()
    check_hazards(program)
    with pytest.raises(ProgramError, match="uninitialised"):
        check_hazards(
            changed(
                program, Engine.VE, 1, domain=(3,), dst=b.access(L1, buffer, (3,), strides=(3,))
            )
        )


@pytest.mark.parametrize(("space", "limit"), [(L1, 0x40), (DRAM, 0x80)])
def test_out_of_bounds(space: Space, limit: int) -> None:
    b = builder((2,))
    x = b.input("x", (2, 16))
    at = b.scratch(64)
    source = b.access(DRAM, x.address, (16,), coefficients=(64,))
    b.step(copy(Opcode.LD, b.access(L1, at, (16,)), source, (16,)))
    program = b.build()
    check_hazards(program)
    instruction = program.groups[0].run[Engine.DI][0]
    assert instruction.dst is not None
    fields = (
        {"dst": replace(instruction.dst, base=4)}
        if space == L1
        else {"sources": (replace(source, coefficients=(68,)),)}
    )
    broken = changed(program, Engine.DI, 0, **fields)
    for check in (True, False):
        with pytest.raises(
            ProgramError, match=rf"DI 0 LD: out of bounds: .* the limit is {limit:#x}"
        ):
            run_program(broken, {"x": np.zeros((2, 16), "f4")}, check=check)


def test_two_posters_of_one_semaphore_are_ambiguous() -> None:
    """VE waits for ME, but DI's post to the same semaphore could release it."""
    b = builder(())
    for engine in (Engine.ME, Engine.DI):
        b.emit(Instruction(opcode=Opcode.PS, engine=engine, posts=posts(0)))
    b.emit(Instruction(opcode=Opcode.WT, engine=Engine.VE, waits=waits(0)))
    b.emit(Instruction(opcode=Opcode.WT, engine=Engine.VE, waits=waits(0)))
    with pytest.raises(ProgramError, match="use one semaphore for each poster"):
        check_hazards(b.build())
    both = changed(b.build(), Engine.VE, 0, waits=(Wait(0, 2),))
    check_hazards(changed(both, Engine.VE, 1, waits=()))


def test_two_waiters_on_one_semaphore_are_ambiguous() -> None:
    b = builder(())
    b.emit(Instruction(opcode=Opcode.PS, engine=Engine.ME, posts=(Post(0, 2),)))
    for engine in (Engine.VE, Engine.DI):
        b.emit(Instruction(opcode=Opcode.WT, engine=engine, waits=waits(0)))
    with pytest.raises(ProgramError, match="both wait for semaphore 0"):
        check_hazards(b.build())


def test_a_destination_that_overlaps_its_source_is_refused() -> None:
    b = builder(())
    at = b.scratch(64)
    b.step(fill(b.access(L1, at, (8,)), (8,)))
    b.step(copy(Opcode.VEC, b.access(L1, at, (4,)), b.access(L1, at, (4,)), (4,)))
    program = b.build()
    check_hazards(program)
    with pytest.raises(ProgramError, match="its destination overlaps a source"):
        check_hazards(changed(program, Engine.VE, 1, dst=b.access(L1, at + 4, (4,))))


def ring(*, steps: int, handshake: bool, slots: int) -> Program:
    """Pass a value around a ring of 4: every tile forwards what it received last."""
    b = builder((4,))
    x, y = b.input("x", (4, 2)), b.output("y", (4, 2))
    buffers = [b.scratch(8) for _ in range(slots)]
    first = b.access(L1, buffers[0], (2,))
    b.step(copy(Opcode.LD, first, b.access(DRAM, x.address, (2,), coefficients=(8,)), (2,)))
    if handshake:
        b.barrier()
    arrival = b.semaphore()
    for step in range(steps):
        source, target = (b.access(L1, buffers[(step + k) % slots], (2,)) for k in range(2))
        b.step(
            copy(
                Opcode.SND,
                target,
                source,
                (2,),
                axes=1,
                shift=1,
                posts=(Post(arrival, 1, remote=True),),
            )
        )
        b.step(Instruction(opcode=Opcode.WT, engine=Engine.CT, waits=(Wait(arrival, 1),)))
    b.step(copy(Opcode.ST, b.access(DRAM, y.address, (2,), coefficients=(8,)), target, (2,)))
    return b.build()


def test_ring_into_fresh_slots_needs_no_handshake(rng: np.random.Generator) -> None:
    program = ring(steps=3, handshake=False, slots=4)
    x = rng.normal(size=(4, 2)).astype("f4")
    np.testing.assert_array_equal(
        run_program(program, {"x": x}).outputs["y"], np.roll(x, 3, axis=0)
    )


def test_ring_that_reuses_slots_needs_one() -> None:
    """The left neighbour may be a step ahead and overwrite what has not been forwarded."""
    with pytest.raises(ProgramError, match="race: it writes L1"):
        check_hazards(ring(steps=3, handshake=False, slots=2))
    # even a barrier at the start does not hold it back later
    with pytest.raises(ProgramError, match="race: it writes L1"):
        check_hazards(ring(steps=3, handshake=True, slots=2))
