"""Which bytes have been written, exactly, for a few representative tiles."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import gcd

import numpy as np

from tilewright.simulator.footprint import StridedSet
from tilewright.simulator.memory import IntervalMap


class InitialisedMap:
    """A bitmap of written bytes for some tiles, and the ranges that are written on all of them.

    Pieces are given as one strided set for each of the tiles.
    """

    def __init__(self, size_bytes: int, tiles: int, unit_bytes: int) -> None:
        self._unit = unit_bytes
        self._bits = np.zeros((tiles, -(-size_bytes // unit_bytes)), np.bool_)
        self._whole = IntervalMap(max(size_bytes, 1), 0)

    def _view(
        self, tile: int, piece: StridedSet
    ) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
        unit = self._unit
        shape = (*(n for _, n in piece.dims), piece.itemsize // unit)
        strides = (*(s // unit for s, _ in piece.dims), 1)
        return np.ndarray(shape, np.bool_, self._bits[tile], piece.base // unit, strides)

    def _is_whole(self, low: int, high: int) -> bool:
        return self._whole.is_all(low, high, 1)

    def write(self, pieces: Sequence[StridedSet]) -> None:
        """Mark bytes as written."""
        first = pieces[0]
        if not first.dims and all(p == first for p in pieces):
            self._whole.assign(*first.hull, 1)
            return
        for tile, piece in enumerate(pieces):
            if not self._is_whole(*piece.hull):
                self._view(tile, piece)[...] = True

    def unwritten(self, pieces: Sequence[StridedSet]) -> bool:
        """Whether some tile's piece holds a byte that was never written."""
        first = pieces[0]
        if self._is_whole(*first.hull) and all(
            piece is first or self._is_whole(*piece.hull) for piece in pieces
        ):
            return False
        for tile, piece in enumerate(pieces):
            for low, high, whole in self._whole.pieces(*piece.hull):
                if whole:
                    # only units that lie inside: a range may end within a unit of another use
                    self._bits[:, -(-low // self._unit) : high // self._unit] = True
            if not self._view(tile, piece).all():
                return True
        if not first.dims and all(p == first for p in pieces):
            self._whole.assign(*first.hull, 1)
        return False


def common_unit(numbers: Iterable[int]) -> int:
    """Return the largest granule, at most 64 bytes, that divides all addresses, distances and sizes."""
    return gcd(64, *numbers)
