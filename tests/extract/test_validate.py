"""The validator lets good plans pass and catches every kind of damage."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache

import pytest
from extract_cases import MODELS, OBJECTIVES, naive_rows, tiny, with_sram

from tilewright.errors import CompileError
from tilewright.extract.objective import Objective
from tilewright.extract.plan import Delivery, Memory, Move, MoveKind, Placement, Plan, PlannedOp
from tilewright.extract.plan_error import PlanError
from tilewright.extract.validate import validate_plan


@cache
def plan_of(name: str, objective: Objective = Objective.LATENCY) -> Plan:
    return tiny(name).extract(objective)


def check(plan: Plan, name: str) -> None:
    validate_plan(plan, tiny(name).target)


def broken(plan: Plan, name: str, match: str) -> None:
    """Check that the plan is refused for the reason given."""
    with pytest.raises(PlanError, match=match):
        check(plan, name)


def with_op(plan: Plan, number: int, **changes: object) -> Plan:
    ops = list(plan.ops)
    ops[number] = replace(ops[number], **changes)  # type: ignore[arg-type]
    return replace(plan, ops=tuple(ops))


def with_delivery(plan: Plan, number: int, operand: int, delivery: Delivery) -> Plan:
    deliveries = list(plan.ops[number].deliveries)
    deliveries[operand] = delivery
    return with_op(plan, number, deliveries=tuple(deliveries))


def all_deliveries(plan: Plan) -> Iterator[tuple[int, int, Delivery]]:
    for number, planned in enumerate(plan.ops):
        for operand, delivery in enumerate(planned.deliveries):
            yield number, operand, delivery


def moved(plan: Plan) -> tuple[int, int, Delivery]:
    return next(found for found in all_deliveries(plan) if found[2].moves)


def in_sram(planned: PlannedOp) -> bool:
    return planned.result.memory is Memory.SRAM


@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_extracted_plans_pass(name: str, objective: Objective) -> None:
    check(plan_of(name, objective), name)


@pytest.mark.parametrize("name", list(MODELS))
def test_a_wrong_result_sharding_is_caught(name: str) -> None:
    plan = plan_of(name)
    for number, planned in enumerate(plan.ops):
        if not in_sram(planned):
            continue
        for sharding in ((-1, -1), (0, -1), (-1, 0), (0, 0), (1, -1), (-1, 1), (-2, -1)):
            if sharding != planned.result.sharding:
                other = Placement(Memory.SRAM, sharding)
                with pytest.raises((PlanError, AssertionError)):
                    check(with_op(plan, number, result=other), name)


@pytest.mark.parametrize("name", list(MODELS))
def test_a_missing_move_is_caught(name: str) -> None:
    plan = plan_of(name)
    for number, operand, delivery in all_deliveries(plan):
        for gone in range(len(delivery.moves)):
            moves = (*delivery.moves[:gone], *delivery.moves[gone + 1 :])
            cut = with_delivery(plan, number, operand, replace(delivery, moves=moves))
            broken(cut, name, "chain|delivered as")
    number, operand, delivery = moved(plan)
    without = replace(delivery, moves=(), after=delivery.before)
    with pytest.raises(PlanError):
        check(with_delivery(plan, number, operand, without), name)


def test_a_move_that_claims_too_much_is_caught() -> None:
    plan = plan_of("residual")
    number, operand, delivery = moved(plan)
    (*others, last) = delivery.moves
    wrong = replace(last, kind=MoveKind.ALL_TO_ALL, axis=0)
    changed = replace(delivery, moves=(*others, wrong))
    broken(with_delivery(plan, number, operand, changed), "residual", "cannot turn")


def test_a_cheaper_move_than_the_cost_model_says_is_caught() -> None:
    plan = plan_of("residual")
    number, operand, delivery = moved(plan)
    cheap = tuple(replace(move, cycles=move.cycles / 2) for move in delivery.moves)
    changed = replace(delivery, moves=cheap)
    broken(with_delivery(plan, number, operand, changed), "residual", "costs")


def test_less_energy_than_the_cost_model_says_is_caught() -> None:
    plan = plan_of("residual", Objective.ENERGY)
    number, operand, delivery = moved(plan)
    cheap = tuple(replace(move, energy_pj=move.energy_pj / 2) for move in delivery.moves)
    saved = sum(move.energy_pj / 2 for move in delivery.moves)
    changed = with_delivery(plan, number, operand, replace(delivery, moves=cheap))
    changed = with_op(changed, number, cost_units=changed.ops[number].cost_units - saved)
    changed = replace(changed, cost=changed.cost - saved, bound=0.0)
    broken(changed, "residual", "pJ")


@pytest.mark.parametrize("name", list(MODELS))
def test_a_move_along_another_dimension_is_caught(name: str) -> None:
    plan = plan_of(name)
    for number, operand, delivery in all_deliveries(plan):
        for place, old in enumerate(delivery.moves):
            moves = list(delivery.moves)
            moves[place] = replace(old, dim=old.dim + 1)
            wrong = with_delivery(plan, number, operand, replace(delivery, moves=tuple(moves)))
            broken(wrong, name, "cannot turn")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda plan: replace(plan, cost=plan.cost * 0.99), "the plan costs"),
        (lambda plan: replace(plan, bound=plan.cost * 1.01), "the bound"),
        (lambda plan: with_op(plan, 0, cost_units=plan.ops[0].cost_units - 1), "costs"),
        (lambda plan: replace(plan, ops=plan.ops[::-1]), "before it is made"),
        (lambda plan: replace(plan, ops=(*plan.ops, plan.ops[-1])), "made twice"),
        (lambda plan: replace(plan, ops=plan.ops[:-1]), "not made|before it is made"),
    ],
)
@pytest.mark.parametrize("name", ["heads", "attention_scores"])
def test_wrong_sums_and_orders_are_caught(
    name: str, change: Callable[[Plan], Plan], match: str
) -> None:
    broken(change(plan_of(name)), name, match)


@pytest.mark.parametrize("name", list(MODELS))
def test_a_wrong_split_is_caught(name: str) -> None:
    plan = plan_of(name)
    for number, planned in enumerate(plan.ops):
        loops = 2 if planned.op.kind != "conv" else 4
        for axis in range(2):
            for split in range(-1, loops):
                splits = list(planned.split_dims)
                if splits[axis] == split:
                    continue
                splits[axis] = split
                with pytest.raises((PlanError, AssertionError)):
                    check(with_op(plan, number, split_dims=tuple(splits)), name)


def with_partials() -> tuple[str, Plan]:
    for name in MODELS:
        for objective in OBJECTIVES:
            plan = plan_of(name, objective)
            if any(min(op.result.sharding) <= -2 for op in plan.ops):
                return name, plan
    raise AssertionError("no plan has partial sums")


def test_dropped_partial_reductions_are_caught() -> None:
    name, plan = with_partials()
    maker = next(n for n, op in enumerate(plan.ops) if min(op.result.sharding) <= -2)
    partial = plan.ops[maker]
    whole = Placement(
        Memory.SRAM, tuple(-1 if state <= -2 else state for state in partial.result.sharding)
    )
    broken(with_op(plan, maker, result=whole), name, "partial|lies in")
    outputs = tuple(
        replace(d, moves=tuple(m for m in d.moves if "reduce" not in m.kind))
        for d in plan.output_deliveries
    )
    cut = replace(plan, output_deliveries=outputs)
    for number, operand, delivery in all_deliveries(plan):
        kept = tuple(m for m in delivery.moves if "reduce" not in m.kind)
        cut = with_delivery(cut, number, operand, replace(delivery, moves=kept))
    assert cut != plan
    broken(cut, name, "chain|delivered as|cannot turn")


@pytest.mark.parametrize("name", list(MODELS))
def test_too_little_scratchpad_is_caught(name: str) -> None:
    plan, target = plan_of(name), tiny(name).target
    validate_plan(plan, with_sram(target, plan.peak_sram_bytes))
    with pytest.raises(PlanError, match="bytes"):
        validate_plan(plan, with_sram(target, max(naive_rows(plan, target)) - 64))


def test_wrong_buffers_are_caught() -> None:
    plan = plan_of("matmul_chain")
    less = plan.ops[0].buffer_bytes + 64
    broken(with_op(plan, 0, buffer_bytes=less), "matmul_chain", "buffers")


def test_a_model_output_left_in_the_scratchpad_is_caught() -> None:
    plan = plan_of("matmul_chain")
    made = plan.ops[-1].result
    left = tuple(replace(d, moves=(), after=made, before=made) for d in plan.output_deliveries)
    if made.memory is Memory.DRAM:
        stays = Placement(Memory.SRAM, (-1, -1))
        move = Move(kind=MoveKind.LOAD, before=made, after=stays, cycles=0.0)
        left = tuple(replace(d, moves=(move,), after=stays) for d in plan.output_deliveries)
    broken(replace(plan, output_deliveries=left), "matmul_chain", "does not end in DRAM|costs")


def test_a_missing_model_output_is_caught() -> None:
    plan = plan_of("two_outputs")
    units = sum(move.cycles for move in plan.output_deliveries[1].moves)
    fewer = replace(
        plan, output_deliveries=plan.output_deliveries[:1], cost=plan.cost - units, bound=0.0
    )
    broken(fewer, "two_outputs", "1 of 2 model outputs")


def test_a_moved_constant_is_caught() -> None:
    plan = plan_of("matmul_chain")
    for number, operand, delivery in all_deliveries(plan):
        if delivery.tensor in plan.graph.constants:
            place = Placement(Memory.SRAM, (0, 0))
            wrong = with_delivery(plan, number, operand, replace(delivery, before=place))
            if not plan.ops[number].resident[operand]:
                broken(wrong, "matmul_chain", "constant")


def test_a_resident_constant_that_is_not_loaded_whole_is_caught() -> None:
    plan = plan_of("matmul_chain")
    number, operand = next(
        (n, i) for n, op in enumerate(plan.ops) for i, kept in enumerate(op.resident) if kept
    )
    delivery = plan.ops[number].deliveries[operand]
    others = [s for s in ((0, 0), (1, 1), (0, 1), (1, 0)) if s != delivery.after.sharding]
    for sharding in others:
        place = Placement(Memory.SRAM, sharding)
        changed = replace(delivery, before=place, after=place)
        with pytest.raises((PlanError, AssertionError)):
            check(with_delivery(plan, number, operand, changed), "matmul_chain")


def test_a_folded_op_over_run_time_values_is_caught() -> None:
    plan = plan_of("matmul_chain")
    folded = replace(plan.ops[0].op, name="f", outputs=("f",))
    broken(replace(plan, folded=(folded,)), "matmul_chain", "not constant")


def test_plan_errors_are_compile_errors() -> None:
    assert issubclass(PlanError, CompileError)
