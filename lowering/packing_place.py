"""Compiled greedy placement: buffers in a given order, each in the lowest or the tightest gap."""

from __future__ import annotations

import numpy as np

from tilewright.lowering.packing_jit import compiled, compiled_part
from tilewright.lowering.packing_sort import sort_pairs
from tilewright.lowering.packing_tables import NEVER, Ints, Shapes

_PIECES_PER_SLICE = 64
"""Slices of time are as many as make this the mean number of pieces in one."""


class Placer:
    """Places buffers again and again; keeps the tables that depend on times alone."""

    def __init__(self, shapes: Shapes) -> None:
        self._shapes = shapes
        pieces = len(shapes.start)
        slices = max(1, pieces // _PIECES_PER_SLICE)
        self._width = max(1, -(-int(shapes.end.max(initial=0)) // slices))
        first, last = shapes.start // self._width, (shapes.end - 1) // self._width
        spans = int((last - first + 1).sum()) if pieces else 0
        self._heads = np.empty(int(last.max(initial=0)) + 1, dtype=np.int64)
        self._links = np.empty((spans, 2), dtype=np.int64)
        self._seen = np.empty(pieces, dtype=np.int64)
        self._blocked = np.empty((2, max(1, self._most_blocked())), dtype=np.int64)

    def _most_blocked(self) -> int:
        """Bound the pairs of a buffer's pieces with others."""
        counts = np.diff(self._shapes.first_piece)
        return len(self._shapes.start) * int(counts.max(initial=1))

    def place(self, order: Ints, *, is_tightest: bool = False) -> Ints:
        """Return an address for each buffer, in grains; fixed ones go first.

        Args:
            order: Buffers, the first one placed first.
            is_tightest: Take the smallest gap that is large enough, not the lowest.
        """
        fixed = self._shapes.fixed[order] >= 0
        order = np.concatenate([order[fixed], order[~fixed]])
        offsets = np.zeros(len(order), dtype=np.int64)
        self._heads.fill(-1)
        self._seen.fill(-1)
        _place_all(
            self._shapes,
            order,
            offsets,
            self._width,
            is_tightest,
            self._heads,
            self._links,
            self._seen,
            self._blocked,
        )
        return offsets


@compiled_part
def _find_blocked(
    shapes: Shapes,
    b: int,
    width: int,
    offsets: Ints,
    heads: Ints,
    links: Ints,
    seen: Ints,
    blocked: Ints,
) -> int:
    """List the open intervals of addresses that placed buffers forbid; return their number."""
    count = 0
    for p in range(shapes.first_piece[b], shapes.first_piece[b + 1]):
        start, end = shapes.start[p], shapes.end[p]
        for piece_slice in range(start // width, (end - 1) // width + 1):
            link = heads[piece_slice]
            while link >= 0:
                q = links[link, 0]
                link = links[link, 1]
                if seen[q] == p or shapes.start[q] >= end or shapes.end[q] <= start:
                    continue
                seen[q] = p
                base = offsets[shapes.owner[q]]
                low = base + shapes.low[q] - shapes.high[p]
                high = base + shapes.high[q] - shapes.low[p]
                if high > 0 and low < high:
                    blocked[0, count] = low
                    blocked[1, count] = high
                    count += 1
    return count


@compiled_part
def _find_gap(blocked: Ints, count: int, align: int, is_tightest: bool) -> int:
    """Return the lowest free address, or that of the least room, strictly inside no interval."""
    here, best, best_room = 0, -1, NEVER
    for k in range(count):
        if blocked[0, k] >= here:
            if not is_tightest:
                return here
            room = blocked[0, k] - here
            if room < best_room:
                best, best_room = here, room
        if blocked[1, k] > here:
            here = -(-blocked[1, k] // align) * align
    return here if best < 0 else best


@compiled
def _place_all(
    shapes: Shapes,
    order: Ints,
    offsets: Ints,
    width: int,
    is_tightest: bool,
    heads: Ints,
    links: Ints,
    seen: Ints,
    blocked: Ints,
) -> None:
    used = 0
    for b in order:
        if shapes.fixed[b] >= 0:
            offsets[b] = shapes.fixed[b]
        else:
            count = _find_blocked(shapes, b, width, offsets, heads, links, seen, blocked)
            sort_pairs(blocked, count)
            offsets[b] = _find_gap(blocked, count, shapes.align[b], is_tightest)
        for p in range(shapes.first_piece[b], shapes.first_piece[b + 1]):
            for piece_slice in range(shapes.start[p] // width, (shapes.end[p] - 1) // width + 1):
                links[used, 0] = p
                links[used, 1] = heads[piece_slice]
                heads[piece_slice] = used
                used += 1
