"""What a tiled kernel moves: loads, stores and copies within the scratchpad, without prices."""

from __future__ import annotations

from functools import lru_cache
from itertools import product
from math import prod
from typing import NamedTuple

from tilewright.extract.kernel import (
    Family,
    Kernel,
    box_loads,
    covers_part,
    is_staged,
    result_boxes,
    streams_beside,
)
from tilewright.extract.plan import Memory, Tiling
from tilewright.graph import TensorType
from tilewright.hwmodel.mesh import REPLICATED, Sharding, split_factor
from tilewright.rules.loopnest import DimMap, LoopNest, OperandMap, used_dims

RESULT = -1
"""Stands for the result among the numbers of a kernel's tensors."""


class Traffic(NamedTuple):
    """Accesses of one streamed tensor by one tile of the machine, over the whole kernel."""

    times: int
    """Instructions."""
    size_bytes: int
    """Payload."""
    dram_bytes: int
    """Bytes on the side of the memory: short runs are padded to bursts."""
    run_bytes: int
    """Length of the contiguous runs in the memory."""
    groups: int
    """How many tiles ask the memory for different (or separately served) bytes."""
    store: bool
    is_beside: bool = False
    """Whether another engine loads it, if there are two; see `streams_beside`."""


class BoxTotals(NamedTuple):
    """Sums over all box loads of a streamed or padded operand."""

    loads: int
    """Loads with anything but padding."""
    elements: int
    """Elements with padding."""
    valid_elements: int
    slabs: int
    """Boxes of padding to fill."""


