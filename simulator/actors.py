"""Bytes that many tiles touch, each its own piece, and whether two of them meet on a common byte."""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd, prod

import numpy as np
from numpy.typing import NDArray

from tilewright.simulator.footprint import (
    Dims,
    StridedSet,
    is_injective,
    normalised,
    overlap,
    reach,
)

EVERY = -1
_MAX_MARKS = 1 << 28


@dataclass(frozen=True, slots=True)
class ActorSet:
    """Bytes touched by the tiles of a mesh.

    Args:
        piece: The bytes of the acting tile with the smallest coordinates.
        shares: How far each axis coordinate moves the piece, in bytes; 0 where only one coordinate acts.
        only: For each axis the only coordinate that acts, or EVERY.
    """

    piece: StridedSet
    shares: tuple[int, ...]
    only: tuple[int, ...]

    def dims(self, sizes: tuple[int, ...]) -> Dims:
        """Return the dimensions over tiles, one for each axis, and within a piece."""
        rows = zip(self.shares, self.only, sizes, strict=True)
        moving = ((share, n if only == EVERY and share else 1) for share, only, n in rows)
        return (*moving, *self.piece.dims)


def union(actors: ActorSet, sizes: tuple[int, ...]) -> StridedSet:
    """Return the bytes that any of the tiles touches."""
    return normalised(actors.piece.base, actors.piece.itemsize, actors.dims(sizes))


def conflicting(
    x: ActorSet, y: ActorSet, sizes: tuple[int, ...], unordered: NDArray[np.bool_]
) -> bool:
    """Whether tiles p and q with unordered[p - q] exist such that x of p and y of q share a byte.

    Exact if one of them gives each tile bytes of its own (but for axes along which all tiles touch the
    same), as writes must; otherwise the answer is yes.

    Args:
        x: Earlier access.
        y: Later access.
        sizes: Mesh sizes.
        unordered: [*mesh] over the distance p - q modulo the sizes.
    """
    if not unordered.any() or not overlap(union(x, sizes), union(y, sizes)):
        return False
    reduced = unordered
    exact: list[int] = []
    for axis, n in enumerate(sizes):
        x_only, y_only = x.only[axis], y.only[axis]
        if x_only != EVERY and y_only != EVERY:
            reduced = reduced.take([(x_only - y_only) % n], axis=axis)
        elif _shared(x, axis) or _shared(y, axis):
            # tiles of every coordinate of this axis touch each byte, so every distance occurs
            reduced = reduced.any(axis=axis, keepdims=True)
        else:
            exact.append(axis)
    if not reduced.any():
        return False
    if is_injective(x.piece.itemsize, x.dims(sizes)):
        return _conflict_by_owner(x, y, sizes, reduced, tuple(exact))
    if not is_injective(y.piece.itemsize, y.dims(sizes)):
        return True
    for axis in exact:
        # distances the other way round
        reduced = np.roll(np.flip(reduced, axis), 1, axis)
    return _conflict_by_owner(y, x, sizes, reduced, tuple(exact))


def _shared(actors: ActorSet, axis: int) -> bool:
    return actors.only[axis] == EVERY and actors.shares[axis] == 0


def _coordinates(
    actors: ActorSet, axis: int, sizes: tuple[int, ...], ndim: int
) -> NDArray[np.intp]:
    """Return the acting coordinates of an axis, shaped to broadcast along that dimension."""
    only = actors.only[axis]
    if only != EVERY:
        here = np.full(1, only, np.intp)
    else:
        here = np.arange(sizes[axis] if actors.shares[axis] else 1, dtype=np.intp)
    return here.reshape([-1 if a == axis else 1 for a in range(ndim)])


def _conflict_by_owner(
    x: ActorSet,
    y: ActorSet,
    sizes: tuple[int, ...],
    reduced: NDArray[np.bool_],
    exact: tuple[int, ...],
) -> bool:
    """Mark every byte with the coordinate of x's tile, then look them up for y's."""
    dims_x, dims_y = x.dims(sizes), y.dims(sizes)
    numbers = [d for d, _ in (*dims_x, *dims_y)]
    unit = gcd(x.piece.itemsize, y.piece.itemsize, y.piece.base - x.piece.base, *numbers)
    (xl, xh), (yl, yh) = reach(dims_x), reach(dims_y)
    low = min(x.piece.base + xl, y.piece.base + yl)
    high = max(x.piece.base + xh + x.piece.itemsize, y.piece.base + yh + y.piece.itemsize)
    marks = prod(n for _, n in dims_y) * (y.piece.itemsize // unit)
    if max(marks, (high - low) // unit) > _MAX_MARKS:
        # too large to look at byte by byte: assume the worst
        return True

    def view(array: NDArray[np.int32], actors: ActorSet, dims: Dims) -> NDArray[np.int32]:
        shape = (*(n for _, n in dims), actors.piece.itemsize // unit)
        strides = (*(s // unit * 4 for s, _ in dims), 4)
        return np.ndarray(shape, np.int32, array, (actors.piece.base - low) // unit * 4, strides)

    owners = np.full((high - low) // unit, -1, np.int32)
    into = view(owners, x, dims_x)
    tile = np.zeros((1,) * into.ndim, np.int32)
    for axis, n in enumerate(sizes):
        tile = tile * n + _coordinates(x, axis, sizes, into.ndim)
    into[...] = tile
    found = view(owners, y, dims_y)
    touched = found >= 0
    coordinates = np.unravel_index(np.where(touched, found, 0), sizes) if sizes else ()
    index: list[NDArray[np.intp]] = []
    for axis, n in enumerate(sizes):
        if axis in exact:
            index.append((coordinates[axis] - _coordinates(y, axis, sizes, found.ndim)) % n)
        else:
            index.append(np.zeros(found.shape, np.intp))
    return bool((touched & reduced[tuple(index)]).any())
