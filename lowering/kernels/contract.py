"""Matrix products and convolutions."""

from __future__ import annotations

from tilewright.extract.kernel import Family, accumulator_type, epilogue_operands, value_types
from tilewright.extract.plan import Memory
from tilewright.graph import dequantises, parse_pipeline
from tilewright.lowering.emit import View
from tilewright.lowering.kernels.context import KernelContext, LoopBox
from tilewright.lowering.kernels.dequantised import Dequantised
from tilewright.lowering.kernels.registry import generates
from tilewright.lowering.kernels.scattered import scatter_sums
from tilewright.lowering.kernels.steps import run_steps, value_view


@generates(Family.CONTRACT)
def contract(context: KernelContext) -> None:
    """Emit one MM for each box, then the epilogue on each finished result box.

    The views over the loops give every dimension its role in the MM: a convolution's `x` walks
    along h and r by different multiples of a row, so that windows are never copied out. The second
    operand (the weights) is the stationary one.
    """
    if context.kernel.scatter is not None:
        scatter_sums(context, context.kernel.scatter)
        return
    weights = Dequantised(context) if dequantises(context.kernel.attrs) else None
    boxes = _in_parts(context, tuple(context.boxes()))
    for box, following in zip(boxes, (*boxes[1:], None), strict=True):
        if box.is_first and box.starts == box.whole.starts:
            context.begin_result()
            for part in box.siblings:
                for number in (1, 0):
                    context.operand(number, part)
        right = context.operand(1, box) if weights is None else weights.view(box)
        _product(context, box, right)
        context.box_done(0, 1)
        if weights is not None and following is not None:
            weights.view(following)  # in front of an epilogue that waits for this product
        if box.is_last:
            finish_sums(context, box)
            context.store_result(box)


def _in_parts(context: KernelContext, boxes: tuple[LoopBox, ...]) -> tuple[LoopBox, ...]:
    """Cut the first and the last box in parts, if the kernel may, along rows or columns of the result.

    Whichever belong to the operand of which more is loaded for a box: its parts come one after the other.
    """
    kernel, most = context.kernel, context.eagerness.parts
    if most == 1:
        return boxes
    own = kernel.nest.result_loops
    loads = [0, 0]
    for n in (0, 1):
        if kernel.operand_memory[n] is Memory.DRAM:
            loads[n] = context.staged_bytes(n)
    longer = loads.index(max(loads))
    dims = [d for d in kernel.nest.operand_loops[longer] if d in own]
    dim = max(dims, key=lambda d: boxes[0].sizes[d])
    first, *between = boxes
    last = between.pop().parts(dim, most) if between else ()
    return (*first.parts(dim, most), *between, *last)


def _product(context: KernelContext, box: LoopBox, right: View) -> None:
    """Emit the product of one box into the accumulator."""
    kernel = context.kernel
    left = context.operand(0, box)
    accumulator = value_view(context, accumulator_type(kernel), box)
    context.multiply(
        *(box.sizes, accumulator, left, right),
        on_matrix_unit=kernel.on_matrix_unit,
        accumulate=not box.is_first,
    )


def finish_sums(context: KernelContext, box: LoopBox) -> None:
    """Round the accumulator to the product's type and run the epilogue."""
    kernel = context.kernel
    domain, result_box = context.parallel(box)
    accumulator, product, *types = value_types(kernel)
    value = value_view(context, product, result_box)
    if accumulator is not product:
        source = value_view(context, accumulator, result_box)
        context.builder.vector("cast", domain, value, (source,))
    epilogue = str(kernel.attrs.get("epilogue", ""))
    if epilogue:
        assert len(parse_pipeline(epilogue)) == len(types)
        third = tuple(context.operand(n, result_box) for n in epilogue_operands(kernel))
        run_steps(context, epilogue, tuple(types), (value, *third), result_box, domain)
