"""Plans whose shape is known from the literature: tensor parallel and data parallel layers.

Where the literature's collectives precede or follow whole products, so they must here: rules that gather
an operand chunk by chunk while products run are left out then (test_gathered_plans.py).
"""

from __future__ import annotations

from functools import cache

import pytest
from extract_cases import GATHERED_RULES, Builder, Case, saturated

from tilewright.extract.plan import Memory, MoveKind, Plan, PlannedOp
from tilewright.extract.planned import planned_nest
from tilewright.extract.validate import validate_plan
from tilewright.hwmodel.family import mesh_target
from tilewright.rules.loopnest import Role


@cache
def mlp(
    tokens: int,
    width: int,
    hidden: int,
    rows: int,
    columns: int,
    without_rules: tuple[str, ...] = (),
) -> tuple[Case, Plan]:
    """Return the plan of tanh(relu(x w) v)."""
    b = Builder("mlp")
    inner = b.map("relu", b.matmul(b.input(tokens, width), b.weight(width, hidden)))
    graph = b.graph(b.map("tanh", b.matmul(inner, b.weight(hidden, width))))
    case = saturated(graph, mesh_target(rows, columns), without_rules=without_rules)
    plan = case.extract()
    validate_plan(plan, case.target)
    return case, plan


def products(plan: Plan) -> list[PlannedOp]:
    return [op for op in plan.ops if op.op.kind == "matmul"]


def splits(plan: Plan, planned: PlannedOp) -> set[str]:
    """Return which of the loops tokens, outputs and sum are split over the mesh."""
    nest = planned_nest(planned, plan.types)
    result = [next(iter(d.terms)).dim for d in nest.result]
    names = {result[0]: "tokens", result[1]: "outputs"}
    return {
        "sum" if nest.dims[d].role is Role.REDUCTION else names[d]
        for d in planned.split_dims
        if d >= 0
    }


def reductions(plan: Plan) -> int:
    kinds = (MoveKind.ALL_REDUCE, MoveKind.REDUCE_SCATTER)
    chains = [d.moves for op in plan.ops for d in op.deliveries]
    chains += [d.moves for d in plan.output_deliveries]
    return sum(move.kind in kinds for chain in chains for move in chain)


def between(plan: Plan) -> list[MoveKind]:
    """Return the moves between the first and the last product."""
    names = [op.op.name for op in plan.ops]
    first, last = (names.index(op.op.name) for op in products(plan))
    ops = plan.ops[first + 1 : last + 1]
    return [m.kind for op in ops for d in op.deliveries for m in d.moves]


@pytest.mark.parametrize(("tokens", "width"), [(32, 128), (32, 64)])
def test_few_tokens_give_columns_then_rows_with_one_reduction(tokens: int, width: int) -> None:
    """Shoeybi et al., "Megatron-LM" (2019): no communication between the products, one reduction behind."""
    case, plan = mlp(tokens, width, 1024, 1, 8, GATHERED_RULES)
    weights = sum(array.nbytes for array in plan.graph.constants.values())
    assert weights > case.target.tile.sram.size_bytes, "could be replicated"
    first, second = products(plan)
    assert splits(plan, first) == {"outputs"}
    assert splits(plan, second) == {"sum"}
    assert between(plan) == []
    assert min(second.result.sharding) == -2
    assert reductions(plan) == 1
    assert any(first.resident)
    assert any(second.resident)
    assert plan.bound == pytest.approx(plan.cost, rel=1e-3)


def test_two_axes_combine_tokens_with_columns_then_rows() -> None:
    _, plan = mlp(16, 64, 1024, 2, 4)
    first, second = products(plan)
    assert splits(plan, first) == {"tokens", "outputs"}
    assert splits(plan, second) == {"tokens", "sum"}
    assert first.split_dims[0] == second.split_dims[0]
    assert between(plan) == []
    assert reductions(plan) == 1


@pytest.mark.parametrize(
    ("tokens", "width", "hidden", "rows", "columns"), [(1024, 32, 64, 1, 8), (1024, 64, 128, 4, 4)]
)
def test_many_tokens_and_small_weights_are_data_parallel(
    tokens: int, width: int, hidden: int, rows: int, columns: int
) -> None:
    _, plan = mlp(tokens, width, hidden, rows, columns, GATHERED_RULES)
    assert [splits(plan, op) for op in products(plan)] == [{"tokens"}, {"tokens"}]
    assert between(plan) == []
    assert reductions(plan) == 0
    for op in products(plan):
        assert any(op.resident), "the weights stay"
        assert op.result.memory is Memory.SRAM


def test_small_tensors_are_gathered_rather_than_reduced() -> None:
    """With a few tokens start-up counts: one multicast is faster than n - 1 sends of partial sums."""
    _, plan = mlp(4, 128, 512, 1, 8, GATHERED_RULES)
    assert [splits(plan, op) for op in products(plan)] == [{"outputs"}, {"outputs"}]
    assert between(plan) == [MoveKind.ALL_GATHER]
