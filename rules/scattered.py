"""Scattered sums: a product with a contracting split whose partial sums leave box by box.

Axes of p tiles together split the contracting loop, so each tile has a part of every sum. Whole, these parts
take as much room as the result on every tile, and a reduce-scatter waits for the last of them. Here each box
of parts is sent while the next one is multiplied: to every tile the rows that it will hold and adds up. A box
has rows of every tile's piece of the result:

    C[m, n]    ->    [c m' | n],   m = c (m / p) + m'     a box: all c, some m' and n

So, as with gathered operands, the loop m becomes two: c over the pieces, never cut, and m' within a piece. On
several axes, the first exchanges boxes of p pieces for sums of p / p_1, the next one those, and so on.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from tilewright.dtypes import DType
from tilewright.hwmodel.mesh import LogicalMesh, Sharding
from tilewright.rules.gathered import cut_dim
from tilewright.rules.loopnest import LoopNest
from tilewright.rules.partition.ruleset import NOT_SPLIT

SCATTERED = "scattered"
"""Name of the way in `AxisUse.macro`."""

ROWS = "m"
"""Name of the loop of a product along which its sums are scattered."""

_COLUMNS = "n"
"""Name of the other loop of its result that is not one over a batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scatter:
    """Along what the sums of a product are scattered, and over which tiles."""

    axes: tuple[int, ...]
    """The mesh axes whose tiles have parts of the sums, the outermost first."""
    sizes: tuple[int, ...]
    """Tiles of each axis."""
    loop: int
    """The loop that becomes two."""
    dim: int
    """The dimension of the result that runs along it."""

    @property
    def size(self) -> int:
        """Tiles of all axes together, p."""
        return prod(self.sizes)

    def pieces(self, stage: int) -> int:
        """Return how many pieces of the result a tile has sums of before an axis exchanges them."""
        return prod(self.sizes[stage:])


def find_scatter(nest: LoopNest, mesh: LogicalMesh, macros: tuple[str, ...]) -> Scatter | None:
    """Return what a strategy scatters; None if nothing.

    Args:
        nest: The annotation, in the global view.
        mesh: Gives the axis sizes.
        macros: The macro of each axis.
    """
    if SCATTERED not in macros:
        return None
    axes = tuple(axis for axis, macro in enumerate(macros) if macro == SCATTERED)
    loop = [dim.name for dim in nest.dims].index(ROWS)
    dim = cut_dim(nest.result, loop)
    assert dim is not None, "a product has the rows of its result"
    return Scatter(axes=axes, sizes=tuple(mesh.sizes[axis] for axis in axes), loop=loop, dim=dim)


def is_sound_scatter(
    nest: LoopNest, mesh: LogicalMesh, split_dims: tuple[int, ...], macros: tuple[str, ...]
) -> bool:
    """Whether a strategy scatters nothing, or boxes that hold rows of all pieces of the result.

    A later axis on the same loop would cut the pieces. Operands that are gathered along that loop have pieces
    of their own. An axis that leaves parts of large sums, or shares out nothing, makes more work of them than
    one that scatters them.
    """
    scatter = find_scatter(nest, mesh, macros)
    if scatter is None:
        return True
    others = [axis for axis, size in enumerate(mesh.sizes) if size > 1 and axis not in scatter.axes]
    terms = split_dims[scatter.axes[0]]
    return scatter.loop not in split_dims[scatter.axes[0] :] and not any(
        macros[axis] or split_dims[axis] in (NOT_SPLIT, terms) for axis in others
    )


def sums_bytes(nest: LoopNest, result: DType, makers: int = 1) -> int:
    """Return the bytes of a product's sums on each of the tiles that share its rows and columns out.

    Products add up in 32 bits at least. Of a batch, one product counts: axes may share the others out.

    Args:
        nest: The annotation of the product.
        result: Its element type.
        makers: How many tiles share its rows and columns out.
    """
    itemsize_bytes = max(result.itemsize_bytes, DType.F32.itemsize_bytes)
    sums = prod(dim.extent for dim in nest.dims if dim.name in (ROWS, _COLUMNS))
    return sums * itemsize_bytes // makers


def makers_of(mesh: LogicalMesh, macros: tuple[str, ...]) -> int:
    """Return how many tiles share out rows and columns where sums are scattered, see `is_sound_scatter`."""
    return prod(n for n, own in zip(mesh.sizes, macros, strict=True) if own != SCATTERED)


def scattered_sharding(sharding: Sharding, scatter: Scatter | None) -> Sharding:
    """Return how the result of a product lies whose partial sums are scattered.

    >>> scattered_sharding((1, -2), Scatter(axes=(1,), sizes=(4,), loop=0, dim=0))
    (1, 0)
    """
    if scatter is None:
        return sharding
    return tuple(
        scatter.dim if axis in scatter.axes else state for axis, state in enumerate(sharding)
    )
