"""Which bytes instructions touch, and whether two of them touch a common one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import gcd, prod

import numpy as np
from numpy.typing import NDArray

Dims = tuple[tuple[int, int], ...]
"""(stride in bytes, count) of each dimension of a strided set."""


@dataclass(frozen=True, slots=True)
class StridedSet:
    """The bytes base + sum(index * stride) + [0, itemsize)."""

    base: int
    itemsize: int
    dims: Dims

    @property
    def hull(self) -> tuple[int, int]:
        """The half-open interval from the first to the last byte."""
        low, high = reach(self.dims)
        return self.base + low, self.base + high + self.itemsize


def reach(dims: Dims) -> tuple[int, int]:
    """Return the smallest and the largest offset of the dimensions."""
    ends = [stride * (count - 1) for stride, count in dims]
    return sum(min(0, e) for e in ends), sum(max(0, e) for e in ends)


def normalised(base: int, itemsize: int, dims: Dims) -> StridedSet:
    """Return the same bytes with positive strides, descending, merged where they continue each other."""
    kept: list[tuple[int, int]] = []
    for stride, count in dims:
        if count > 1 and stride:
            base += min(0, stride * (count - 1))
            kept.append((abs(stride), count))
    kept.sort()
    while kept and kept[0][0] <= itemsize:
        stride, count = kept.pop(0)
        itemsize += stride * (count - 1)
    merged: list[tuple[int, int]] = []
    for stride, count in kept:
        if merged and merged[-1][0] * merged[-1][1] == stride:
            merged[-1] = (merged[-1][0], merged[-1][1] * count)
        else:
            merged.append((stride, count))
    return StridedSet(base, itemsize, tuple(reversed(merged)))


@lru_cache(maxsize=1 << 14)
def is_injective(itemsize: int, dims: Dims) -> bool:
    """Whether no byte is reached by two different indices."""
    live = sorted((abs(s), n) for s, n in dims if n > 1)
    covered, nested = itemsize, True
    for stride, count in live:
        nested = nested and stride >= covered
        covered += stride * (count - 1)
    if nested:
        return True
    if any(stride == 0 for stride, _ in live):
        return False
    unit = gcd(itemsize, *(s for s, _ in live))
    hits = np.zeros(-(-covered // unit), np.int64)
    offsets = np.zeros(1, np.int64)
    for stride, count in live:
        offsets = (offsets[:, None] + np.arange(count) * (stride // unit)).reshape(-1)
    for part in range(itemsize // unit):
        hits += np.bincount(offsets + part, minlength=len(hits))
    return bool(hits.max() <= 1)


def _apart_modulo(a: StridedSet, b: StridedSet) -> bool:
    """Whether the sets fall into different parts of a common period (columns of one matrix)."""
    for period in sorted({s for s, _ in a.dims} | {s for s, _ in b.dims}, reverse=True):
        width_a = a.itemsize + sum(s * (n - 1) for s, n in a.dims if s % period)
        width_b = b.itemsize + sum(s * (n - 1) for s, n in b.dims if s % period)
        gap = (b.base - a.base) % period
        if width_a <= gap and gap + width_b <= period:
            return True
    return False


def _marks(low: int, high: int, piece: StridedSet, unit: int) -> NDArray[np.bool_]:
    """Return which units of [low, high) a set touches."""
    first, last = piece.hull
    marks = np.zeros((last - first) // unit, np.bool_)
    item = piece.itemsize // unit
    shape = (*(n for _, n in piece.dims), item)
    strides = (*(s // unit for s, _ in piece.dims), 1)
    np.ndarray(shape, np.bool_, marks, 0, strides)[...] = True
    return marks[(low - first) // unit : (high - first) // unit]


@lru_cache(maxsize=1 << 16)
def _overlap(distance: int, a_itemsize: int, a_dims: Dims, b_itemsize: int, b_dims: Dims) -> bool:
    a, b = StridedSet(0, a_itemsize, a_dims), StridedSet(distance, b_itemsize, b_dims)
    low, high = max(a.hull[0], b.hull[0]), min(a.hull[1], b.hull[1])
    if low >= high:
        return False
    if not a_dims and not b_dims:
        return True
    if _apart_modulo(a, b):
        return False
    unit = gcd(distance, a_itemsize, b_itemsize, *(s for s, _ in (*a_dims, *b_dims)))
    return bool((_marks(low, high, a, unit) & _marks(low, high, b, unit)).any())


def overlap(a: StridedSet, b: StridedSet) -> bool:
    """Whether two (normalised) sets have a byte in common, exactly."""
    return _overlap(b.base - a.base, a.itemsize, a.dims, b.itemsize, b.dims)


@dataclass(frozen=True, slots=True)
class ActorSet:
    """Bytes touched by many tiles: `shares` says how an actor's coordinate moves its own piece.

    Args:
        piece: The bytes of the tile at coordinate 0.
        shares: (address coefficient, mesh axis) of the axes that matter.
        leaders: Axes (mask) of which only coordinate 0 acts.
    """

    piece: StridedSet
    shares: tuple[int, ...]
    leaders: int = 0


def _dims_of(actors: ActorSet, sizes: Sequence[int]) -> Dims:
    lead = tuple((c, 1 if actors.leaders >> a & 1 else n) for a, (c, n) in enumerate(zip(actors.shares, sizes, strict=True)))
    return (*lead, *actors.piece.dims)


def union(actors: ActorSet, sizes: Sequence[int]) -> StridedSet:
    """Return the bytes that any of the tiles touches."""
    return normalised(actors.piece.base, actors.piece.itemsize, _dims_of(actors, sizes))


def conflicting(x: ActorSet, y: ActorSet, sizes: tuple[int, ...], unordered: NDArray[np.bool_]) -> bool:
    """Whether tiles p and q with unordered[p - q] exist such that x of p and y of q share a byte.

    Args:
        x: Earlier access, by all tiles.
        y: Later access, by all tiles.
        sizes: Mesh sizes.
        unordered: [*mesh] over the distance p - q modulo the sizes.
    """
    if not unordered.any() or not overlap(union(x, sizes), union(y, sizes)):
        return False
    reduced = unordered
    exact: list[int] = []
    for axis, n in enumerate(sizes):
        alone_x, alone_y = bool(x.leaders >> axis & 1), bool(y.leaders >> axis & 1)
        if n > 1 and alone_x and alone_y:
            reduced = reduced.take([0], axis=axis)
        elif n > 1 and x.shares[axis] and y.shares[axis] and not (alone_x or alone_y):
            exact.append(axis)
        else:
            # some tile of every coordinate of this axis touches each byte
            reduced = reduced.any(axis=axis, keepdims=True)
    if not reduced.any():
        return False
    if not is_injective(x.piece.itemsize, _dims_of(x, sizes)):
        return True
    return _conflict_by_owner(x, y, sizes, reduced, tuple(exact))


def _conflict_by_owner(
    x: ActorSet, y: ActorSet, sizes: tuple[int, ...], reduced: NDArray[np.bool_], exact: tuple[int, ...]
) -> bool:
    """Mark every byte with the coordinate of x's tile, then look them up for y's."""
    dims_x, dims_y = _dims_of(x, sizes), _dims_of(y, sizes)
    numbers = [d for d, _ in (*dims_x, *dims_y)]
    unit = gcd(x.piece.itemsize, y.piece.itemsize, y.piece.base - x.piece.base, *numbers)
    (xl, xh), (yl, yh) = reach(dims_x), reach(dims_y)
    low = min(x.piece.base + xl, y.piece.base + yl)
    high = max(x.piece.base + xh + x.piece.itemsize, y.piece.base + yh + y.piece.itemsize)
    if prod(n for _, n in dims_x) * (x.piece.itemsize // unit) > 1 << 28 or (high - low) // unit > 1 << 28:
        return True

    def view(array: NDArray[np.int32], actors: ActorSet, dims: Dims) -> NDArray[np.int32]:
        shape = (*(n for _, n in dims), actors.piece.itemsize // unit)
        strides = (*(s // unit * 4 for s, _ in dims), 4)
        return np.ndarray(shape, np.int32, array, (actors.piece.base - low) // unit * 4, strides)

    rank = len(sizes)
    owners = np.full((high - low) // unit, -1, np.int32)
    where_x = np.arange(prod(sizes), dtype=np.int32).reshape(sizes)
    where_x = where_x[tuple(slice(0, n) for _, n in dims_x[:rank])]
    view(owners, x, dims_x)[...] = where_x.reshape(*where_x.shape, *(1,) * (len(dims_x) - rank + 1))
    found = view(owners, y, dims_y)
    touched = found >= 0
    coordinates = np.unravel_index(np.where(touched, found, 0), sizes) if rank else ()
    index = []
    for axis in range(rank):
        if axis in exact:
            here = np.arange(sizes[axis]).reshape([-1 if a == axis else 1 for a in range(found.ndim)])
            index.append((coordinates[axis] - here) % sizes[axis])
        else:
            index.append(np.zeros_like(found))
    return bool((touched & reduced[tuple(index)]).any())
