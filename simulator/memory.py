"""Memory of all tiles of a group as numpy arrays with leading tile axes.

A range of the scratchpad whose contents are equal on all tiles along some mesh axes is stored once
along them. `TileMemory` keeps, for each set of axes along which contents may vary, a byte array of that many
scratchpads, and an interval map from addresses to the set that is in force. The map only says where equal
contents are stored once, so every value is exact; replicated data and work cost no more than on
one tile.
"""

from __future__ import annotations

import mmap
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilewright.errors import ProgramError
from tilewright.lowering.isa import Access, Space

AnyArray = np.ndarray[Any, np.dtype[Any]]
Bytes = NDArray[np.uint8]

_ALIGNMENT_BYTES = 64


@dataclass(frozen=True, slots=True)
class Extent:
    """Bytes that an access covers, relative to its base: half-open hull, and whether it has no gaps.

    `dense` speaks of one tile, or of all tiles if no coefficient moves the access.
    """

    low: int
    high: int
    dense: bool


@lru_cache(maxsize=1 << 16)
def extent(
    itemsize: int,
    coefficients: tuple[int, ...],
    strides: tuple[int, ...],
    sizes: tuple[int, ...],
    domain: tuple[int, ...],
) -> Extent:
    """Return the extent of an access over all mesh coordinates (`sizes`) and its domain."""
    low = high = 0
    for step, count in (*zip(coefficients, sizes, strict=True), *zip(strides, domain, strict=True)):
        reach = step * (count - 1)
        low, high = low + min(0, reach), high + max(0, reach)
    moved = any(c and n > 1 for c, n in zip(coefficients, sizes, strict=True))
    run = itemsize
    gapless = not moved
    for stride, count in sorted((abs(s), n) for s, n in zip(strides, domain, strict=True) if s):
        gapless = gapless and stride == run
        run *= count
    return Extent(low, high + itemsize, gapless)


def access_extent(access: Access, sizes: tuple[int, ...], domain: tuple[int, ...]) -> Extent:
    """Return the extent of an access."""
    return extent(access.dtype.itemsize_bytes, access.coefficients, access.strides, sizes, domain)


def check_bounds(access: Access, found: Extent, limit: int) -> tuple[int, int]:
    """Return the absolute hull of an access.

    Raises:
        ProgramError: It is not inside [0, limit).
    """
    low, high = access.base + found.low, access.base + found.high
    if low < 0 or high > limit:
        raise ProgramError(
            f"out of bounds: {access.space.name} bytes [{low:#x}, {high:#x}), the limit is {limit:#x}"
        )
    return low, high


class IntervalMap:
    """A total map from [0, size) to small integers, stored as maximal intervals."""

    def __init__(self, size: int, value: int) -> None:
        self._starts = [0]
        self._values = [value]
        self._size = size

    def pieces(self, low: int, high: int) -> Iterator[tuple[int, int, int]]:
        """Yield (low, high, value) of the intervals that meet [low, high), clipped to it."""
        first = bisect_right(self._starts, low) - 1
        last = bisect_left(self._starts, high)
        for k in range(first, last):
            end = self._starts[k + 1] if k + 1 < len(self._starts) else self._size
            yield max(low, self._starts[k]), min(high, end), self._values[k]

    def is_all(self, low: int, high: int, value: int) -> bool:
        """Whether all of [low, high) has a value."""
        first = bisect_right(self._starts, low) - 1
        following = first + 1
        ends = following == len(self._starts) or high <= self._starts[following]
        return low >= high or (ends and self._values[first] == value)

    def assign(self, low: int, high: int, value: int) -> None:
        """Set [low, high) to a value."""
        first = bisect_left(self._starts, low)
        last = bisect_left(self._starts, high)
        starts, values = [], []
        if first == 0 or self._values[first - 1] != value:
            starts, values = [low], [value]
        if high < self._size and (last == len(self._starts) or self._starts[last] != high):
            after = self._values[last - 1]
            if after != value:
                starts, values = [*starts, high], [*values, after]
        elif last < len(self._starts) and self._values[last] == value:
            last += 1
        self._starts[first:last] = starts
        self._values[first:last] = values

    def copy(self) -> IntervalMap:
        """Return an independent copy."""
        other = IntervalMap(self._size, 0)
        other._starts, other._values = list(self._starts), list(self._values)
        return other


