"""Pick the tilings of a kernel that are worth pricing.

There may be hundreds of candidates and pricing one exactly takes a fraction of a millisecond, so
all are ranked
first, at once, by what matters most: bytes from and to DRAM, and the number of boxes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod

import numpy as np
from numpy.typing import NDArray

from tilewright.extract.gathered import chunk_cycles
from tilewright.extract.kernel import (
    TWO_PRODUCTS,
    Kernel,
    footprint_bytes,
    halo_buffers,
    is_padded,
    is_result_staged,
    is_staged,
    stationary_type,
    tileable_dims,
    vocabulary_buffers,
    whole_tiling,
)
from tilewright.extract.kernel_work import unit_work
from tilewright.extract.plan import Memory, Tiling
from tilewright.graph import dequantises
from tilewright.hwmodel.mesh import REPLICATED, Sharding
from tilewright.hwmodel.target import Target
from tilewright.rules.loopnest import LoopNest, OperandMap, Role

_BOX_CYCLES = 60.0
"""Assumed overhead of a box (issue, start-up, fill) in the ranking; pricing knows better."""


Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Shapes:
    """For every candidate: boxes in all, elements and loads of each operand's box, result boxes."""

    boxes: Values
    operands: tuple[tuple[Values, Values], ...]
    result: Values
    results: Values


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """Tilings as arrays: tile sizes and loop orders, both [candidates, loops]."""

    sizes: NDArray[np.float64]
    orders: NDArray[np.int64]
    shapes: dict[tuple[object, ...], Shapes] = field(default_factory=dict)
    """Memo by index maps: kernels that differ only in where tensors lie share them."""

    def __len__(self) -> int:
        """Return the number of candidates."""
        return len(self.sizes)

    def tiling(self, number: int) -> Tiling:
        """Return one candidate."""
        return Tiling(
            tuple(int(s) for s in self.sizes[number]), tuple(int(d) for d in self.orders[number])
        )

    def shape_of(self, kernel: Kernel) -> Shapes:
        """Return the box sizes and counts of a kernel for every candidate."""
        nest = kernel.nest
        key = (nest.operands, nest.result)
        if key not in self.shapes:
            self.shapes[key] = _shapes(nest, self)
        return self.shapes[key]


def whole_candidate(kernel: Kernel) -> Candidates:
    """Return the only tiling of a kernel that need not be cut."""
    whole = whole_tiling(kernel)
    return Candidates(
        np.array([whole.sizes], dtype=np.float64), np.array([whole.order], dtype=np.int64)
    )


def tiling_key(kernel: Kernel) -> tuple[object, ...]:
    """Return what the tiling candidates of a kernel depend on."""
    return (kernel.kind, tuple((d.extent, d.role) for d in kernel.nest.dims), tileable_dims(kernel))


class Ranking:
    """The candidates of a kernel, likely cheapest first."""

    def __init__(self, kernel: Kernel, candidates: Candidates, target: Target) -> None:
        self._kernel, self._candidates = kernel, candidates
        self._alignment = target.tile.sram.alignment_bytes
        self._order, self._least = np.arange(len(candidates)), np.zeros(len(candidates))
        if len(candidates) > 1:  # none if the tiling rules that run make none
            scores, self._least = _scores(kernel, candidates, target)
            self._order = np.argsort(scores, kind="stable")
        self._known: dict[int, tuple[Tiling, int]] = {}

    def within(self, budget_bytes: int) -> list[tuple[Tiling, int]]:
        """Return the first tiling that fits the budget and the first of other sizes, with footprints.

        The orders of a size often lie side by side; pricing them instead would keep out other sizes.
        """
        chosen: list[tuple[Tiling, int]] = []
        for number in self._order[self._least[self._order] <= budget_bytes]:
            if chosen and (self._candidates.sizes[number] == chosen[0][0].sizes).all():
                continue
            tiling, footprint = self._footprint(int(number))
            if footprint <= budget_bytes:
                chosen.append((tiling, footprint))
                if len(chosen) == 2:
                    break
        return chosen

    def _footprint(self, number: int) -> tuple[Tiling, int]:
        if number not in self._known:
            tiling = self._candidates.tiling(number)
            self._known[number] = tiling, footprint_bytes(self._kernel, tiling, self._alignment)
        return self._known[number]


