"""Pipelines of element-wise functions in kernels: a vector instruction a step, up to the result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tilewright.dtypes import DType
from tilewright.extract.kernel import STATISTIC_STEPS
from tilewright.graph import STATISTIC_FUNCTIONS, parse_pipeline
from tilewright.lowering.emit import View
from tilewright.lowering.kernels.context import KernelContext, LoopBox


def run_steps(
    context: KernelContext,
    fn: str,
    types: tuple[DType, ...],
    first_sources: tuple[View, ...],
    box: LoopBox,
    domain: tuple[int, ...],
    *,
    view: Callable[[DType], View] | None = None,
    statistic: str = "statistic",
) -> None:
    """Emit a map pipeline that ends in the result.

    Args:
        context: The kernel; values whose type is not the result's are in buffers `value_<type>`.
        fn: The pipeline.
        types: Type of the value after each step.
        first_sources: Operands of the first step.
        box: The result box (no reduction loops).
        domain: Its sizes.
        view: Where a value of a type lies on the way; `value_view` unless the pipeline ends elsewhere.
        statistic: Buffer for what becomes of a statistic of rows.
    """
    sources, steps = first_sources, parse_pipeline(fn)
    if steps[0][0] in STATISTIC_FUNCTIONS:
        sources = (*sources[:-1], _deviation(context, steps[0][1], sources[-1], domain, statistic))
        steps = (("div", ()), *steps[1:])
    for (name, args), dtype in zip(steps, types, strict=True):
        dst = value_view(context, dtype, box) if view is None else view(dtype)
        numbers = () if name == "cast" else tuple(float(a) for a in args)
        immediates = (*numbers, 0.0, 0.0)[:2]
        context.builder.vector(name, domain, dst, sources, (immediates[0], immediates[1]))
        sources = (dst,)


def _deviation(
    context: KernelContext, args: tuple[str, ...], squares: View, domain: tuple[int, ...], name: str
) -> View:
    """Emit sqrt(scale s + epsilon) of a statistic, once for each of its values, and return its access."""
    sizes = tuple(n if step else 1 for n, step in zip(domain, squares.strides, strict=True))
    storage = context.pool(name, squares.dtype, sizes)
    dense = storage.box((0,) * len(sizes), context.rank)
    strides = tuple(
        step if kept else 0 for step, kept in zip(dense.strides, squares.strides, strict=True)
    )
    deviation, source = replace(dense, strides=strides), squares
    numbers = ((float(args[0]), 0.0), (float(args[1]), 0.0), (0.0, 0.0))
    for step, immediates in zip(STATISTIC_STEPS, numbers, strict=True):
        context.builder.vector(step, sizes, deviation, (source,), immediates)
        source = deviation
    return deviation


def value_view(context: KernelContext, dtype: DType, box: LoopBox) -> View:
    """Return where a value of some type lies on its way to the result."""
    if dtype is context.kernel.result_type.dtype:
        return context.target(box)
    return context.temporary(f"value_{dtype}", dtype, box)
