"""Halos: what a tile's windows touch beside its own piece of an image.

A convolution or pool whose output dimension an axis splits reads windows that reach over the borders of the
tile's piece of the input. When the input has `stride` times the output's size, every tile needs the same
number of rows of its predecessor and of its successor on the axis:

    piece i is [i n, (i + 1) n); its windows touch [i n - low, (i + 1) n + high)

The kernel then runs on `low + n + high` rows without padding; what lies outside the image is neutral.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tilewright.hwmodel.mesh import LogicalMesh, Sharding
from tilewright.rules.loopnest import DimMap, LoopNest, Role

HALO = "halo"
"""Name of the way in `AxisUse.macro`."""

NO_AXIS = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class HaloDim:
    """One dimension of the input: the tile's piece and what surrounds it.

    On an axis of the mesh, the surroundings are the neighbours' elements, neutral at both ends. Without an
    axis they are padding on every tile.
    """

    axis: int
    """The mesh axis that splits the dimension and whose neighbours give the halo, or NO_AXIS."""
    size: int
    """Elements of the piece."""
    low: int
    """Elements before the piece."""
    high: int
    """Elements after it."""

    @property
    def whole(self) -> int:
        """Elements of piece and surroundings."""
        return self.low + self.size + self.high


def halo_margins(nest: LoopNest, dim_map: DimMap, loop: int) -> tuple[int, int] | None:
    """Return how many elements before and after its piece a tile touches when an axis splits a loop.

    Args:
        nest: The annotation, in the global view.
        dim_map: A dimension of an operand.
        loop: The loop that is split.

    Returns:
        (before, after), whatever the number of tiles; None when the tiles' needs differ: the dimension
        is not `stride` times the loop's extent, or something other than a window steps through it.
    """
    own = [term for term in dim_map.terms if term.dim == loop]
    others = [term for term in dim_map.terms if term.dim != loop]
    if dim_map.whole or len(own) != 1 or not others:
        return None
    stride = own[0].stride
    window = all(t.stride > 0 and nest.dims[t.dim].role is Role.REDUCTION for t in others)
    if not window or stride * nest.dims[loop].extent != dim_map.size:
        return None
    span = sum(t.stride * (nest.dims[t.dim].extent - 1) for t in others)
    return max(0, -dim_map.offset), max(0, dim_map.offset + span + 1 - stride)


def halo_dims(
    nest: LoopNest, mesh: LogicalMesh, split_dims: tuple[int, ...], macros: tuple[str, ...]
) -> tuple[HaloDim, ...]:
    """Return the surroundings of a tile's piece of operand 0, one entry for each dimension.

    Args:
        nest: The annotation, in the global view.
        mesh: Gives the axis sizes.
        split_dims: The loop that each axis splits.
        macros: The macro of each axis.

    Returns:
        Nothing when no axis exchanges halos.
    """
    if HALO not in macros:
        return ()
    starts, extents = (0,) * len(nest.dims), tuple(d.extent for d in nest.dims)
    touched = nest.box(nest.operands[0], starts, extents)
    found = []
    for dim_map, (first, last) in zip(nest.operands[0], touched, strict=True):
        size, axis = dim_map.size, NO_AXIS
        low, high = max(0, -first), max(0, last - size)
        for number, (loop, macro) in enumerate(zip(split_dims, macros, strict=True)):
            if not any(term.dim == loop for term in dim_map.terms):
                continue
            size //= mesh.sizes[number]
            if macro == HALO:
                margins = halo_margins(nest, dim_map, loop)
                assert margins is not None, "the halo is the same for all tiles"
                axis, (low, high) = number, margins
        found.append(HaloDim(axis=axis, size=size, low=low, high=high))
    return tuple(found)


def are_halos_alone(operands: tuple[Sharding, ...], macros: tuple[str, ...]) -> bool:
    """Whether every axis that exchanges halos is the only one that splits its dimension of operand 0.

    With two axes on one dimension, neighbours would differ on both, which no send reaches.
    """
    return all(
        operands[0].count(state) == 1
        for state, macro in zip(operands[0] if operands else (), macros, strict=False)
        if macro == HALO
    )


def with_halo(local: LoopNest, dims: tuple[HaloDim, ...]) -> LoopNest:
    """Return a tile's nest on piece and surroundings: operand 0 grows, padding is gone.

    Args:
        local: The nest of one tile; dimensions with a halo may have any size.
        dims: See `halo_dims`.
    """
    grown = tuple(
        replace(dim_map, size=dim.whole, offset=dim_map.offset + dim.low)
        for dim_map, dim in zip(local.operands[0], dims, strict=True)
    )
    return replace(local, operands=(grown, *local.operands[1:]))
