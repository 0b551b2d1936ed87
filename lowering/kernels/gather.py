"""Table look-ups."""

from __future__ import annotations

from dataclasses import replace

from tilewright.extract.kernel import Family, gather_loop
from tilewright.lowering.emit import View
from tilewright.lowering.kernels.context import KernelContext, LoopBox
from tilewright.lowering.kernels.registry import generates
from tilewright.lowering.kernels.vocabulary import mask_rows_of_others
from tilewright.rules.loopnest import DimMap, Term


@generates(Family.GATHER)
def gather(context: KernelContext) -> None:
    """Emit one GTH for each box.

    An instruction takes two indices or more; a box with a single one looks the same row up twice, into
    a buffer of two rows, and copies one of them.
    """
    loop = gather_loop(context.kernel)
    for box in context.boxes():
        context.begin_result()
        if box.sizes[loop] > 1:
            _look_up(context, box, context.target(box), context.operand(1, box))
        else:
            _look_up_single(context, box)
        if context.kernel.vocabulary:
            mask_rows_of_others(context, box)
        context.store_result(box)


def _look_up(context: KernelContext, box: LoopBox, dst: View, indices: View) -> None:
    """Emit the GTH; all views are over the loops of the box."""
    kernel = context.kernel
    loop = gather_loop(kernel)
    table_map = tuple(
        DimMap(d.size, (Term(loop, 1),)) if d.whole or i == kernel.attrs["axis"] else d
        for i, d in enumerate(kernel.nest.operands[0])
    )
    # row 0: the index, not the loop, chooses the row
    start = replace(box, starts=tuple(0 if d == loop else s for d, s in enumerate(box.starts)))
    table = context.loop_view(context.operands[0], table_map, start, (0,) * len(table_map))
    order = (loop, *(d for d in range(len(box.sizes)) if d != loop))
    views = tuple(
        replace(v, strides=tuple(v.strides[d] for d in order)) for v in (dst, table, indices)
    )
    axis = kernel.attrs["axis"]
    assert isinstance(axis, int)
    rows = kernel.operand_types[0].shape[axis]
    domain = tuple(box.sizes[d] for d in order)
    context.builder.gather(domain, views[0], views[1], views[2], rows)


def _look_up_single(context: KernelContext, box: LoopBox) -> None:
    kernel, builder = context.kernel, context.builder
    loop = gather_loop(kernel)
    index = context.operand(1, box)
    pair = context.pool("pair", index.dtype, (2,)).box((0,), context.rank)
    builder.copy((2,), pair, replace(index, strides=(0,)))
    doubled = replace(box, sizes=tuple(2 if d == loop else n for d, n in enumerate(box.sizes)))
    ranges = kernel.nest.box(kernel.nest.result, doubled.starts, doubled.sizes)
    shape = tuple(high - low for low, high in ranges)
    storage = context.pool("twice", kernel.result_type.dtype, shape)
    origin = tuple(low for low, _ in ranges)
    twice = context.loop_view(storage, kernel.nest.result, doubled, origin)
    steps = tuple(pair.strides[0] if d == loop else 0 for d in range(len(box.sizes)))
    _look_up(context, doubled, twice, replace(pair, strides=steps))
    builder.copy(box.sizes, context.target(box), twice)
