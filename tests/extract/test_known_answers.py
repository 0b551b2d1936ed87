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
from tilewright.graph import Graph
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
    _, plan = mlp(32, 64, 1024, 2, 4)
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


def transformer(batch: int, tokens: int, width: int, heads: int, size: int, hidden: int) -> Graph:
    """Return a block without norms: attention and MLP, each added to what it reads."""
    b = Builder("transformer")
    rows, inner = batch * tokens, heads * size
    x = b.input(rows, width)

    def head(perm: tuple[int, ...]) -> str:
        shape = (batch, tokens, heads, size)
        split = b.op("reshape", (b.matmul(x, b.weight(width, inner)),), shape, shape=shape)
        return b.op("transpose", (split,), [shape[d] for d in perm], perm=perm)

    q, k, v = head((0, 2, 1, 3)), head((0, 2, 3, 1)), head((0, 2, 1, 3))
    weights = b.op("softmax", (b.matmul(q, k),), (batch, heads, tokens, tokens))
    mixed = (batch, tokens, heads, size)
    context = b.op("transpose", (b.matmul(weights, v),), mixed, perm=(0, 2, 1, 3))
    context = b.op("reshape", (context,), (rows, inner), shape=(rows, inner))
    y = b.map("add", b.matmul(context, b.weight(inner, width)), x)
    inside = b.map("relu", b.matmul(y, b.weight(width, hidden)))
    return b.graph(b.map("add", b.matmul(inside, b.weight(hidden, width)), y))


def planned(graph: Graph) -> Plan:
    """Return the plan on a mesh of two axes, without gathering in chunks."""
    case = saturated(graph, mesh_target(2, 4), without_rules=GATHERED_RULES)
    plan = case.extract()
    validate_plan(plan, case.target)
    return plan


def weighed(plan: Plan) -> list[PlannedOp]:
    """Return the products with weights."""
    constants = {*plan.graph.constants, *(op.output for op in plan.folded)}
    return [op for op in products(plan) if op.op.inputs[1] in constants]


def collectives(plan: Plan) -> list[MoveKind]:
    chains = [d.moves for op in plan.ops for d in op.deliveries]
    chains += [d.moves for d in plan.output_deliveries]
    local = (MoveKind.LOAD, MoveKind.STORE)
    return [move.kind for chain in chains for move in chain if move.kind not in local]


def loops(plan: Plan, op: PlannedOp) -> list[str]:
    """Return the loop that each axis splits."""
    dims = planned_nest(op, plan.types).dims
    return [dims[d].name if d >= 0 else "" for d in op.split_dims]


@pytest.mark.slow
def test_a_transformer_block_of_few_tokens_is_tensor_parallel() -> None:
    """Shoeybi et al. (2019): columns, then rows; one all-reduce behind attention, one behind the MLP."""
    plan = planned(transformer(1, 16, 64, heads=8, size=64, hidden=2048))
    *heads, rows, inner, outer = weighed(plan)
    assert len(heads) == 3
    for op in heads:
        assert splits(plan, op) == {"outputs"}, "queries, keys and values of whole heads"
    for op in products(plan):
        if op not in weighed(plan):
            assert loops(plan, op) == ["b1", "b1"], "heads stay where they are made"
    assert splits(plan, rows) == {"sum"}
    assert splits(plan, inner) == {"outputs"}
    assert splits(plan, outer) == {"sum"}
    assert all(-1 not in op.split_dims for op in weighed(plan)), "both axes share the weights"
    assert all(op.resident[1] for op in weighed(plan))
    # an all-reduce is a reduce-scatter and an all-gather, on each of the axes; the output needs no gather
    kinds = collectives(plan)
    assert kinds.count(MoveKind.REDUCE_SCATTER) == 4
    assert kinds.count(MoveKind.ALL_GATHER) == 2
    assert len(kinds) == 6
    assert plan.gap < 0.02


@pytest.mark.slow
def test_a_transformer_block_of_many_sequences_is_data_parallel() -> None:
    plan = planned(transformer(32, 16, 32, heads=4, size=8, hidden=64))
    assert collectives(plan) == []
    assert all(op.result.sharding == (0, 0) for op in plan.ops), (
        "each tile has sequences of its own"
    )
    assert all(op.resident[1] for op in weighed(plan)), "every tile has all weights"
    assert plan.gap < 1e-3


def test_a_mixture_of_experts_is_expert_parallel() -> None:
    """Lepikhin et al., "GShard" (2020): tokens travel to the experts, whose weights stay where they are."""
    tokens, width, hidden, experts, capacity = 64, 64, 256, 8, 8
    rows = experts * capacity
    b = Builder("experts")
    x, there, back = b.input(tokens, width), b.input(rows, tokens), b.input(tokens, rows)
    shape = (experts, capacity, width)
    sent = b.op("reshape", (b.matmul(there, x),), shape, shape=shape)
    inner = b.map("relu", b.matmul(sent, b.weight(experts, width, hidden)))
    outer = b.matmul(inner, b.weight(experts, hidden, width))
    made = b.op("reshape", (outer,), (rows, width), shape=(rows, width))
    plan = planned(b.graph(b.matmul(back, made)))
    first, second = weighed(plan)
    assert loops(plan, first) == loops(plan, second) == ["b0", "b0"], "each tile has an expert"
    assert first.resident[1]
    assert second.resident[1]
    names = [op.op.name for op in plan.ops]
    begin, end = names.index(first.op.name), names.index(second.op.name)
    assert not any(d.moves for op in plan.ops[begin : end + 1] for d in op.deliveries)
    assert MoveKind.ALL_TO_ALL in collectives(plan)
    assert plan.gap < 1e-9
