"""Cheapest chains of moves between placements of one tensor.

Placements are nodes of a small graph, single collectives its edges; all-pairs shortest paths give the
resharding costs that extraction charges. With several axes on one tensor dimension, only the least
significant of them can be gathered or cut directly (the pieces would not be contiguous otherwise);
longer chains follow from the search.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from itertools import product
from math import prod

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra

from tilewright.errors import InfeasibleError
from tilewright.extract.avoid import NOTHING, Avoid
from tilewright.extract.move_buffers import move_buffers_bytes
from tilewright.extract.objective import Metric, Objective
from tilewright.extract.plan import Delivery, Memory, Move, MoveKind, Placement
from tilewright.extract.transfer import dram_transfer_cost
from tilewright.graph import TensorType
from tilewright.hwmodel.collectives import collective_cost
from tilewright.hwmodel.cost import Occupancy
from tilewright.hwmodel.dram_cost import dram_lead_cycles
from tilewright.hwmodel.exposure import FULL, exposure_of
from tilewright.hwmodel.mesh import (
    PARTIAL_SUM,
    REPLICATED,
    LogicalMesh,
    Sharding,
    is_legal,
    is_partial,
    local_shape,
    replicated,
)
from tilewright.hwmodel.target import Target
from tilewright.rules.collectives.family import collective_rules
from tilewright.rules.collectives.ruleset import CollectiveRule
from tilewright.rules.collectives.steps import after_step, steps

UNREACHABLE = float("inf")
"""Cost between placements that no chain of moves joins."""

_MINIMAL_COST, _MINIMAL_SHARE = 1e-3, 1e-6
"""A move is never free, so that chains have no detours: in units of the objective, or of the dearest one."""


class Crossing(StrEnum):
    """Which of the model's boundaries a tensor passes on its way."""

    NONE = "none"
    INPUT = "input"
    OUTPUT = "output"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReshardTable:
    """All placements of a tensor type with the cheapest chains between them.

    `cost[i, j]` is in units of the objective, `cycles[i, j]` what the chain takes; `moves(i, j)` gives it.
    """

    placements: tuple[Placement, ...]
    cost: NDArray[np.float64]
    cycles: NDArray[np.float64]
    predecessors: NDArray[np.int32]
    single: dict[tuple[int, int], Move]
    index: dict[Placement, int]

    def moves(self, start: int, end: int) -> tuple[Move, ...]:
        """Return the cheapest chain of moves from one placement to another.

        Raises:
            InfeasibleError: There is none within the scratchpad.
        """
        chain: list[Move] = []
        while end != start:
            before = int(self.predecessors[start, end])
            if before < 0:
                places = list(self.index)
                raise InfeasibleError(
                    f"no chain of moves from {places[start]} to {places[end]} fits the scratchpad"
                )
            chain.append(self.single[before, end])
            end = before
        return tuple(reversed(chain))


def move_units(move: Move, objective: Objective) -> float:
    """Return what a move costs under an objective, which something waits for."""
    moved = objective.cycle_rate * move.cycles + objective.rate(Metric.ENERGY) * move.energy_pj
    return moved + objective.occupancy_units(move.occupancy)


def delivery_units(delivery: Delivery, objective: Objective) -> float:
    """Return what a delivery costs under an objective: the cycles that a product covers are free."""
    moved = sum(move_units(move, objective) for move in delivery.moves)
    return moved - objective.cycle_rate * delivery.hidden_cycles


