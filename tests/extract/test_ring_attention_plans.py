"""Plans that pass keys and values round: when they are taken, what they cost, how damage is caught."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest
from extract_cases import Builder, Case, saturated

from tilewright.extract.gathered_check import check_chunks
from tilewright.extract.kernel import buffers, loop_order
from tilewright.extract.kernel_price import price
from tilewright.extract.options import class_options
from tilewright.extract.plan import Memory, Placement, Plan, PlannedOp, Tiling
from tilewright.extract.plan_error import PlanError
from tilewright.extract.planned import planned_kernel, planned_nest
from tilewright.extract.validate import validate_plan
from tilewright.hwmodel.collectives import Collective, collective_cost
from tilewright.hwmodel.cost import KernelCost
from tilewright.hwmodel.family import mesh_target
from tilewright.rules.gathered import GATHERED

TOKENS, SIZE, TILES = 512, 64, 8


@cache
def attention() -> tuple[Case, Plan, PlannedOp]:
    """Return the plan of attention over normalised tokens, and its attention."""
    b = Builder("attention")
    x = b.op("rmsnorm", (b.input(TOKENS, SIZE),), (TOKENS, SIZE), epsilon=1e-5)
    x = b.op("reshape", (x,), (1, TOKENS, SIZE), shape=(1, TOKENS, SIZE))
    scores = b.matmul(x, b.op("transpose", (x,), (1, SIZE, TOKENS), perm=(0, 2, 1)))
    weights = b.op("softmax", (scores,), b.types[scores].shape)
    case = saturated(b.graph(b.matmul(weights, x)), mesh_target(1, TILES))
    plan = case.extract()
    validate_plan(plan, case.target)
    (found,) = (planned for planned in plan.ops if planned.op.kind == "attention")
    return case, plan, found


def test_keys_and_values_stay_in_pieces() -> None:
    """Whole, they would fill the scratchpad; a tile has its piece of each and two chunks of all pieces."""
    case, plan, planned = attention()
    assert 2 * TOKENS * SIZE * 4 == case.target.tile.sram.size_bytes
    assert planned.macros == ("", GATHERED)
    assert planned.split_rules == ("", "partition.ring_attention")
    kernel = planned_kernel(planned, plan.types, plan.mesh)
    assert planned.tiling is not None
    chunk = planned.tiling.sizes[4] * TILES * SIZE * 4
    found = {b.name: b for b in buffers(kernel, planned.tiling)}
    for operand in ("operand1", "operand2"):
        assert (found[operand].size_bytes, found[operand].copies) == (chunk, 2)


@pytest.mark.parametrize("keys", [32, 16, 8, 4])
def test_the_price_is_the_larger_of_products_and_chunks(keys: int) -> None:
    """By hand: the first keys, then scores and values, or all chunks and the last values.

    Every tile has 64 keys of 64 f32, of which a chunk takes `keys`, and values of as many bytes.
    """
    case, plan, planned = attention()
    kernel = replace(
        planned_kernel(planned, plan.types, plan.mesh),
        operand_memory=(Memory.SRAM,) * 3,
        result_memory=Memory.SRAM,
    )
    extents = [loop.extent for loop in kernel.nest.dims]
    assert extents == [1, 64, SIZE, SIZE, 64, TILES]
    tiling = Tiling((*extents[:4], keys, TILES), loop_order(kernel))
    cost = price(kernel, tiling, case.target)
    steps = 64 // keys
    chunk = collective_cost(
        case.target, plan.mesh, 1, Collective.ALL_GATHER, keys * SIZE * 4
    ).cycles
    longer = max(cost.matrix_cycles, cost.vector_cycles)
    compute = longer + min(cost.matrix_cycles, cost.vector_cycles) / steps
    assert cost.dma_out_cycles == pytest.approx(2 * chunk * steps)
    assert cost.noc_bytes == 7 * 2 * 64 * SIZE * 4
    expected = max(chunk + compute, 2 * chunk * steps + compute / steps, cost.sram_cycles)
    assert cost.latency_cycles == pytest.approx(expected)


def test_no_option_gathers_keys_without_values() -> None:
    case, _, _ = attention()
    (block,), pricing, _ = case.tables()
    seen = 0
    for tensor in block.classes:
        for option in class_options(block, tensor.number, pricing):
            if option.node is None or option.implementation is None:
                continue
            if option.node.kind == "attention" and GATHERED in option.implementation.macros:
                seen += 1
                assert [option.operands[n] for n in (1, 2)] == [
                    Placement(Memory.SRAM, (-1, 2)),
                    Placement(Memory.SRAM, (-1, 1)),
                ]
    assert seen


def test_chunks_fill_the_rows_of_the_matrix_unit() -> None:
    """Boxes of many keys, whole or in pieces, are multiples of the 16 rows that sum over them."""
    case, _, _ = attention()
    _, pricing, _ = case.tables()
    assert case.target.tile.matrix.rows == 16
    forms = set()
    for (kind, loops, _), found in pricing.tilings.items():
        if kind == "attention":
            forms.add(len(loops))
            keys = found.sizes[:, 4:].prod(axis=1)
            assert len(set(keys)) > 3
            assert (keys % 16 == 0).all()
    assert forms == {5, 6}, "keys whole, and in pieces"


def with_pieces(op: PlannedOp, pieces: int) -> PlannedOp:
    assert op.tiling is not None
    return replace(op, tiling=replace(op.tiling, sizes=(*op.tiling.sizes[:-1], pieces)))


def with_operand(op: PlannedOp, operand: int, sharding: tuple[int, ...]) -> PlannedOp:
    after = Placement(Memory.SRAM, sharding)
    moved = replace(op.deliveries[operand], before=after, moves=(), after=after)
    return replace(op, deliveries=(*op.deliveries[:operand], moved, *op.deliveries[operand + 1 :]))


DAMAGE: dict[str, tuple[Callable[[PlannedOp], PlannedOp], str]] = {
    "nothing is gathered": (lambda op: replace(op, macros=("", "")), "reads"),
    "a piece is left out": (lambda op: with_pieces(op, 7), "chunks of 7 of 8 pieces"),
    "values are constant": (
        lambda op: replace(op, resident=(False, False, True)),
        "always whole",
    ),
    "room for keys alone": (
        lambda op: replace(op, buffer_bytes=_chunks(op) - 64),
        "its chunks need",
    ),
    "chunks travel for nothing": (lambda op: replace(op, cost=KernelCost()), "its chunks and prod"),
}

PLACES: dict[str, tuple[int, tuple[int, ...]]] = {
    "values are whole": (2, (-1, -1)),
    "keys are whole": (1, (-1, -1)),
    "values lie by features": (2, (-1, 2)),
}


def _chunks(op: PlannedOp) -> int:
    """Return the bytes of two chunks of keys and two of values."""
    assert op.tiling is not None
    return 2 * 2 * op.tiling.sizes[4] * TILES * SIZE * 4


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_caught(damage: str) -> None:
    change, reason = DAMAGE[damage]
    case, plan, planned = attention()
    ops = tuple(change(op) if op is planned else op for op in plan.ops)
    with pytest.raises(PlanError, match=reason):
        validate_plan(replace(plan, ops=ops), case.target)


@pytest.mark.parametrize("place", PLACES)
def test_keys_come_with_their_values(place: str) -> None:
    case, plan, planned = attention()
    operand, sharding = PLACES[place]
    moved = with_operand(planned, operand, sharding)
    with pytest.raises(PlanError, match="expected keys and their values"):
        check_chunks(plan, moved, planned_nest(moved, plan.types), case.target)
