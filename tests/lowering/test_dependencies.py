"""Dependencies against a byte-by-byte oracle."""

from __future__ import annotations

import random
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilewright.dtypes import DType
from tilewright.errors import ProgramError
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.lowering.accesses import Touch, are_disjoint, find_meeting, span_bytes, touches
from tilewright.lowering.dependencies import ByteOrder, find_dependencies
from tilewright.lowering.isa import Engine, Opcode, Space
from tilewright.lowering.micro import Buffer, LinearProgram, Micro, Operand

ENGINES = tuple(Engine)


def make_touch(low: int, terms: tuple[tuple[int, int], ...], item_bytes: int) -> Touch:
    terms = tuple(sorted(terms, reverse=True))
    return Touch(0, low, low + span_bytes(terms, item_bytes), True, terms, item_bytes, (), 0)


def bytes_of(touch: Touch, distance: int = 0) -> set[int]:
    steps = product(*(range(0, d * n, d) for d, n in touch.terms))
    starts = [touch.low + distance + sum(step) for step in steps]
    return {start + byte for start in starts for byte in range(touch.item_bytes)}


touch_strategy = st.builds(
    make_touch,
    st.integers(0, 40),
    st.lists(st.tuples(st.integers(1, 24), st.integers(2, 4)), max_size=3).map(tuple),
    st.sampled_from([1, 2, 4]),
)


@given(touch_strategy, touch_strategy, st.integers(-30, 30))
def test_accesses_called_disjoint_share_no_byte(a: Touch, b: Touch, distance: int) -> None:
    if are_disjoint(a, b, distance):
        assert not bytes_of(a) & bytes_of(b, distance)


@given(touch_strategy, touch_strategy, st.lists(st.integers(-30, 300), max_size=40))
def test_many_accesses_are_compared_like_one(a: Touch, like: Touch, lows: list[int]) -> None:
    expected = [i for i, low in enumerate(lows) if not are_disjoint(a, like, low - like.low)]
    assert find_meeting(a, like, np.array(lows, np.int64)).tolist() == expected


def test_interleaved_columns_are_disjoint() -> None:
    # rows of 64 bytes over 4 rows; tile columns 16 apart over 4 tiles; halves of 8 bytes
    left = make_touch(0, ((64, 4), (16, 4), (4, 2)), 4)
    right = make_touch(8, ((64, 4), (16, 4), (4, 2)), 4)
    assert are_disjoint(left, right)
    assert not bytes_of(left) & bytes_of(right)
    assert not are_disjoint(left, make_touch(4, ((64, 4), (16, 4)), 8))


@given(st.integers(0, 10**6), st.integers(1, 40))
def test_byte_order_finds_the_last_writers_and_readers(seed: int, steps: int) -> None:
    draw = random.Random(seed)
    order = ByteOrder()
    history: list[tuple[range, bool, Engine]] = []
    for position in range(steps):
        low = draw.randrange(30)
        span = range(low, low + draw.randint(1, 12))
        is_write, engine = draw.random() < 0.5, draw.choice(ENGINES)
        found: set[int] = set()
        if is_write:
            order.write(span.start, span.stop, position, found)
        else:
            order.read(span.start, span.stop, position, engine, found)
        expected: set[int] = set()
        for byte in span:
            readers: dict[Engine, int] = {}
            for earlier in reversed(range(position)):
                covered, wrote, by = history[earlier]
                if byte not in covered:
                    continue
                if wrote:
                    expected.add(earlier)
                    break
                readers.setdefault(by, earlier)
            if is_write:
                expected.update(readers.values())
        assert found - {-1} == expected
        history.append((span, is_write, engine))


