"""Tiles that demands name: the tilings that they allow, also those left out, and limits that they break."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from tilewright.errors import CompileError, DemandError, InfeasibleDemandError
from tilewright.extract.exploration.demand import Aspect, Demand, demanded_tile
from tilewright.extract.kernel import tileable_dims
from tilewright.extract.options import implementations_by_node, kernel_of
from tilewright.extract.plan import Memory
from tilewright.extract.pricing import Pricing
from tilewright.extract.tiling_candidates import MOST_BOXES, tiling_candidates
from tilewright.extract.tiling_choice import Candidates
from tilewright.rules.alternatives import Alternatives


def with_tiles(pricing: Pricing, alone: Alternatives, demands: Sequence[Demand]) -> Pricing:
    """Return pricing whose tilings satisfy the demands on tiles.

    A forced tile is a candidate although its sizes are no multiples of the quantum, or others would be
    cheaper; also where operands and result are read and written in place, so that nothing asks for boxes.

    Args:
        pricing: Pricing without demands.
        alone: The block with a single node.
        demands: Those on what the node computes.
    """
    tiles = [demand for demand in demands if demand.aspect is Aspect.TILE]
    (node,) = alone.nodes
    if not tiles or node.nest is None:
        return pricing
    loops = [dim.name for dim in node.nest.dims]
    wanted: dict[str, int] = {}
    for demand in tiles:
        wanted |= demanded_tile(demand, loops) if demand.is_forced else {}
    tilings = pricing.tilings
    if wanted:
        tilings = tiling_candidates(
            (alone,), pricing.mesh, pricing.target, pricing.tiling, wanted=wanted
        )
    forbidden = [demanded_tile(demand, loops) for demand in tiles if not demand.is_forced]
    return replace(pricing, tilings=_Without(tilings, loops, forbidden), always_cuts=True)


class _Without(Mapping[tuple[object, ...], Candidates]):
    """Tiling candidates without those that have all sizes of a tile that is forbidden."""

    def __init__(
        self,
        every: Mapping[tuple[object, ...], Candidates],
        loops: list[str],
        forbidden: Sequence[Mapping[str, int]],
    ) -> None:
        self._every, self._loops, self._forbidden = every, loops, forbidden

    def __getitem__(self, key: tuple[object, ...]) -> Candidates:
        found = self._every[key]
        kept = np.ones(len(found), dtype=bool)
        for tile in self._forbidden:
            if tile.keys() <= set(self._loops):
                columns = [self._loops.index(loop) for loop in tile]
                kept &= ~(found.sizes[:, columns] == list(tile.values())).all(axis=1)
        return found if kept.all() else Candidates(found.sizes[kept], found.orders[kept])

    def __iter__(self) -> Iterator[tuple[object, ...]]:
        return iter(self._every)

    def __len__(self) -> int:
        return len(self._every)


@dataclass(frozen=True, slots=True)
class _Loop:
    """A loop of a kernel: indices on one tile of the machine, and whether it may be cut."""

    extent: int
    is_tileable: bool

    def takes(self, size: int) -> bool:
        """Whether boxes may have so many indices."""
        return size == self.extent or (self.is_tileable and size < self.extent)


_Loops = Mapping[str, _Loop]
"""The loops of a kernel that a demand may name."""


def tile_error(found: Alternatives, number: int, demand: Demand) -> CompileError | None:
    """Return which limit a forced tile breaks in every way to compute a class, apart from the scratchpad's.

    Args:
        found: The block, perhaps without ways that other demands exclude.
        number: The class.
        demand: The demand on the tile.
    """
    kernels = list(_kernels(found, number))
    forms = list(dict.fromkeys(tuple(loops) for loops in kernels))
    left = [loops for loops in kernels if demanded_tile(demand, loops).keys() <= loops.keys()]
    if not left:
        known = " or ".join(", ".join(form) for form in forms)
        return DemandError(
            f"demand '{demand}': found loops that no way to compute '{demand.tensor}' has together; "
            f"expected some of {known or 'none'}"
        )
    tile = {name: size for loops in left for name, size in demanded_tile(demand, loops).items()}
    for name, size in tile.items():
        before, left = left, [o for o in left if name not in o or o[name].takes(size)]
        if not left:
            return _broken(demand, name, size, [loops[name] for loops in before])
    boxes = min(_boxes(loops, demanded_tile(demand, loops)) for loops in left)
    return _too_much(demand, boxes, MOST_BOXES, "boxes of a kernel") if boxes > MOST_BOXES else None


def _boxes(loops: _Loops, tile: Mapping[str, int]) -> int:
    """Return the boxes of a kernel, whose loops run whole where the tile does not say otherwise."""
    return prod(-(-loops[name].extent // size) for name, size in tile.items())


def _broken(demand: Demand, name: str, size: int, loops: Sequence[_Loop]) -> CompileError:
    """Return the error of a size that a loop has in none of the ways that take the sizes before."""
    most = max(loop.extent for loop in loops)
    if size > most:
        return _too_much(demand, size, most, f"indices that loop '{name}' has on a tile")
    whole = sorted({loop.extent for loop in loops if not loop.is_tileable})
    return DemandError(
        f"demand '{demand}': found {size} for loop '{name}', which its kernels run whole; expected "
        f"{' or '.join(map(str, whole))}"
    )


def _too_much(demand: Demand, wanted: int, limit: int, unit: str) -> InfeasibleDemandError:
    what = f"demand '{demand}'"
    return InfeasibleDemandError(what, demand=wanted, limit=limit, unit=unit, changes=())


def _kernels(found: Alternatives, number: int) -> Iterator[_Loops]:
    """Yield the loops of each way to compute a class."""
    by_node = implementations_by_node(found)
    for node in found.nodes:
        if node.nest is None or number not in (node.results or (node.result,)):
            continue
        memories = (Memory.DRAM,) * len(node.args)
        for implementation in by_node.get(node.number, ()):
            kernel = kernel_of(found, node, implementation, memories, Memory.DRAM, found.mesh)
            tileable = tileable_dims(kernel)
            yield {
                dim.name: _Loop(kernel.nest.dims[place].extent, place in tileable)
                for place, dim in enumerate(node.nest.dims)
            }
