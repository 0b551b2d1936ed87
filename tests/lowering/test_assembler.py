"""The assembly language holds whole programs and names the line of a mistake."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from tilewright.dtypes import DType
from tilewright.errors import ProgramError
from tilewright.graph import HostModel
from tilewright.hwmodel.load import load_target
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.lowering.assembler import assemble, disassemble, listing
from tilewright.lowering.builder import ProgramBuilder
from tilewright.lowering.isa import Access, Engine, Instruction, Opcode, Space
from tilewright.lowering.loops import roll
from tilewright.lowering.program import HostRegion, Program
from tilewright.lowering.program_file import same_program
from tilewright.simulator.functional import run_program


@cache
def program() -> Program:
    """Double every row of x on its tile, four columns at a time; plus unused data and a region."""
    b = ProgramBuilder(load_target("corsair"), LogicalMesh(("x",), (2,)), "doubling")
    x, y = b.input("x", (2, 16)), b.output("y", (2, 16))
    rng = np.random.default_rng(3)
    b.constant("large", rng.normal(size=(20, 20)).astype(np.float32))
    b.constant("none", np.zeros((0,), np.int8))
    model = HostModel(
        model_bytes=bytes(1000),
        input_names=("a",),
        input_shapes=((),),
        output_names=("b",),
        op_types=("If",),
        reason="control flow",
    )
    b.host_region(HostRegion(model=model, inputs=(x,), outputs=(y,)))
    at = b.scratch(64)
    whole = b.access(Space.L1, at, (16,))
    rows = {t: b.access(Space.DRAM, t.address, (16,), coefficients=(64,)) for t in (x, y)}
    b.step(
        Instruction(opcode=Opcode.LD, engine=Engine.DI, domain=(16,), dst=whole, sources=(rows[x],))
    )
    for column in range(4):
        piece = b.access(Space.L1, at + 16 * column, (4,))
        b.step(
            Instruction(
                opcode=Opcode.VEC,
                engine=Engine.VE,
                domain=(4,),
                dst=piece,
                sources=(piece, piece),
                fn="add",
                tag=1,
            )
        )
    b.step(
        Instruction(opcode=Opcode.ST, engine=Engine.DO, domain=(16,), dst=rows[y], sources=(whole,))
    )
    found = b.build(["double"])
    (group,) = found.groups
    run = {engine: roll(stream) for engine, stream in group.run.items()}
    return replace(found, groups=(replace(group, run=run),), facts={"a": "b"})


def test_text_round_trips() -> None:
    text = disassemble(program())
    assert same_program(assemble(text), program())
    assert disassemble(assemble(text)) == text


def test_text_is_readable() -> None:
    lines = disassemble(program(), data=False).split("\n")
    start = lines.index(".stream 0 run VE")
    assert lines[start + 1 : start + 8] == [
        "  VE VEC.add [4] f32@L1+0x0(4) = f32@L1+0x0(4) f32@L1+0x0(4) wait s11x1 tag 1 ; double",
        "  VE VEC.add [4] f32@L1+0x10(4) = f32@L1+0x10(4) f32@L1+0x10(4) tag 1 ; double",
        "  VE VEC.add [4] f32@L1+0x20(4) = f32@L1+0x20(4) f32@L1+0x20(4) tag 1 ; double",
        "  VE VEC.add [4] f32@L1+0x30(4) = f32@L1+0x30(4) f32@L1+0x30(4) post s8x1 tag 1 ; double",
        "  VE HALT",
        ".stream 0 run DI",
        "  DI LD [16] f32@L1+0x0(4) = f32@DRAM+0x0{64}(4) post s11x1",
    ]
    assert not any(line.startswith((".model", ".constant")) for line in lines)


def test_a_program_changed_by_hand_runs_changed() -> None:
    text = disassemble(program()).replace("VE VEC.add", "VE VEC.sub")
    x = np.ones((2, 16), np.float32)
    np.testing.assert_array_equal(run_program(program(), {"x": x}).outputs["y"], x + x)
    np.testing.assert_array_equal(run_program(assemble(text), {"x": x}).outputs["y"], x - x)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            ".tilewright 1",
            ".tilewright 2",
            "line 1: found '.tilewright 2', expected '.tilewright 1'",
        ),
        ("  VE HALT", "  VE JUMP", "line 8: found 'JUMP', expected a known engine and opcode"),
        ("  VE HALT", "  VX HALT", "line 8: found 'VX', expected a known"),
        ("  VE HALT", "  VE HALT count", "line 8: found the end of the line, expected more"),
        ("  VE HALT", "  VE HALT count x", "line 8: invalid literal for int"),
        ("  VE HALT", "  VE HALT count 1 count 1", "line 8: found 'count', expected imm"),
        ("wait s11x1", "wait r11x1", "line 4: found 'r11x1', expected a semaphore like s3x1"),
        ("= f32@DRAM", "= f33@DRAM", "'f33' is not a valid DType"),
        ("= f32@DRAM", "= f32@SRAM", "found 'f32@SRAM.*', expected an access like"),
        ("= f32@DRAM", "- f32@DRAM", "found '-', expected = or"),
        (".stream 0 run VE\n", ".stream 0 run ME\n", "section '.stream 0 run VE' is missing"),
        (".model 0\n", ".model 0\n?\n", "found bad base64"),
        (
            ".constant 0\n",
            ".constant 0\nAAAA\n",
            "constant 'large': found 1603 bytes, expected 1600",
        ),
        (".constant 0\n", ".constant 0\n.constant 0\n", "found a second '.constant 0'"),
        (
            ".constant 0\n",
            ".constant 9\n.constant 0\n",
            "found sections .constant 9, expected only",
        ),
        ("VEC.add [4]", "VEC.add [1]", "VEC: found domain .1., expected sizes of at least 2"),
    ],
)
def test_mistakes_are_named(old: str, new: str, message: str) -> None:
    text = disassemble(program())
    assert old in text
    with pytest.raises(ProgramError, match=message):
        assemble(text.replace(old, new, 1))


def test_listing_is_cut() -> None:
    (group,) = program().groups
    text = listing(group.run, 2, program().tags)
    assert text.count("VEC.add") == 2
    assert "VE: 5 instructions" in text
    assert "… 3 more" in text
    assert listing({}, 5) == ""


def test_loop_bodies_are_indented() -> None:
    piece = Access(Space.L1, DType.F32, 0, (0,), (4,), (16,))
    body = Instruction(opcode=Opcode.VEC, engine=Engine.VE, domain=(4,), dst=piece, fn="fill")
    loop = Instruction(opcode=Opcode.LOOP, engine=Engine.VE, count=4)
    end = Instruction(opcode=Opcode.END, engine=Engine.VE)
    assert listing({Engine.VE: (loop, body, end)}, 9).split("\n")[1:] == [
        "  VE LOOP count 4",
        "    VE VEC.fill [4] f32@L1+0x0(4)<16> =",
        "  VE END",
    ]
