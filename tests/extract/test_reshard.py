"""Moves are simulated on what each tile holds; chains are compared with Bellman-Ford."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise, product
from math import prod

import numpy as np
import pytest
from extract_cases import OBJECTIVES, Distances
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tilewright.dtypes import DType
from tilewright.extract.objective import Objective
from tilewright.extract.plan import Memory, Move, MoveKind, Placement
from tilewright.extract.reshard import (
    ReshardTable,
    build_table,
    dram_placement,
    move_units,
    single_moves,
)
from tilewright.graph import TensorType
from tilewright.hwmodel.family import mesh_target
from tilewright.hwmodel.mesh import LogicalMesh, Sharding
from tilewright.hwmodel.target import Target

Coords = tuple[int, ...]
Terms = frozenset[Coords]

SIZES = ((2,), (2, 2), (2, 3), (2, 2, 2))
NAMES = ("z", "y", "x")


def mesh_of(sizes: Sequence[int]) -> LogicalMesh:
    return LogicalMesh(NAMES[: len(sizes)], tuple(sizes))


@cache
def target_of(sizes: tuple[int, ...]) -> Target:
    return mesh_target(1, sizes[0]) if len(sizes) == 1 else mesh_target(sizes[0], prod(sizes[1:]))


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """What a tile holds: flat global indices, [local shape], and which summands each value has.

    A summand is the coordinates of a tile on the axes that were partial at the start.
    """

    indices: NDArray[np.int64]
    terms: Terms

    def same(self, other: Held) -> bool:
        return np.array_equal(self.indices, other.indices) and self.terms == other.terms


Machine = dict[Coords, Held]


def all_tiles(mesh: LogicalMesh) -> Iterator[Coords]:
    yield from product(*(range(size) for size in mesh.sizes))


def held(mesh: LogicalMesh, now: Sharding, start: Sharding, shape: tuple[int, ...]) -> Machine:
    """Return what `now` says that tiles hold of a tensor that began as `start`."""
    flat = np.arange(prod(shape)).reshape(shape)
    first = [axis for axis, state in enumerate(start) if state <= -2]
    machine = {}
    for tile in all_tiles(mesh):
        part = flat
        for dim, size in enumerate(shape):
            splitters = [axis for axis, state in enumerate(now) if state == dim]
            # the mixed-radix number of the tile on the axes that split, the first the most significant
            number = int(
                np.ravel_multi_index(
                    [tile[a] for a in splitters], [mesh.sizes[a] for a in splitters]
                )
                if splitters
                else 0
            )
            piece = size // prod(mesh.sizes[a] for a in splitters)
            part = part.take(range(number * piece, (number + 1) * piece), axis=dim)
        terms = frozenset(
            other
            for other in product(*(range(mesh.sizes[a]) for a in first))
            if all(
                now[a] > -2 or coordinate == tile[a]
                for a, coordinate in zip(first, other, strict=True)
            )
        )
        machine[tile] = Held(part, terms)
    return machine


def run(move: Move, before: Machine, mesh: LogicalMesh) -> Machine:
    """Execute a collective as the tiles of each group would."""
    after = {}
    size = mesh.sizes[move.axis]
    for tile in all_tiles(mesh):
        group = [before[(*tile[: move.axis], n, *tile[move.axis + 1 :])] for n in range(size)]
        own = tile[move.axis]
        match move.kind:
            case MoveKind.SLICE:
                after[tile] = Held(piece(group[own], move.dim, own, size).indices, group[own].terms)
            case MoveKind.ALL_GATHER:
                after[tile] = joined(group, move.dim)
            case MoveKind.ALL_TO_ALL:
                sent = [piece(peer, move.to_dim, own, size) for peer in group]
                after[tile] = joined(sent, move.dim)
            case MoveKind.ALL_REDUCE:
                after[tile] = added(group)
            case MoveKind.REDUCE_SCATTER:
                after[tile] = added([piece(peer, move.dim, own, size) for peer in group])
            case _:
                raise AssertionError(move.kind)
    return after


def piece(tile: Held, dim: int, number: int, count: int) -> Held:
    assert tile.indices.shape[dim] % count == 0, "unequal pieces"
    return Held(np.split(tile.indices, count, axis=dim)[number], tile.terms)


def joined(parts: list[Held], dim: int) -> Held:
    assert len({part.terms for part in parts}) == 1, "parts are of different sums"
    return Held(np.concatenate([part.indices for part in parts], axis=dim), parts[0].terms)


def added(parts: list[Held]) -> Held:
    assert all(np.array_equal(part.indices, parts[0].indices) for part in parts), "misaligned"
    assert sum(len(part.terms) for part in parts) == len(
        frozenset().union(*(p.terms for p in parts))
    )
    return Held(parts[0].indices, frozenset().union(*(p.terms for p in parts)))


def check_move(move: Move, start: Sharding, tensor: TensorType, mesh: LogicalMesh) -> None:
    """Check that a move turns what its `before` says into what its `after` says."""
    dram = dram_placement(mesh)
    if move.kind is MoveKind.LOAD:
        assert move.before == dram
        assert move.after.memory is Memory.SRAM
        assert all(state > -2 for state in move.after.sharding)
        return
    if move.kind is MoveKind.STORE:
        assert move.after == dram
        tiles = held(mesh, move.before.sharding, start, tensor.shape).values()
        full = prod(n for n, s in zip(mesh.sizes, start, strict=True) if s <= -2)
        assert all(len(tile.terms) == full for tile in tiles), "a partial sum is stored"
        written = {int(i) for tile in tiles for i in tile.indices.reshape(-1)}
        assert written == set(range(prod(tensor.shape)))
        return
    before = held(mesh, move.before.sharding, start, tensor.shape)
    wanted = held(mesh, move.after.sharding, start, tensor.shape)
    found = run(move, before, mesh)
    for tile, expected in wanted.items():
        assert found[tile].same(expected), (
            f"{move.kind} on tile {tile}: {move.before} -> {move.after}"
        )


def shardings(mesh: LogicalMesh, shape: tuple[int, ...], *, partial: bool) -> list[Sharding]:
    states = [-1, *range(len(shape)), *([-2, -3] if partial else [])]
    return [
        s
        for s in product(states, repeat=mesh.rank)
        if all(
            size % prod(n for n, state in zip(mesh.sizes, s, strict=True) if state == dim) == 0
            for dim, size in enumerate(shape)
        )
    ]


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("shape", [(12,), (4, 6), (8, 3), (2, 12), (2, 2, 6), (5, 7)])
def test_every_single_move_does_what_it_says(
    sizes: tuple[int, ...], shape: tuple[int, ...]
) -> None:
    mesh, target, tensor = mesh_of(sizes), target_of(sizes), TensorType(shape, DType.F32)
    kinds = set()
    for sharding in shardings(mesh, shape, partial=True):
        moves = single_moves(Placement(Memory.SRAM, sharding), tensor, mesh, target)
        for move in moves:
            assert move.before == Placement(Memory.SRAM, sharding)
            assert move.cycles > 0
            assert move.energy_pj > 0
            check_move(move, sharding, tensor, mesh)
            kinds.add(move.kind)
        assert len({move.after for move in moves}) == len(moves)
    assert {MoveKind.ALL_REDUCE, MoveKind.STORE} <= kinds


@pytest.mark.parametrize("sizes", SIZES)
def test_dram_can_be_loaded_in_every_complete_sharding(sizes: tuple[int, ...]) -> None:
    mesh, tensor = mesh_of(sizes), TensorType((12, 4), DType.F32)
    moves = single_moves(dram_placement(mesh), tensor, mesh, target_of(sizes))
    loaded = {move.after.sharding for move in moves}
    assert loaded == set(shardings(mesh, tensor.shape, partial=False))
    assert {move.kind for move in moves} == {MoveKind.LOAD}


def test_moves_cover_every_change_of_a_free_axis() -> None:
    mesh, target, tensor = mesh_of((2, 3)), target_of((2, 3)), TensorType((12, 12), DType.F32)
    for sharding in shardings(mesh, tensor.shape, partial=True):
        found = {
            (move.axis, move.after.sharding[move.axis])
            for move in single_moves(Placement(Memory.SRAM, sharding), tensor, mesh, target)
            if move.kind is not MoveKind.STORE
        }
        for axis, state in enumerate(sharding):
            later = sharding[axis + 1 :]
            if state >= 0 and state in later:
                assert not {new for a, new in found if a == axis}, "an inner axis is in the way"
                continue
            wanted = {dim for dim in (0, 1) if dim != state and dim not in later}
            wanted |= {-1} if state != -1 else set()
            assert {new for a, new in found if a == axis} == wanted


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """A table with what it was made from."""

    table: ReshardTable
    tensor: TensorType
    partials: frozenset[Sharding]
    mesh: LogicalMesh
    target: Target
    objective: Objective

    def is_considered(self, place: Placement) -> bool:
        return place.memory is Memory.DRAM or considered(place.sharding, self.partials)


@st.composite
def tables(draw: st.DrawFn) -> Made:
    sizes = draw(st.sampled_from(SIZES))
    shape = draw(st.sampled_from([(12,), (4, 6), (12, 8), (2, 4, 6), (1, 12), (5, 4)]))
    mesh, tensor = mesh_of(sizes), TensorType(shape, draw(st.sampled_from([DType.F16, DType.F32])))
    partial = [s for s in shardings(mesh, shape, partial=True) if min(s) <= -2]
    partials = frozenset(draw(st.lists(st.sampled_from(partial), max_size=3)))
    objective = draw(st.sampled_from(OBJECTIVES))
    target = target_of(sizes)
    table = build_table(tensor, partials, mesh, target, objective)
    return Made(table, tensor, partials, mesh, target, objective)


@given(tables(), st.data())
@settings(max_examples=60)
def test_chains_are_continuous_right_and_cost_their_sum(made: Made, data: st.DataObject) -> None:
    table = made.table
    numbers = st.integers(0, len(table.placements) - 1)
    for _ in range(4):
        start, end = data.draw(numbers), data.draw(numbers)
        if not np.isfinite(table.cost[start, end]):
            continue
        chain = table.moves(start, end)
        places = [table.placements[start], *(move.after for move in chain)]
        assert places[-1] == table.placements[end]
        assert [move.before for move in chain] == places[:-1]
        assert len(set(places)) == len(places), "a detour"
        total = sum(max(move_units(move, made.objective), 1e-3) for move in chain)
        assert total == pytest.approx(table.cost[start, end], rel=1e-9)
        # what was partial at the start is followed to the end
        origin = table.placements[start].sharding
        for move in chain:
            check_move(move, origin, made.tensor, made.mesh)
            if move.kind is MoveKind.STORE:
                origin = (-1,) * made.mesh.rank


def considered(sharding: Sharding, partials: frozenset[Sharding]) -> bool:
    """Whether a chain may pass a sharding: complete ones, and partials with only their own axes changed."""
    if all(state > -2 for state in sharding):
        return True
    return any(
        all(old == new if old > -2 else new in (old, -1) or new >= 0 for old, new in pairs)
        for partial in partials
        for pairs in [list(zip(partial, sharding, strict=True))]
    )


@given(tables())
@settings(max_examples=30)
def test_chains_are_shortest(made: Made) -> None:
    oracle = Distances(made.mesh, made.target, made.objective, made.is_considered)
    best = Distances(made.mesh, made.target, made.objective)
    for start, placement in enumerate(made.table.placements):
        reach = oracle.from_placement(made.tensor, placement)
        least = best.from_placement(made.tensor, placement)
        assert set(reach) <= set(made.table.placements)
        for end, other in enumerate(made.table.placements):
            cost = made.table.cost[start, end]
            assert cost == pytest.approx(reach.get(other, np.inf), rel=1e-9)
            assert cost >= least.get(other, np.inf) * (1 - 1e-9)
            if min(placement.sharding, default=0) > -2:
                assert cost == pytest.approx(least.get(other, np.inf), rel=1e-9)


@given(tables())
@settings(max_examples=40)
def test_every_complete_placement_is_reachable_and_no_partial_one_is_made(made: Made) -> None:
    table = made.table
    for start, placement in enumerate(table.placements):
        for end, other in enumerate(table.placements):
            cost = table.cost[start, end]
            assert (cost == 0) == (start == end)
            if all(state > -2 for state in other.sharding):
                assert np.isfinite(cost)
            elif np.isfinite(cost):
                pairs = zip(placement.sharding, other.sharding, strict=True)
                assert all(new > -2 or new == old for old, new in pairs)


def test_outer_axis_is_gathered_by_way_of_the_inner_one() -> None:
    mesh, target, tensor = mesh_of((2, 3)), target_of((2, 3)), TensorType((12, 4), DType.F32)
    table = build_table(tensor, frozenset(), mesh, target, Objective.ENERGY)
    start = table.index[Placement(Memory.SRAM, (0, 0))]
    end = table.index[Placement(Memory.SRAM, (-1, 0))]
    chain = table.moves(start, end)
    assert len(chain) >= 2
    assert chain[0].axis != 0, "the outer axis cannot go first"
    for move in chain:
        check_move(move, (-1, -1), tensor, mesh)


@pytest.mark.parametrize("state", [-2, -3])
def test_partials_are_reduced_as_they_are_wanted(state: int) -> None:
    mesh, target, tensor = mesh_of((2, 2)), target_of((2, 2)), TensorType((8, 8), DType.F32)
    table = build_table(tensor, frozenset({(state, 0)}), mesh, target, Objective.LATENCY)
    start = table.index[Placement(Memory.SRAM, (state, 0))]

    def chain(sharding: Sharding) -> list[MoveKind]:
        end = table.index[Placement(Memory.SRAM, sharding)]
        return [move.kind for move in table.moves(start, end)]

    assert chain((-1, 0)) == [MoveKind.ALL_REDUCE]
    assert chain((1, 0)) == [MoveKind.REDUCE_SCATTER]
    stored = table.moves(start, table.index[dram_placement(mesh)])
    assert stored[-1].kind is MoveKind.STORE
    kinds = [move.kind for move in stored]
    assert sum(kind in (MoveKind.ALL_REDUCE, MoveKind.REDUCE_SCATTER) for kind in kinds) == 1


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_larger_tensors_cost_no_less(sizes: tuple[int, ...], objective: Objective) -> None:
    mesh, target = mesh_of(sizes), target_of(sizes)
    partials = frozenset({(-2, *(0,) * (mesh.rank - 1))})
    costs = []
    for rows in (12, 24, 96, 768):
        tensor = TensorType((rows, 24), DType.F32)
        table = build_table(tensor, partials, mesh, target, objective)
        costs.append((table.placements, table.cost))
    for (places, small), (others, large) in pairwise(costs):
        numbers = [others.index(place) for place in places]
        grown = large[np.ix_(numbers, numbers)]
        assert (grown[np.isfinite(small)] >= small[np.isfinite(small)] * (1 - 1e-9)).all()
    first, last = costs[0][1], costs[-1][1]
    assert last[np.isfinite(last)].sum() > first[np.isfinite(first)].sum()
