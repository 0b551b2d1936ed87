"""Random programs: tiles that behave alike simulated as one, bounds, and what more bandwidth does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from timing_cases import control, load, machine, program, send, store, vector

from tilewright.hwmodel.load import load_target
from tilewright.hwmodel.network import logical_mesh
from tilewright.hwmodel.target import LogicalAxis, Target
from tilewright.lowering.isa import Engine, Instruction, Opcode, Post, Wait
from tilewright.lowering.program import Program
from tilewright.simulator.timing import TimingReport, simulate
from tilewright.simulator.timing_memo import new_memo


@st.composite
def linear_programs(draw: st.DrawFn, targets: tuple[Target, ...]) -> Program:
    """Instructions in a linear order, each waiting for an earlier one of another engine: no deadlock.

    The axes of the program's mesh lie on those of the target in any order.
    """
    target = draw(st.sampled_from(targets))
    mesh = logical_mesh(target)
    order = draw(st.permutations(range(mesh.rank)))
    sizes = tuple(mesh.sizes[axis] for axis in order)
    axes = st.integers(1, (1 << mesh.rank) - 1)
    size = st.integers(1, 12).map(lambda n: 32 * n)
    streams: dict[Engine, list[Instruction]] = {engine: [] for engine in Engine}
    waits: dict[int, tuple[Wait, ...]] = {}
    steps: list[Instruction] = []
    for step in range(draw(st.integers(1, 10))):
        n, mask = draw(size), draw(axes)
        members = 1
        for axis, extent in enumerate(sizes):
            members *= extent if mask >> axis & 1 else 1
        match draw(
            st.sampled_from(
                ["load", "shared", "store", "masked", "send", "cast", "vector", "barrier"]
            )
        ):
            case "load":
                steps.append(load(n))
            case "shared":
                steps.append(load(n, axes=mask))
            case "store":
                steps.append(store(n))
            case "masked":
                steps.append(store(n, axes=mask))
            case "send":
                axis = draw(st.integers(0, mesh.rank - 1))
                steps.append(
                    send(
                        n,
                        axes=1 << axis,
                        shift=draw(st.sampled_from([1, -1])),
                        posts=(Post(40 + step, 1, True),),
                    )
                )
                steps.append(control(Wait(40 + step, 1)))
            case "cast" if members > 1:
                steps.append(send(n, Opcode.MCS, axes=mask, posts=(Post(40 + step, 1, True),)))
                steps.append(control(Wait(40 + step, members - 1)))
            case "barrier" if members > 1:
                steps.append(control(posts=(Post(40 + step, 1, True),), axes=mask))
                steps.append(control(Wait(40 + step, members - 1)))
            case _:
                steps.append(vector(n))
        if len(steps) > 1 and draw(st.booleans()):
            before = draw(st.integers(0, len(steps) - 2))
            if (
                len(steps[before].posts) < 2
                and not waits.get(len(steps) - 1)
                and not steps[-1].waits
            ):
                semaphore = 100 + len(steps)
                steps[before] = replace(
                    steps[before], posts=(*steps[before].posts, Post(semaphore, 1))
                )
                if steps[before].opcode is Opcode.WT:
                    steps[before] = replace(steps[before], opcode=Opcode.PS)
                steps[-1] = replace(steps[-1], waits=(Wait(semaphore, 1),))
    for instruction in steps:
        streams[instruction.engine].append(instruction)
    made = program(
        target, {engine: tuple(stream) for engine, stream in streams.items()}, sizes=sizes
    )
    return replace(made, groups=(replace(made.groups[0], tiles=placed(target, order)),))


def placed(target: Target, order: Sequence[int]) -> tuple[int, ...]:
    """Return the tiles of a mesh whose axes are those of the target in another order."""
    grid = np.arange(target.tiles).reshape(logical_mesh(target).sizes)
    return tuple(grid.transpose(order).reshape(-1).tolist())


TARGETS = (
    machine(4),
    machine(2, 3, ports=2, dram=12.0),
    machine(2, 2, 2, ports=2, dram=30.0),
    machine(2, 4, read_multicast=False, ports=4, dram=5.0),
    machine(2, 3, 2, ports=2, dram=30.0).model_copy(
        update={
            "logical_axes": (
                LogicalAxis(name="b0", axes=("a0", "a1")),
                LogicalAxis(name="b1", axes=("a2",)),
            )
        }
    ),
    machine(2, 2, 3, ports=2, dram=30.0).model_copy(
        update={"logical_axes": (LogicalAxis(name="b", axes=("a0", "a1", "a2")),)}
    ),
    load_target("mesh_2x3"),
    load_target("mesh_3x3"),
)


def same(one: Any, other: Any) -> None:
    """Compare two phases of a report, field by field, but for how they were simulated."""
    assert one.cycles == pytest.approx(other.cycles, rel=1e-6)
    assert one.bound_cycles == pytest.approx(other.bound_cycles, rel=1e-6)
    assert one.payload_bytes == pytest.approx(other.payload_bytes, rel=1e-6)
    assert one.instructions == other.instructions
    for a, b in zip(one.engines, other.engines, strict=True):
        assert a.busy_cycles_mean == pytest.approx(b.busy_cycles_mean, rel=1e-6, abs=1e-6)
        assert a.busy_cycles_max == pytest.approx(b.busy_cycles_max, rel=1e-6, abs=1e-6)
        total = [sum(c for _, c in (*use.waits, *use.contention)) for use in (a, b)]
        assert total[0] == pytest.approx(total[1], rel=1e-6, abs=1e-5)
    for a, b in zip(one.resources, other.resources, strict=True):
        assert (a.name, a.count) == (b.name, b.count)
        assert a.total_bytes == pytest.approx(b.total_bytes, rel=1e-9)
        assert a.utilisation_max == pytest.approx(b.utilisation_max, rel=1e-6)


@given(linear_programs(TARGETS))
@hypothesis_settings(max_examples=120)
def test_symmetric_simulation_equals_the_full_one(made: Program) -> None:
    full, merged = simulate(made, symmetry=False), simulate(made, symmetry=True)
    same(full.run, merged.run)
    assert merged.total_energy_pj == pytest.approx(full.total_energy_pj, rel=1e-9)
    # crossbars take their classes from the machine's symmetries; refinement finds them as well
    with patch("tilewright.simulator.timing_tables.crossbar_orbits", return_value=None):
        refined = simulate(made, symmetry=True)
    same(full.run, refined.run)
    assert refined.run.simulated_tiles <= merged.run.simulated_tiles


def test_rotations_of_merged_axes_turn_the_outermost() -> None:
    """A ring of 2 x 3 units of 2 tiles: 3 places in it differ, in both halves and for both tiles alike."""
    ring = {Engine.DO: (send(64, axes=0b01, shift=1, posts=(Post(1, 1, True),)),)}
    waiting = {Engine.CT: (control(Wait(1, 1)),)}
    made = program(TARGETS[4], ring | waiting)
    full, merged = simulate(made, symmetry=False), simulate(made, symmetry=True)
    assert (full.run.simulated_tiles, merged.run.simulated_tiles) == (12, 3)
    same(full.run, merged.run)


def test_axes_that_changed_places_are_merged_as_well() -> None:
    """Coordinate 0 of the mesh's first axis, which lies on the inner one, stores."""
    target = machine(3, 4, 4, ports=3, dram=30.0)
    streams = {Engine.DI: (load(640, axes=0b110),), Engine.DO: (store(96, axes=0b001),)}
    order = (2, 0, 1)
    plain = program(target, streams, sizes=(4, 3, 4))
    made = replace(plain, groups=(replace(plain.groups[0], tiles=placed(target, order)),))
    full, merged = simulate(made, symmetry=False), simulate(made, symmetry=True)
    assert (full.run.simulated_tiles, merged.run.simulated_tiles) == (48, 2)
    same(full.run, merged.run)


