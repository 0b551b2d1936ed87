"""Scratchpad bytes of shards and of the moves between placements."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from tilewright.extract.plan import Memory, Move, MoveKind, Placement
from tilewright.graph import TensorType
from tilewright.hwmodel.mesh import LogicalMesh, local_shape


def aligned_bytes(size_bytes: int, alignment_bytes: int) -> int:
    """Round a size up to whole alignment units."""
    return -(-size_bytes // alignment_bytes) * alignment_bytes


def shard_bytes(
    placement: Placement, tensor: TensorType, mesh: LogicalMesh, alignment_bytes: int
) -> int:
    """Return the aligned bytes of a tile's shard; 0 in DRAM."""
    if placement.memory is Memory.DRAM:
        return 0
    local = local_shape(mesh, placement.sharding, tensor.shape)
    return aligned_bytes(prod(local) * tensor.dtype.itemsize_bytes, alignment_bytes)


def move_buffers_bytes(
    move: Move, tensor: TensorType, mesh: LogicalMesh, alignment_bytes: int
) -> int:
    """Return the bytes that a move needs besides its source: slots to reduce from, and the result."""
    after = shard_bytes(move.after, tensor, mesh, alignment_bytes)
    before = shard_bytes(move.before, tensor, mesh, alignment_bytes)
    slack = alignment_bytes * (1 + max(mesh.sizes, default=1))
    match move.kind:
        case MoveKind.REDUCE_SCATTER:
            return after + before + slack
        case MoveKind.ALL_REDUCE:
            size = mesh.sizes[move.axis]
            elements = prod(local_shape(mesh, move.before.sharding, tensor.shape))
            divisible = elements % size == 0
            slots = (
                before + aligned_bytes(-(-before // size), alignment_bytes)
                if divisible
                else size * before
            )
            return after + slots + slack
        case _:
            return after


def chain_bytes(
    moves: Sequence[Move], tensor: TensorType, mesh: LogicalMesh, alignment_bytes: int
) -> int:
    """Return the largest use during a chain of moves, beside what its source occupies."""
    peak = held = 0
    for move in moves:
        peak = max(peak, held + move_buffers_bytes(move, tensor, mesh, alignment_bytes))
        held = shard_bytes(move.after, tensor, mesh, alignment_bytes)
    return peak
