"""Look-ups in a table whose rows are shared out over tiles: local rows, and zeros for the rows of others."""

from __future__ import annotations

from dataclasses import replace

from tilewright.dtypes import DType
from tilewright.extract.kernel import gather_loop
from tilewright.lowering.emit import Storage
from tilewright.lowering.kernels.context import KernelContext, LoopBox


def local_rows(context: KernelContext) -> Storage:
    """Emit the rows of the tile's part that indices stand for, and whether they do; return the rows.

        shifted = index - first row of the part
        rows    = shifted, at least 0 and less than the part's rows
        here    = rows == shifted

    The first row of a part is looked up by the tile's coordinates in a list that all tiles fill.
    """
    kernel, builder, rank = context.kernel, context.builder, context.rank
    axis = kernel.attrs["axis"]
    assert isinstance(axis, int)
    rows, type_ = kernel.operand_types[0].shape[axis], kernel.operand_types[1]
    indices = context.operands[1].box((0,), rank)
    starts = _fill_starts(context, rows)
    shifted, own = (context.pool(n, type_.dtype, type_.shape) for n in ("shifted", "rows"))
    here = context.pool("here", DType.BOOL, type_.shape).box((0,), rank)
    difference, row = shifted.box((0,), rank), own.box((0,), rank)
    zero = context.pool("zero", kernel.result_type.dtype, ())
    builder.vector("fill", (), zero.box((), rank), (), (0.0, 0.0))
    first = starts.view((0,), ((-1, 0),), rank)
    coefficients = [0] * rank
    step = type_.dtype.itemsize_bytes
    for number in reversed(kernel.vocabulary):
        coefficients[number] = step
        step *= builder.mesh.sizes[number]
    first = replace(first, coefficients=tuple(coefficients))
    builder.vector("sub", type_.shape, difference, (indices, first))
    builder.vector("clip_min", type_.shape, row, (difference,), (0.0, 0.0))
    builder.vector("clip_max", type_.shape, row, (row,), (float(rows - 1), 0.0))
    builder.vector("eq", type_.shape, here, (row, difference))
    return own


def _fill_starts(context: KernelContext, rows: int) -> Storage:
    """Fill the list of the parts' first rows, twice as much with each instruction."""
    kernel, builder, rank = context.kernel, context.builder, context.rank
    parts = 1
    for axis in kernel.vocabulary:
        parts *= builder.mesh.sizes[axis]
    starts = context.pool("starts", kernel.operand_types[1].dtype, (parts,))
    builder.vector("fill", (), starts.view((0,), (), rank), (), (0.0, 0.0))
    filled = 1
    while filled < parts:
        more = min(filled, parts - filled)
        target, source = starts.box((filled,), rank), starts.box((0,), rank)
        builder.vector("add_const", (more,), target, (source,), (float(filled * rows), 0.0))
        filled += more
    return starts


def mask_rows_of_others(context: KernelContext, box: LoopBox) -> None:
    """Emit the replacement of rows that are not in the tile's part by zeros."""
    kernel, rank = context.kernel, context.rank
    loop = gather_loop(kernel)
    here = context.pool("here", DType.BOOL, kernel.operand_types[1].shape)
    along = tuple((0, 1) if d == loop else (-1, 0) for d in range(len(box.sizes)))
    mask = here.view((box.starts[loop],), along, rank)
    zero = context.pool("zero", kernel.result_type.dtype, ())
    nothing = zero.view((), ((-1, 0),) * len(box.sizes), rank)
    target = context.target(box)
    context.builder.vector("where", box.sizes, target, (mask, target, nothing))
