"""Products whose partial sums are scattered box by box, each sent while the next one is multiplied."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from tilewright.graph import Op, dequantises
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.reference import AnyArray
from tilewright.rules.gathered import cut_dim
from tilewright.rules.loopnest import LoopNest
from tilewright.rules.partition.checking import macro_meaning
from tilewright.rules.partition.ruleset import AxisUse, partition
from tilewright.rules.partition.samples import Sample
from tilewright.rules.partition.spmd import Pieces, run_tile, tiles_of
from tilewright.rules.scattered import ROWS, SCATTERED, Scatter, find_scatter
from tilewright.rules.splitting import Strategy, localise

_SOURCE = (
    "overlap: Wang et al. (ASPLOS 2023); reduce-scatter behind a product: Flux (arXiv 2406.06858)"
)


@partition.macro(source=_SOURCE, is_for_large=True)
def scattered_matmul_rows(op: Op, nest: LoopNest, size: int) -> Iterable[AxisUse]:
    """A[m, k/p] B[k/p, n] = C[m/p, n]: parts of the sums of all rows, each tile adds up its own."""
    if op.kind != "matmul" or "epilogue" in op.attrs or dequantises(op.attrs):
        return  # an epilogue is of whole sums, a scale is small
    names = [dim.name for dim in nest.dims]
    terms, rows = names.index("k"), names.index(ROWS)
    if size < 2 or nest.dims[terms].extent % size or nest.dims[rows].extent % size:
        return
    dims = [cut_dim(operand, terms) for operand in nest.operands]
    result = cut_dim(nest.result, rows)
    assert result is not None, "a product has the rows of its result"
    yield AxisUse(
        rule=f"{partition.name}.{scattered_matmul_rows.__name__}",
        split_dim=terms,
        operands=tuple(-1 if dim is None else dim for dim in dims),
        result=result,
        macro=SCATTERED,
    )


@macro_meaning(SCATTERED)
def scatter_sums(
    sample: Sample, mesh: LogicalMesh, strategy: Strategy, held: tuple[Pieces, ...]
) -> Pieces:
    """Return what the tiles hold: their piece of the sum of what all tiles of the axes make.

    Axis by axis, each tile adds up what the others have of its part, in the order of the coordinates.
    """
    scatter = find_scatter(sample.nest, mesh, strategy.macros)
    assert scatter is not None, "the strategy scatters"
    local = localise(sample.nest, mesh, strategy.split_dims)
    sums: dict[tuple[int, ...], AnyArray] = {
        tile: run_tile(sample.op, local, [part[tile] for part in held]) for tile in tiles_of(mesh)
    }
    for axis in scatter.axes:
        sums = {tile: _own_sum(sums, tile, axis, mesh.sizes[axis], scatter) for tile in sums}
    return sums


def _own_sum(
    sums: Pieces, tile: tuple[int, ...], axis: int, size: int, scatter: Scatter
) -> AnyArray:
    line = [sums[(*tile[:axis], c, *tile[axis + 1 :])] for c in range(size)]
    parts = [np.split(part, size, scatter.dim)[tile[axis]] for part in line]
    return np.asarray(np.add.reduce(parts))
