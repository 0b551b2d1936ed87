"""Kernels that only move elements: transpose, slice, expand, concat, pad, identity."""

from __future__ import annotations

from dataclasses import replace

from tilewright.extract.kernel import Family, covers_part, is_staged
from tilewright.extract.plan import Memory
from tilewright.lowering.emit import Storage, View
from tilewright.lowering.kernels.context import KernelContext, LoopBox, padding_slabs
from tilewright.lowering.kernels.registry import generates


@generates(Family.COPY)
def copy(context: KernelContext) -> None:
    """Emit one copy for each box and operand, by the engine that reaches both ends.

        scratchpad -> scratchpad   VEC with permuted, scaled or zero strides
        DRAM       -> scratchpad   LD, directly into the result
        scratchpad -> DRAM         ST, directly from the operand
        DRAM       -> DRAM         LD into a staging box, ST from it

    Each operand of a concat gives its part of the box, if any. What a pad adds is filled in slabs.
    """
    fill = _fill_value(context)
    for box in context.boxes():
        for number in range(len(context.operands)):
            _copy_operand(context, number, box)
        if context.kernel.kind == "pad":
            _fill_slabs(context, box, fill)


def _copy_operand(context: KernelContext, number: int, box: LoopBox) -> None:
    kernel, builder = context.kernel, context.builder
    part = covered(context, number, box)
    if part is None:
        return
    tensor = kernel.nest.operands[number]
    storage, origin = context.operands[number], (0,) * len(tensor)
    staged = is_staged(kernel, number)
    if staged:
        storage, origin = context.staged(number, part)
    source = context.loop_view(storage, tensor, part, origin)
    target = _result_view(context, part)
    if kernel.result_memory is Memory.DRAM:
        builder.store(part.sizes, target, source, kernel.result_sharding)
    elif kernel.operand_memory[number] is Memory.DRAM and not staged:
        builder.load(part.sizes, target, source, kernel.operand_shardings[number])
    else:
        builder.copy(part.sizes, target, source)


def _result_view(context: KernelContext, part: LoopBox) -> View:
    result = context.kernel.nest.result
    return context.loop_view(context.result, result, part, (0,) * len(result))


def covered(context: KernelContext, number: int, box: LoopBox) -> LoopBox | None:
    """Return the part of a box for which an operand has elements; None if there are none."""
    if not covers_part(context.kernel):
        return box
    starts, sizes = list(box.starts), list(box.sizes)
    for own in context.kernel.nest.operands[number]:
        ((loop, stride),) = ((term.dim, term.stride) for term in own.terms)
        assert stride == 1, "operands of concat and pad are walked element by element"
        low = max(box.starts[loop], -own.offset)
        high = min(box.starts[loop] + box.sizes[loop], own.size - own.offset)
        if low >= high:
            return None
        starts[loop], sizes[loop] = low, high - low
    return replace(box, starts=tuple(starts), sizes=tuple(sizes))


def _fill_value(context: KernelContext) -> Storage | None:
    """Return a single element with the padding value if the result must be stored from it."""
    kernel, builder = context.kernel, context.builder
    if kernel.kind != "pad" or kernel.result_memory is Memory.SRAM:
        return None
    element = context.pool("fill", kernel.result_type.dtype, ())
    builder.vector("fill", (), element.box((), context.rank), (), (_pad_value(context), 0.0))
    return element


def _pad_value(context: KernelContext) -> float:
    value = context.kernel.attrs["value"]
    assert isinstance(value, int | float), "pad values are numbers"
    return float(value)


def _fill_slabs(context: KernelContext, box: LoopBox, fill: Storage | None) -> None:
    """Fill what no operand covers of a result box."""
    nest, builder = context.kernel.nest, context.builder
    part = covered(context, 0, box)
    ranges = nest.box(nest.result, box.starts, box.sizes)
    valid = ((0, 0),) * len(ranges)
    if part is not None:
        valid = nest.box(nest.result, part.starts, part.sizes)
    for slab in padding_slabs(ranges, valid):
        lengths = tuple(high - low for low, high in slab)
        target = context.result.box(tuple(low for low, _ in slab), context.rank)
        if fill is None:
            builder.vector("fill", lengths, target, (), (_pad_value(context), 0.0))
        else:
            element = fill.view((), ((-1, 0),) * len(lengths), context.rank)
            builder.store(lengths, target, element, context.kernel.result_sharding)
