"""Program files and assembly texts hold whole programs; damaged ones are refused cleanly."""

from __future__ import annotations

import re
import zlib
from dataclasses import replace
from functools import cache
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.dtypes import DType
from tilewright.errors import ProgramError
from tilewright.graph import HostModel
from tilewright.hwmodel.load import load_target
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.lowering.builder import ProgramBuilder
from tilewright.lowering.isa import Engine, Instruction, Opcode, Post, Space
from tilewright.lowering.loops import roll
from tilewright.lowering.program import HostRegion, Program
from tilewright.lowering.program_file import (
    program_bytes,
    read_program,
    same_program,
    write_program,
)
from tilewright.simulator.hazards import check_hazards


@cache
def program() -> Program:
    """A program with loops, constants of odd types, a host region, tags and facts."""
    b = ProgramBuilder(load_target("corsair"), LogicalMesh(("x", "y"), (2, 2)), "sample")
    x, y = b.input("x", (4, 64)), b.output("y", (64,))
    b.constant("halves", np.array([1.5, -2.0], ml_dtypes.bfloat16))
    b.constant("flags", np.array([[True], [False]]))
    b.constant("nothing", np.zeros((0, 3), np.int64))
    b.constant("weird", np.array([np.nan, -0.0, np.inf], np.float32))
    model = HostModel(
        model_bytes=bytes(range(256)) * 2,
        input_names=("a",),
        input_shapes=((4, 64),),
        output_names=("b",),
        op_types=("Loop", "If"),
        reason="control flow",
    )
    b.host_region(HostRegion(model=model, inputs=(x,), outputs=(y,)))
    at = b.scratch(64 * 256)
    for step in range(6):
        local = b.access(Space.L1, at + 256 * step, (64,))
        source = b.access(Space.DRAM, x.address + 4 * step, (58,), coefficients=(256, 512))
        b.emit(
            Instruction(
                opcode=Opcode.LD,
                engine=Engine.DI,
                domain=(58,),
                dst=replace(local, strides=(4,)),
                sources=(source,),
                posts=(Post(0, 1),),
                tag=1,
            )
        )
        b.emit(
            Instruction(
                opcode=Opcode.VEC,
                engine=Engine.VE,
                domain=(64,),
                dst=b.access(Space.L1, at + 8192, (64,)),
                fn="fill",
                immediates=(0.1, -0.0),
            ),
            "load",
        )
    found = b.build(["conv1; the first\nlayer"])
    (group,) = found.groups
    run = {engine: roll(stream[:-1]) + stream[-1:] for engine, stream in group.run.items()}
    return replace(found, groups=(replace(group, run=run),), facts={"gap": "0.0", "bound": "12"})


def test_files_round_trip_and_are_deterministic(tmp_path: Path) -> None:
    path = tmp_path / "p.tw"
    write_program(program(), path)
    loaded = read_program(path)
    assert same_program(loaded, program())
    assert loaded.target == program().target
    assert program_bytes(loaded) == path.read_bytes() == program_bytes(program())
    assert [p.name for p in tmp_path.iterdir()] == ["p.tw"]
    for (tensor, found), (_, expected) in zip(loaded.constants, program().constants, strict=True):
        assert found.dtype == expected.dtype == tensor.dtype.numpy
        assert found.shape == expected.shape


def test_same_program_sees_differences() -> None:
    base = program()
    (tensor, array), *rest = base.constants
    other = array.copy()
    other[0] = 7
    (group,) = base.groups
    changed_stream = {**group.run, Engine.DI: group.run[Engine.DI][:-1]}
    for changed in (
        replace(base, constants=((tensor, other), *rest)),
        replace(base, facts={"gap": "0.1", "bound": "12"}),
        replace(base, groups=(replace(group, run=changed_stream),)),
        replace(base, groups=()),
        replace(base, tags=()),
    ):
        assert not same_program(base, changed)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "p.tw"
    write_program(program(), path)
    before = path.read_bytes()
    (group,) = program().groups
    stream = group.run[Engine.DI]
    broken = {Engine.DI: (replace(stream[1], domain=(1,)), *stream[2:])}
    with pytest.raises(ProgramError, match="group 0 run DI"):
        write_program(replace(program(), groups=(replace(group, run=broken),)), path)
    with pytest.raises(FileNotFoundError):
        write_program(program(), tmp_path / "missing" / "p.tw")
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def sealed(contents: bytes) -> bytes:
    """Return the contents with a correct checksum."""
    crc = zlib.crc32(contents[24:]).to_bytes(4, "little")
    return contents[:12] + crc + contents[16:]


def test_damage_is_named() -> None:
    good = program_bytes(program())
    cases = {
        b"": "found 0 bytes, expected at least 24",
        b"PK" + good[2:]: "this is no program file",
        good[:8] + b"\x02" + good[9:]: "found version 2, expected 1",
        good[:-1]: "found checksum .* the file is damaged",
        good[:100] + b"~" + good[101:]: "found checksum",
        sealed(good[:-1]): "expected",
        sealed(good + b"x"): "expected the end",
        sealed(good[:16] + b"\xff\xff\xff\x00" + good[20:]): "found a header of 16777215 bytes",
        sealed(good.replace(b'"dram_bytes":', b'"dram_bytez":')): "header: dram_byte",
        sealed(
            good.replace(b'"sizes":[2,2]', b'"sizes":[2,9]')
        ): "found group 0: 4 tiles, expected 18",
    }
    for contents, message in cases.items():
        with pytest.raises(ProgramError, match=message):
            read_program(contents)


def test_missing_files_are_program_errors(tmp_path: Path) -> None:
    with pytest.raises(ProgramError, match=r"no\.tw': No such file"):
        read_program(tmp_path / "no.tw")
    with pytest.raises(ProgramError, match="directory"):
        read_program(tmp_path)


@given(st.binary(max_size=200))
def test_random_bytes_are_refused(contents: bytes) -> None:
    for prefix in (b"", program_bytes(program())[:24]):
        with pytest.raises(ProgramError):
            read_program(sealed(prefix + contents) if prefix else contents)


@settings(max_examples=120)
@given(st.data())
def test_mutated_files_are_read_or_refused(data: st.DataObject) -> None:
    """Whatever passes the reader can also be analysed without any other kind of error."""
    contents = bytearray(program_bytes(program()))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(24, len(contents) - 1))
        contents[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.sampled_from([None, None, None, data.draw(st.integers(24, len(contents)))]))
    try:
        found = read_program(sealed(bytes(contents[:cut])))
        check_hazards(found)
    except ProgramError as error:
        assert not re.search(r"Traceback|object at 0x", str(error))  # noqa: PT017


def test_numbers_of_engines_are_checked() -> None:
    good = program_bytes(program())
    for engines in (b"[2,2]", b"[9]", b"[-1]"):
        assert b'"load":[1]' in good
        contents = good.replace(b'"load":[1]', b'"load":' + engines)
        grown = len(contents) - len(good)
        size = int.from_bytes(good[16:20], "little") + grown
        with pytest.raises(ProgramError, match="expected ascending numbers of engines"):
            read_program(sealed(contents[:16] + size.to_bytes(4, "little") + contents[20:]))


def test_dtype_of_every_constant_is_kept() -> None:
    base = program()
    for dtype in DType:
        array = np.arange(3).astype(dtype.numpy)
        tensor = replace(base.constants[0][0], dtype=dtype, shape=(3,), address=0)
        one = replace(base, constants=((tensor, array),))
        assert same_program(read_program(program_bytes(one)), one)
