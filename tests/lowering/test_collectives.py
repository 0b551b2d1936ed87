"""Collectives against the definition of shardings, on a naive machine."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest

from tilewright.dtypes import DType
from tilewright.extract.plan import Memory, Move, MoveKind, Placement
from tilewright.graph import TensorType
from tilewright.hwmodel.mesh import (
    PARTIAL_MAX,
    PARTIAL_SUM,
    LogicalMesh,
    Sharding,
    is_legal,
    is_partial,
    local_shape,
    replicated,
)
from tilewright.lowering.collectives import emit_move, new_storage
from tilewright.lowering.emit import Builder
from tilewright.lowering.isa import Opcode
from tilewright.lowering.synchronise import check_collectives

AnyArray = np.ndarray[Any, np.dtype[Any]]
Machine = Callable[..., Any]

MESHES = [
    LogicalMesh(("x",), (2,)),
    LogicalMesh(("x", "y"), (2, 2)),
    LogicalMesh(("x", "y"), (4, 2)),
    LogicalMesh(("x", "y", "z"), (2, 1, 3)),
]


def single_moves(mesh: LogicalMesh, shape: tuple[int, ...]) -> list[Move]:
    """Return every legal move on one axis, for tensors of a shape."""
    states = (PARTIAL_MAX, PARTIAL_SUM, -1, *range(len(shape)))
    found = []
    for before in product(states, repeat=mesh.rank):
        if not is_legal(mesh, before, shape):
            continue
        for axis, after_state in product(range(mesh.rank), states[2:]):
            after = (*before[:axis], after_state, *before[axis + 1 :])
            kind = kind_of(before[axis], after_state)
            cuts = [d for d in (before[axis], after_state) if d >= 0]
            later = before[axis + 1 :]
            if kind and is_legal(mesh, after, shape) and not any(d in later for d in cuts):
                dim, to_dim = [*cuts, -1, -1][:2]
                found.append(
                    Move(
                        kind=kind,
                        axis=axis,
                        dim=dim,
                        to_dim=to_dim,
                        before=Placement(Memory.SRAM, before),
                        after=Placement(Memory.SRAM, after),
                        cycles=0.0,
                    )
                )
    return found


def kind_of(before: int, after: int) -> MoveKind | None:
    if before == after:
        return None
    if before <= PARTIAL_SUM:
        return MoveKind.ALL_REDUCE if after < 0 else MoveKind.REDUCE_SCATTER
    if before == -1:
        return MoveKind.SLICE
    return MoveKind.ALL_GATHER if after == -1 else MoveKind.ALL_TO_ALL


def spread(
    machine: Any, sharding: Sharding, shape: tuple[int, ...], rng: np.random.Generator, dtype: DType
) -> dict[tuple[int, ...], AnyArray]:
    """Return a whole value for each combination of coordinates on partial axes: each tile's contribution."""
    values: dict[tuple[int, ...], AnyArray] = {}
    for coords in machine.coords:
        key = partial_key(coords, sharding)
        if key not in values:
            values[key] = rng.integers(-9, 9, shape).astype(dtype.numpy)
    return values


def partial_key(coords: tuple[int, ...], sharding: Sharding) -> tuple[int, ...]:
    return tuple(c if s <= PARTIAL_SUM else 0 for c, s in zip(coords, sharding, strict=True))


def wanted(
    values: dict[tuple[int, ...], AnyArray],
    before: Sharding,
    after: Sharding,
    coords: tuple[int, ...],
) -> AnyArray:
    """Return what a tile contributes after the move: values reduced over the axes no longer partial."""
    done = [a for a, (b, s) in enumerate(zip(before, after, strict=True)) if b <= PARTIAL_SUM < s]
    key = partial_key(coords, before)
    group = [
        v for k, v in values.items() if all(k[a] == key[a] for a in range(len(k)) if a not in done)
    ]
    if done and before[done[0]] == PARTIAL_MAX:
        return np.maximum.reduce(group)
    return np.add.reduce(group) if len(group) > 1 else group[0]


