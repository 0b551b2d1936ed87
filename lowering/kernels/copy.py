"""Kernels that only move elements: transpose, slice, expand, concat, pad, identity."""

from __future__ import annotations

from dataclasses import replace

from tilewright.extract.kernel import Family, is_staged
from tilewright.extract.plan import Memory
from tilewright.lowering.emit import Storage, View
from tilewright.lowering.kernels.context import KernelContext, LoopBox, padding_slabs
from tilewright.lowering.kernels.registry import generates
from tilewright.rules.loopnest import DimMap, OperandMap, Term


@generates(Family.COPY)
def copy(context: KernelContext) -> None:
    """Emit one copy for each box and operand, by the engine that reaches both ends.

        scratchpad -> scratchpad   VEC with permuted, scaled or zero strides
        DRAM       -> scratchpad   LD, directly into the result
        scratchpad -> DRAM         ST, directly from the operand
        DRAM       -> DRAM         LD into a staging box, ST from it

    A concatenated operand covers its own range of the axis. What a pad adds is filled in slabs.
    """
    fill = _fill_value(context)
    for box in context.boxes():
        for number in range(len(context.operands)):
            _copy_operand(context, number, box)
        if context.kernel.kind == "pad":
            _fill_slabs(context, box, fill)


def _copy_operand(context: KernelContext, number: int, box: LoopBox) -> None:
    kernel, builder = context.kernel, context.builder
    tensor, part = covered(context, number, box)
    storage, origin = context.operands[number], (0,) * len(tensor)
    staged = is_staged(kernel, number)
    if staged:
        storage, origin = context.staged(number, box)
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


def covered(context: KernelContext, number: int, box: LoopBox) -> tuple[OperandMap, LoopBox]:
    """Return an operand's map with whole dimensions tied to loops, and the loops that it covers."""
    kernel = context.kernel
    tensor, starts, sizes = [], list(box.starts), list(box.sizes)
    for dim, (own, target) in enumerate(
        zip(kernel.nest.operands[number], kernel.nest.result, strict=False)
    ):
        if not own.whole:
            tensor.append(own)
            continue
        offset = _whole_offset(context, number, dim)
        loops = [term.dim for term in target.terms]
        assert len(loops) == 1, "a whole dimension has one loop"
        starts[loops[0]], sizes[loops[0]] = offset, own.size
        tensor.append(DimMap(own.size, (Term(loops[0], 1),), offset=-offset))
    return tuple(tensor), replace(box, starts=tuple(starts), sizes=tuple(sizes))


def _whole_offset(context: KernelContext, number: int, dim: int) -> int:
    """Return where an operand begins on a dimension of the result."""
    kernel = context.kernel
    if kernel.kind == "concat":
        return sum(t.shape[dim] for t in kernel.operand_types[:number])
    begins = kernel.attrs["begins"]
    assert isinstance(begins, tuple)
    return begins[dim]


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
    _, part = covered(context, 0, box)
    ranges = nest.box(nest.result, box.starts, box.sizes)
    valid = nest.box(nest.result, part.starts, part.sizes)
    for slab in padding_slabs(ranges, valid):
        lengths = tuple(high - low for low, high in slab)
        target = context.result.box(tuple(low for low, _ in slab), context.rank)
        if fill is None:
            builder.vector("fill", lengths, target, (), (_pad_value(context), 0.0))
        else:
            element = fill.view((), ((-1, 0),) * len(lengths), context.rank)
            builder.store(lengths, target, element, context.kernel.result_sharding)