def random_micros(seed: int, steps: int) -> LinearProgram:
    """Return micros on scratchpad buffers at random engines and strides."""
    draw = random.Random(seed)
    buffers = tuple(Buffer(number=n, name=f"b{n}", space=Space.L1, size_bytes=48) for n in range(3))

    def operand() -> Operand:
        stride = draw.choice([-2, -1, 1, 2, 3])
        low = 4 * abs(stride) if stride < 0 else 0
        coefficient = draw.choice([0, 4])
        offset = low + draw.randrange(12)
        return Operand(
            buffer=draw.randrange(3),
            dtype=DType.I8,
            offset_bytes=offset,
            coefficients=(coefficient,),
            strides=(stride,),
        )

    micros = tuple(
        Micro(
            opcode=Opcode.VEC,
            engine=draw.choice(ENGINES),
            domain=(draw.randint(1, 5),),
            dst=operand(),
            sources=(operand(), operand()),
        )
        for _ in range(steps)
    )
    return LinearProgram(buffers=buffers, load=(), run=micros)


@given(st.integers(0, 10**6), st.integers(1, 25))
def test_dependencies_order_all_conflicts(seed: int, steps: int) -> None:
    program = random_micros(seed, steps)
    mesh = LogicalMesh(("x",), (3,))
    addresses = (0, 20, 100)  # the first two overlap
    ordered = find_dependencies(program.run, program.buffers, addresses, mesh)
    assert ordered.micros == program.run
    # closure of edges and engine order
    before: list[set[int]] = []
    last: dict[Engine, int] = {}
    for position, micro in enumerate(ordered.micros):
        direct = set(ordered.edges[position])
        assert all(ordered.micros[p].engine is not micro.engine for p in direct)
        if micro.engine in last:
            direct.add(last[micro.engine])
        before.append(direct.union(*(before[p] for p in direct)))
        last[micro.engine] = position

    def footprint(micro: Micro) -> tuple[set[int], set[int]]:
        reads: set[int] = set()
        writes: set[int] = set()
        assert micro.dst is not None
        for operand, into in ((micro.dst, writes), *((s, reads) for s in micro.sources)):
            for k, i in product(range(3), range(micro.domain[0])):
                byte = addresses[operand.buffer] + operand.offset_bytes
                into.add(byte + operand.coefficients[0] * k + operand.strides[0] * i)
        return reads, writes

    marks = [footprint(micro) for micro in ordered.micros]
    for later, (reads, writes) in enumerate(marks):
        for earlier in range(later):
            if marks[earlier][1] & (reads | writes) or marks[earlier][0] & writes:
                assert earlier in before[later]


def copy(opcode: Opcode, l1: Operand, dram: Operand, axes: int = 0) -> Micro:
    is_load = opcode is Opcode.LD
    return Micro(
        opcode=opcode,
        engine=Engine.DI if is_load else Engine.DO,
        domain=(4,),
        dst=l1 if is_load else dram,
        sources=(dram if is_load else l1,),
        axes=axes,
    )


def place(buffer: int, offset: int = 0, coefficient: int = 0) -> Operand:
    return Operand(
        buffer=buffer,
        dtype=DType.I8,
        offset_bytes=offset,
        coefficients=(coefficient,),
        strides=(1,),
    )


DRAM_BUFFERS = (
    Buffer(number=0, name="l1", space=Space.L1, size_bytes=64),
    Buffer(number=1, name="a", space=Space.DRAM, size_bytes=64),
    Buffer(number=2, name="b", space=Space.DRAM, size_bytes=64),
)