@pytest.mark.parametrize("mesh", MESHES, ids=lambda m: "x".join(map(str, m.sizes)))
@pytest.mark.parametrize("shape", [(12, 8), (1, 6, 4), (5,)], ids=str)
@pytest.mark.parametrize("dtype", [DType.F32, DType.F16, DType.I64])
def test_every_single_move(
    mesh: LogicalMesh,
    shape: tuple[int, ...],
    dtype: DType,
    micro_machine: Machine,
    rng: np.random.Generator,
) -> None:
    moves = single_moves(mesh, shape)
    if len(moves) > 120:
        moves = [moves[i] for i in sorted(rng.choice(len(moves), 120, replace=False))]
    assert moves
    type_ = TensorType(shape, dtype)
    for move in moves:
        builder = Builder(mesh, read_multicast=True)
        source = new_storage(builder, move.before, type_, "x")
        result = emit_move(builder, move, source, type_, "y")
        check_collectives(builder.micros, mesh)
        machine = micro_machine(builder)
        before, after = move.before.sharding, move.after.sharding
        values = spread(machine, before, shape, rng, dtype)
        for coords, index in machine.pieces(before, shape):
            part = np.ascontiguousarray(values[partial_key(coords, before)][index])
            machine.memory[source.buffer, coords][:] = part.reshape(-1).view(np.uint8)
        machine.run(builder.micros)
        for coords, index in machine.pieces(after, shape):
            local = local_shape(mesh, after, shape)
            found = machine.read_tile(result.buffer, coords, dtype.numpy, local)
            np.testing.assert_array_equal(
                found, wanted(values, before, after, coords)[index], str(move)
            )


@pytest.mark.parametrize("mesh", MESHES, ids=lambda m: "x".join(map(str, m.sizes)))
@pytest.mark.parametrize("multicast", [False, True])
def test_store_and_load(
    mesh: LogicalMesh, multicast: bool, micro_machine: Machine, rng: np.random.Generator
) -> None:
    type_ = TensorType((12, 8), DType.F32)
    everywhere = Placement(Memory.DRAM, replicated(mesh))
    shardings = [s for s in product((-1, 0, 1), repeat=mesh.rank) if is_legal(mesh, s, type_.shape)]
    for first, second in product(shardings, repeat=2):
        builder = Builder(mesh, read_multicast=multicast)
        source = new_storage(builder, Placement(Memory.SRAM, first), type_, "x")
        before, after = Placement(Memory.SRAM, first), Placement(Memory.SRAM, second)
        store = Move(kind=MoveKind.STORE, before=before, after=everywhere, cycles=0.0)
        load = Move(kind=MoveKind.LOAD, before=everywhere, after=after, cycles=0.0)
        stored = emit_move(builder, store, source, type_, "y")
        result = emit_move(builder, load, stored, type_, "z")
        assert [m.opcode for m in builder.micros] == [Opcode.ST, Opcode.LD]
        machine = micro_machine(builder)
        array = rng.integers(-9, 9, type_.shape).astype(np.float32)
        machine.write(source.buffer, array, first)
        machine.run(builder.micros)
        for coords, index in machine.pieces(second, type_.shape):
            local = local_shape(mesh, second, type_.shape)
            found = machine.read_tile(result.buffer, coords, np.dtype(np.float32), local)
            np.testing.assert_array_equal(found, array[index])
        replicas = sum(1 << a for a, s in enumerate(second) if s == -1 and mesh.sizes[a] > 1)
        assert builder.micros[1].axes == (replicas if multicast else 0)


def test_sums_have_the_same_bits_everywhere(
    micro_machine: Machine, rng: np.random.Generator
) -> None:
    mesh, type_ = LogicalMesh(("x",), (4,)), TensorType((7, 3), DType.F32)
    for shape in ((7, 3), (8, 3)):
        type_ = TensorType(shape, DType.F32)
        move = Move(
            kind=MoveKind.ALL_REDUCE,
            axis=0,
            before=Placement(Memory.SRAM, (PARTIAL_SUM,)),
            after=Placement(Memory.SRAM, (-1,)),
            cycles=0.0,
        )
        builder = Builder(mesh, read_multicast=True)
        source = new_storage(builder, move.before, type_, "x")
        result = emit_move(builder, move, source, type_, "y")
        machine = micro_machine(builder)
        for coords in machine.coords:
            part = rng.standard_normal(shape).astype(np.float32)
            machine.memory[source.buffer, coords][:] = part.reshape(-1).view(np.uint8)
        machine.run(builder.micros)
        copies = {machine.memory[result.buffer, coords].tobytes() for coords in machine.coords}
        assert len(copies) == 1


def test_partial_tensors_stay_out_of_dram() -> None:
    builder = Builder(LogicalMesh(("x",), (2,)), read_multicast=True)
    placement = Placement(Memory.DRAM, (PARTIAL_SUM,))
    assert is_partial(placement.sharding)
    with pytest.raises(AssertionError, match="partial"):
        new_storage(builder, placement, TensorType((2,), DType.F32), "x")
