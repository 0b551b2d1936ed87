"""Verdicts of the verifier against brute force: all orders, all tiles, all iterations."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.dtypes import DType
from tilewright.errors import ProgramError
from tilewright.hwmodel.load import load_target
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.lowering.builder import ProgramBuilder
from tilewright.lowering.isa import Access, Engine, Instruction, Opcode, Post, Space, Wait
from tilewright.lowering.loops import unroll
from tilewright.lowering.program import Program
from tilewright.simulator.verifier.balance import check_balance
from tilewright.simulator.verifier.bounds import check_bounds
from tilewright.simulator.verifier.progress import check_progress
from tilewright.simulator.verifier.verdict import Property, Verdict
from tilewright.simulator.verifier.verify import require_valid, verify

PROVEN, REFUTED, NOT_PROVEN = Verdict.PROVEN, Verdict.REFUTED, Verdict.NOT_PROVEN
L1, DRAM = Space.L1, Space.DRAM
Stream = tuple[Instruction, ...]


TOY = load_target("toy")


def builder(*sizes: int) -> ProgramBuilder:
    return ProgramBuilder(TOY, LogicalMesh(tuple("xy"[: len(sizes)]), sizes))


def loop(engine: Engine, count: int, *body: Instruction) -> Stream:
    start = Instruction(opcode=Opcode.LOOP, engine=engine, count=count)
    return (start, *body, Instruction(opcode=Opcode.END, engine=engine))


def sync(engine: Engine, wait: tuple[int, ...] = (), post: tuple[int, ...] = ()) -> Instruction:
    waits, posts = tuple(Wait(s, 1) for s in wait), tuple(Post(s, 1) for s in post)
    return Instruction(opcode=Opcode.WT, engine=engine, waits=waits, posts=posts)


def pipeline(count: int, rows: int = 2) -> ProgramBuilder:
    """DI fills two buffers in turn, VE adds them up; `count` rounds of both buffers."""
    b = builder(2)
    x, y = b.input("x", (rows, 2, 16)), b.output("y", (2, 16))
    buffers, total = b.scratch(128), b.scratch(64)
    domain, free, full = (16,), (0, 1), (2, 3)
    local = [b.access(L1, buffers + 64 * k, domain) for k in range(2)]
    result = b.access(L1, total, domain)
    b.emit(
        Instruction(
            opcode=Opcode.VEC,
            engine=Engine.VE,
            domain=domain,
            dst=result,
            fn="fill",
            posts=(Post(free[0], 1), Post(free[1], 1)),
        )
    )
    loads, adds = [], []
    for k in range(2):
        source = replace(b.access(DRAM, x.address + 64 * k, domain), steps=(128 % (128 * rows),))
        loads.append(
            Instruction(
                opcode=Opcode.LD,
                engine=Engine.DI,
                domain=domain,
                dst=local[k],
                sources=(source,),
                waits=(Wait(free[k], 1),),
                posts=(Post(full[k], 1),),
            )
        )
        adds.append(
            Instruction(
                opcode=Opcode.VEC,
                engine=Engine.VE,
                domain=domain,
                dst=result,
                sources=(result, local[k]),
                fn="add",
                waits=(Wait(full[k], 1),),
                posts=(Post(free[k], 1),),
            )
        )
    for instruction in (*loop(Engine.DI, count, *loads), *loop(Engine.VE, count, *adds)):
        b.emit(instruction)
    b.emit(sync(Engine.DI, wait=free))  # takes the tokens that are left
    b.emit(sync(Engine.VE, post=(4,)))
    b.emit(
        Instruction(
            opcode=Opcode.ST,
            engine=Engine.DO,
            domain=domain,
            dst=b.access(DRAM, y.address, domain, coefficients=(64,)),
            sources=(result,),
            waits=(Wait(4, 1),),
        )
    )
    return b


def test_a_correct_program_is_proven_and_its_loops_are_not_unrolled() -> None:
    found = verify(pipeline(2).build())
    assert found.is_proven, found
    still = pipeline(2**20, rows=1).build()
    progress = check_progress(still)
    assert progress.verdict is PROVEN
    assert int(progress.detail.partition(" ")[0]) < 100
    assert "periods of loops skipped" in progress.detail
    everything = verify(still)
    assert everything[Property.BALANCE].verdict is NOT_PROVEN  # a million posts, a few at once
    assert everything[Property.ORDER].verdict is NOT_PROVEN
    assert "expected at most 2,000,000 to compare" in everything[Property.ORDER].detail
    assert not everything.refuted


def changed(program: Program, queue: Engine, position: int, /, **fields: object) -> Program:
    (group,) = program.groups
    stream = list(group.run[queue])
    stream[position] = replace(stream[position], **fields)  # type: ignore[arg-type]
    return replace(program, groups=(replace(group, run={**group.run, queue: tuple(stream)}),))


@pytest.mark.parametrize(
    ("engine", "position", "fields", "what", "detail"),
    [
        (Engine.VE, 0, {"engine": Engine.ME}, Property.FORM, "run VE, instruction 0 VEC: found"),
        (Engine.DI, 1, {"engine": Engine.DO}, Property.FORM, "LD: found engine DO, expected DI"),
        (Engine.DI, 0, {"count": 6}, Property.BOUNDS, "DI, instruction 1 LD: src0 reaches DRAM"),
        (Engine.DI, 0, {"count": 1}, Property.PROGRESS, "VE, instruction 2 VEC waits for 1 of sem"),
        (Engine.DI, 0, {"count": 1}, Property.BALANCE, "semaphore 0 gets 3 posts and 2 are waited"),
        (Engine.VE, 2, {"waits": ()}, Property.BALANCE, "semaphore 2 gets 2 posts and 0 are"),
        (Engine.VE, 0, {"posts": ()}, Property.PROGRESS, "DI, instruction 1 LD waits for 1 of sema"),
        (Engine.VE, 0, {"opcode": Opcode.WT, "dst": None, "domain": (), "fn": ""},
         Property.INITIALISED, "VE 1 VEC.add: uninitialised"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refuted_with_its_place(
    engine: Engine, position: int, fields: dict[str, object], what: Property, detail: str
) -> None:
    program = pipeline(2).build()
    found = verify(changed(program, engine, position, **fields))
    assert found[what].verdict is REFUTED
    assert detail in found[what].detail
    assert not found.is_proven


def barriers(tiles: int, count: int, *, ahead: int = 1) -> Program:
    """Return a program of barriers, `ahead` of which are posted before the first wait."""
    b = builder(tiles)
    step = {
        "post": Instruction(
            opcode=Opcode.PS, engine=Engine.CT, axes=1, posts=(Post(0, 1, remote=True),)
        ),
        "wait": Instruction(opcode=Opcode.WT, engine=Engine.CT, waits=(Wait(0, tiles - 1),)),
    }
    for _ in range(count // ahead):
        for what in ("post", "wait"):
            for _ in range(ahead):
                b.emit(step[what])
    return b.build()


def test_barriers_hold_the_posts_of_two_at_most() -> None:
    found = check_balance(barriers(2048, 33))  # 67,551 posts
    assert found.verdict is PROVEN
    assert "none holds more than 4,094 posts" in found.detail
    assert check_balance(barriers(2048, 32)).verdict is PROVEN


def test_posts_ahead_of_a_barrier_are_not_taken_for_barriers() -> None:
    found = check_balance(barriers(2048, 34, ahead=2))
    assert found.verdict is NOT_PROVEN
    assert "gets 69,598 posts" in found.detail


def test_a_race_is_refuted() -> None:
    """Both buffers in one place: the load of one overlaps the use of the other."""
    program = pipeline(2).build()
    (group,) = program.groups
    first, second = group.run[Engine.DI][1:3]
    found = verify(changed(program, Engine.DI, 2, dst=first.dst))
    assert second.dst != first.dst
    assert found[Property.ORDER].verdict is REFUTED
    assert (
        "race: it reads L1 [0x0, 0x40), which group 0 run DI 1 LD writes"
        in found[Property.ORDER].detail
    )


def test_constants_and_resident_data_must_last() -> None:
    b = builder(2)
    w, y = b.constant("w", np.ones(16, np.float32)), b.output("y", (2, 16))
    at = b.scratch(64)
    local = b.access(L1, at, (16,))
    load = Instruction(
        opcode=Opcode.LD,
        engine=Engine.DI,
        domain=(16,),
        dst=local,
        sources=(b.access(DRAM, w.address, (16,)),),
    )
    store = Instruction(
        opcode=Opcode.ST,
        engine=Engine.DO,
        domain=(16,),
        dst=b.access(DRAM, y.address, (16,), coefficients=(64,)),
        sources=(local,),
    )
    b.emit(load, "load")
    b.emit(store)
    good = b.build()
    assert verify(good).is_proven
    assert store.dst is not None
    onto = replace(store.dst, base=w.address)
    found = verify(changed(good, Engine.DO, 0, dst=onto))
    assert found[Property.LASTING].verdict is REFUTED
    assert (
        "constant 'w' and group 0 run DO, instruction 0 ST share" in found[Property.LASTING].detail
    )
    fill = Instruction(opcode=Opcode.VEC, engine=Engine.VE, domain=(16,), dst=local, fn="fill")
    (group,) = good.groups
    spoilt = replace(good, groups=(replace(group, run={**group.run, Engine.VE: (fill,)}),))
    finding = verify(spoilt)[Property.LASTING]
    assert finding.verdict is NOT_PROVEN
    assert "load DI, instruction 0 LD and group 0 run VE, instruction 0 VEC.fill" in finding.detail


def test_programs_that_are_refuted_are_not_executed() -> None:
    with pytest.raises(
        ProgramError, match="semaphores: group 0 run: semaphore 0 gets 2 posts and 3"
    ):
        require_valid(changed(pipeline(2).build(), Engine.VE, 0, posts=()))
    require_valid(pipeline(2).build())


# ---------------------------------------------------------------------- brute force


def deadlocks(streams: dict[Engine, Stream]) -> bool:
    """Whether some order of execution gets stuck, by visiting all states."""
    engines = list(streams)
    start = (tuple(0 for _ in engines), (0,) * 4)
    seen, stack = {start}, [start]
    while stack:
        places, tokens = stack.pop()
        following = []
        for k, engine in enumerate(engines):
            if places[k] == len(streams[engine]):
                continue
            i = streams[engine][places[k]]
            after = list(tokens)
            for wait in i.waits:
                after[wait.semaphore] -= wait.count
            if min(after) < 0:
                continue
            for post in i.posts:
                after[post.semaphore] += post.count
            following.append(((*places[:k], places[k] + 1, *places[k + 1 :]), tuple(after)))
        if not following and any(
            at < len(streams[e]) for at, e in zip(places, engines, strict=True)
        ):
            return True
        for state in following:
            if state not in seen:
                seen.add(state)
                stack.append(state)
    return False


@st.composite
def synchronising(draw: st.DrawFn) -> dict[Engine, Stream]:
    """Streams of two engines with loops; engine 0 waits for even semaphores, engine 1 for odd ones."""
    streams = {}
    for number, engine in enumerate((Engine.ME, Engine.VE)):
        mine, theirs = (0, 2), (1, 3)
        if number:
            mine, theirs = theirs, mine
        steps = st.builds(
            lambda wait, post, engine=engine: sync(engine, tuple(wait), tuple(post)),
            st.lists(st.sampled_from(mine), max_size=1),
            st.lists(st.sampled_from(theirs), max_size=2),
        )
        stream: Stream = tuple(draw(st.lists(steps, max_size=2)))
        for _ in range(draw(st.integers(0, 2))):
            body = tuple(draw(st.lists(steps, min_size=1, max_size=2)))
            if draw(st.booleans()):
                body = loop(engine, draw(st.integers(0, 3)), *body)
            stream += loop(engine, draw(st.integers(0, 9)), *body)
        streams[engine] = stream + tuple(draw(st.lists(steps, max_size=1)))
    return streams


@settings(max_examples=250)
@given(synchronising())
def test_progress_is_decided_as_by_visiting_all_orders(streams: dict[Engine, Stream]) -> None:
    b = builder()
    for stream in streams.values():
        for instruction in stream:
            b.emit(instruction)
    finding = check_progress(b.build())
    expected = deadlocks({e: unroll(s) for e, s in streams.items()})
    assert finding.verdict is (REFUTED if expected else PROVEN)


@pytest.mark.parametrize("first", [3, 5])
@pytest.mark.parametrize("inner", [1, 4])
def test_skipped_periods_lead_to_the_same_end(first: int, inner: int) -> None:
    """One iteration of one engine for several of the other, for long; the last ones decide."""
    for extra in (0, 1):
        b = builder()
        times = 600 * first * inner
        body = loop(Engine.ME, inner, sync(Engine.ME, (0,), (1,)))
        for i in loop(Engine.ME, times // inner, *body):
            b.emit(i)
        waits = [sync(Engine.VE, (1,), (0,)) for _ in range(first)]
        b.emit(sync(Engine.VE, post=(0,)))
        for i in loop(Engine.VE, times // first, *waits[: first - 1], waits[-1]):
            b.emit(i)
        b.emit(sync(Engine.ME, wait=(0,)))
        b.emit(sync(Engine.VE, wait=(1,) * extra))
        finding = check_progress(b.build(), max_steps=2000)
        assert finding.verdict is (REFUTED if extra else PROVEN), finding


@settings(max_examples=150)
@given(
    base=st.integers(-8, 260),
    stride=st.integers(-8, 8),
    step=st.integers(-8, 8),
    coefficient=st.integers(-32, 32),
    counts=st.tuples(st.integers(0, 4), st.integers(0, 3)),
)
def test_bounds_are_decided_as_by_looking_at_every_access(
    base: int, stride: int, step: int, coefficient: int, counts: tuple[int, int]
) -> None:
    b = builder(3)
    b.scratch(256)
    access = Access(L1, DType.F32, base, (coefficient,), (4, stride), (0, step))
    fill = Instruction(
        opcode=Opcode.RED,
        engine=Engine.VE,
        domain=(2, 3),
        dst=Access(L1, DType.F32, 0, (0,), (4, 0)),
        sources=(access,),
        fn="sum",
    )
    for i in loop(Engine.VE, counts[0], *loop(Engine.VE, counts[1], fill)):
        b.emit(i)
    addresses = [
        base + c * coefficient + 4 * m + stride * n + step * turn
        for _, turn, c, m, n in product(
            range(counts[0]), range(counts[1]), range(3), range(2), range(3)
        )
    ]
    inside = all(0 <= a and a + 4 <= 256 for a in addresses)
    assert check_bounds(b.build()).verdict is (PROVEN if inside else REFUTED)
