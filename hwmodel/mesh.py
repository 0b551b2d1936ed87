"""Logical meshes and shardings: how a global tensor is cut over tiles.

A sharding has one state for each logical mesh axis: replicated, split on a tensor dimension, or a
partial value that must still be summed (or maximised) over the axis. Several axes may split the
same dimension: the earlier axis is the more significant one, so tile coordinates (i, j) on axes of
sizes (p, q) hold piece i * q + j of p * q equal pieces.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

REPLICATED = -1
PARTIAL_SUM = -2
PARTIAL_MAX = -3

Sharding = tuple[int, ...]
"""One state for each logical axis: REPLICATED, PARTIAL_SUM, PARTIAL_MAX or the split dimension (>= 0)."""


@dataclass(frozen=True, slots=True)
class LogicalMesh:
    """The mesh that a plan shards over: axis names and sizes, at most three."""

    names: tuple[str, ...]
    sizes: tuple[int, ...]

    @property
    def tiles(self) -> int:
        """Number of tiles in the mesh (1 when it has no axes)."""
        return prod(self.sizes)

    @property
    def rank(self) -> int:
        """Number of logical axes."""
        return len(self.sizes)


def replicated(mesh: LogicalMesh) -> Sharding:
    """Return the sharding that keeps a whole copy on every tile."""
    return (REPLICATED,) * mesh.rank


def split_factor(mesh: LogicalMesh, sharding: Sharding, dim: int) -> int:
    """Return into how many pieces a dimension is cut."""
    return prod(n for n, state in zip(mesh.sizes, sharding, strict=True) if state == dim)


def is_partial(sharding: Sharding) -> bool:
    """Whether some axis still has to be reduced."""
    return any(state <= PARTIAL_SUM for state in sharding)


def local_shape(mesh: LogicalMesh, sharding: Sharding, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of one tile's piece; every split divides its dimension.

    >>> local_shape(LogicalMesh(("x", "y"), (4, 2)), (1, 1), (3, 16))
    (3, 2)
    """
    cut = list(shape)
    for size, dim in zip(mesh.sizes, sharding, strict=True):
        if dim >= 0:
            assert cut[dim] % size == 0, f"dimension {dim} of {shape} is not divisible by {size}"
            cut[dim] //= size
    return tuple(cut)


def is_legal(mesh: LogicalMesh, sharding: Sharding, shape: tuple[int, ...]) -> bool:
    """Whether every split exists in the shape and divides its dimension."""
    pieces = [1] * len(shape)
    for size, state in zip(mesh.sizes, sharding, strict=True):
        if state >= len(shape):
            return False
        if state >= 0:
            pieces[state] *= size
    return not any(size % count for size, count in zip(shape, pieces, strict=True))


def offset_coefficients(
    mesh: LogicalMesh, sharding: Sharding, shape: tuple[int, ...]
) -> tuple[tuple[int, ...], ...]:
    """Return, for each tensor dimension, the coefficient of each axis coordinate in the shard's start.

    The shard of the tile at `coords` starts at index sum(c * k) of each dimension.

    >>> offset_coefficients(LogicalMesh(("x", "y"), (4, 2)), (1, 1), (3, 16))
    ((0, 0), (4, 2))
    """
    local = local_shape(mesh, sharding, shape)
    rows = []
    for dim in range(len(shape)):
        row, stride = [0] * mesh.rank, local[dim]
        for axis in reversed(range(mesh.rank)):
            if sharding[axis] == dim:
                row[axis] = stride
                stride *= mesh.sizes[axis]
        rows.append(tuple(row))
    return tuple(rows)


def format_sharding(mesh: LogicalMesh, sharding: Sharding) -> str:
    """Write a sharding for people.

    >>> format_sharding(LogicalMesh(("x", "y"), (4, 2)), (1, -2))
    'x:S1 y:P'
    """
    words = {REPLICATED: "R", PARTIAL_SUM: "P", PARTIAL_MAX: "Pmax"}
    states = (words.get(state, f"S{state}") for state in sharding)
    return " ".join(f"{name}:{state}" for name, state in zip(mesh.names, states, strict=True))