def build_table(
    tensor: TensorType,
    partials: frozenset[Sharding],
    mesh: LogicalMesh,
    target: Target,
    objective: Objective,
    largest_shard_bytes: float = float("inf"),
    largest_buffers_bytes: float = float("inf"),
    rules: tuple[CollectiveRule, ...] | None = None,
    crossing: Crossing = Crossing.NONE,
    avoid: Avoid = NOTHING,
    *,
    may_store: bool = True,
) -> ReshardTable:
    """Return the table of a tensor type.

    Args:
        tensor: Global shape and element type.
        partials: The partial shardings that producers make.
        mesh: The logical mesh.
        target: The machine.
        objective: What costs are.
        largest_shard_bytes: Placements with larger shards are no stations of a chain.
        largest_buffers_bytes: Moves that need more bytes beside their source are left out.
        rules: The collective rules that run; all of the package by default.
        crossing: Whether the tensor is an input or output of the model.
        avoid: Moves that are left out.
        may_store: Whether the tensor may go to DRAM.
    """
    placements = tuple(
        p
        for p in _placements(tensor.shape, partials, mesh)
        if p.memory is Memory.DRAM or _local_bytes(tensor, p.sharding, mesh) <= largest_shard_bytes
    )
    alignment = target.tile.sram.alignment_bytes
    index = {placement: number for number, placement in enumerate(placements)}
    single: dict[tuple[int, int], Move] = {}
    for number, placement in enumerate(placements):
        for move in single_moves(placement, tensor, mesh, target, rules, crossing):
            other = index.get(move.after)
            if other is None or not avoid.allows(move, may_store=may_store):
                continue
            if move_buffers_bytes(move, tensor, mesh, alignment) <= largest_buffers_bytes:
                single[number, other] = move
    rows = np.array([pair[0] for pair in single], dtype=np.int64)
    columns = np.array([pair[1] for pair in single], dtype=np.int64)
    costs = np.array([move_units(move, objective) for move in single.values()])
    costs = np.maximum(costs, min(_MINIMAL_COST, _MINIMAL_SHARE * costs.max(initial=0.0)))
    size = len(placements)
    graph = csr_array((costs, (rows, columns)), shape=(size, size))
    distance, predecessors = dijkstra(graph, return_predecessors=True)
    cycles = distance if objective.is_time else _chain_cycles(distance, predecessors, single)
    return ReshardTable(
        placements=placements,
        cost=distance,
        cycles=cycles,
        predecessors=predecessors,
        single=single,
        index=index,
    )


def _chain_cycles(
    distance: NDArray[np.float64],
    predecessors: NDArray[np.int32],
    single: dict[tuple[int, int], Move],
) -> NDArray[np.float64]:
    """Return the cycles of the cheapest chains, which are cheapest by something else."""
    cycles = np.full_like(distance, UNREACHABLE)
    for start, row in enumerate(distance):
        cycles[start, start] = 0.0
        for end in np.argsort(row, kind="stable"):
            before = int(predecessors[start, end])
            if before >= 0:
                cycles[start, end] = cycles[start, before] + single[before, int(end)].cycles
    return cycles


def single_moves(
    placement: Placement,
    tensor: TensorType,
    mesh: LogicalMesh,
    target: Target,
    rules: tuple[CollectiveRule, ...] | None = None,
    crossing: Crossing = Crossing.NONE,
) -> list[Move]:
    """Return every single move that a tensor in this placement can make.

    Args:
        placement: Where it is.
        tensor: Global shape and element type.
        mesh: The logical mesh.
        target: The machine.
        rules: The collective rules that run; all of the package by default.
        crossing: Whether the tensor is an input or output of the model.
    """
    if placement.memory is Memory.DRAM:
        return _loads(placement, tensor, mesh, target, crossing)
    moves = _stores(placement, tensor, mesh, target, crossing)
    fusing = collective_rules() if rules is None else rules
    for axis in range(mesh.rank):
        if mesh.sizes[axis] > 1:
            moves += _axis_moves(placement, axis, tensor, mesh, target, fusing)
    return moves


def crosses(target: Target, crossing: Crossing) -> Crossing:
    """Return a crossing if moves across it cost anything else than others do."""
    return crossing if exposure_of(target) != FULL else Crossing.NONE


def dram_placement(mesh: LogicalMesh) -> Placement:
    """Return the placement of a tensor in DRAM: one global copy."""
    return Placement(Memory.DRAM, replicated(mesh))


