"""Which bytes instructions touch, and whether two of them touch a common one."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import gcd, prod

import numpy as np
from numpy.typing import NDArray

from tilewright.errors import IntricateError

MAX_RUNS = 1 << 26
"""Runs of bytes of one access that are looked at one by one."""

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


@lru_cache(maxsize=1 << 16)
def reach(dims: Dims) -> tuple[int, int]:
    """Return the smallest and the largest offset of the dimensions."""
    ends = [stride * (count - 1) for stride, count in dims]
    return sum(min(0, e) for e in ends), sum(max(0, e) for e in ends)


@lru_cache(maxsize=1 << 16)
def _normal(itemsize: int, dims: Dims) -> tuple[int, int, Dims]:
    """Return the lowest offset, and the item and dimensions from there."""
    low = 0
    kept: list[tuple[int, int]] = []
    for stride, count in dims:
        if count > 1 and stride:
            low += min(0, stride * (count - 1))
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
    return low, itemsize, tuple(reversed(merged))


def check_runs(piece: StridedSet) -> None:
    """Raise IntricateError if a set has too many runs to be looked at one by one."""
    runs = prod(n for _, n in piece.dims)
    if runs > MAX_RUNS:
        raise IntricateError(
            f"it touches {runs} runs of bytes, expected at most {MAX_RUNS} to follow them"
        )


def normalised(base: int, itemsize: int, dims: Dims) -> StridedSet:
    """Return the same bytes with positive strides, descending, merged where they continue each other."""
    low, item, merged = _normal(itemsize, dims)
    return StridedSet(base + low, item, merged)


@lru_cache(maxsize=1 << 14)
def is_injective(itemsize: int, dims: Dims) -> bool:
    """Whether no byte is reached by two different indices.

    Raises:
        IntricateError: That takes too much work to find out.
    """
    live = sorted((abs(s), n) for s, n in dims if n > 1)
    covered, nested = itemsize, True
    for stride, count in live:
        nested = nested and stride >= covered
        covered += stride * (count - 1)
    if nested:
        return True
    elements = prod(n for _, n in live)
    if any(stride == 0 for stride, _ in live) or elements * itemsize > covered:
        return False
    if elements > MAX_RUNS:
        raise IntricateError(
            f"its destination is {elements} elements in an order that cannot be followed, "
            f"expected at most {MAX_RUNS} or nested strides"
        )
    unit = gcd(itemsize, *(s for s, _ in live))
    hits = np.zeros(-(-covered // unit), np.int64)
    offsets = np.zeros(1, np.int64)
    for stride, count in live:
        offsets = (offsets[:, None] + np.arange(count) * (stride // unit)).reshape(-1)
    for part in range(itemsize // unit):
        hits += np.bincount(offsets + part, minlength=len(hits))
    return bool(hits.max() <= 1)


def apart_modulo(a: StridedSet, b: StridedSet, distances: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether the sets fall into different parts of a common period (columns of one matrix).

    Args:
        a: A set; where it lies does not matter.
        b: Another one, likewise.
        distances: Base of b minus base of a: one verdict for each.
    """
    apart = np.zeros(len(distances), np.bool_)
    for period in sorted({s for s, _ in a.dims} | {s for s, _ in b.dims}, reverse=True):
        width_a = a.itemsize + sum(s * (n - 1) for s, n in a.dims if s % period)
        width_b = b.itemsize + sum(s * (n - 1) for s, n in b.dims if s % period)
        if width_a + width_b <= period:
            gaps = distances % period
            apart |= (width_a <= gaps) & (gaps + width_b <= period)
    return apart


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
    if apart_modulo(a, b, np.array([distance])).all():
        return False
    unit = gcd(distance, a_itemsize, b_itemsize, *(s for s, _ in (*a_dims, *b_dims)))
    return bool((_marks(low, high, a, unit) & _marks(low, high, b, unit)).any())


def overlap(a: StridedSet, b: StridedSet) -> bool:
    """Whether two (normalised) sets have a byte in common, exactly."""
    return _overlap(b.base - a.base, a.itemsize, a.dims, b.itemsize, b.dims)
