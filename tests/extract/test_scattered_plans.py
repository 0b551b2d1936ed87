"""Plans that scatter their sums box by box: when they are taken, what they cost, how damage is caught."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest
from extract_cases import Builder, Case, saturated, sliced

from tilewright.extract.kernel import Kernel, footprint_bytes, loop_order
from tilewright.extract.kernel_price import price
from tilewright.extract.objective import Objective
from tilewright.extract.plan import Memory, Placement, Plan, PlannedOp, Tiling
from tilewright.extract.plan_error import PlanError
from tilewright.extract.planned import planned_kernel
from tilewright.extract.tiling_choice import _least_footprints, tiling_key
from tilewright.extract.validate import validate_plan
from tilewright.hwmodel.collectives import Collective, collective_cost
from tilewright.hwmodel.cost import KernelCost
from tilewright.hwmodel.load import load_target
from tilewright.rules.options import SaturationOptions
from tilewright.rules.scattered import SCATTERED

RULE = "partition.scattered_matmul_rows"


@cache
def mlp(tiles: int, *without_rules: str) -> tuple[Case, Plan]:
    """Return the plan of relu(x v) w: what is between fills much of the scratchpads, and so do the sums."""
    b = Builder("mlp")
    hidden = b.map("relu", b.matmul(b.input(128, 256), b.weight(256, 512)))
    graph = b.graph(b.matmul(hidden, b.weight(512, 256)))
    target = load_target(f"mesh_1x{tiles}")
    options = SaturationOptions(least_scattered_bytes=target.tile.sram.size_bytes / 4)
    case = saturated(graph, target, without_rules=without_rules, options=options)
    plan = case.extract()
    validate_plan(plan, case.target)
    return case, plan


def scattering(plan: Plan) -> list[int]:
    """Return the numbers of the ops that scatter."""
    return [number for number, planned in enumerate(plan.ops) if SCATTERED in planned.macros]


def kernel_of(plan: Plan, number: int) -> Kernel:
    return planned_kernel(plan.ops[number], plan.types, plan.mesh)


def test_hidden_features_stay_where_they_are() -> None:
    """The first product makes features, the second contracts them: nothing moves but sums."""
    _, plan = mlp(4)
    _, plain = mlp(4, RULE)
    first, second = (planned for planned in plan.ops if planned.op.kind == "matmul")
    assert first.split_dims == (-1, 1)
    assert second.macros == ("", SCATTERED)
    assert second.split_rules == ("", RULE)
    assert not second.deliveries[0].moves
    assert scattering(plain) == []
    assert plan.cost < 0.98 * plain.cost
    assert plan.bound <= plan.cost


def test_small_sums_are_not_scattered() -> None:
    """The rule is for results of a quarter of a scratchpad or more."""
    b = Builder("small")
    hidden = b.map("relu", b.matmul(b.input(32, 64), b.weight(64, 64)))
    graph = b.graph(b.matmul(hidden, b.weight(64, 64)))
    options = SaturationOptions(least_scattered_bytes=32 * 64 * 4 + 1)
    large = SaturationOptions(least_scattered_bytes=32 * 64 * 4)
    found = [
        [
            implementation
            for block in saturated(graph, load_target("mesh_1x4"), options=chosen).alternatives
            for implementation in block.implementations
            if SCATTERED in implementation.macros
        ]
        for chosen in (options, large)
    ]
    assert not found[0]
    assert found[1]


@pytest.mark.parametrize("rows", [32, 16, 8, 4])
def test_the_price_is_that_of_products_and_the_last_exchange(rows: int) -> None:
    """By hand: products, then the exchange of the last box with its sums and its store."""
    case, plan = mlp(4)
    (number,) = scattering(plan)
    op = plan.ops[number]
    resident = tuple(
        replace(d, before=(at := Placement(Memory.SRAM, s)), moves=(), after=at)
        for d, s in zip(op.deliveries, ((-1, 1), (-1, 0)), strict=True)
    )
    op = replace(op, deliveries=resident, result=Placement(Memory.SRAM, (-1, 0)))
    kernel = planned_kernel(op, plan.types, plan.mesh)
    extents = [loop.extent for loop in kernel.nest.dims]
    assert extents == [32, 256, 128, 4]
    cost = price(kernel, Tiling((rows, *extents[1:]), loop_order(kernel)), case.target)
    boxes, whole_bytes = 32 // rows, 128 * 256 * 4
    one, last = (
        collective_cost(case.target, plan.mesh, 1, kind, whole_bytes // boxes).cycles
        for kind in (Collective.ALL_TO_ALL, Collective.REDUCE_SCATTER)
    )
    assert cost.dma_out_cycles == pytest.approx(one * boxes)
    assert cost.noc_bytes == whole_bytes * 3 // 4
    longer, shorter = cost.matrix_cycles, cost.vector_cycles
    expected = max(
        longer + shorter / boxes + last, (longer + shorter / boxes) / boxes + one * boxes
    )
    assert cost.latency_cycles == pytest.approx(max(expected, cost.sram_cycles))


@pytest.mark.parametrize("memory", list(Memory))
def test_the_ranking_counts_all_buffers(memory: Memory) -> None:
    case, plan = mlp(4)
    (number,) = scattering(plan)
    kernel = replace(kernel_of(plan, number), result_memory=memory)
    _, pricing, _ = case.tables()
    candidates = pricing.tilings[tiling_key(kernel)]
    alignment = case.target.tile.sram.alignment_bytes
    least = _least_footprints(kernel, candidates, alignment)
    for at in range(0, len(candidates), max(1, len(candidates) // 50)):
        assert least[at] == footprint_bytes(kernel, candidates.tiling(at), alignment)


def test_the_enumeration_of_small_models_has_options_that_scatter() -> None:
    """What `test_extraction_brute_force` compares with all combinations has them."""
    _, _, tables = sliced(1, 2).tables()
    macros = {
        macro
        for options in tables.options
        for option in options
        if option.implementation is not None
        for macro in option.implementation.macros
    }
    assert SCATTERED in macros


@pytest.mark.parametrize("objective", [Objective.ENERGY, Objective.THROUGHPUT])
def test_other_objectives_give_valid_plans(objective: Objective) -> None:
    case, _ = mlp(4)
    validate_plan(case.extract(objective), case.target)


def with_pieces(op: PlannedOp, pieces: int) -> PlannedOp:
    assert op.tiling is not None
    return replace(op, tiling=replace(op.tiling, sizes=(*op.tiling.sizes[:-1], pieces)))


DAMAGE: dict[str, tuple[Callable[[PlannedOp], PlannedOp], str]] = {
    "nothing is scattered": (lambda op: replace(op, macros=("", "")), "must be partial"),
    "rows are left out": (lambda op: with_pieces(op, 3), "in 4 pieces"),
    "no room for what arrives": (
        lambda op: replace(op, buffer_bytes=op.buffer_bytes // 8),
        "what it scatters needs",
    ),
    "sums travel for nothing": (
        lambda op: replace(op, cost=KernelCost(matrix_cycles=op.cost.matrix_cycles)),
        "its products and exchanges at least",
    ),
    "tiles keep other rows": (
        lambda op: replace(op, result=Placement(Memory.SRAM, (-1, 1))),
        "its result's shard is",
    ),
    "an axis splits nothing": (
        lambda op: replace(op, macros=(SCATTERED, SCATTERED)),
        "along an axis that does not split them",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_caught(damage: str) -> None:
    change, reason = DAMAGE[damage]
    case, plan = mlp(4)
    (number,) = scattering(plan)
    ops = list(plan.ops)
    ops[number] = change(ops[number])
    with pytest.raises(PlanError, match=reason):
        validate_plan(replace(plan, ops=tuple(ops)), case.target)
