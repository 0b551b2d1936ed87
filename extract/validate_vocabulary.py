"""An independent check of shared-out tables: parts in order of the tiles, and every row on one of them."""

from __future__ import annotations

from collections.abc import Callable

from tilewright.errors import CompileError
from tilewright.extract.kernel import Kernel
from tilewright.extract.plan import PlannedOp
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.rules.vocabulary import VOCABULARY

Interval = tuple[int, int]


def check_vocabulary(
    planned: PlannedOp,
    kernel: Kernel,
    mesh: LogicalMesh,
    tile: tuple[int, ...],
    held: Interval,
    fail: Callable[[str], CompileError],
) -> None:
    """Check a tile's part of a table against the row that the kernel takes for its first one.

    Args:
        planned: The op, a gather.
        kernel: What each tile runs.
        mesh: The mesh.
        tile: The tile's coordinates.
        held: The rows that the tile holds.
        fail: Makes the error.

    Raises:
        CompileError: The kernel works on other rows, or tiles that hold the same rows would both add them.
    """
    axes = tuple(a for a, macro in enumerate(planned.macros) if macro == VOCABULARY)
    axis = planned.op.integer("axis")
    rows = kernel.operand_types[0].shape[axis]
    if planned.op.kind != "gather" or kernel.vocabulary != axes:
        raise fail(
            f"its kernel shares out rows over axes {kernel.vocabulary}, the plan over {axes}"
        )
    number = 0
    for a in axes:
        number = number * mesh.sizes[a] + tile[a]
    if held != (number * rows, (number + 1) * rows):
        raise fail(
            f"tile {tile} looks up {rows} rows from {number * rows} on and holds {list(held)}"
        )
    split = [a for a, state in enumerate(planned.deliveries[0].after.sharding) if state == axis]
    if tuple(split) != axes:
        raise fail(f"the table's rows are split by axes {split}, results are summed over {axes}")