@pytest.mark.parametrize(
    ("accesses", "barriers"),
    [
        # every tile rereads its own piece
        ([("ST", 1, 0, 4, 0), ("LD", 1, 0, 4, 0)], 0),
        # a piece of some other tile
        ([("ST", 1, 0, 4, 0), ("LD", 1, 4, 0, 0)], 1),
        # one barrier covers both stores
        ([("ST", 1, 0, 4, 0), ("ST", 2, 0, 4, 0), ("LD", 1, 4, 0, 0), ("LD", 2, 4, 0, 0)], 1),
        # only the leader stores, all load
        ([("ST", 1, 0, 0, 1), ("LD", 1, 0, 0, 0)], 1),
        # all tiles store the same bytes, so none rereads just its own
        ([("ST", 1, 0, 0, 0), ("LD", 1, 0, 0, 0)], 1),
        # other bytes
        ([("ST", 1, 0, 4, 0), ("LD", 1, 12, 4, 0)], 0),
        # write after read, by another tile
        ([("LD", 1, 4, 0, 0), ("ST", 1, 0, 4, 0)], 1),
        ([("LD", 1, 0, 4, 0), ("ST", 1, 0, 4, 0)], 0),
        # write after write
        ([("ST", 1, 0, 4, 0), ("ST", 1, 4, 4, 0)], 1),
        ([("ST", 1, 0, 0, 1), ("ST", 1, 0, 0, 1)], 0),
        # a second round trip needs a second barrier
        ([("ST", 1, 0, 4, 0), ("LD", 1, 4, 0, 0), ("ST", 1, 0, 4, 0), ("LD", 1, 4, 0, 0)], 3),
        # reads do not conflict
        ([("LD", 1, 0, 0, 0), ("LD", 1, 0, 0, 0)], 0),
    ],
)
def test_barriers_lie_between_accesses_of_different_tiles(
    accesses: list[tuple[str, int, int, int, int]], barriers: int
) -> None:
    micros = [
        copy(Opcode[opcode], place(0), place(buffer, offset, coefficient), axes)
        for opcode, buffer, offset, coefficient, axes in accesses
    ]
    ordered = find_dependencies(micros, DRAM_BUFFERS, (0, 0, 64), LogicalMesh(("x",), (3,)))
    roles = [micro.role for micro in ordered.micros]
    assert roles.count("barrier_wait") == roles.count("barrier_post") == barriers
    alone = find_dependencies(micros, DRAM_BUFFERS, (0, 0, 64), LogicalMesh(("x",), (1,)))
    assert alone.micros == tuple(micros)


def test_a_barrier_follows_the_stores_and_precedes_the_load() -> None:
    micros = [
        copy(Opcode.ST, place(0), place(1, 0, 4)),
        copy(Opcode.ST, place(0), place(2, 0, 4)),
        copy(Opcode.LD, place(0, 8), place(1, 4)),
    ]
    ordered = find_dependencies(micros, DRAM_BUFFERS, (0, 0, 64), LogicalMesh(("x",), (3,)))
    names = [micro.role or micro.opcode.name for micro in ordered.micros]
    assert names == ["ST", "ST", "barrier_post", "barrier_wait", "LD"]
    assert ordered.edges == ((), (), (1,), (), (3,))
    assert ordered.micros[3].arrivals == 2


def test_reused_dram_addresses_conflict() -> None:
    micros = [
        copy(Opcode.LD, place(0), place(1)),
        copy(Opcode.ST, place(0, 8), place(2, 0, 4)),
    ]
    apart = find_dependencies(micros, DRAM_BUFFERS, (0, 0, 64), LogicalMesh(("x",), (3,)))
    same = find_dependencies(micros, DRAM_BUFFERS, (0, 0, 0), LogicalMesh(("x",), (3,)))
    assert (len(apart.micros), len(same.micros)) == (2, 4)


def test_a_gather_may_read_any_row_and_a_leader_only_its_own() -> None:
    gather = Micro(
        opcode=Opcode.GTH,
        engine=Engine.DI,
        domain=(2, 4),
        dst=Operand(buffer=0, dtype=DType.I8, strides=(4, 1)),
        sources=(
            Operand(buffer=1, dtype=DType.I8, offset_bytes=4, strides=(4, 1)),
            Operand(buffer=0, dtype=DType.I32, offset_bytes=32, strides=(4, 0)),
        ),
        count=10,
    )
    table, index, dst = touches(gather, DRAM_BUFFERS, (3,))
    assert (table.low, table.high) == (4, 44)
    assert (index.low, index.high) == (32, 40)
    assert (dst.low, dst.high, dst.is_write) == (0, 8, True)
    store = copy(Opcode.ST, place(0), place(1, 0, 8), axes=1)
    assert [(t.low, t.high) for t in touches(store, DRAM_BUFFERS, (3,))] == [(0, 4), (0, 4)]


def test_an_access_outside_its_buffer_is_an_error() -> None:
    store = copy(Opcode.ST, place(0), place(1, 60, 4))
    with pytest.raises(ProgramError, match=r"bytes \[60, 72\) of buffer 'a', expected within"):
        touches(store, DRAM_BUFFERS, (3,))
