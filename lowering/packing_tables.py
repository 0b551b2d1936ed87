"""Buffers as tables for the compiled packers: pieces in time, sections, neighbours.

A *piece* is a part of a live range in which a buffer uses the same bytes: one for a buffer without
gaps. A *section* is a largest set of pieces alive together: whoever is apart in all sections is apart
always. Addresses and sizes count *grains*, the largest unit that divides every address.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import gcd
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tilewright.errors import CompileError
from tilewright.lowering.live_buffer import LiveBuffer

Ints = NDArray[np.int64]
NEVER = 1 << 60
"""Above every address."""


class Shapes(NamedTuple):
    """What the packers know of each buffer, and its pieces; all int64."""

    size: Ints
    align: Ints
    fixed: Ints
    """The address that the buffer must have, or -1."""
    latest: Ints
    """Highest address at which the buffer ends within the capacity."""
    twin: Ints
    """The next buffer with the same size, alignment and pieces, in a ring; itself when there is none."""
    first_piece: Ints
    """[buffers + 1]: the pieces of buffer b are first_piece[b] to first_piece[b + 1]."""
    start: Ints
    """[pieces]"""
    end: Ints
    low: Ints
    """First byte in use, relative to the buffer's address."""
    high: Ints
    owner: Ints


class Graph(NamedTuple):
    """Sections and neighbours of few enough buffers; all int64.

    An *edge* is a piece in a section. Lists of a buffer or section k are those from first[k] to first[k + 1].
    """

    first_edge: Ints
    """[sections + 1]"""
    edge_owner: Ints
    edge_low: Ints
    edge_high: Ints
    edge_section: Ints
    first_own: Ints
    """[buffers + 1]"""
    own_edge: Ints
    first_near: Ints
    """[buffers + 1]"""
    near: Ints
    near_rise: Ints
    """How much higher than the buffer the neighbour starts at least, when it is above."""
    near_fall: Ints
    """How much higher than the neighbour the buffer starts at least, when it is above."""


