"""Pick the tilings of a kernel that are worth pricing.

There may be hundreds of candidates and pricing one exactly takes a fraction of a millisecond, so
all are ranked
first, at once, by what matters most: bytes from and to DRAM, and the number of boxes.
"""

from __future__ import annotations

from collections.abc import Hashable
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
from tilewright.extract.scattered import step_cycles
from tilewright.extract.tiling_choice_core import likeliest
from tilewright.graph import dequantises
from tilewright.hwmodel.mesh import REPLICATED, Sharding
from tilewright.hwmodel.target import Target
from tilewright.rules.loopnest import LoopNest, OperandMap
from tilewright.rules.scattered import Scatter

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
    terms: dict[tuple[object, ...], Values] = field(default_factory=dict)
    """Memo of what scores and footprints are added up from: kernels share it wherever tensors lie."""

    def moving(self, operand: int, itemsize_bytes: int, cycles_per_byte: float) -> Values:
        """Return the cycles that loading an operand takes."""
        key = ("moving", operand, itemsize_bytes, cycles_per_byte)
        if key not in self.terms:
            self.terms[key] = self.operands[operand].moved * itemsize_bytes * cycles_per_byte
        return self.terms[key]

    def storing(self, itemsize_bytes: int, cycles_per_byte: float) -> Values:
        """Return the cycles that storing the result takes."""
        key = ("storing", itemsize_bytes, cycles_per_byte)
        if key not in self.terms:
            self.terms[key] = self.result * itemsize_bytes * self.results * cycles_per_byte
        return self.terms[key]

    def value(self, itemsize_bytes: int, alignment_bytes: int) -> Values:
        """Return the bytes of a buffer for a result box."""
        key = ("value", itemsize_bytes, alignment_bytes)
        if key not in self.terms:
            self.terms[key] = _aligned(self.result * itemsize_bytes, alignment_bytes)
        return self.terms[key]

    def results_held(self, itemsize_bytes: int, alignment_bytes: int) -> Values:
        """Return the bytes of the buffers for results that are stored."""
        key = ("results", itemsize_bytes, alignment_bytes)
        if key not in self.terms:
            copies = np.where(self.results > 1, 2, 1)
            self.terms[key] = self.value(itemsize_bytes, alignment_bytes) * copies
        return self.terms[key]

    def held(self, operand: int, itemsize_bytes: int, alignment_bytes: int) -> Values:
        """Return the bytes of the buffers for the boxes of an operand, padding left out."""
        key = ("held", operand, itemsize_bytes, alignment_bytes)
        if key not in self.terms:
            boxes = self.operands[operand]
            one = _aligned(boxes.elements * itemsize_bytes, alignment_bytes)
            self.terms[key] = one * boxes.copies
        return self.terms[key]


def _aligned(size_bytes: Values, alignment_bytes: int) -> Values:
    return np.asarray(np.ceil(size_bytes / alignment_bytes) * alignment_bytes)


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """Tilings as arrays: tile sizes and loop orders, both [candidates, loops]."""

    sizes: NDArray[np.float64]
    orders: NDArray[np.int64]
    shapes: dict[LoopNest, Shapes] = field(default_factory=dict)
    """Memo: kernels that differ only in where tensors lie share them."""
    visits: dict[frozenset[int], Values] = field(default_factory=dict)
    """Memo of the loads of an operand by the loops that it depends on."""
    tilings: dict[int, Tiling] = field(default_factory=dict)
    """Memo of the candidates that were asked for."""

    def __len__(self) -> int:
        """Return the number of candidates."""
        return len(self.sizes)

    def tiling(self, number: int) -> Tiling:
        """Return one candidate."""
        found = self.tilings.get(number)
        if found is None:
            sizes, order = self.sizes[number].astype(np.int64), self.orders[number]
            found = Tiling(tuple(sizes.tolist()), tuple(order.tolist()))
            self.tilings[number] = found
        return found

    def shape_of(self, kernel: Kernel) -> Shapes:
        """Return the box sizes and counts of a kernel for every candidate."""
        found = self.shapes.get(kernel.nest)
        if found is None:
            found = self.shapes[kernel.nest] = _shapes(kernel.nest, self)
        return found


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
        self._scores = self._least = np.zeros(len(candidates))
        if len(candidates) > 1:  # none if the tiling rules that run make none
            self._scores = _scores(kernel, candidates, target)
            self._least = _least_footprints(kernel, candidates, self._alignment)
        self._is_exact = len(candidates) > 1 and _is_least_exact(kernel)
        self._known: dict[int, int] = {}

    def within(self, budget_bytes: int) -> list[tuple[Tiling, int]]:
        """Return the first tiling that fits the budget and the first of other sizes, with footprints.

        The orders of a size often lie side by side; pricing them instead would keep out other sizes.
        """
        chosen: list[tuple[Tiling, int]] = []
        last = other = -1
        sizes = self._candidates.sizes
        while len(chosen) < 2:
            last = likeliest(self._scores, self._least, sizes, budget_bytes, last, other)
            if last < 0:
                break
            footprint = self._footprint(last)
            if footprint <= budget_bytes:
                chosen.append((self._candidates.tiling(last), footprint))
                other = last
        return chosen

    def _footprint(self, number: int) -> int:
        """Return the footprint of a candidate, [bytes]."""
        if self._is_exact:
            return int(self._least[number])
        if number not in self._known:
            tiling = self._candidates.tiling(number)
            self._known[number] = footprint_bytes(self._kernel, tiling, self._alignment)
        return self._known[number]


