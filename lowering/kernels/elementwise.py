"""Map pipelines."""

from __future__ import annotations

from tilewright.extract.kernel import Family, value_types
from tilewright.lowering.kernels.context import KernelContext
from tilewright.lowering.kernels.registry import generates
from tilewright.lowering.kernels.steps import run_steps


@generates(Family.MAP)
def elementwise(context: KernelContext) -> None:
    """Emit one VEC for each step; the first takes all operands, the others work in place.

    Broadcast dimensions have stride 0. Values of another type than the result's go through a
    buffer for that type.
    """
    kernel = context.kernel
    for box in context.boxes():
        context.begin_result()
        sources = tuple(context.operand(i, box) for i in range(len(kernel.operand_types)))
        run_steps(context, str(kernel.attrs["fn"]), value_types(kernel), sources, box, box.sizes)
        context.store_result(box)