def box_totals(kernel: Kernel, tiling: Tiling, operand: int) -> BoxTotals:
    """Sum the boxes of an operand over all its loads."""
    nest = kernel.nest
    dims = [_dim_totals(nest, tiling, dim) for dim in nest.operands[operand]]
    distinct = elements = valid = loads = 1
    for boxes, indices, own_valid, filled, _ in dims:
        distinct *= boxes
        elements *= indices
        valid *= own_valid
        loads *= filled
    reloads = max(1, box_loads(kernel, tiling, operand) // distinct)
    # a box without elements is one slab of padding
    slabs = distinct - loads + sum([d.edges * loads // max(d.filled, 1) for d in dims])
    return BoxTotals(loads * reloads, elements * reloads, valid * reloads, slabs * reloads)


class _DimTotals(NamedTuple):
    """Sums over the boxes of one tensor dimension."""

    boxes: int
    indices: int
    """With padding."""
    valid: int
    filled: int
    """Boxes with anything but padding."""
    edges: int
    """Ends of those boxes that lie in the padding."""


def _dim_totals(nest: LoopNest, tiling: Tiling, dim: DimMap) -> _DimTotals:
    if len(dim.terms) == 1 and dim.terms[0].stride == 1 and dim.offset == 0 and not dim.whole:
        loop = dim.terms[0].dim
        extent = nest.dims[loop].extent
        if extent == dim.size:  # the common case, quickly
            boxes = -(-extent // tiling.sizes[loop])
            return _DimTotals(boxes, extent, extent, boxes, 0)
    loops = [term.dim for term in dim.terms]
    extents, sizes = nest.extents, tiling.sizes
    return _counted_totals(
        dim, tuple([extents[d] for d in loops]), tuple([sizes[d] for d in loops])
    )


@lru_cache(maxsize=1 << 14)
def _counted_totals(dim: DimMap, extents: tuple[int, ...], sizes: tuple[int, ...]) -> _DimTotals:
    """Sum over all boxes; kernels share few dimensions, and there may be thousands of boxes.

    Args:
        dim: The tensor dimension.
        extents: Of the loop of each term.
        sizes: Of the tile on the loop of each term.
    """
    ranges = _dim_boxes(dim, extents, sizes)
    valid = [max(0, min(high, dim.size) - max(low, 0)) for low, high in ranges]
    return _DimTotals(
        boxes=len(ranges),
        indices=sum(high - low for low, high in ranges),
        valid=sum(valid),
        filled=sum(n > 0 for n in valid),
        edges=sum(
            (low < 0) + (high > dim.size) for (low, high), n in zip(ranges, valid, strict=True) if n
        ),
    )


def _dim_boxes(
    dim: DimMap, extents: tuple[int, ...], sizes: tuple[int, ...]
) -> list[tuple[int, int]]:
    """Return the range of one tensor dimension for every box of the loops that it depends on."""
    if dim.whole:
        return [(0, dim.size)]
    ends = [
        [
            sorted((term.stride * start, term.stride * (min(start + size, extent) - 1)))
            for start in range(0, extent, size)
        ]
        for term, extent, size in zip(dim.terms, extents, sizes, strict=True)
    ]
    return [
        (dim.offset + sum(low for low, _ in box), dim.offset + sum(high for _, high in box) + 1)
        for box in product(*ends)
    ]


def transfer_work(
    kernel: Kernel, tiling: Tiling, burst_bytes: int, *, multicast: bool
) -> tuple[tuple[Traffic, ...], tuple[tuple[int, int], ...]]:
    """Return streamed accesses and local gathers; the arguments are those of `kernel_work`."""
    streams = tuple(
        stream_work(kernel, tiling, number, burst_bytes, multicast=multicast)
        for number in streamed_tensors(kernel)
    )
    return streams, local_copies(kernel, tiling)


def streamed_tensors(kernel: Kernel) -> tuple[int, ...]:
    """Return the tensors that the kernel loads or stores: operands by number, RESULT last."""
    if is_nothing(kernel):
        return ()
    loaded = [n for n, memory in enumerate(kernel.operand_memory) if memory is Memory.DRAM]
    return (*loaded, RESULT) if kernel.result_memory is Memory.DRAM else tuple(loaded)


def local_copies(kernel: Kernel, tiling: Tiling) -> tuple[tuple[int, int], ...]:
    """Return the gathers within the scratchpad: instructions and bytes."""
    is_local = kernel.family is Family.GATHER and kernel.operand_memory[0] is Memory.SRAM
    if not is_local or is_nothing(kernel):
        return ()
    return ((result_boxes(kernel, tiling), kernel.result_type.size_bytes),)


def stream_work(
    kernel: Kernel, tiling: Tiling, number: int, burst_bytes: int, *, multicast: bool
) -> Traffic:
    """Return the accesses of one streamed tensor; the other arguments are those of `kernel_work`."""
    if number == RESULT:
        return _stored(kernel, tiling, burst_bytes)
    sharding = kernel.operand_shardings[number]
    if kernel.family is Family.GATHER and number == 0:
        type_ = kernel.result_type
        run = _run_bytes(kernel, type_, kernel.nest.result, tiling, sharding, number)
        return Traffic(
            result_boxes(kernel, tiling),
            type_.size_bytes,
            _padded(type_.size_bytes, run, burst_bytes),
            run,
            kernel.mesh.tiles,
            store=False,
        )
    type_, operand = kernel.operand_types[number], kernel.nest.operands[number]
    totals = box_totals(kernel, tiling, number)
    run = _run_bytes(kernel, type_, operand, tiling, sharding, number)
    elements = totals.valid_elements
    if not is_staged(kernel, number) and not covers_part(kernel):
        elements = _walked_elements(kernel.nest, operand)
    size = elements * type_.dtype.itemsize_bytes
    return Traffic(
        totals.loads,
        size,
        _padded(size, run, burst_bytes),
        run,
        _groups(kernel, sharding, shared=multicast),
        store=False,
        is_beside=streams_beside(kernel, number),
    )


def _stored(kernel: Kernel, tiling: Tiling, burst_bytes: int) -> Traffic:
    """Return the accesses that store a result in DRAM."""
    sharding, type_ = kernel.result_sharding, kernel.result_type
    run = _run_bytes(kernel, type_, kernel.nest.result, tiling, sharding, RESULT)
    return Traffic(
        _stores(kernel, tiling),
        type_.size_bytes,
        _padded(type_.size_bytes, run, burst_bytes),
        run,
        _groups(kernel, sharding, shared=True),
        store=True,
    )


def _stores(kernel: Kernel, tiling: Tiling) -> int:
    """Return the number of accesses that store a result in DRAM."""
    if not covers_part(kernel):
        return result_boxes(kernel, tiling)
    totals = [box_totals(kernel, tiling, n) for n in range(len(kernel.operand_types))]
    fills = totals[0].slabs if kernel.kind == "pad" else 0
    return sum(t.loads for t in totals) + fills


def _walked_elements(nest: LoopNest, operand: OperandMap) -> int:
    """Return the elements that a copy without staging reads: gaps between steps are left out."""
    return prod(nest.dims[d].extent for d in used_dims(operand))


def _groups(kernel: Kernel, sharding: Sharding, *, shared: bool) -> int:
    """Return how many tiles move bytes of their own: replicas count once when `shared`."""
    if not shared:
        return kernel.mesh.tiles
    return prod(
        n for n, state in zip(kernel.mesh.sizes, sharding, strict=True) if state != REPLICATED
    )


def _padded(size_bytes: int, run_bytes: int, burst_bytes: int) -> int:
    """Return the bytes that runs of `run_bytes` occupy when padded to bursts."""
    if run_bytes % burst_bytes == 0:
        return size_bytes
    return -(-size_bytes // run_bytes) * (-(-run_bytes // burst_bytes) * burst_bytes)


def _has_gaps(kernel: Kernel, dim: DimMap, number: int) -> bool:
    """Whether an operand read without staging skips indices of a dimension."""
    steps = [abs(t.stride) for t in dim.terms if kernel.nest.dims[t.dim].extent > 1]
    return kernel.family is Family.COPY and not is_staged(kernel, number) and steps not in ([], [1])


def _run_bytes(
    kernel: Kernel,
    type_: TensorType,
    operand: OperandMap,
    tiling: Tiling,
    sharding: Sharding,
    number: int,
) -> int:
    """Return the bytes of the contiguous runs of a full box in the dense global tensor."""
    run = type_.dtype.itemsize_bytes
    gathered = kernel.family is Family.GATHER and number == 0
    axis = kernel.attrs.get("axis") if gathered else None
    for i in reversed(range(len(operand))):
        dim = operand[i]
        length = min(dim.span(tiling.sizes), dim.size)
        if number == RESULT and kernel.scatter is not None and i == kernel.scatter.dim:
            length = 1  # of the pieces that the loops make, one is the tile's own
        if i == axis or (number >= 0 and _has_gaps(kernel, dim, number)):
            return run
        run *= length
        if length < dim.size * split_factor(kernel.mesh, sharding, i):
            return run
    return run


def is_nothing(kernel: Kernel) -> bool:
    """Whether a kernel has no instructions."""
    return kernel.family is Family.ALIAS or kernel.result_type.elements == 0