def held_on_the_way(kernel: Kernel) -> Hashable:
    """Return what rankings and footprints of kernels with equal `moved_key` depend on, too."""
    if kernel.family in (Family.MAP, Family.CONTRACT):
        sizes = tuple([dtype.itemsize_bytes for dtype in passing_types(kernel)])
        return sizes, takes_statistic(kernel)
    return kernel.result_type.dtype, tuple(sorted(kernel.attrs.items()))


def _scores(kernel: Kernel, candidates: Candidates, target: Target) -> Values:
    """Return an estimate of cycles for every candidate."""
    shape = candidates.shape_of(kernel)
    cycles = shape.boxes * _BOX_CYCLES
    for number, memory in enumerate(kernel.operand_memory):
        if memory is Memory.DRAM:
            itemsize = kernel.operand_types[number].dtype.itemsize_bytes
            rate = _dram_cycles_per_byte(kernel, kernel.operand_shardings[number], target)
            cycles += shape.moving(number, itemsize, rate)
    if kernel.gather is not None:
        cycles += _exposed_cycles(kernel, shape, target)
    if kernel.scatter is not None:
        fixed, per_byte = step_cycles(target, kernel)
        box_bytes = shape.result * kernel.result_type.dtype.itemsize_bytes
        cycles += fixed * shape.results + per_byte * box_bytes  # what nothing hides: the last box
    if dequantises(kernel.attrs):
        cycles += shape.operands[1].moved / target.tile.vector.lanes
    if kernel.result_memory is Memory.DRAM:
        rate = _dram_cycles_per_byte(kernel, kernel.result_sharding, target)
        if kernel.scatter is not None:
            rate /= kernel.scatter.size  # a piece of what the loops make
        cycles += shape.storing(kernel.result_type.dtype.itemsize_bytes, rate)
    return cycles


def _least_footprints(kernel: Kernel, candidates: Candidates, alignment_bytes: int) -> Values:
    """Return a lower bound of `footprint_bytes` for every candidate, exact for most kernels."""
    shape = candidates.shape_of(kernel)
    fixed = (*halo_buffers(kernel), *vocabulary_buffers(kernel))
    least = sum(aligned_bytes(buffer.size_bytes, alignment_bytes) for buffer in fixed)
    total = np.full(len(candidates), float(least))
    for number, type_ in enumerate(kernel.operand_types):
        if not is_staged(kernel, number):
            continue
        itemsize = type_.dtype.itemsize_bytes
        if is_padded(kernel, number):
            operand = kernel.nest.operands[number]
            held = _box_elements(operand, candidates.sizes, is_clipped=False)
            total += _aligned(held * itemsize, alignment_bytes) * shape.operands[number].copies
        else:
            total += shape.held(number, itemsize, alignment_bytes)
    if dequantises(kernel.attrs):
        total += shape.held(1, stationary_type(kernel).itemsize_bytes, alignment_bytes)
    if kernel.scatter is not None:
        total += _scatter_footprints(kernel, kernel.scatter, shape, alignment_bytes)
    elif is_result_staged(kernel):
        total += shape.results_held(kernel.result_type.dtype.itemsize_bytes, alignment_bytes)
    if kernel.family in (Family.MAP, Family.CONTRACT):
        for dtype in passing_types(kernel):
            total += shape.value(dtype.itemsize_bytes, alignment_bytes)
    return total


def _scatter_footprints(
    kernel: Kernel, scatter: Scatter, shape: Shapes, alignment_bytes: int
) -> Values:
    """Return the bytes of the buffers of sums that are scattered, and of results that are stored."""
    itemsize = kernel.result_type.dtype.itemsize_bytes

    def held(pieces: int) -> Values:
        return _aligned(shape.result * (pieces * itemsize / scatter.size), alignment_bytes)

    twice = np.where(shape.results > 1, 2.0, 1.0)
    total = held(scatter.size) if passing_types(kernel) else held(scatter.size) * twice
    for stage in range(len(scatter.axes)):
        total = total + held(scatter.pieces(stage)) * (2 if stage else 1)
    return total + held(1) * twice if is_result_staged(kernel) else total


def _is_least_exact(kernel: Kernel) -> bool:
    """Whether `_least_footprints` counts all buffers, so that nobody has to for each candidate."""
    is_counted = kernel.family is Family.MAP or (
        kernel.family is Family.CONTRACT and kernel.on_matrix_unit
    )
    return is_counted and not takes_statistic(kernel)


def _exposed_cycles(kernel: Kernel, shape: Shapes, target: Target) -> Values:
    """Return the cycles of the products, and those of gathering in chunks that they do not hide.

    The first chunk precedes all products, the last one is multiplied when all have arrived.
    """
    gather = kernel.gather
    assert gather is not None, "the kernel gathers an operand"
    products = _product_cycles(kernel, target)
    itemsizes = tuple([kernel.operand_types[n].dtype.itemsize_bytes for n in gather.operands])
    fixed, per_byte = chunk_cycles(target, kernel.mesh, gather)
    key = ("exposed", gather.operands, gather.size, itemsizes, products, fixed, per_byte)
    if key not in shape.terms:
        chunks = [shape.operands[number] for number in gather.operands]
        each = [
            fixed + boxes.elements * itemsize / gather.size * per_byte
            for boxes, itemsize in zip(chunks, itemsizes, strict=True)
        ]
        sent = sum(chunk * boxes.loads for chunk, boxes in zip(each, chunks, strict=True))
        shape.terms[key] = np.maximum(each[0] + products, sent + products / shape.boxes)
    return shape.terms[key]


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
