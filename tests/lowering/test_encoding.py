"""Binary and textual forms of instructions are lossless; broken bytes are refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.dtypes import DType
from tilewright.errors import ProgramError
from tilewright.lowering.assembler import parse_instruction
from tilewright.lowering.encoding import ACCESS, DOMAIN, LAYOUT, WORD, Encoded, decode, encode
from tilewright.lowering.isa import (
    FUNCTIONS,
    Access,
    Engine,
    Instruction,
    Opcode,
    Post,
    Space,
    Wait,
)
from tilewright.lowering.listing import format_instruction

I64 = st.integers(-(2**63), 2**63 - 1)
U32 = st.integers(0, 2**32 - 1)
SEMAPHORE = st.integers(0, 255)
COUNT = st.integers(0, 65535)
AXES = 2

ACCESSES = st.builds(
    Access,
    space=st.sampled_from(Space),
    dtype=st.sampled_from(DType),
    base=I64,
    coefficients=st.one_of(
        st.just((0, 0)), st.lists(I64, max_size=3).map(tuple), st.tuples(st.just(0), I64)
    ),
    strides=st.lists(I64, max_size=8).map(tuple),
    steps=st.lists(I64, max_size=2).map(tuple),
)
FLOATS = st.floats(allow_nan=False)
INSTRUCTIONS = st.builds(
    Instruction,
    opcode=st.sampled_from(Opcode),
    engine=st.sampled_from(Engine),
    domain=st.lists(U32, max_size=8).map(tuple),
    dst=st.none() | ACCESSES,
    sources=st.lists(ACCESSES, max_size=3).map(tuple),
    fn=st.sampled_from(["", *FUNCTIONS]),
    immediates=st.tuples(FLOATS, FLOATS),
    accumulate=st.booleans(),
    axes=st.integers(0, 255),
    shift=st.integers(-(2**15), 2**15 - 1),
    count=U32,
    waits=st.lists(st.builds(Wait, SEMAPHORE, COUNT), max_size=2).map(tuple),
    posts=st.lists(st.builds(Post, SEMAPHORE, COUNT, st.booleans()), max_size=2).map(tuple),
    tag=U32,
)
STREAMS = st.lists(st.lists(INSTRUCTIONS, max_size=5).map(tuple), max_size=3).map(tuple)

PLAIN = Instruction(opcode=Opcode.WT, engine=Engine.CT)
LOCAL = Access(Space.L1, DType.F32, 64, (0, 4), (16, 4))


@given(STREAMS)
def test_decode_is_the_inverse_of_encode(streams: tuple[tuple[Instruction, ...], ...]) -> None:
    encoded = encode(streams)
    assert decode(encoded) == streams
    assert [len(s) for s in encoded.streams] == [64 * len(s) for s in streams]


@given(INSTRUCTIONS)
def test_a_line_of_text_is_lossless(instruction: Instruction) -> None:
    line = format_instruction(instruction, AXES)
    assert parse_instruction(line, AXES) == instruction
    # -0.0 == 0.0 would hide a lost sign
    assert format_instruction(parse_instruction(line, AXES), AXES) == line


def test_equal_operands_are_stored_once() -> None:
    one = replace(PLAIN, domain=(2, 3), dst=LOCAL, sources=(LOCAL, replace(LOCAL, base=0)))
    encoded = encode([[one, one], [one]])
    sizes = [len(t) for t in (encoded.domains, encoded.layouts, encoded.accesses)]
    assert sizes == [DOMAIN.size, LAYOUT.size, 2 * ACCESS.size]
    assert WORD.size == 64


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"domain": (2,) * 9}, "domain: found 9 entries, expected at most 8"),
        ({"domain": (2**32,)}, "domain: a value does not fit its field"),
        ({"dst": replace(LOCAL, base=2**63)}, "access: a value does not fit its field"),
        ({"dst": replace(LOCAL, coefficients=(0,) * 4)}, "coefficients: found 4 entries"),
        ({"dst": replace(LOCAL, steps=(1, 2, 3))}, "steps: found 3 entries, expected at most 2"),
        ({"waits": (Wait(256, 1),)}, "instruction 0 WT: word: a value does not fit"),
        ({"waits": (Wait(0, 65536),)}, "instruction 0 WT: word: a value does not fit"),
        ({"posts": (Post(0, 1),) * 3}, "found 0 sources, 0 waits, 3 posts"),
        ({"fn": "frobnicate"}, "function 'frobnicate' has no code"),
        ({"shift": 2**15}, "a value does not fit"),
        ({"axes": 256}, "a value does not fit"),
    ],
)
def test_values_that_do_not_fit_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ProgramError, match=message):
        encode([[replace(PLAIN, **fields)]])  # type: ignore[arg-type]


def word(**changes: int) -> Encoded:
    """Encode a load and change some bytes of its word."""
    load = replace(PLAIN, opcode=Opcode.LD, domain=(2, 3), dst=LOCAL, sources=(LOCAL,))
    encoded = encode([[load]])
    data = bytearray(encoded.streams[0])
    for place, value in changes.items():
        data[int(place.removeprefix("b"))] = value
    return replace(encoded, streams=(bytes(data),))


@pytest.mark.parametrize(
    ("encoded", "message"),
    [
        (word(b0=99), "stream 0 at byte 0: found opcode 99, engine 4, expected known codes"),
        (word(b1=5), "stream 0 at byte 0: found opcode 5, engine 5"),
        (word(b2=200), f"at byte 2: found function 200, expected at most {len(FUNCTIONS)}"),
        (word(b5=0x80), "at byte 4: found flags 0x8006, expected known flags"),
        (word(b16=1), "at byte 16: found domain 1, expected below 1"),
        (word(b20=7), "at byte 20: found access 7, expected below 1"),
        (word(b28=1), "at byte 20: found operands .*, expected zeros for those that are absent"),
        (word(b52=1), "at byte 52: found semaphores"),
        (
            replace(word(), streams=(b"x" * 63,)),
            "stream 0 at byte 63: found 63 bytes, expected a mul",
        ),
        (replace(word(), domains=DOMAIN.pack(9, *range(8))), "domains at byte 0: found 9 entries"),
        (
            replace(word(), domains=DOMAIN.pack(1, *range(8))),
            "domains at byte 0: .* expected zeros",
        ),
        (replace(word(), accesses=ACCESS.pack(0, 99, 0, 0, 0)), "found space 0, type 99"),
        (
            replace(word(), accesses=ACCESS.pack(0, 0, 0, 1, 0)),
            "accesses at byte 4: found 1, expected",
        ),
    ],
)
def test_broken_words_and_tables_are_refused(encoded: Encoded, message: str) -> None:
    with pytest.raises(ProgramError, match=message):
        decode(encoded)


@settings(max_examples=120)
@given(STREAMS, st.data())
def test_mutated_bytes_give_instructions_or_a_program_error(
    streams: tuple[tuple[Instruction, ...], ...], data: st.DataObject
) -> None:
    encoded = encode(streams)
    parts = [encoded.domains, encoded.layouts, encoded.accesses, *encoded.streams]
    which = data.draw(st.integers(0, len(parts) - 1))
    broken = bytearray(parts[which])
    if broken:
        for _ in range(data.draw(st.integers(1, 4))):
            broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    parts[which] = bytes(broken)
    mutated = Encoded(parts[0], parts[1], parts[2], tuple(parts[3:]))
    try:
        decoded = decode(mutated)
    except ProgramError:
        return
    # what decodes is canonical: encoding it gives a program that decodes to the same
    assert list(map(len, decoded)) == list(map(len, streams))


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_random_bytes_never_crash(tables: bytes, stream: bytes) -> None:
    for encoded in (
        Encoded(tables, b"", b"", (stream,)),
        Encoded(b"", tables, stream, ()),
        Encoded(b"", b"", tables, (stream,)),
    ):
        try:
            decode(encoded)
        except ProgramError as error:
            assert "expected" in str(error)  # noqa: PT017
