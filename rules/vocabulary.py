"""Tables split on the axis that a gather looks up: each tile has some of the rows."""

from __future__ import annotations

from dataclasses import replace

from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.rules.loopnest import LoopNest

VOCABULARY = "vocabulary"
"""Name of the way in `AxisUse.macro`: look up what the tile has, give zeros for the rest."""


def vocabulary_axes(macros: tuple[str, ...]) -> tuple[int, ...]:
    """Return the mesh axes that split the table's rows, the most significant first."""
    return tuple(axis for axis, macro in enumerate(macros) if macro == VOCABULARY)


def with_table_rows(local: LoopNest, mesh: LogicalMesh, macros: tuple[str, ...]) -> LoopNest:
    """Return a tile's nest of a gather with its share of the table's rows."""
    factor = 1
    for axis in vocabulary_axes(macros):
        factor *= mesh.sizes[axis]
    table = tuple(
        replace(dim, size=dim.size // factor) if dim.whole else dim for dim in local.operands[0]
    )
    return replace(local, operands=(table, *local.operands[1:]))
