"""The instruction-set page is complete, up to date, and its examples are valid."""

from __future__ import annotations

import pytest

from tilewright.hwmodel.load import load_target
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.lowering.assembler import parse_instruction
from tilewright.lowering.isa import Engine, Instruction, Opcode
from tilewright.lowering.isa_reference import EXAMPLES, PATH, TIMING, updated
from tilewright.lowering.listing import format_instruction
from tilewright.lowering.program import Group, Program
from tilewright.lowering.structure import check_structure


def test_the_page_is_up_to_date() -> None:
    """Run `python -m tilewright.lowering.isa_reference` if this fails."""
    text = PATH.read_text(encoding="utf-8")
    assert text == updated(text)
    assert list(TIMING) == list(EXAMPLES) == list(Opcode)
    assert all(f"### {opcode.name} " in text for opcode in Opcode)


def test_only_tables_of_rows_lie_in_either_memory() -> None:
    text = PATH.read_text(encoding="utf-8")
    assert "Operands: dst (L1), src0 (DRAM).\n" in text
    assert "Operands: dst (DRAM), src0 (L1).\n" in text
    assert [line for line in text.splitlines() if "(L1 or DRAM)" in line] == [
        "Operands: dst (L1), src0 (L1 or DRAM), src1 (L1)."
    ]


@pytest.mark.parametrize("opcode", [o for o in Opcode if o != Opcode.HOST])
def test_examples_are_valid_instructions(opcode: Opcode) -> None:
    instruction = parse_instruction(EXAMPLES[opcode], 2)
    assert instruction.opcode == opcode
    assert format_instruction(instruction, 2) == EXAMPLES[opcode]
    stream = [instruction]
    if opcode == Opcode.LOOP:
        stream.append(Instruction(opcode=Opcode.END, engine=instruction.engine))
    if opcode == Opcode.END:
        stream.insert(0, Instruction(opcode=Opcode.LOOP, engine=instruction.engine))
    run: dict[Engine, tuple[Instruction, ...]] = {instruction.engine: tuple(stream)}
    group = Group(mesh=LogicalMesh(("x", "y"), (2, 4)), tiles=tuple(range(8)), load={}, run=run)
    program = Program(
        name="example",
        target=load_target("corsair"),
        groups=(group, Group(mesh=LogicalMesh((), ()), tiles=(8,), load={}, run={})),
        inputs=(),
        outputs=(),
        constants=(),
        host_regions=(),
        dram_bytes=0,
        sram_bytes=0,
    )
    check_structure(program)
