"""Spatial splits whose windows overlap: neighbours exchange the rows that both need."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from tilewright.graph import Op
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.reference import AnyArray
from tilewright.rules.halo import HALO, NO_AXIS, HaloDim, halo_dims, halo_margins
from tilewright.rules.loopnest import LoopNest
from tilewright.rules.partition.checking import macro_meaning
from tilewright.rules.partition.ruleset import AxisUse, partition
from tilewright.rules.partition.samples import Sample
from tilewright.rules.partition.spmd import Pieces, run_tile, tiles_of
from tilewright.rules.splitting import Strategy, localise

_GSPMD = "GSPMD (arXiv 2105.04663), section 4.3: halo exchange"


@partition.macro(source=_GSPMD)
def conv_space_halo(op: Op, nest: LoopNest, size: int) -> Iterable[AxisUse]:
    """conv(X[h/p] with the rows of both neighbours that windows reach, W) = Y[h/p], for each of h and w.

    The input has `stride` times the rows of the output, so that all tiles need equally many rows before
    and after their own; no more than the neighbours have.
    """
    if op.kind == "conv":
        yield from _spatial_uses(conv_space_halo.__name__, nest, size, ("h", "w"))


@partition.macro(source=_GSPMD)
def pool_space_halo(op: Op, nest: LoopNest, size: int) -> Iterable[AxisUse]:
    """pool(X[h/p] with the rows of both neighbours that windows reach) = Y[h/p], for each of h and w."""
    if op.kind == "pool":
        yield from _spatial_uses(pool_space_halo.__name__, nest, size, ("h", "w"))


def _spatial_uses(
    name: str, nest: LoopNest, size: int, loops: tuple[str, ...]
) -> Iterable[AxisUse]:
    """Yield the split of each of some loops by an axis that exchanges halos."""
    if nest.combine not in ("sum", "max"):
        return
    for number, loop in enumerate(nest.dims):
        if loop.name not in loops or loop.extent < 2 or loop.extent % size:
            continue
        states = tuple(nest.cut_dim(tensor, number) for tensor in nest.operands[1:])
        result = nest.cut_dim(nest.result, number)
        cut = _haloed_dim(nest, number, size)
        known = tuple(state for state in states if state is not None)
        if cut is not None and result is not None and len(known) == len(states):
            yield AxisUse(
                rule=f"{partition.name}.{name}",
                split_dim=number,
                operands=(cut, *known),
                result=result,
                macro=HALO,
            )


def _haloed_dim(nest: LoopNest, loop: int, size: int) -> int | None:
    """Return the dimension of operand 0 that `size` tiles may share out with halos; None if none."""
    found = None
    for dim, dim_map in enumerate(nest.operands[0]):
        if not any(term.dim == loop for term in dim_map.terms):
            continue
        margins = halo_margins(nest, dim_map, loop)
        if margins is None or margins == (0, 0) or dim_map.size % size:
            return None
        if max(margins) > dim_map.size // size:
            return None
        found = dim
    return found


def local_inputs(
    dims: tuple[HaloDim, ...], mesh: LogicalMesh, pieces: Pieces, neutral: float
) -> dict[tuple[int, ...], AnyArray]:
    """Return what each tile's kernel reads of operand 0: the meaning of the macro in collectives.

    One dimension after the other, each tile sends its last `low` elements to its successor on the axis
    and its first `high` ones to its predecessor; the tiles at the ends have neutral elements instead.
    Later dimensions send what came with the earlier ones, so corners travel in two steps.

    Args:
        dims: See `tilewright.rules.halo.halo_dims`.
        mesh: The mesh.
        pieces: Each tile's piece.
        neutral: What lies outside the image: 0 of a sum, minus infinity of a maximum.
    """
    held = dict(pieces)
    for dim, item in enumerate(dims):
        if item.low or item.high:
            held = {c: _surrounded(held, c, dim, item, neutral) for c in held}
    return held


@macro_meaning(HALO)
def run_with_halo(
    sample: Sample, mesh: LogicalMesh, strategy: Strategy, held: tuple[Pieces, ...]
) -> Pieces:
    """Exchange halos of operand 0, then run every tile on what it has."""
    dims = halo_dims(sample.nest, mesh, strategy.split_dims, strategy.macros)
    neutral = -np.inf if sample.nest.combine == "max" else 0.0
    surrounded = local_inputs(dims, mesh, held[0], neutral)
    local = localise(sample.nest, mesh, strategy.split_dims, strategy.macros)
    return {
        tile: run_tile(sample.op, local, [surrounded[tile], *(part[tile] for part in held[1:])])
        for tile in tiles_of(mesh)
    }


def _surrounded(
    held: Pieces, tile: tuple[int, ...], dim: int, item: HaloDim, neutral: float
) -> AnyArray:
    """Return what a tile holds with what comes before and after it on one dimension."""
    own = held[tile]
    low, high = _filled(own, dim, item.low, neutral), _filled(own, dim, item.high, neutral)
    if item.axis != NO_AXIS:
        before, after = (held.get(_moved(tile, item.axis, step)) for step in (-1, 1))
        if before is not None:
            low = np.take(before, range(item.size - item.low, item.size), dim)
        if after is not None:
            high = np.take(after, range(item.high), dim)
    return np.concatenate((low, own, high), axis=dim)


def _moved(coordinates: tuple[int, ...], axis: int, step: int) -> tuple[int, ...]:
    return (*coordinates[:axis], coordinates[axis] + step, *coordinates[axis + 1 :])


def _filled(like: AnyArray, dim: int, length: int, value: float) -> AnyArray:
    shape = (*like.shape[:dim], length, *like.shape[dim + 1 :])
    return np.full(shape, value, like.dtype)
