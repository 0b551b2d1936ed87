"""Static schedules decide between plans where the sum of costs does not see all that matters.

Constants fill what a plan leaves free of the scratchpad, and deliveries hide behind products, only if the
program is no slower for it.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

import pytest

from tilewright import compiler
from tilewright.errors import InfeasibleError
from tilewright.extract.extraction import ExtractOptions
from tilewright.extract.plan import Plan
from tilewright.hwmodel.load import load_target
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.lowering.builder import ProgramBuilder
from tilewright.lowering.program import Program

TARGET = load_target("toy")


def compiled_again(
    done: compiler.Compilation, monkeypatch: pytest.MonkeyPatch, cycles: float | None
) -> compiler.Compilation:
    """Compile again, where the program of the unfilled plan is said to take some cycles, or has none."""
    assert done.plan is not None
    fuller = replace(done.plan, unfilled=replace(done.plan, cost=done.plan.cost + 1, bound=0.0))

    def made(plan: Plan, *_: object) -> Program:
        if plan.unfilled is None and cycles is None:
            raise InfeasibleError("it cannot be packed")
        length = 1000.0 if plan.unfilled is not None else cycles
        facts = MappingProxyType({"schedule_cycles": repr(length)})
        return replace(ProgramBuilder(TARGET, LogicalMesh((), ())).build(), facts=facts)

    monkeypatch.setattr(compiler, "extract", lambda *_: fuller)
    monkeypatch.setattr(compiler, "build_program", made)
    return compiler.compile_graph(done.graph, TARGET)


def test_the_plan_with_the_shorter_schedule_is_taken(
    compiled: compiler.Compilation, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert compiled.plan is not None
    found = compiled_again(compiled, monkeypatch, 999.0)
    assert found.plan is not None
    assert found.program is not None
    assert found.plan.unfilled is None
    assert found.plan.cost == compiled.plan.cost + 1
    assert found.plan.bound == compiled.plan.bound
    assert found.program.scheduled_cycles == 999.0


@pytest.mark.parametrize("cycles", [1000.0, 2000.0, None])
def test_constants_stay_if_nothing_is_gained(
    compiled: compiler.Compilation, monkeypatch: pytest.MonkeyPatch, cycles: float | None
) -> None:
    found = compiled_again(compiled, monkeypatch, cycles)
    assert found.plan is not None
    assert found.program is not None
    assert found.plan.unfilled is not None
    assert found.program.scheduled_cycles == 1000.0


@pytest.mark.parametrize(("share", "cycles"), [(0.5, 999.0), (0.5, 1001.0), (0.01, 999.0)])
def test_plans_that_hide_much_are_held_against_one_that_hides_nothing(
    compiled: compiler.Compilation, monkeypatch: pytest.MonkeyPatch, share: float, cycles: float
) -> None:
    """Only a plan that hides much, and only if the other one's schedule is shorter."""
    assert compiled.plan is not None
    plain = replace(compiled.plan, unfilled=None, cost=compiled.plan.cost + 1)
    number, op = next((n, op) for n, op in enumerate(plain.ops) if op.deliveries)
    first = replace(op.deliveries[0], hidden_cycles=share * plain.cost)
    covered = replace(op, deliveries=(first, *op.deliveries[1:]))
    hiding = replace(
        plain,
        cost=compiled.plan.cost,
        ops=(*plain.ops[:number], covered, *plain.ops[number + 1 :]),
    )
    asked: list[bool] = []

    def extracted(*arguments: object) -> Plan:
        options = next(a for a in arguments if isinstance(a, ExtractOptions))
        asked.append(options.hides)
        return hiding if options.hides else plain

    def made(plan: Plan, *_: object) -> Program:
        facts = MappingProxyType({"schedule_cycles": repr(1000.0 if plan is hiding else cycles)})
        return replace(ProgramBuilder(TARGET, LogicalMesh((), ())).build(), facts=facts)

    monkeypatch.setattr(compiler, "extract", extracted)
    monkeypatch.setattr(compiler, "build_program", made)
    found = compiler.compile_graph(compiled.graph, TARGET)
    assert found.plan is not None
    assert asked == ([True, False] if share == 0.5 else [True])
    assert (found.plan.cost == plain.cost) == (share == 0.5 and cycles < 1000.0)
    assert found.plan.bound == compiled.plan.bound