@dataclass(frozen=True)
class PackingProblem:
    """Buffers that live and take room, in grains."""

    buffers: tuple[LiveBuffer, ...]
    shapes: Shapes
    grain_bytes: int
    capacity_bytes: int
    alignment_bytes: int
    """What the whole memory asks for."""

    @property
    def capacity(self) -> int:
        """Grains of the memory, a partial one counted whole; `latest` keeps buffers out of the rest."""
        return -(-self.capacity_bytes // self.grain_bytes)

    @property
    def is_plain(self) -> bool:
        """Whether every buffer uses all its bytes whenever it uses any."""
        shapes = self.shapes
        return not shapes.low.any() and bool((shapes.high == shapes.size[shapes.owner]).all())

    def restricted(self, chosen: Sequence[int]) -> PackingProblem:
        """Return the problem of some of the buffers."""
        if len(chosen) == len(self.buffers):
            return self
        return make_problem(
            tuple(self.buffers[b] for b in chosen),
            capacity_bytes=self.capacity_bytes,
            alignment_bytes=self.alignment_bytes,
        )

    @cached_property
    def sections(self) -> tuple[tuple[int, ...], ...]:
        """Largest sets of pieces alive together, in order of time."""
        shapes = self.shapes
        events = sorted(
            [(t, 1, p) for p, t in enumerate(shapes.start.tolist())]
            + [(t, 0, p) for p, t in enumerate(shapes.end.tolist())]
        )
        alive: dict[int, None] = {}
        found, has_grown = [], False
        for _, is_start, piece in events:
            if is_start:
                alive[piece] = None
            else:
                if has_grown:
                    found.append(tuple(sorted(alive)))
                del alive[piece]
            has_grown = bool(is_start)
        return tuple(found)

    @property
    def pairs_alive_together(self) -> int:
        """Number of pairs of pieces alive at one time."""
        return int(_followers(self.shapes)[1].sum())

    def fixed_clash(self) -> tuple[int, ...]:
        """Return two buffers whose fixed addresses make them overlap, or nothing."""
        fixed = np.flatnonzero(self.shapes.fixed >= 0)
        if not len(fixed):
            return ()
        part = self.restricted(fixed.tolist())
        shapes = part.shapes
        base = shapes.fixed[shapes.owner]
        low, high = base + shapes.low, base + shapes.high
        one, two = _pieces_alive_together(shapes)
        overlap = np.flatnonzero((low[one] < high[two]) & (low[two] < high[one]))
        if not len(overlap):
            return ()
        first = overlap[0]
        return tuple(sorted(int(fixed[shapes.owner[p]]) for p in (one[first], two[first])))

    @cached_property
    def graph(self) -> Graph:
        """Tables of sections and neighbours; their size is that of all pairs alive together."""
        return _graph(self.shapes, self.sections)


def make_problem(
    buffers: Sequence[LiveBuffer], *, capacity_bytes: int, alignment_bytes: int = 1
) -> PackingProblem:
    """Return the tables of buffers, all of which live and have a size.

    Raises:
        CompileError: A buffer's gaps, alignment or fixed address make no sense.
    """
    aligns = [_alignment(b, alignment_bytes) for b in buffers]
    pieces = [_pieces(b) for b in buffers]
    grain = gcd(*aligns, *(b.offset or 0 for b in buffers))
    for b, rows in zip(buffers, pieces, strict=True):
        if b.gaps:
            grain = gcd(grain, *(w for row in rows for w in row[2:] if w != b.size_bytes))
    grain = max(grain, 1)
    counts = [len(rows) for rows in pieces]
    rows_of_all = zip(buffers, aligns, pieces, strict=True)
    flat = np.array([row for rows in pieces for row in rows], dtype=np.int64).reshape(-1, 4)
    sizes = np.array([b.size_bytes for b in buffers], dtype=np.int64)
    fixed = [-1 if b.offset is None else b.offset // grain for b in buffers]
    shapes = Shapes(
        size=-(-sizes // grain),
        align=np.array(aligns, dtype=np.int64) // grain,
        fixed=np.array(fixed, dtype=np.int64),
        latest=(capacity_bytes - sizes) // grain,
        twin=_twins([(b.size_bytes, a, b.offset, tuple(r)) for b, a, r in rows_of_all]),
        first_piece=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        start=flat[:, 0].copy(),
        end=flat[:, 1].copy(),
        low=flat[:, 2] // grain,
        high=-(-flat[:, 3] // grain),
        owner=np.repeat(np.arange(len(buffers), dtype=np.int64), counts),
    )
    return PackingProblem(tuple(buffers), shapes, grain, capacity_bytes, alignment_bytes)


def _alignment(buffer: LiveBuffer, alignment_bytes: int) -> int:
    own = buffer.alignment_bytes
    if own < 1:
        raise CompileError(f"buffer '{buffer.name}': alignment is {own}, expected at least 1")
    align = alignment_bytes * own // gcd(alignment_bytes, own)
    if buffer.offset is not None and (buffer.offset < 0 or buffer.offset % align):
        raise CompileError(
            f"buffer '{buffer.name}': fixed at {buffer.offset}, expected a multiple of {align}"
        )
    return align


def _pieces(buffer: LiveBuffer) -> list[tuple[int, int, int, int]]:
    """Return (start, end, low, high) for the times in which bytes are in use."""
    rows, now = [], buffer.start
    for gap in buffer.gaps:
        if not now <= gap.start < gap.end <= buffer.end:
            raise CompileError(
                f"buffer '{buffer.name}': gap [{gap.start}, {gap.end}) is not within what is left of "
                f"its live range, [{now}, {buffer.end}); list gaps in order, apart from each other"
            )
        if now < gap.start:
            rows.append((now, gap.start, 0, buffer.size_bytes))
        if gap.window is not None:
            low, high = gap.window
            if not 0 <= low <= high <= buffer.size_bytes:
                raise CompileError(
                    f"buffer '{buffer.name}': gap window [{low}, {high}) is not within its "
                    f"{buffer.size_bytes} bytes"
                )
            if low < high:
                rows.append((gap.start, gap.end, low, high))
        now = gap.end
    if now < buffer.end:
        rows.append((now, buffer.end, 0, buffer.size_bytes))
    return rows


def _twins(keys: Sequence[Hashable]) -> Ints:
    """Return the next position with an equal key, in a ring."""
    rings: dict[Hashable, list[int]] = {}
    for position, key in enumerate(keys):
        rings.setdefault(key, []).append(position)
    twin = np.empty(len(keys), dtype=np.int64)
    for ring in rings.values():
        twin[ring] = ring[1:] + ring[:1]
    return twin


def _graph(shapes: Shapes, sections: tuple[tuple[int, ...], ...]) -> Graph:
    edges = np.array([p for section in sections for p in section], dtype=np.int64)
    lengths = np.array([len(section) for section in sections], dtype=np.int64)
    owner = shapes.owner[edges]
    own_edge = np.argsort(owner, kind="stable")
    count = len(shapes.size)
    below, above, rise = _neighbours(shapes)
    return Graph(
        first_edge=_starts(lengths),
        edge_owner=owner,
        edge_low=shapes.low[edges],
        edge_high=shapes.high[edges],
        edge_section=np.repeat(np.arange(len(sections), dtype=np.int64), lengths),
        first_own=_starts(np.bincount(owner, minlength=count)),
        own_edge=own_edge,
        first_near=_starts(np.bincount(below, minlength=count)),
        near=above,
        near_rise=rise,
        # the same pairs, the other way round
        near_fall=rise[np.lexsort((below, above))],
    )


def _pieces_alive_together(shapes: Shapes) -> tuple[Ints, Ints]:
    """Return the pairs of pieces that are alive together.

    Of two such pieces, the later one starts while the earlier one lives.
    """
    order, followers = _followers(shapes)
    position = np.repeat(np.arange(len(order)), followers)
    step = np.arange(len(position)) - np.repeat(_starts(followers)[:-1], followers) + 1
    return order[position], order[position + step]


def _followers(shapes: Shapes) -> tuple[Ints, Ints]:
    """Return the pieces in order of their start, and how many of those that follow start in time for each."""
    order = np.lexsort((shapes.end, shapes.start))
    until = np.searchsorted(shapes.start[order], shapes.end[order], side="left")
    return order, until - np.arange(len(order)) - 1


def _neighbours(shapes: Shapes) -> tuple[Ints, Ints, Ints]:
    """Return sorted pairs of buffers in use together, and how much higher the second starts when above."""
    one, two = _pieces_alive_together(shapes)
    below = np.concatenate([shapes.owner[one], shapes.owner[two]])
    above = np.concatenate([shapes.owner[two], shapes.owner[one]])
    rise = np.concatenate([shapes.high[one] - shapes.low[two], shapes.high[two] - shapes.low[one]])
    by_pair = np.lexsort((above, below))
    below, above, rise = below[by_pair], above[by_pair], rise[by_pair]
    if not len(below):
        return below, above, rise
    is_new = np.append(True, (below[1:] != below[:-1]) | (above[1:] != above[:-1]))
    firsts = np.flatnonzero(is_new)
    return below[firsts], above[firsts], np.maximum.reduceat(rise, firsts)


def _starts(lengths: Ints) -> Ints:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
