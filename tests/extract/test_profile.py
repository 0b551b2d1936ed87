"""Scratchpad accounts against naive liveness."""

from __future__ import annotations

import pytest
from extract_cases import MODELS, OBJECTIVES, Builder, Case, naive_rows, saturated, tiny

from tilewright.dtypes import DType
from tilewright.errors import InfeasibleError
from tilewright.extract.move_buffers import move_buffers_bytes, shard_bytes
from tilewright.extract.objective import Objective
from tilewright.extract.plan import Delivery, Memory, Move, MoveKind, Placement, Plan
from tilewright.extract.profile import (
    delivery_bytes,
    sram_profile,
)
from tilewright.graph import TensorType
from tilewright.hwmodel.family import mesh_target
from tilewright.hwmodel.mesh import LogicalMesh

MESH = LogicalMesh(("y", "x"), (2, 4))


def place(*sharding: int) -> Placement:
    return Placement(Memory.SRAM, sharding)


def move(kind: MoveKind, before: Placement, after: Placement, axis: int = -1) -> Move:
    return Move(kind=kind, axis=axis, before=before, after=after, cycles=1.0)


@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("limit", [None, 2560, 5120])
def test_profile_counts_what_is_alive(name: str, objective: Objective, limit: int | None) -> None:
    case = tiny(name, 1, 2)
    try:
        plan = case.extract(objective, limit)
    except InfeasibleError:
        assert limit == 2560
        return
    compare(case, plan)


def compare(case: Case, plan: Plan) -> None:
    """Check the profile: the naive account where no collective needs more on its way."""
    profile = sram_profile(plan, case.target)
    naive = naive_rows(plan, case.target)
    assert plan.peak_sram_bytes == max(profile.rows)
    assert plan.resident_sram_bytes == profile.resident_bytes
    assert len(profile.rows) == len(plan.ops)
    on_the_way = (MoveKind.ALL_REDUCE, MoveKind.REDUCE_SCATTER)
    outputs = {d.tensor: d for d in plan.output_deliveries}
    for planned, counted, least in zip(plan.ops, profile.rows, naive, strict=True):
        deliveries = [
            *planned.deliveries,
            *(outputs[n] for n in planned.op.outputs if n in outputs),
        ]
        chains = [d.moves for d in deliveries]
        assert counted >= least
        plain = all(len(c) <= 1 and all(m.kind not in on_the_way for m in c) for c in chains)
        if plain and planned.op.kind != "reshape":
            assert counted == least, planned.op.name


def test_views_share_the_bytes_of_their_source() -> None:
    b = Builder("views")
    x = b.map("relu", b.input(16, 16))
    flat = b.op("reshape", (x,), (256,), shape=(256,))
    square = b.op("reshape", (flat,), (4, 64), shape=(4, 64))
    case = saturated(b.graph(b.map("exp", square)), mesh_target(1, 1))
    plan = case.extract()
    compare(case, plan)
    own = {op.op.kind: op.buffer_bytes for op in plan.ops}
    assert plan.peak_sram_bytes <= 2 * 1024 + 1024 + max(own.values())


def test_a_value_lives_to_its_last_use() -> None:
    b = Builder("long")
    early = b.map("exp", b.input(64, 64))
    later = early
    for fn in ("square", "exp", "square", "exp"):
        product_ = b.matmul(later, b.weight(64, 64))
        later = b.map(fn, product_)
    case = saturated(b.graph(b.map("add", later, early)), mesh_target(1, 2))
    plan = case.extract()
    compare(case, plan)


def test_shard_bytes_are_aligned_and_zero_in_dram() -> None:
    tensor = TensorType((6, 8), DType.F32)
    assert shard_bytes(place(-1, -1), tensor, MESH, 64) == 192
    assert shard_bytes(place(0, -1), tensor, MESH, 64) == 128  # 96 bytes
    assert shard_bytes(place(0, 1), tensor, MESH, 64) == 64  # 24 bytes
    assert shard_bytes(place(1, 1), tensor, MESH, 8) == 24
    assert shard_bytes(place(-2, -1), tensor, MESH, 64) == 192
    assert shard_bytes(Placement(Memory.DRAM, (-1, -1)), tensor, MESH, 64) == 0


def test_moves_need_their_result_and_slots_to_reduce_from() -> None:
    tensor = TensorType((64, 64), DType.F32)
    full, quarter = 64 * 64 * 4, 64 * 64
    gather = move(MoveKind.ALL_GATHER, place(-1, 0), place(-1, -1), axis=1)
    assert move_buffers_bytes(gather, tensor, MESH, 64) == full
    scatter = move(MoveKind.REDUCE_SCATTER, place(-1, -2), place(-1, 0), axis=1)
    assert move_buffers_bytes(scatter, tensor, MESH, 64) >= full + quarter
    reduce = move(MoveKind.ALL_REDUCE, place(-1, -2), place(-1, -1), axis=1)
    assert move_buffers_bytes(reduce, tensor, MESH, 64) >= 2 * full + quarter
    store = move(MoveKind.STORE, place(-1, -1), Placement(Memory.DRAM, (-1, -1)))
    assert move_buffers_bytes(store, tensor, MESH, 64) == 0


def test_a_chain_holds_two_stations_at_a_time() -> None:
    tensor = TensorType((64, 64), DType.F32)
    places = (place(0, 0), place(0, -1), place(-1, -1))
    moves = (
        move(MoveKind.ALL_GATHER, places[0], places[1], axis=1),
        move(MoveKind.ALL_GATHER, places[1], places[2], axis=0),
    )
    delivery = Delivery(tensor="x", before=places[0], moves=moves, after=places[2])
    half, full = 64 * 64 * 2, 64 * 64 * 4
    assert delivery_bytes(delivery, tensor, MESH, 64) == half + full
    assert (
        delivery_bytes(
            Delivery(tensor="x", before=places[0], moves=(), after=places[0]), tensor, MESH, 64
        )
        == 0
    )
