"""Hoisting keeps meaning and memory; the static schedule against a fixed-point oracle."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilewright.dtypes import DType
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.lowering.accesses import buffers_of, live_ranges
from tilewright.lowering.dependencies import find_dependencies
from tilewright.lowering.durations import MicroTime
from tilewright.lowering.hoist import LoadHoister
from tilewright.lowering.isa import Engine, Opcode, Space
from tilewright.lowering.micro import Buffer, LinearProgram, Micro, Operand
from tilewright.lowering.schedule import estimate_schedule

MESH = LogicalMesh((), ())


def cycles(micro: Micro) -> float:
    return float(micro.tag % 7 + 1)


def some_time(micro: Micro) -> MicroTime:
    return MicroTime(cycles(micro))


def operand(buffer: int) -> Operand:
    return Operand(buffer=buffer, dtype=DType.I8, strides=(1,))


def random_program(seed: int, steps: int) -> LinearProgram:
    """Return loads and compute on buffers of random sizes, in both phases."""
    draw = random.Random(seed)
    buffers = [Buffer(number=0, name="w", space=Space.DRAM, size_bytes=64, pinned=True)]
    for number in range(1, 12):
        size_bytes = draw.choice([8, 16, 32])
        buffers.append(
            Buffer(number=number, name=f"b{number}", space=Space.L1, size_bytes=size_bytes)
        )
    micros = list[Micro]()
    for tag in range(1, steps + 1):
        dst = draw.randrange(1, 12)
        sources: tuple[Operand, ...]
        if draw.random() < 0.4:
            opcode, engine, sources = Opcode.LD, Engine.DI, (operand(0),)
            if micros and draw.random() < 0.5:  # what was last becomes the padding around this load
                last = replace(micros[-1], opcode=Opcode.VEC, engine=Engine.VE, sources=())
                micros[-1] = replace(last, dst=operand(dst))
        else:
            opcode, engine = draw.choice([(Opcode.MM, Engine.ME), (Opcode.VEC, Engine.VE)])
            sources = (operand(draw.randrange(1, 12)), operand(draw.randrange(1, 12)))
        micros.append(
            Micro(
                opcode=opcode,
                engine=engine,
                domain=(8,),
                dst=operand(dst),
                sources=sources,
                tag=tag,
            )
        )
    boundary = draw.randrange(steps + 1)
    return LinearProgram(
        buffers=tuple(buffers), load=tuple(micros[:boundary]), run=tuple(micros[boundary:])
    )


def live_peaks(linear: LinearProgram) -> list[int]:
    """Return the scratchpad bytes alive at each micro, one buffer at a time."""
    total = len(linear.load) + len(linear.run)
    live = [0] * total
    for buffer, (start, end) in zip(linear.buffers, live_ranges(linear), strict=True):
        for position in range(start, min(end, total)):
            live[position] += buffer.size_bytes if buffer.space is Space.L1 else 0
    return live


@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(0, 200), st.integers(1, 50))
def test_hoisting_keeps_order_and_budget(seed: int, steps: int, budget: int, window: int) -> None:
    linear = random_program(seed, steps)
    hoister = LoadHoister(linear, some_time, alignment_bytes=8, window=window)
    hoisted = hoister.hoist(budget)
    assert max(live_peaks(hoisted)) <= max(budget, *live_peaks(linear))
    for old, new in ((linear.load, hoisted.load), (linear.run, hoisted.run)):
        assert sorted(m.tag for m in old) == sorted(m.tag for m in new)
        place = {m.tag: position for position, m in enumerate(new)}
        for later, b in enumerate(old):
            for a in old[:later]:
                assert a.dst is not None
                assert b.dst is not None
                reads_a, reads_b = buffers_of(a)[:-1], buffers_of(b)[:-1]
                is_conflict = a.dst.buffer in buffers_of(b) or b.dst.buffer in reads_a
                is_fixed = Engine.DI not in (a.engine, b.engine) and bool(a.sources and b.sources)
                if is_conflict or is_fixed or a.dst.buffer in reads_b:
                    assert place[a.tag] < place[b.tag]
        overtaken = [
            sum(1 for a in old[:later] if place[a.tag] > place[b.tag] and a.engine is not b.engine)
            for later, b in enumerate(old)
        ]
        assert max(overtaken, default=0) <= window


def test_loads_move_ahead_by_their_duration_but_not_past_the_memory() -> None:
    buffers = [Buffer(number=0, name="w", space=Space.DRAM, size_bytes=64, pinned=True)]
    buffers.append(Buffer(number=1, name="sum", space=Space.L1, size_bytes=8, pinned=True))
    micros = []
    for step in range(6):
        buffers.append(Buffer(number=2 + step, name=f"p{step}", space=Space.L1, size_bytes=8))
        into, total = operand(2 + step), operand(1)
        micros.append(
            Micro(opcode=Opcode.LD, engine=Engine.DI, domain=(8,), dst=into, sources=(operand(0),))
        )
        micros.append(
            Micro(
                opcode=Opcode.VEC, engine=Engine.VE, domain=(8,), dst=total, sources=(into, total)
            )
        )
    linear = LinearProgram(buffers=tuple(buffers), load=(), run=tuple(micros))
    hoister = LoadHoister(linear, lambda micro: MicroTime(5.0), alignment_bytes=8)

    def text(budget: int) -> str:
        return "".join(micro.opcode.name[0] for micro in hoister.hoist(budget).run)

    assert text(16) == "LV" * 6
    assert text(24) == "LLVLVLVLVLVV"
    assert text(1000).startswith("LLL")


@pytest.mark.parametrize(
    ("use_cycles", "engine", "order"),
    [
        (200.0, Engine.DI, "VSlLVV"),
        (20.0, Engine.DI, "LVSlVV"),
        (200.0, Engine.DO, "LVSlVV"),  # the other engine is in nobody's way
    ],
)
def test_a_load_that_can_wait_is_not_in_the_way_of_one_that_is_held(
    use_cycles: float, engine: Engine, order: str
) -> None:
    """Weights (L) are wanted early; what is stored and loaded again (l) is free to come after 20 cycles."""
    names = ("weights", "stored", "made", "again", "result", "box")
    buffers = tuple(
        Buffer(
            number=n,
            name=name,
            space=Space.DRAM if n < 2 else Space.L1,
            size_bytes=8,
            pinned=n == 0,
        )
        for n, name in enumerate(names)
    )
    weights, stored, made, again, result, box = map(operand, range(len(names)))

    def micro(opcode: Opcode, engine: Engine, dst: Operand, *sources: Operand) -> Micro:
        return Micro(opcode=opcode, engine=engine, domain=(8,), dst=dst, sources=sources)

    times = {
        micro(Opcode.VEC, Engine.VE, made): 10.0,
        micro(Opcode.ST, Engine.DO, stored, made): 10.0,
        micro(Opcode.LD, Engine.DI, again, stored): 10.0,
        micro(Opcode.VEC, Engine.VE, result, again): use_cycles,
        micro(Opcode.LD, engine, box, weights): 150.0,
        micro(Opcode.VEC, Engine.VE, result, box): 10.0,
    }
    linear = LinearProgram(buffers=buffers, load=(), run=tuple(times))
    hoister = LoadHoister(linear, lambda m: MicroTime(times[m]), alignment_bytes=8)
    letters = dict(zip(times, "VSlVLV", strict=True))
    assert "".join(letters[m] for m in hoister.hoist(1000).run) == order


def test_parts_of_a_box_move_ahead_together() -> None:
    """Loads into one buffer between which nothing reads it follow each other."""
    names = ("weights", "made", "box", "sum")
    buffers = tuple(
        Buffer(
            number=n, name=name, space=Space.L1 if n else Space.DRAM, size_bytes=16, pinned=n == 0
        )
        for n, name in enumerate(names)
    )
    weights, made, box, total = map(operand, range(len(names)))
    second = replace(box, offset_bytes=8)

    def micro(opcode: Opcode, engine: Engine, dst: Operand, *sources: Operand) -> Micro:
        return Micro(opcode=opcode, engine=engine, domain=(8,), dst=dst, sources=sources)

    run = (
        micro(Opcode.VEC, Engine.VE, made),
        micro(Opcode.LD, Engine.DI, box, weights),
        micro(Opcode.LD, Engine.DI, second, weights),
        micro(Opcode.MM, Engine.ME, total, box, made),
        micro(Opcode.MM, Engine.ME, total, second, made),
    )
    linear = LinearProgram(buffers=buffers, load=(), run=run)
    hoister = LoadHoister(linear, lambda micro: MicroTime(5.0), alignment_bytes=8)
    assert hoister.hoist(1000).run == (run[1], run[2], run[0], run[3], run[4])


def test_the_padding_around_a_load_moves_along() -> None:
    buffers = [Buffer(number=0, name="w", space=Space.DRAM, size_bytes=64, pinned=True)]
    micros = []
    for step in range(4):
        buffers += [
            Buffer(number=len(buffers) + n, name=f"{name}{step}", space=Space.L1, size_bytes=8)
            for n, name in enumerate(("padded", "sum"))
        ]
        into, total = operand(len(buffers) - 2), operand(len(buffers) - 1)
        micros += [
            Micro(opcode=Opcode.VEC, engine=Engine.VE, domain=(8,), dst=into, fn="fill"),
            Micro(opcode=Opcode.LD, engine=Engine.DI, domain=(8,), dst=into, sources=(operand(0),)),
            Micro(opcode=Opcode.MM, engine=Engine.ME, domain=(8,), dst=total, sources=(into,)),
            Micro(opcode=Opcode.VEC, engine=Engine.VE, domain=(8,), dst=total, sources=(total,)),
        ]
    linear = LinearProgram(buffers=tuple(buffers), load=(), run=tuple(micros))
    hoister = LoadHoister(linear, lambda micro: MicroTime(5.0), alignment_bytes=8)
    hoisted = hoister.hoist(1000).run
    text = "".join("F" if m.fn == "fill" else m.opcode.name[0] for m in hoisted)
    # no padding is queued behind the vector work on the box before it
    assert text == "FLMFLVMFLVMFLVMV"


@given(st.integers(0, 10**6), st.integers(1, 40))
def test_schedule_is_the_earliest_that_keeps_all_orders(seed: int, steps: int) -> None:
    linear = random_program(seed, steps)
    addresses = tuple(8 * (b.number % 5) for b in linear.buffers)
    ordered = find_dependencies(linear.run, linear.buffers, addresses, MESH)
    schedule = estimate_schedule(ordered, some_time)
    # relax start times until nothing moves, starting from nothing
    starts = [0.0] * len(ordered.micros)
    for _ in range(len(starts) + 1):
        for position, micro in enumerate(ordered.micros):
            same = [p for p in range(position) if ordered.micros[p].engine is micro.engine]
            for p in (*same, *ordered.edges[position]):
                starts[position] = max(starts[position], starts[p] + cycles(ordered.micros[p]))
    assert schedule.starts == tuple(starts)
    ends = [s + cycles(m) for s, m in zip(starts, ordered.micros, strict=True)]
    assert schedule.ends == tuple(ends)
    assert schedule.makespan_cycles == max(ends, default=0.0)
    for engine in Engine:
        work = sum(cycles(m) for m in linear.run if m.engine is engine)
        assert schedule.busy_cycles[engine] == work
    # data flow by brute force over bytes
    finished: dict[tuple[int, int], float] = {}
    longest = 0.0
    for micro in linear.run:
        keys = [(s.buffer, i) for s in micro.sources for i in range(8)]
        end = max((finished.get(key, 0.0) for key in keys), default=0.0) + cycles(micro)
        assert micro.dst is not None
        finished.update({(micro.dst.buffer, i): end for i in range(8)})
        longest = max(longest, end)
    assert schedule.critical_path_cycles == longest
    assert schedule.lower_bound_cycles <= schedule.makespan_cycles


def test_collectives_in_lock_step() -> None:
    mesh = LogicalMesh(("x",), (4,))
    buffers = (
        Buffer(number=0, name="mine", space=Space.L1, size_bytes=8),
        Buffer(number=1, name="all", space=Space.L1, size_bytes=32),
    )
    whole = Operand(buffer=1, dtype=DType.I8, strides=(1,))
    slot = Operand(buffer=1, dtype=DType.I8, strides=(1,), coefficients=(8,))
    fill = Micro(opcode=Opcode.VEC, engine=Engine.VE, domain=(8,), dst=operand(0), fn="fill")
    ready = Micro(opcode=Opcode.PS, engine=Engine.CT, domain=(32,), dst=whole, axes=1, role="ready")
    send = Micro(
        opcode=Opcode.MCS,
        engine=Engine.DO,
        domain=(8,),
        dst=slot,
        sources=(operand(0),),
        axes=1,
        role="first_send",
    )
    arrive = Micro(
        opcode=Opcode.WT,
        engine=Engine.CT,
        domain=(32,),
        dst=whole,
        axes=1,
        role="arrive",
        arrivals=3,
    )
    use = Micro(opcode=Opcode.VEC, engine=Engine.VE, domain=(8,), dst=operand(0), sources=(whole,))
    ordered = find_dependencies((fill, ready, send, arrive, use), buffers, (0, 8), mesh)
    lengths = {id(fill): 10.0, id(ready): 1.0, id(send): 100.0, id(arrive): 2.0, id(use): 5.0}
    schedule = estimate_schedule(ordered, lambda micro: MicroTime(lengths[id(micro)]))
    assert schedule.starts == (0.0, 0.0, 10.0, 110.0, 112.0)
    assert schedule.makespan_cycles == 117.0
    assert schedule.critical_path_cycles == pytest.approx(117.0, abs=0)


def test_loads_that_are_asked_for_ahead_show_their_latency_once() -> None:
    """Latency passes while bytes before come, but not while the load waits for a micro."""
    space = (Space.DRAM, Space.L1, Space.L1, Space.L1)
    buffers = tuple(
        Buffer(number=n, name=str(n), space=s, size_bytes=8) for n, s in enumerate(space)
    )

    def move(opcode: Opcode, engine: Engine, source: int, dst: int) -> Micro:
        sources = (operand(source),)
        return Micro(opcode=opcode, engine=engine, domain=(8,), dst=operand(dst), sources=sources)

    first, second = (move(Opcode.LD, Engine.DI, 0, n) for n in (1, 2))
    use = move(Opcode.VEC, Engine.VE, 2, 3)
    again = move(Opcode.LD, Engine.DI, 0, 2)
    micros = (first, second, use, again)
    ordered = find_dependencies(micros, buffers, (0, 0, 8, 16), MESH)

    def ends(payload: float) -> tuple[float, ...]:
        loads = MicroTime(100.0 + payload, ahead_cycles=100.0)
        times = {Engine.DI: loads, Engine.VE: MicroTime(10.0)}
        schedule = estimate_schedule(ordered, lambda micro: times[micro.engine])
        assert schedule.busy_cycles[Engine.DI] == 3 * payload
        assert schedule.lower_bound_cycles <= schedule.makespan_cycles
        return schedule.ends

    assert ends(300.0) == (400.0, 700.0, 710.0, 710.0 + 400.0)
    assert ends(30.0) == (130.0, 100.0 + 130.0, 240.0, 240.0 + 130.0)


def test_the_memory_serves_others_while_a_tile_casts() -> None:
    space = (Space.DRAM, Space.L1, Space.L1)
    buffers = tuple(
        Buffer(number=n, name=str(n), space=s, size_bytes=8) for n, s in enumerate(space)
    )
    relayed, other = (
        Micro(opcode=Opcode.LD, engine=e, domain=(8,), dst=operand(n), sources=(operand(0),))
        for e, n in ((Engine.DI, 1), (Engine.DO, 2))
    )
    ordered = find_dependencies((relayed, other), buffers, (0, 0, 8), MESH)
    times = {
        Engine.DI: MicroTime(100.0, port_cycles=60.0, cast_cycles=30.0),
        Engine.DO: MicroTime(50.0, port_cycles=40.0),
    }
    schedule = estimate_schedule(ordered, lambda micro: times[micro.engine])
    # ports: 10 to 70 for the first; the second's 40 cycles are all behind that
    assert schedule.ends == (100.0, 110.0)
    turned = find_dependencies((other, relayed), buffers, (0, 0, 8), MESH)
    schedule = estimate_schedule(turned, lambda micro: times[micro.engine])
    # 10 to 50 for the one, 50 to 110 for the other, which casts then
    assert schedule.ends == (50.0, 140.0)


@given(st.integers(0, 10**6), st.integers(1, 30))
def test_transfers_share_the_memory_ports(seed: int, steps: int) -> None:
    """Who comes first in the linear order takes the ports; the others take the cycles that are left."""
    linear, draw = random_program(seed, steps), random.Random(seed)
    addresses = tuple(8 * (b.number % 5) for b in linear.buffers)
    ordered = find_dependencies(linear.run, linear.buffers, addresses, MESH)
    work = {m.tag: draw.randrange(int(cycles(m)) + 1) for m in linear.run}
    schedule = estimate_schedule(
        ordered, lambda micro: MicroTime(cycles(micro), float(work[micro.tag]))
    )
    busy: set[int] = set()
    ends: list[int] = []
    engines = dict.fromkeys(Engine, 0)
    for micro, edges in zip(ordered.micros, ordered.edges, strict=True):
        left = work.get(micro.tag, 0)
        start = max([engines[micro.engine], *(ends[edge] for edge in edges)])
        end = now = start + int(cycles(micro)) - left
        while left:
            left -= now not in busy
            busy.add(now)
            now += 1
        end = max(now, start + int(cycles(micro)))
        engines[micro.engine] = end
        ends.append(end)
    assert schedule.ends == tuple(map(float, ends))