def _scores(
    kernel: Kernel, candidates: Candidates, target: Target
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return an estimate of cycles and a lower bound of the footprint for every candidate."""
    shape = candidates.shape_of(kernel)
    cycles = shape.boxes * _BOX_CYCLES
    fixed = (*halo_buffers(kernel), *vocabulary_buffers(kernel))
    footprint = np.full(len(candidates), float(sum(buffer.size_bytes for buffer in fixed)))
    chunks: list[tuple[Values, Values]] = []
    for number, (elements, loads) in enumerate(shape.operands):
        streamed = kernel.operand_memory[number] is Memory.DRAM
        staged = is_staged(kernel, number)
        itemsize = kernel.operand_types[number].dtype.itemsize_bytes
        box = elements * itemsize
        if staged:
            held = box
            if is_padded(kernel, number):
                operand = kernel.nest.operands[number]
                held = itemsize * _box_elements(operand, candidates.sizes, is_clipped=False)
            footprint = footprint + held * np.where(loads > 1, 2, 1)
        if streamed:
            rate = _dram_cycles_per_byte(kernel, kernel.operand_shardings[number], target)
            cycles = cycles + box * loads * rate
        if kernel.gather is not None and number in kernel.gather.operands:
            chunks.append((box, loads))
    if chunks:
        cycles = cycles + _exposed_cycles(kernel, shape, chunks, target)
    if dequantises(kernel.attrs):
        elements, loads = shape.operands[1]
        box = elements * stationary_type(kernel).itemsize_bytes
        footprint = footprint + box * np.where(loads > 1, 2, 1)
        cycles = cycles + elements * loads / target.tile.vector.lanes
    if kernel.result_memory is Memory.DRAM:
        box = shape.result * kernel.result_type.dtype.itemsize_bytes
        if is_result_staged(kernel):
            footprint = footprint + box * np.where(shape.results > 1, 2, 1)
        rate = _dram_cycles_per_byte(kernel, kernel.result_sharding, target)
        cycles = cycles + box * shape.results * rate
    return cycles, footprint


def _exposed_cycles(
    kernel: Kernel, shape: Shapes, chunks: list[tuple[Values, Values]], target: Target
) -> Values:
    """Return the cycles of the products, and those of gathering in chunks that they do not hide.

    The first chunk precedes all products, the last one is multiplied when all have arrived.

    Args:
        kernel: The kernel.
        shape: Its boxes.
        chunks: Bytes of a box and its loads, for every operand that is gathered.
        target: The machine.
    """
    gather = kernel.gather
    assert gather is not None, "the kernel gathers an operand"
    fixed, per_byte = chunk_cycles(target, kernel.mesh, gather)
    each = [fixed + box_bytes / gather.size * per_byte for box_bytes, _ in chunks]
    sent = sum(chunk * loads for chunk, (_, loads) in zip(each, chunks, strict=True))
    products = _product_cycles(kernel, target)
    return np.maximum(each[0] + products, sent + products / shape.boxes)


def _product_cycles(kernel: Kernel, target: Target) -> float:
    """Return what the products of a kernel take at least, with what is between two of them."""
    matrix, extents = target.tile.matrix, tuple(dim.extent for dim in kernel.nest.dims)
    rate = matrix.rows * matrix.columns.get(stationary_type(kernel), 1)
    if kernel.family not in TWO_PRODUCTS:
        return prod(extents) / rate
    matrix_work, vector_work = unit_work(kernel, whole_tiling(kernel))
    macs = sum(p.b * p.m * p.n * p.k for p in matrix_work)
    elements = sum(step.count * step.elements for step in vector_work)
    return max(macs / rate, elements / target.tile.vector.lanes)


def _shapes(nest: LoopNest, candidates: Candidates) -> Shapes:
    extents = np.array([dim.extent for dim in nest.dims], dtype=np.float64)
    trips = np.ceil(extents / candidates.sizes)
    parallel = np.array([dim.role is not Role.REDUCTION for dim in nest.dims])
    return Shapes(
        boxes=trips.prod(axis=1),
        operands=tuple(
            (_box_elements(operand, candidates.sizes), _visits(operand, trips, candidates.orders))
            for operand in nest.operands
        ),
        result=_box_elements(nest.result, candidates.sizes),
        results=trips[:, parallel].prod(axis=1),
    )


def _box_elements(
    operand: OperandMap, sizes: NDArray[np.float64], *, is_clipped: bool = True
) -> NDArray[np.float64]:
    """Return the elements of the largest box of an operand, without padding if it is clipped."""
    total = np.ones(len(sizes))
    for dim in operand:
        if dim.whole:
            total *= dim.size
            continue
        span = np.ones(len(sizes))
        for term in dim.terms:
            span += abs(term.stride) * (sizes[:, term.dim] - 1)
        total *= np.minimum(span, dim.size) if is_clipped else span
    return total


def _visits(
    operand: OperandMap, trips: NDArray[np.float64], orders: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return how often a box is loaded: trips of all loops down to the innermost that changes it."""
    used = {term.dim for dim in operand if not dim.whole for term in dim.terms if term.stride}
    is_used = np.array([dim in used for dim in range(trips.shape[1])])
    ordered = np.take_along_axis(trips, orders, axis=1)
    totals = np.cumprod(ordered, axis=1)
    matters = is_used[orders] & (ordered > 1)
    return np.asarray(np.where(matters, totals, 1.0).max(axis=1))


def _dram_cycles_per_byte(kernel: Kernel, sharding: Sharding, target: Target) -> float:
    """Return the DRAM port cycles of all tiles for a byte that each tile moves."""
    copies = 1
    for size, state in zip(kernel.mesh.sizes, sharding, strict=True):
        if state != REPLICATED or not target.dram.read_multicast:
            copies *= size
    return max(copies / target.dram_bytes_per_cycle, 1 / target.tile.dma.in_bytes_per_cycle)
