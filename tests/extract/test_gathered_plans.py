"""Plans that gather an operand chunk by chunk: when they are taken, what they cost, how damage is caught."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest
from extract_cases import GATHERED_RULES, Builder, Case, saturated

from tilewright.extract.gathered import most_in_chunks
from tilewright.extract.kernel import loop_order
from tilewright.extract.kernel_price import price
from tilewright.extract.objective import Objective
from tilewright.extract.options import class_options
from tilewright.extract.plan import Memory, Placement, Plan, PlannedOp, Tiling
from tilewright.extract.plan_error import PlanError
from tilewright.extract.planned import planned_kernel
from tilewright.extract.validate import validate_plan
from tilewright.hwmodel.collectives import Collective, collective_cost
from tilewright.hwmodel.family import mesh_target
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.rules.gathered import GATHERED, Gather


@cache
def mlp(
    tokens: int, width: int, hidden: int, tiles: int, without_rules: tuple[str, ...] = ()
) -> tuple[Case, Plan]:
    """Return the plan of x + relu(rmsnorm(x) w) v, whose rows are normalised on one tile each."""
    b = Builder("mlp")
    x = b.input(tokens, width)
    normal = b.op("rmsnorm", (x,), (tokens, width), epsilon=1e-5)
    inner = b.map("relu", b.matmul(normal, b.weight(width, hidden)))
    graph = b.graph(b.map("add", b.matmul(inner, b.weight(hidden, width)), x))
    case = saturated(graph, mesh_target(1, tiles), without_rules=without_rules)
    plan = case.extract()
    validate_plan(plan, case.target)
    return case, plan


def gathering(plan: Plan) -> list[int]:
    """Return the numbers of the ops that gather."""
    return [number for number, planned in enumerate(plan.ops) if GATHERED in planned.macros]


def test_weights_stay_and_activations_come_in_chunks() -> None:
    """Both weights fill the scratchpads; the inner activations are as large as one scratchpad.

    Whole, they would have no room beside the weights, so that without chunks weights must be streamed
    or sums reduced. With chunks every weight stays where it is.
    """
    case, plan = mlp(128, 256, 512, 8)
    _, plain = mlp(128, 256, 512, 8, GATHERED_RULES)
    assert 128 * 512 * 4 == case.target.tile.sram.size_bytes
    products = [planned for planned in plan.ops if planned.op.kind == "matmul"]
    assert [planned.macros for planned in products] == [("", GATHERED)] * 2
    assert all(any(planned.resident) for planned in products)
    assert {name for p in products for name in p.split_rules if name} <= set(GATHERED_RULES)
    assert gathering(plain) == []
    assert plan.cost < 0.8 * plain.cost
    assert plan.bound <= plan.cost


def test_small_tensors_are_gathered_whole() -> None:
    """A handshake for each chunk would cost more than there is to hide."""
    _, plan = mlp(8, 32, 64, 8)
    assert gathering(plan) == []


@pytest.mark.parametrize("rows", [16, 8, 4, 2, 1])
def test_the_price_is_the_larger_of_products_and_chunks(rows: int) -> None:
    """By hand: a chunk, then products or chunks, whatever takes longer, then the last product.

    Every tile has 16 rows of 256 f32, of which a chunk takes `rows`; the epilogue of a chunk runs beside
    the product of the next. All weights pass the scratchpad's port for every chunk, and the sums of each pass
    over 16 of the 256, but the first, twice.
    """
    case, plan = mlp(128, 256, 512, 8)
    planned = plan.ops[gathering(plan)[0]]
    kernel = planned_kernel(planned, plan.types, plan.mesh)
    assert kernel.gather is not None
    extents = [loop.extent for loop in kernel.nest.dims]
    assert extents == [16, 64, 256, 8]
    tiling = Tiling((rows, *extents[1:]), loop_order(kernel))
    cost = price(kernel, tiling, case.target)
    steps = 16 // rows
    chunk = collective_cost(case.target, plan.mesh, 1, Collective.ALL_GATHER, rows * 256 * 4).cycles
    compute = cost.matrix_cycles + cost.vector_cycles / steps
    assert cost.dma_out_cycles == pytest.approx(chunk * steps)
    assert cost.noc_bytes == 7 * 16 * 256 * 4
    passed = (steps * 256 * 64 + 128 * 256 * 4 + 128 * 64 * (2 * 16 - 1)) * 4
    assert passed < cost.sram_bytes < 1.2 * passed, "the rest are chunks and epilogues"
    expected = max(chunk + compute, chunk * steps + compute / steps, cost.sram_cycles)
    assert cost.latency_cycles == pytest.approx(expected)


def test_a_constant_is_not_gathered() -> None:
    case, _ = mlp(128, 256, 512, 8)
    alternatives, pricing, _ = case.tables()
    (block,) = alternatives
    constants = {c.number for c in block.classes if c.is_constant}
    seen = 0
    for tensor in block.classes:
        for option in class_options(block, tensor.number, pricing):
            if option.node is None or option.implementation is None:
                continue
            if GATHERED in option.implementation.macros:
                seen += 1
                assert option.node.args[0] not in constants
                assert option.operands[0] is not None
                assert option.operands[0].memory is Memory.SRAM
    assert seen


@pytest.mark.parametrize("objective", [Objective.ENERGY, Objective.THROUGHPUT])
def test_other_objectives_give_valid_plans(objective: Objective) -> None:
    case, _ = mlp(128, 256, 512, 8)
    plan = case.extract(objective)
    validate_plan(plan, case.target)
    assert gathering(plan), "what does not fit whole is gathered in chunks"


MESH = LogicalMesh(("y", "x"), (1, 8))
GATHER = Gather(axis=1, size=8, dims=((0, 0),), loop=0)


def test_chunks_must_save_more_than_their_handshakes() -> None:
    target = mesh_target(1, 8)
    assert most_in_chunks(target, MESH, GATHER, 64, 100.0) is None
    assert most_in_chunks(target, MESH, GATHER, 32768, 10.0) is None, "nothing to hide it behind"
    most = most_in_chunks(target, MESH, GATHER, 32768, 8000.0)
    cost = collective_cost(target, MESH, 1, Collective.ALL_GATHER, 32768)
    assert most == pytest.approx(0.95 * (8000.0 + cost.cycles), rel=1e-3)


def without_macro(op: PlannedOp) -> PlannedOp:
    return replace(op, macros=("", ""))


def with_pieces(op: PlannedOp, pieces: int) -> PlannedOp:
    assert op.tiling is not None
    return replace(op, tiling=replace(op.tiling, sizes=(*op.tiling.sizes[:-1], pieces)))


def with_operand(op: PlannedOp, sharding: tuple[int, ...]) -> PlannedOp:
    first = op.deliveries[0]
    after = Placement(Memory.SRAM, sharding)
    moved = replace(first, before=after, moves=(), after=after)
    return replace(op, deliveries=(moved, *op.deliveries[1:]))


DAMAGE: dict[str, tuple[Callable[[PlannedOp], PlannedOp], str]] = {
    "nothing is gathered": (without_macro, "reads"),
    "a piece is left out": (lambda op: with_pieces(op, 7), "chunks of 7 of 8 pieces"),
    "no room for a second chunk": (
        lambda op: replace(op, buffer_bytes=op.buffer_bytes // 4),
        "its chunks need",
    ),
    "chunks travel for nothing": (
        lambda op: replace(op, cost=replace(op.cost, dma_out_cycles=0.0, startup_cycles=0.0)),
        "its chunks and products at least",
    ),
    "the operand is a constant": (
        lambda op: replace(op, resident=(True, *op.resident[1:])),
        "always whole",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_caught(damage: str) -> None:
    change, reason = DAMAGE[damage]
    case, plan = mlp(128, 256, 512, 8)
    number = gathering(plan)[0]
    ops = list(plan.ops)
    ops[number] = change(ops[number])
    with pytest.raises(PlanError, match=reason):
        validate_plan(replace(plan, ops=tuple(ops)), case.target)


def test_pieces_out_of_order_are_caught() -> None:
    """Split on the other dimension, the pieces of an axis are still not what its chunks bring."""
    case, plan = mlp(128, 256, 512, 8)
    number = gathering(plan)[0]
    ops = list(plan.ops)
    held = ops[number].deliveries[0].after.sharding
    ops[number] = with_operand(ops[number], tuple(1 - s if s >= 0 else s for s in held))
    with pytest.raises(PlanError):
        validate_plan(replace(plan, ops=tuple(ops)), case.target)
