"""Pick the tilings of a kernel that are worth pricing.

There may be hundreds of candidates and pricing one exactly takes a fraction of a millisecond, so
all are ranked
first, at once, by what matters most: bytes from and to DRAM, and the number of boxes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tilewright.extract.gathered import chunk_cycles
from tilewright.extract.kernel import (
    TWO_PRODUCTS,
    Family,
    Kernel,
    footprint_bytes,
    halo_buffers,
    is_padded,
    is_result_staged,
    is_staged,
    passing_types,
    stationary_type,
    takes_statistic,
    tileable_dims,
    vocabulary_buffers,
    whole_tiling,
)
from tilewright.extract.kernel_work import unit_work
from tilewright.extract.move_buffers import aligned_bytes
from tilewright.extract.plan import Memory, Tiling
from tilewright.graph import dequantises
from tilewright.hwmodel.mesh import REPLICATED, Sharding
from tilewright.hwmodel.target import Target
from tilewright.rules.loopnest import LoopNest, OperandMap

_BOX_CYCLES = 60.0
"""Assumed overhead of a box (issue, start-up, fill) in the ranking; pricing knows better."""


Values = NDArray[np.float64]


class OperandBoxes(NamedTuple):
    """The boxes of an operand for every candidate: elements of the largest, loads, both multiplied."""

    elements: Values
    loads: Values
    moved: Values
    copies: Values
    """Buffers: the next box is loaded beside one that is read."""


@dataclass(frozen=True, slots=True, eq=False)
class Shapes:
    """For every candidate: boxes in all, those of each operand, elements of a result box, result boxes."""

    boxes: Values
    operands: tuple[OperandBoxes, ...]
    result: Values
    results: Values


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """Tilings as arrays: tile sizes and loop orders, both [candidates, loops]."""

    sizes: NDArray[np.float64]
    orders: NDArray[np.int64]
    shapes: dict[tuple[object, ...], Shapes] = field(default_factory=dict)
    """Memo by index maps: kernels that differ only in where tensors lie share them."""
    visits: dict[frozenset[int], Values] = field(default_factory=dict)
    """Memo of the loads of an operand by the loops that it depends on."""

    def __len__(self) -> int:
        """Return the number of candidates."""
        return len(self.sizes)

    def tiling(self, number: int) -> Tiling:
        """Return one candidate."""
        sizes, order = self.sizes[number].astype(np.int64), self.orders[number]
        return Tiling(tuple(sizes.tolist()), tuple(order.tolist()))

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
            self._order = np.argsort(_scores(kernel, candidates, target), kind="stable")
            self._least = _least_footprints(kernel, candidates, self._alignment)[self._order]
        self._is_exact = len(candidates) > 1 and _is_least_exact(kernel)
        self._known: dict[int, tuple[Tiling, int]] = {}

    def within(self, budget_bytes: int) -> list[tuple[Tiling, int]]:
        """Return the first tiling that fits the budget and the first of other sizes, with footprints.

        The orders of a size often lie side by side; pricing them instead would keep out other sizes.
        """
        chosen: list[tuple[Tiling, int]] = []
        for place in np.flatnonzero(self._least <= budget_bytes).tolist():
            sizes = self._candidates.sizes[self._order[place]]
            if chosen and (sizes == chosen[0][0].sizes).all():
                continue
            tiling, footprint = self._footprint(place)
            if footprint <= budget_bytes:
                chosen.append((tiling, footprint))
                if len(chosen) == 2:
                    break
        return chosen

    def _footprint(self, place: int) -> tuple[Tiling, int]:
        """Return the candidate at a place of the ranking and its footprint."""
        if place not in self._known:
            tiling = self._candidates.tiling(int(self._order[place]))
            size = int(self._least[place])
            if not self._is_exact:
                size = footprint_bytes(self._kernel, tiling, self._alignment)
            self._known[place] = tiling, size
        return self._known[place]


def _scores(kernel: Kernel, candidates: Candidates, target: Target) -> Values:
    """Return an estimate of cycles for every candidate."""
    shape = candidates.shape_of(kernel)
    cycles = shape.boxes * _BOX_CYCLES
    chunks: list[tuple[Values, Values]] = []
    for number, boxes in enumerate(shape.operands):
        itemsize = kernel.operand_types[number].dtype.itemsize_bytes
        if kernel.operand_memory[number] is Memory.DRAM:
            rate = _dram_cycles_per_byte(kernel, kernel.operand_shardings[number], target)
            cycles += boxes.moved * itemsize * rate
        if kernel.gather is not None and number in kernel.gather.operands:
            chunks.append((boxes.elements * itemsize, boxes.loads))
    if chunks:
        cycles += _exposed_cycles(kernel, shape, chunks, target)
    if dequantises(kernel.attrs):
        cycles += shape.operands[1].moved / target.tile.vector.lanes
    if kernel.result_memory is Memory.DRAM:
        rate = _dram_cycles_per_byte(kernel, kernel.result_sharding, target)
        box = shape.result * kernel.result_type.dtype.itemsize_bytes
        cycles += box * shape.results * rate
    return cycles


def _least_footprints(kernel: Kernel, candidates: Candidates, alignment_bytes: int) -> Values:
    """Return a lower bound of `footprint_bytes` for every candidate, exact for most kernels."""
    shape = candidates.shape_of(kernel)

    def aligned(size_bytes: Values) -> Values:
        return np.asarray(np.ceil(size_bytes / alignment_bytes) * alignment_bytes)

    fixed = (*halo_buffers(kernel), *vocabulary_buffers(kernel))
    least = sum(aligned_bytes(buffer.size_bytes, alignment_bytes) for buffer in fixed)
    total = np.full(len(candidates), float(least))
    for number, boxes in enumerate(shape.operands):
        if not is_staged(kernel, number):
            continue
        held = boxes.elements
        if is_padded(kernel, number):
            operand = kernel.nest.operands[number]
            held = _box_elements(operand, candidates.sizes, is_clipped=False)
        itemsize = kernel.operand_types[number].dtype.itemsize_bytes
        total += aligned(held * itemsize) * boxes.copies
    if dequantises(kernel.attrs):
        boxes = shape.operands[1]
        total += aligned(boxes.elements * stationary_type(kernel).itemsize_bytes) * boxes.copies
    if is_result_staged(kernel):
        box = aligned(shape.result * kernel.result_type.dtype.itemsize_bytes)
        total += box * np.where(shape.results > 1, 2, 1)
    if kernel.family in (Family.MAP, Family.CONTRACT):
        for dtype in passing_types(kernel):
            total += aligned(shape.result * dtype.itemsize_bytes)
    return total


def _is_least_exact(kernel: Kernel) -> bool:
    """Whether `_least_footprints` counts all buffers, so that nobody has to for each candidate."""
    is_counted = kernel.family is Family.MAP or (
        kernel.family is Family.CONTRACT and kernel.on_matrix_unit
    )
    return is_counted and not takes_statistic(kernel)


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
    elements = sum(step.times * step.elements for step in vector_work)
    return max(macs / rate, elements / target.tile.vector.lanes)


def _shapes(nest: LoopNest, candidates: Candidates) -> Shapes:
    trips = np.ceil(np.array(nest.extents, dtype=np.float64) / candidates.sizes)
    parallel = [number for number in range(len(nest.dims)) if number not in nest.reductions]
    operands = []
    for operand, used in zip(nest.operands, nest.operand_loops, strict=True):
        if used not in candidates.visits:
            candidates.visits[used] = _visits(used, trips, candidates.orders)
        loads = candidates.visits[used]
        elements = _box_elements(operand, candidates.sizes)
        copies = np.where(loads > 1, 2.0, 1.0)
        operands.append(OperandBoxes(elements, loads, elements * loads, copies))
    return Shapes(
        boxes=trips.prod(axis=1),
        operands=tuple(operands),
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
    used: frozenset[int], trips: NDArray[np.float64], orders: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return how often a box is loaded: trips of all loops down to the innermost that changes it."""
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
