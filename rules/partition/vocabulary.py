"""Look-ups in a table whose rows are shared out: masked on every tile, then summed."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from tilewright.graph import Op
from tilewright.hwmodel.mesh import PARTIAL_SUM, REPLICATED, LogicalMesh
from tilewright.reference import AnyArray
from tilewright.rules.loopnest import LoopNest
from tilewright.rules.partition.checking import macro_meaning
from tilewright.rules.partition.ruleset import NOT_SPLIT, AxisUse, partition
from tilewright.rules.partition.samples import Sample
from tilewright.rules.partition.spmd import Pieces, run_tile, tiles_of
from tilewright.rules.splitting import Strategy, localise
from tilewright.rules.vocabulary import VOCABULARY, vocabulary_axes


@partition.macro(source="Megatron-LM (arXiv 1909.08053), section 3: parallel embedding")
def vocabulary_of_table(op: Op, nest: LoopNest, size: int) -> Iterable[AxisUse]:
    """gather(T[v/p, d], I) with 0 for rows of other tiles = a part of the sum Y[i, d].

    All tiles of the axis know all indices; each row is on one of them.
    """
    if op.kind != "gather":
        return
    axis = op.integer("axis")
    rows = nest.operands[0][axis].size
    if rows >= size and rows % size == 0:
        yield AxisUse(
            rule=f"{partition.name}.{vocabulary_of_table.__name__}",
            split_dim=NOT_SPLIT,
            operands=(axis, REPLICATED),
            result=PARTIAL_SUM,
            macro=VOCABULARY,
        )


@macro_meaning(VOCABULARY)
def run_with_masks(
    sample: Sample, mesh: LogicalMesh, strategy: Strategy, held: tuple[Pieces, ...]
) -> Pieces:
    """Look up on every tile what it has; the sum over the tiles is everything."""
    axis = sample.op.integer("axis")
    local = localise(sample.nest, mesh, strategy.split_dims, strategy.macros)
    found = {}
    for tile in tiles_of(mesh):
        table, indices = (part[tile] for part in held)
        number = 0
        for a in vocabulary_axes(strategy.macros):
            number = number * mesh.sizes[a] + tile[a]
        own, is_here = local_indices(indices, number * table.shape[axis], table.shape[axis])
        value = run_tile(sample.op, local, [table, own])
        mask = is_here.reshape((-1, *(1,) * (value.ndim - axis - 1)))
        found[tile] = np.where(mask, value, 0).astype(value.dtype)
    return found


def local_indices(indices: AnyArray, first: int, rows: int) -> tuple[AnyArray, AnyArray]:
    """Return the row of each index in a tile's part of the table, and whether it is there.

    Args:
        indices: Rows of the whole table.
        first: Row of the whole table that is the first here.
        rows: Number of rows here; rows of others become the nearest one.
    """
    shifted = indices - first
    own = np.clip(shifted, 0, rows - 1)
    return own, own == shifted
