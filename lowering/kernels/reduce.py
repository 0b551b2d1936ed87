"""Reductions and pooling."""

from __future__ import annotations

from tilewright.dtypes import DType
from tilewright.extract.kernel import Family, reduces_wide, staging_shape
from tilewright.lowering.emit import View
from tilewright.lowering.kernels.context import KernelContext, LoopBox
from tilewright.lowering.kernels.registry import generates


@generates(Family.REDUCE)
def reduce(context: KernelContext) -> None:
    """Emit one RED for each box; boxes after the first of a result accumulate.

    Half-precision sums over several boxes are kept in f32 and rounded once. Windows of a pool are two more
    reduced dimensions of the view.
    """
    kernel = context.kernel
    wide = reduces_wide(kernel, context.tiling)
    for box in context.boxes():
        if box.is_first:
            context.begin_result()
        source = context.operand(0, box)
        result = context.temporary("total", DType.F32, box) if wide else context.target(box)
        if wide:
            source = _widened(context, box, source)
        context.builder.reduce(
            kernel.nest.combine, box.sizes, result, source, accumulate=not box.is_first
        )
        if box.is_last:
            if wide:
                domain, own = context.parallel(box)
                total = context.temporary("total", DType.F32, own)
                context.builder.vector("cast", domain, context.target(own), (total,))
            context.store_result(box)


def _widened(context: KernelContext, box: LoopBox, source: View) -> View:
    """Copy the operand's box to f32 and return the access of the copy.

    The copy is dense over the tensor's dimensions, so overlapping windows are cast once.
    """
    kernel = context.kernel
    tensor = kernel.nest.operands[0]
    ranges = kernel.nest.box(tensor, box.starts, box.sizes)
    lengths = tuple(high - low for low, high in ranges)
    origin = tuple(low for low, _ in ranges)
    wide = context.pool("wide", DType.F32, staging_shape(kernel, context.tiling, 0))
    narrow = context.operand_box(0, box)
    assert narrow.buffer == source.buffer, "the box is staged already"
    context.builder.vector("cast", lengths, wide.box((0,) * len(lengths), context.rank), (narrow,))
    return context.loop_view(wide, tensor, box, origin)