def _placements(
    shape: tuple[int, ...], partials: frozenset[Sharding], mesh: LogicalMesh
) -> tuple[Placement, ...]:
    states = [
        (REPLICATED,) if size == 1 else (REPLICATED, *range(len(shape))) for size in mesh.sizes
    ]
    shardings = [s for s in product(*states) if is_legal(mesh, s, shape)]
    reachable = set(shardings)
    for partial in sorted(partials):
        # What a partial value may become on its way: other axes change, its own stay or are reduced.
        options = [
            (state,) if state > PARTIAL_SUM else (state, REPLICATED, *range(len(shape)))
            for state in partial
        ]
        for sharding in product(*options):
            if is_legal(mesh, sharding, shape) and sharding not in reachable:
                reachable.add(sharding)
                shardings.append(sharding)
    return (dram_placement(mesh), *(Placement(Memory.SRAM, s) for s in shardings))


def _loads(
    placement: Placement,
    tensor: TensorType,
    mesh: LogicalMesh,
    target: Target,
    crossing: Crossing,
) -> list[Move]:
    moves = []
    share = exposure_of(target).input if crossing is Crossing.INPUT else 1.0
    states = [
        (REPLICATED,) if size == 1 else (REPLICATED, *range(tensor.rank)) for size in mesh.sizes
    ]
    for sharding in product(*states):
        if is_legal(mesh, sharding, tensor.shape):
            cost = dram_transfer_cost(target, mesh, tensor, sharding, write=False)
            lead = min(dram_lead_cycles(target), cost.latency_cycles)
            moves.append(
                Move(
                    kind=MoveKind.LOAD,
                    before=placement,
                    after=Placement(Memory.SRAM, sharding),
                    cycles=cost.latency_cycles - (1.0 - share) * lead,
                    lead_cycles=lead,
                    energy_pj=cost.energy_pj * mesh.tiles,
                    occupancy=cost.occupancy(target),
                )
            )
    return moves


def _stores(
    placement: Placement,
    tensor: TensorType,
    mesh: LogicalMesh,
    target: Target,
    crossing: Crossing,
) -> list[Move]:
    if is_partial(placement.sharding):
        return []
    cost = dram_transfer_cost(target, mesh, tensor, placement.sharding, write=True)
    own = _local_bytes(tensor, placement.sharding, mesh) / target.tile.dma.out_bytes_per_cycle
    lead = min(dram_lead_cycles(target), cost.latency_cycles - own)
    share = exposure_of(target).output if crossing is Crossing.OUTPUT else 1.0
    return [
        Move(
            kind=MoveKind.STORE,
            before=placement,
            after=dram_placement(mesh),
            cycles=cost.latency_cycles - (1.0 - share) * lead,
            lead_cycles=lead,
            energy_pj=cost.energy_pj * mesh.tiles,
            occupancy=cost.occupancy(target),
        )
    ]


def _local_bytes(tensor: TensorType, sharding: Sharding, mesh: LogicalMesh) -> int:
    local = local_shape(mesh, sharding, tensor.shape)
    return tensor.dtype.itemsize_bytes * prod(local)


def _axis_moves(
    placement: Placement,
    axis: int,
    tensor: TensorType,
    mesh: LogicalMesh,
    target: Target,
    rules: tuple[CollectiveRule, ...],
) -> list[Move]:
    sharding = placement.sharding
    local = local_shape(mesh, sharding, tensor.shape)
    local_bytes = _local_bytes(tensor, sharding, mesh)
    moves = []
    for step in steps(mesh, sharding, local, axis, rules):
        kind = MoveKind(step.kind.value)
        cost = collective_cost(target, mesh, axis, kind.value, local_bytes, dtype=tensor.dtype)
        moves.append(
            Move(
                kind=kind,
                axis=axis,
                dim=step.dim,
                to_dim=step.to_dim,
                before=placement,
                after=Placement(Memory.SRAM, after_step(sharding, step)),
                cycles=cost.cycles,
                energy_pj=cost.energy_pj * mesh.tiles,
                occupancy=Occupancy(core_cycles=cost.core_cycles, link_cycles=cost.link_cycles),
            )
        )
    return moves
