"""Gathered operands: a product whose operand arrives in chunks while earlier chunks are multiplied.

An axis of p tiles splits one loop of a product; an operand without that loop is needed whole on every tile,
but each tile holds one p-th of it. Fused attention gathers two, keys and values, along one loop. Every
tile cuts its piece into the same chunks. In each step all tiles of the axis multicast a chunk into one of
two buffers, which then holds p chunks, one of each piece, while the step before is multiplied:

    A[m, k], piece c on tile c    ->    [c m' | k],   m = c (m / p) + m'     step s: all c, m' in chunk s

So the gathered loop becomes two: `c` over the pieces, never cut, and m' within a piece, cut by the tiling.
Chunks are boxes of the kernel like those of an operand that is streamed from DRAM.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tilewright.hwmodel.mesh import LogicalMesh, Sharding
from tilewright.rules.loopnest import DimMap, LoopDim, LoopNest, OperandMap, Term

GATHERED = "gathered"
"""Name of the way in `AxisUse.macro`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gather:
    """Which operands of a product arrive in chunks, and along what."""

    axis: int
    """The mesh axis whose tiles hold the pieces."""
    size: int
    """Tiles of the axis, p."""
    dims: tuple[tuple[int, int], ...]
    """(operand, its dimension that is split into pieces) of each that is gathered."""
    loop: int
    """The loop that runs along all these dimensions."""

    @property
    def operands(self) -> tuple[int, ...]:
        """The operands that are gathered."""
        return tuple(operand for operand, _ in self.dims)


def find_gather(
    nest: LoopNest,
    mesh: LogicalMesh,
    split_dims: tuple[int, ...],
    operands: tuple[Sharding, ...],
    macros: tuple[str, ...],
) -> Gather | None:
    """Return what a strategy gathers; None if nothing.

    Args:
        nest: The annotation, in the global view.
        mesh: Gives the axis sizes.
        split_dims: The loop that each axis splits.
        operands: How the operands lie.
        macros: The macro of each axis.
    """
    if GATHERED not in macros:
        return None
    axis = macros.index(GATHERED)
    dims = tuple(
        (number, sharding[axis])
        for number, (tensor, sharding) in enumerate(zip(nest.operands, operands, strict=True))
        if sharding[axis] >= 0 and not _depends(tensor, split_dims[axis])
    )
    loops = {term.dim for number, dim in dims for term in nest.operands[number][dim].terms}
    assert len(loops) == 1, "an axis that gathers splits operands without its loop along one other"
    return Gather(axis=axis, size=mesh.sizes[axis], dims=dims, loop=loops.pop())


def _depends(tensor: OperandMap, loop: int) -> bool:
    return any(term.dim == loop for dim in tensor for term in dim.terms)


def is_sound_gather(
    nest: LoopNest,
    mesh: LogicalMesh,
    split_dims: tuple[int, ...],
    operands: tuple[Sharding, ...],
    macros: tuple[str, ...],
) -> bool:
    """Whether a strategy gathers nothing, or pieces that are together what a tile's loops need.

    A later axis on the same loop would cut the pieces where the tile needs them whole, and two axes
    that gather would need one another's chunks.
    """
    gather = find_gather(nest, mesh, split_dims, operands, macros)
    if gather is None:
        return True
    return macros.count(GATHERED) == 1 and gather.loop not in split_dims[gather.axis + 1 :]


def cut_dim(tensor: OperandMap, loop: int) -> int | None:
    """Return the dimension of a tensor along which a gathered loop runs; None if there is none."""
    return next((i for i, dim in enumerate(tensor) if _depends((dim,), loop)), None)


def chunk_nest(local: LoopNest, loop: int, size: int) -> LoopNest:
    """Return a tile's nest with a loop as two: the pieces (last loop), and inside a piece.

    Tensors get one more dimension where they have the loop: [m] becomes [p, m / p].

    Args:
        local: The nest of one tile in which the loop is whole.
        loop: The loop that is cut.
        size: Number of pieces, p.
    """
    whole, pieces = local.dims[loop], len(local.dims)
    assert whole.extent % size == 0, f"{whole.extent} is not divisible by {size}"
    length = whole.extent // size

    def cut(tensor: OperandMap) -> OperandMap:
        dim = cut_dim(tensor, loop)
        if dim is None:
            return tensor
        assert tensor[dim] == DimMap(whole.extent, (Term(loop, 1),)), "a plain dimension"
        halves = (DimMap(size, (Term(pieces, 1),)), DimMap(length, (Term(loop, 1),)))
        return (*tensor[:dim], *halves, *tensor[dim + 1 :])

    dims = list(local.dims)
    dims[loop] = replace(whole, extent=length)
    return replace(
        local,
        dims=(*dims, LoopDim(f"{whole.name}_piece", size, whole.role)),
        operands=tuple(cut(tensor) for tensor in local.operands),
        result=cut(local.result),
    )


def cut_shape(shape: tuple[int, ...], dim: int | None, length: int) -> tuple[int, ...]:
    """Return a shape with a dimension in pieces of `length`.

    >>> cut_shape((12, 5), 0, 4)
    (3, 4, 5)
    """
    if dim is None:
        return shape
    return (*shape[:dim], shape[dim] // length, length, *shape[dim + 1 :])


def cut_sharding(sharding: Sharding, dim: int | None) -> Sharding:
    """Return the sharding of a tensor one of whose dimensions is cut into pieces.

    >>> cut_sharding((0, -1, 1), 0)
    (0, -1, 2)
    """
    if dim is None:
        return sharding
    return tuple(state + 1 if state > dim else state for state in sharding)