def _sparse_zeros(size_bytes: int) -> Bytes:
    """Return zeros of which only the pages that are written take memory.

    numpy asks for huge pages, with which a few bytes of each scratchpad would take megabytes.

    Raises:
        MemoryError: There is no room in the address space.
    """
    try:
        pages = mmap.mmap(-1, max(size_bytes, 1))
    except (OSError, OverflowError) as error:
        raise MemoryError(str(error)) from error
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        with suppress(OSError):  # of kernels without huge pages
            pages.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(pages, np.uint8)[:size_bytes]


def _sparse_copy(array: Bytes) -> Bytes:
    """Copy without touching the pages that were never written (they read as zero)."""
    copy = _sparse_zeros(len(array))
    step = 1 << 16
    for start in range(0, len(array), step):
        piece = array[start : start + step]
        if piece.any():
            copy[start : start + step] = piece
    return copy


class TileMemory:
    """The scratchpads of all tiles of a group.

    A view has one leading dimension per mesh axis: the axis' size if values may vary along it, else 1.
    """

    def __init__(self, sizes: tuple[int, ...], size_bytes: int, *, track: bool = True) -> None:
        self.sizes = sizes
        self.size_bytes = size_bytes
        self._row = -(-max(size_bytes, 1) // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES
        self._real = sum(1 << axis for axis, n in enumerate(sizes) if n > 1)
        self._forced = 0 if track else self._real
        self._varying = IntervalMap(max(size_bytes, 1), self._forced)
        self._stores: dict[int, Bytes] = {}

    def copy(self) -> TileMemory:
        """Return an independent copy."""
        other = TileMemory(self.sizes, self.size_bytes)
        other._forced, other._varying = self._forced, self._varying.copy()
        other._stores = {axes: _sparse_copy(store) for axes, store in self._stores.items()}
        return other

    def _tile_strides(self, axes: int) -> tuple[int, ...]:
        """Return the byte distance of neighbouring tiles along each mesh axis in a store."""
        strides, step = [0] * len(self.sizes), self._row
        for axis in reversed(range(len(self.sizes))):
            if axes >> axis & 1:
                strides[axis] = step
                step *= self.sizes[axis]
        return tuple(strides)

    def _store(self, axes: int) -> Bytes:
        if axes not in self._stores:
            tiles = prod(n for axis, n in enumerate(self.sizes) if axes >> axis & 1)
            try:
                self._stores[axes] = _sparse_zeros(tiles * self._row)
            except MemoryError as error:
                raise ProgramError(
                    f"{tiles} scratchpads of {self._row} bytes do not fit into memory"
                ) from error
        return self._stores[axes]

    def rows(self, axes: int) -> Bytes:
        """Return a store as bytes [*mesh, row], with dimensions of 1 for axes that it is equal along."""
        shape = [n if axes >> a & 1 else 1 for a, n in enumerate(self.sizes)]
        return self._store(axes).reshape(*shape, self._row)

    def contents(self) -> Bytes:
        """Return all scratchpads as bytes [*mesh, size_bytes], for tests of small programs."""
        out = np.zeros((*self.sizes, self.size_bytes), np.uint8)
        if self.size_bytes:
            for low, high, axes in self._varying.pieces(0, self.size_bytes):
                out[..., low:high] = self.rows(axes)[..., low:high]
        return out

    def _unify(self, low: int, high: int, axes: int) -> int:
        """Store [low, high) uniformly, varying along `axes` and all that its pieces vary along."""
        pieces = list(self._varying.pieces(low, high))
        for _, _, found in pieces:
            axes |= found
        for start, stop, found in pieces:
            if found != axes:
                self.rows(axes)[..., start:stop] = self.rows(found)[..., start:stop]
                self._varying.assign(start, stop, axes)
        return axes

    def _shape(self, access: Access, axes: int) -> tuple[list[int], list[int]]:
        """Return sizes and strides of the leading tile dimensions of a view."""
        tile = self._tile_strides(axes)
        shape, strides = [], []
        for axis, n in enumerate(self.sizes):
            here = access.coefficients[axis]
            varies = axes >> axis & 1 or (here and n > 1)
            shape.append(n if varies else 1)
            strides.append(tile[axis] + here if varies else 0)
        return shape, strides

    def _domain(self, access: Access, domain: tuple[int, ...], full: bool) -> list[int]:
        return [n if s or full else 1 for s, n in zip(access.strides, domain, strict=True)]

    def read(self, access: Access, domain: tuple[int, ...], *, full: bool = False) -> AnyArray:
        """Return a view [*mesh, *domain]; absent domain dimensions have size 1 unless `full`."""
        low, high = check_bounds(access, access_extent(access, self.sizes, domain), self.size_bytes)
        axes = self._unify(low, high, 0)
        lead, lead_strides = self._shape(access, axes)
        shape = (*lead, *self._domain(access, domain, full))
        strides = (*lead_strides, *access.strides)
        return np.ndarray(shape, access.dtype.numpy, self._store(axes), access.base, strides)

    def _prepare(self, access: Access, domain: tuple[int, ...], axes: int, *, whole: bool) -> int:
        """Make a range writable with values that vary along `axes`; return along what it is stored."""
        found = access_extent(access, self.sizes, domain)
        low, high = check_bounds(access, found, self.size_bytes)
        axes |= self._forced
        for axis, n in enumerate(self.sizes):
            if access.coefficients[axis] and n > 1:
                axes |= 1 << axis
        if whole and found.dense:
            self._varying.assign(low, high, axes)
            return axes
        return self._unify(low, high, axes)

    def write(self, access: Access, domain: tuple[int, ...], value: AnyArray) -> None:
        """Write values [*mesh, *domain], with dimensions of 1 where they are equal or absent."""
        axes = self._prepare(access, domain, self._values_axes(value), whole=True)
        lead, lead_strides = self._shape(access, axes)
        shape = (*lead, *self._domain(access, domain, False))
        strides = (*lead_strides, *access.strides)
        np.ndarray(shape, access.dtype.numpy, self._store(axes), access.base, strides)[...] = value

    def _values_axes(self, value: AnyArray) -> int:
        return sum(1 << axis for axis in range(len(self.sizes)) if value.shape[axis] > 1)

    def write_part(
        self,
        access: Access,
        domain: tuple[int, ...],
        value: AnyArray,
        axis: int,
        start: int,
        offset_bytes: int,
    ) -> None:
        """Write to the tiles `start`, start + 1, … of one axis only.

        Args:
            access: The destination.
            domain: Iteration domain.
            value: [*mesh, *domain], whose size along `axis` is the number of tiles to write.
            axis: The axis of which only some tiles are written.
            start: Coordinate of the first tile.
            offset_bytes: Added to the address.
        """
        axes = self._prepare(access, domain, self._values_axes(value) | 1 << axis, whole=False)
        lead, lead_strides = self._shape(access, axes)
        lead[axis] = value.shape[axis]
        offset = access.base + offset_bytes + start * lead_strides[axis]
        shape = (*lead, *self._domain(access, domain, False))
        strides = (*lead_strides, *access.strides)
        np.ndarray(shape, access.dtype.numpy, self._store(axes), offset, strides)[...] = value

    def read_part(
        self,
        access: Access,
        domain: tuple[int, ...],
        axis: int,
        tiles: tuple[int, int],
        offset_bytes: int,
    ) -> AnyArray:
        """Return a copy of what the tiles [tiles[0], tiles[1]) of one axis hold; see `write_part`."""
        low, high = check_bounds(access, access_extent(access, self.sizes, domain), self.size_bytes)
        axes = self._unify(low, high, 0)
        lead, lead_strides = self._shape(access, axes)
        start, stop = tiles
        lead[axis] = stop - start
        offset = access.base + offset_bytes + start * lead_strides[axis]
        shape = (*lead, *self._domain(access, domain, False))
        strides = (*lead_strides, *access.strides)
        return np.ndarray(shape, access.dtype.numpy, self._store(axes), offset, strides).copy()


class Dram:
    """The memory that all tiles share."""

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self._bytes = _sparse_zeros(max(size_bytes, 1))

    def copy(self) -> Dram:
        """Return an independent copy."""
        other = Dram(0)
        other.size_bytes, other._bytes = self.size_bytes, _sparse_copy(self._bytes)
        return other

    def tensor(self, address: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> AnyArray:
        """Return a dense row-major tensor as a writable view."""
        return np.ndarray(shape, dtype, self._bytes, address)

    def view(self, access: Access, domain: tuple[int, ...], sizes: tuple[int, ...]) -> AnyArray:
        """Return a view [*mesh, *domain].

        Absent domain dimensions and mesh axes that do not move the address have size 1.

        Args:
            access: The operand.
            domain: Iteration domain.
            sizes: Mesh sizes; 1 for axes of which only coordinate 0 takes part.
        """
        assert access.space == Space.DRAM
        check_bounds(access, access_extent(access, sizes, domain), self.size_bytes)
        shape = [n if c else 1 for c, n in zip(access.coefficients, sizes, strict=True)]
        shape += [n if s else 1 for s, n in zip(access.strides, domain, strict=True)]
        strides = (*access.coefficients, *access.strides)
        return np.ndarray(shape, access.dtype.numpy, self._bytes, access.base, strides)
