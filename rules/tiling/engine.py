"""Tile sizes and loop orders of many kernels from one e-graph."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from tilewright.rules.session import Session
from tilewright.rules.tiling.candidates import tile_sizes
from tilewright.rules.tiling.rules import tiling
from tilewright.rules.tiling.terms import outermost_candidate, row_loop, tile_size


@dataclass(frozen=True, slots=True, kw_only=True)
class TilingRequest:
    """A kernel on one tile's data; all tuples have one entry for each loop of its local nest."""

    key: str
    extents: tuple[int, ...]
    is_tileable: tuple[bool, ...]
    """False for loops that must run whole."""
    is_parallel: tuple[bool, ...]
    """Loops that may be outermost."""
    quanta: tuple[int, ...]
    """Preferred multiples of tile sizes; 1 for none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TilingAlternatives:
    """The choices of a kernel: any size of each loop with any outermost loop."""

    key: str
    sizes: tuple[tuple[int, ...], ...]
    """Tile sizes of each loop, largest (the whole loop) first."""
    outermost: tuple[int, ...]
    """Loops that may be outermost, ascending; empty when no tileable loop is parallel."""


def _loop(request: TilingRequest, number: int) -> tuple[int, int]:
    """Return extent and quantum of a loop; a loop that runs whole has its extent as quantum."""
    extent = request.extents[number]
    return extent, request.quanta[number] if request.is_tileable[number] else max(extent, 1)


def tiling_alternatives(requests: Sequence[TilingRequest]) -> tuple[TilingAlternatives, ...]:
    """Return the tiling choices of kernels, in the order of the requests.

    One e-graph serves all requests; loops of equal extent and quantum share an e-class.
    """
    loops = list(
        dict.fromkeys(_loop(r, i) for r in requests for i, extent in enumerate(r.extents) if extent)
    )
    outermost = [
        (number, i)
        for number, request in enumerate(requests)
        for i, extent in enumerate(request.extents)
        if request.is_parallel[i] and request.is_tileable[i] and extent > 1
    ]
    session = Session()
    sizes = [(e, q, s) for e, q in loops for s in tile_sizes(e, q)]
    session.insert(((row_loop, loops), (tile_size, sizes), (outermost_candidate, outermost)))
    session.run(tiling.saturate(), "tiling")
    found = session.read(("tiled", "ordered"))
    by_loop: defaultdict[tuple[int | str, ...], list[int]] = defaultdict(list)
    for row in found.get("tiled", []):
        by_loop[row[:2]].append(int(row[2]))
    by_kernel: defaultdict[int, list[int]] = defaultdict(list)
    for row in found.get("ordered", []):
        by_kernel[int(row[0])].append(int(row[1]))
    return tuple(
        TilingAlternatives(
            key=request.key,
            sizes=tuple(
                tuple(sorted(by_loop[_loop(request, i)], reverse=True)) if extent else (0,)
                for i, extent in enumerate(request.extents)
            ),
            outermost=tuple(sorted(by_kernel[number])),
        )
        for number, request in enumerate(requests)
    )