def test_coordinates_of_a_merged_axis_differ_by_where_they_leave_the_first() -> None:
    """Of 4 x 3 x 2 tiles the first stores: itself, its neighbour, the rest of its unit, all others."""
    axes = (LogicalAxis(name="b", axes=("a0", "a1", "a2")),)
    target = machine(4, 3, 2, ports=4, dram=30.0).model_copy(update={"logical_axes": axes})
    stored = {Engine.DO: (send(64, Opcode.MCS), store(96, axes=1), store(32))}
    made = program(target, stored | {Engine.DI: (load(64), load(640, axes=1))})
    full, merged = simulate(made, symmetry=False), simulate(made, symmetry=True)
    assert (full.run.simulated_tiles, merged.run.simulated_tiles) == (24, 4)
    same(full.run, merged.run)


@given(linear_programs(TARGETS), st.sampled_from([(4, 0), (4, 1 << 10), (64, 20)]))
@hypothesis_settings(max_examples=40)
def test_rates_looked_up_are_those_worked_out(made: Program, size: tuple[int, int]) -> None:
    """Memos that forget all the time, now and then and never give the same report."""
    group = made.groups[0]
    again = {engine: stream * 3 for engine, stream in group.run.items()}
    repeated = replace(made, groups=(replace(group, run=again),))
    roomy = simulate(repeated, symmetry=False, trace=True)
    with patch("tilewright.simulator.timing_state.new_memo", lambda slots: new_memo(slots, *size)):
        assert simulate(repeated, symmetry=False, trace=True) == roomy


