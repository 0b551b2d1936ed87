"""Rolling repeated instructions into loops loses nothing and finds what is there."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.dtypes import DType
from tilewright.errors import ProgramError
from tilewright.lowering.isa import Access, Engine, Instruction, Opcode, Post, Space, Wait
from tilewright.lowering.loops import roll, unroll

ME = Engine.ME


def local(base: int, *steps: int) -> Access:
    return Access(Space.L1, DType.F32, base, (), (4,), steps)


def matrix(a: int, b: int, c: int, **rest: int) -> Instruction:
    return Instruction(
        opcode=Opcode.MM,
        engine=ME,
        domain=(8,),
        dst=local(c),
        sources=(local(a), local(b)),
        **rest,  # type: ignore[arg-type]
    )


def loop(count: int, *body: Instruction) -> tuple[Instruction, ...]:
    return (
        Instruction(opcode=Opcode.LOOP, engine=ME, count=count),
        *body,
        Instruction(opcode=Opcode.END, engine=ME),
    )


@st.composite
def loopy_streams(draw: st.DrawFn) -> tuple[Instruction, ...]:
    """Streams with nests of repeats, perturbed in places."""
    out: list[Instruction] = []
    for _ in range(draw(st.integers(1, 4))):
        body = draw(st.lists(st.sampled_from([0, 64, 128]), min_size=1, max_size=3))
        steps = draw(st.tuples(st.integers(-1, 2), st.integers(-1, 2)))
        for outer in range(draw(st.integers(1, 4))):
            for inner in range(draw(st.integers(1, 5))):
                for place, base in enumerate(body):
                    moved = base + 64 * (outer * steps[0] + inner * steps[1])
                    out.append(matrix(moved, base, place, tag=draw(st.sampled_from([0, 0, 0, 1]))))
    return tuple(out)


@settings(max_examples=200)
@given(loopy_streams())
def test_unroll_is_the_inverse_of_roll(stream: tuple[Instruction, ...]) -> None:
    rolled = roll(stream)
    assert unroll(rolled) == stream
    assert len(rolled) <= len(stream)
    assert roll(rolled) == rolled


def test_a_nest_becomes_two_loops() -> None:
    stream = tuple(matrix(1000 * i + 4 * j, 4 * j, 64 * i) for i in range(5) for j in range(7))
    (inner,) = (
        replace(matrix(0, 0, 0), dst=local(0, 64, 0), sources=(local(0, 1000, 4), local(0, 0, 4))),
    )
    assert roll(stream) == loop(5, *loop(7, inner))


def test_bodies_of_several_instructions() -> None:
    wait = Instruction(opcode=Opcode.WT, engine=ME, waits=(Wait(3, 1),))
    post = Instruction(opcode=Opcode.PS, engine=ME, posts=(Post(4, 1),))
    stream = tuple(x for i in range(100) for x in (wait, matrix(64 * i, 0, 0), post))
    moving = replace(matrix(0, 0, 0), dst=local(0, 0), sources=(local(0, 64), local(0, 0)))
    assert roll(stream) == loop(100, wait, moving, post)


def test_streams_without_repeats_stay() -> None:
    stream = tuple(matrix(0, 0, 0, tag=i * i % 31) for i in range(16))
    assert roll(stream) == stream
    assert unroll(stream) == stream


def test_fifty_thousand_instructions_roll() -> None:
    """Short runs of four bodies: the worst case is a long list of small loops."""
    stream = tuple(matrix(64 * (i % 5), 4 * i, (i // 50) ** 2, tag=i // 500) for i in range(50_000))
    rolled = roll(stream)
    assert unroll(rolled) == stream
    assert len(rolled) < 6_000


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (loop(2)[:1], "instruction 0: LOOP without an END"),
        (loop(2)[1:], "instruction 0: END without a LOOP"),
        (
            loop(2, *loop(2, *loop(2))),
            "instruction 2: found loops nested 3 deep, expected at most 2",
        ),
        (loop(900, *loop(900, matrix(0, 0, 0))), "unrolls to more than 1000"),
        (loop(2**32 - 1, matrix(0, 0, 0)), "found 4294967295 iterations, expected at most 1000"),
    ],
)
def test_malformed_and_endless_loops_are_refused(
    stream: tuple[Instruction, ...], message: str
) -> None:
    with pytest.raises(ProgramError, match=message):
        unroll(stream, 1000)


def test_empty_bodies_take_no_time() -> None:
    assert unroll(loop(4_000_000, *loop(4_000_000))) == ()
