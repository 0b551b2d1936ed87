"""Other orders of a program do the same, and one is taken only if nothing gets worse."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from backend_machine import run_linear, some_time
from backend_programs import MESHES, Writer, make_target, random_program, tight_target
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.errors import InfeasibleError, ProgramError
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.lowering import scheduled
from tilewright.lowering.backend import (
    BackEnd,
    assemble_backend,
)
from tilewright.lowering.durations import MicroTime
from tilewright.lowering.isa import Engine, Opcode, Space
from tilewright.lowering.micro import LinearProgram, Micro
from tilewright.lowering.reorder import Freedom, cycles_of, pose_reorder
from tilewright.lowering.scheduled import Scheduling, schedule_backend
from tilewright.lowering.scheduling.list_scheduling import list_schedule


@settings(max_examples=25)
@given(
    seed=st.integers(0, 10**6),
    steps=st.integers(1, 20),
    mesh=st.sampled_from(MESHES),
    budget_bytes=st.integers(0, 100),
    ahead_cycles=st.sampled_from([0.0, 2.0, 4.0]),
)
def test_other_orders_do_the_same(
    seed: int, steps: int, mesh: LogicalMesh, budget_bytes: int, ahead_cycles: float
) -> None:
    """Whatever a schedule says, its order reads what the old one read, and no order beats the bound."""

    def time_of(micro: Micro) -> MicroTime:
        is_load = micro.opcode is Opcode.LD
        return replace(some_time(micro), ahead_cycles=ahead_cycles if is_load else 0.0)

    linear = random_program(seed, steps, mesh)
    reorder = pose_reorder(linear, mesh, time_of)
    draw = random.Random(seed)
    starts = [draw.randrange(100) for _ in linear.run]
    moved = reorder.order_by(starts, budget_bytes)
    assert sorted(m.tag for m in moved.run) == sorted(m.tag for m in linear.run)
    assert run_linear(moved, mesh, 2) == run_linear(linear, mesh, 2)
    back = assemble_backend(moved, target=make_target(), mesh=mesh, durations=time_of)
    bound = reorder.bound(list_schedule(reorder.problem(Freedom())))
    assert cycles_of(bound) <= back.schedule.makespan_cycles


def two_chains() -> LinearProgram:
    """Return two independent chains on two engines, one behind the other."""
    writer = Writer(random.Random(0), LogicalMesh((), ()), 8)
    for _ in range(2):
        value = writer.filled(8)
        for step in range(6):
            fresh = writer.buffer(Space.L1, 8)
            sources = (writer.operand(value), writer.operand(value))
            opcode, engine = ((Opcode.MM, Engine.ME), (Opcode.VEC, Engine.VE))[step % 2]
            writer.add(opcode, engine, 8, dst=writer.operand(fresh), sources=sources)
            value = fresh
    return writer.program()


def test_freedom_limits_what_may_overtake() -> None:
    """In steps each engine keeps its order, however many chains; in windows of one nothing moves."""
    chains = two_chains()
    run = tuple(replace(micro, tag=1) for micro in chains.run)
    reorder = pose_reorder(
        replace(chains, run=run), LogicalMesh((), ()), lambda micro: MicroTime(1.0)
    )
    solution = list_schedule(reorder.problem(Freedom(is_step_in_order=True)))
    for engine in (Engine.ME, Engine.VE):
        starts = [s for s, m in zip(solution.starts, run, strict=True) if m.engine is engine]
        assert starts == sorted(starts)
    free = list_schedule(reorder.problem(Freedom()))
    still = list_schedule(reorder.problem(Freedom(window=1)))
    assert [cycles_of(s.makespan) for s in (free, still)] == [8.0, 14.0]
    assert still.starts == tuple(sorted(still.starts))
    assert free.makespan <= solution.makespan <= still.makespan


@pytest.mark.parametrize("scheduling", [Scheduling.LIST, Scheduling.EXACT])
def test_chains_are_interleaved_within_the_old_scratchpad(scheduling: Scheduling) -> None:
    """Each chain takes 7 steps of 10 cycles, its 4 on the vector engine the most: 14 steps become 8."""
    mesh, target = LogicalMesh((), ()), make_target()
    own, found = (
        schedule_backend(
            two_chains(),
            target=target,
            mesh=mesh,
            durations=lambda micro: MicroTime(10.0),
            scheduling=how,
        )
        for how in (Scheduling.PROGRAM, scheduling)
    )
    assert own.back.schedule.makespan_cycles == 140.0
    assert found.back.schedule.makespan_cycles == found.bound_cycles == 80.0
    assert found.order == scheduling.value
    assert found.back.sram_bytes <= own.back.sram_bytes
    assert found.instructions <= own.instructions
    assert found.facts["schedule_resource_cycles"] == "80.0"
    assert found.facts["schedule_critical_path_cycles"] == "70.0"


@settings(max_examples=15)
@given(
    seed=st.integers(0, 10**6),
    steps=st.integers(1, 20),
    mesh=st.sampled_from(MESHES),
    is_tight=st.booleans(),
)
def test_the_schedulers_never_make_a_program_worse(
    seed: int, steps: int, mesh: LogicalMesh, is_tight: bool
) -> None:
    linear = random_program(seed, steps, mesh)
    target = tight_target(linear) if is_tight else make_target()
    own, found = (
        schedule_backend(linear, target=target, mesh=mesh, durations=some_time, scheduling=how)
        for how in (Scheduling.PROGRAM, Scheduling.LIST)
    )
    before, after = own.back.schedule, found.back.schedule
    assert found.bound_cycles <= after.makespan_cycles <= before.makespan_cycles
    assert found.back.sram_bytes <= own.back.sram_bytes
    assert found.instructions <= own.instructions


@pytest.mark.parametrize("error", [InfeasibleError, ProgramError])
def test_orders_that_cannot_be_assembled_are_passed_over(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    mesh, target = LogicalMesh((), ()), make_target()

    def refuse(linear: LinearProgram, **options: Any) -> BackEnd:
        if linear.run != two_chains().run:
            raise error("no")
        return assemble_backend(linear, **options)

    monkeypatch.setattr(scheduled, "assemble_backend", refuse)
    found = schedule_backend(two_chains(), target=target, mesh=mesh, durations=some_time)
    assert found.order == "program"
    assert found.bound_cycles > 0.0


def test_a_long_program_keeps_its_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduled, "MOST_ORDERED", 13)
    mesh, target = LogicalMesh((), ()), make_target()
    found = schedule_backend(two_chains(), target=target, mesh=mesh, durations=some_time)
    assert (found.order, found.bound_cycles) == ("program", 0.0)
    assert found.note == "14 micros keep their order, at most 13 are ordered"