@given(linear_programs(TARGETS))
@hypothesis_settings(max_examples=60)
def test_bounds_bytes_and_determinism(made: Program) -> None:
    report = simulate(made, symmetry=False)
    assert report.cycles >= report.run.bound_cycles * (1 - 1e-9)
    assert simulate(made, symmetry=False) == report
    tiles, sizes = made.target.tiles, made.groups[0].mesh.sizes
    expected = 0.0
    for instruction in (i for stream in made.groups[0].run.values() for i in stream):
        n = instruction.domain[0] if instruction.domain else 0
        members = 1
        for axis, size in enumerate(sizes):
            members *= size if instruction.axes >> axis & 1 else 1
        match instruction.opcode:
            case Opcode.LD:
                expected += n * tiles / (members if made.target.dram.read_multicast else 1)
            case Opcode.ST:
                expected += n * tiles / members
            case Opcode.SND | Opcode.MCS:
                expected += n * tiles
            case Opcode.VEC:
                expected += 2 * n * tiles
            case _:
                pass
    assert report.run.payload_bytes == pytest.approx(expected, rel=1e-9)


@given(linear_programs((machine(4),)), st.sampled_from([1.5, 3.0]))
@hypothesis_settings(max_examples=30)
def test_more_bandwidth_never_hurts_a_chain(made: Program, factor: float) -> None:
    """Only for chains on one tile: with several tiles at different speeds, fair sharing may reorder them."""
    chain = [
        i
        for stream in made.groups[0].run.values()
        for i in stream
        if not any(p.remote for p in i.posts)
    ]
    bare = [replace(i, waits=(), posts=(), axes=0) for i in chain if i.opcode is not Opcode.PS]
    linked: dict[Engine, tuple[Instruction, ...]] = {engine: () for engine in Engine}
    for number, i in enumerate(bare):
        waits = (Wait(number - 1, 1),) if number else ()
        linked[i.engine] += (replace(i, waits=waits, posts=(Post(number, 1),)),)

    def run(target: Target) -> TimingReport:
        return simulate(program(target, linked, {}), symmetry=False)

    slow, fast = run(machine(2)), run(machine(2, dram=8.0 * factor, port=16.0 * factor))
    assert fast.cycles <= slow.cycles * (1 + 1e-12)


def test_large_regular_machine_is_simulated_as_one_tile() -> None:
    streams = {
        Engine.DI: (load(640, axes=0b100, posts=(Post(1, 1),)), load(320, posts=(Post(1, 1),))),
        Engine.VE: (vector(1000, waits=(Wait(1, 2),), posts=(Post(2, 1),)),),
        Engine.DO: (
            send(100, Opcode.MCS, axes=0b10, waits=(Wait(2, 1),), posts=(Post(3, 1, True),)),
            store(100),
        ),
        Engine.CT: (control(Wait(3, 7)),),
    }
    made = program(machine(4, 8, 4, ports=4), streams)
    merged, full = simulate(made), simulate(made, symmetry=False)
    assert (merged.run.simulated_tiles, full.run.simulated_tiles) == (1, 128)
    same(full.run, merged.run)
