"""Softmax and normalisations over the last dimension."""

from __future__ import annotations

from tilewright.extract.kernel import Family, result_shape, row_type
from tilewright.lowering.emit import View
from tilewright.lowering.kernels.context import KernelContext, LoopBox
from tilewright.lowering.kernels.registry import generates
from tilewright.rules.loopnest import DimMap


@generates(Family.ROWS)
def rows(context: KernelContext) -> None:
    """Emit the row-wise sequence of the kind on boxes of whole rows.

        softmax    max | sub | exp | sum | div
        layernorm  sum | * 1/n | sub | square | sum | * 1/n | + epsilon | rsqrt | mul
        rmsnorm    square | sum | * 1/n | + epsilon | rsqrt | mul

    Half-precision rows are computed in f32 and rounded once. The norm of two tensors begins with their
    sum; these are never half-precision.
    """
    for box in context.boxes():
        context.begin_result()
        _box(context, box)
        context.store_result(box)


def _box(context: KernelContext, box: LoopBox) -> None:
    kernel, builder, domain = context.kernel, context.builder, box.sizes
    dtype = row_type(kernel)
    source = value = context.operand(0, box)
    target = context.target(box)
    if dtype is not kernel.operand_types[0].dtype:
        value = context.temporary("wide", dtype, box)
        builder.vector("cast", domain, value, (source,))
        source = value
    else:
        value = target
    if len(kernel.operand_types) == 2:
        assert value is target, "sums of half-precision rows are not fused"
        builder.vector("add", domain, value, (source, context.operand(1, box)))
        source = value
    if kernel.kind == "softmax":
        _softmax(context, box, source, value)
    else:
        _normalise(context, box, source, value)
    if value is not target:
        builder.vector("cast", domain, target, (value,))


def _statistic(context: KernelContext, box: LoopBox) -> tuple[View, tuple[int, ...]]:
    """Return the access of one value per row, broadcast over the row, and the domain of the rows."""
    kernel = context.kernel
    result = kernel.nest.result
    storage = context.pool(
        "statistic", row_type(kernel), (*result_shape(kernel, context.tiling)[:-1], 1)
    )
    ranges = kernel.nest.box(result, box.starts, box.sizes)
    origin = (*(low for low, _ in ranges[:-1]), 0)
    view = context.loop_view(storage, (*result[:-1], DimMap(1)), box, origin)
    along_row = {term.dim for term in result[-1].terms}
    per_row = tuple(1 if d in along_row else n for d, n in enumerate(box.sizes))
    return view, per_row


def _softmax(context: KernelContext, box: LoopBox, source: View, value: View) -> None:
    builder, domain = context.builder, box.sizes
    one, _ = _statistic(context, box)
    builder.reduce("max", domain, one, source, accumulate=False)
    builder.vector("sub", domain, value, (source, one))
    builder.vector("exp", domain, value, (value,))
    builder.reduce("sum", domain, one, value, accumulate=False)
    builder.vector("div", domain, value, (value, one))


def _normalise(context: KernelContext, box: LoopBox, source: View, value: View) -> None:
    """Emit a layer norm or RMS norm; `value` may be the source itself (rows in f32 already)."""
    builder, domain, kernel = context.builder, box.sizes, context.kernel
    one, per_row = _statistic(context, box)
    mean = 1.0 / kernel.result_type.shape[-1]
    if kernel.kind == "layernorm":
        builder.reduce("sum", domain, one, source, accumulate=False)
        builder.vector("mul_const", per_row, one, (one,), (mean, 0.0))
        builder.vector("sub", domain, value, (source, one))
        source = value
    squares = value
    if kernel.kind == "layernorm" or source is value:
        squares = context.temporary("square", row_type(kernel), box)
    builder.vector("square", domain, squares, (source,))
    builder.reduce("sum", domain, one, squares, accumulate=False)
    builder.vector("mul_const", per_row, one, (one,), (mean, 0.0))
    builder.vector("add_const", per_row, one, (one,), (_epsilon(kernel.attrs["epsilon"]), 0.0))
    builder.vector("rsqrt", per_row, one, (one,))
    builder.vector("mul", domain, value, (source, one))


def _epsilon(value: object) -> float:
    assert isinstance(value, int | float), "epsilon is a number"
    return float(value)
