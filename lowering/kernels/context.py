"""What the kernel generators share: the walk over boxes, staging of operands, storing of results."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from math import prod

import numpy as np

from tilewright.dtypes import DType
from tilewright.extract.kernel import (
    Box,
    Kernel,
    buffers,
    is_padded,
    is_result_staged,
    is_staged,
    result_shape,
    staging_shape,
    streams_beside,
    trip_counts,
)
from tilewright.extract.plan import Memory, Tiling
from tilewright.lowering.eager import PLANNED, Eagerness
from tilewright.lowering.emit import Builder, Storage, View, local_storage
from tilewright.lowering.gathered import GatheredOperand, GatheredOperands
from tilewright.lowering.isa import Space
from tilewright.lowering.micro import Buffer
from tilewright.rules.loopnest import OperandMap, Role


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopBox:
    """One box of the loops: first index and number of indices on each loop dimension."""

    starts: tuple[int, ...]
    sizes: tuple[int, ...]
    is_first: bool
    """Whether it is the first reduction box of its result box."""
    is_last: bool
    within: LoopBox | None = None
    """The box of which it is a part; buffers hold that one."""
    cut: tuple[int, int] = (0, 1)
    """The dimension along which that box is cut, and in how many parts at most."""

    @property
    def whole(self) -> LoopBox:
        """The box that buffers hold."""
        return self if self.within is None else self.within

    def parts(self, dim: int, most: int) -> tuple[LoopBox, ...]:
        """Return the box cut along a loop dimension, in so many parts at most."""
        size, start = self.sizes[dim], self.starts[dim]
        step = -(-size // most)
        if step == size:
            return (self,)
        return tuple(
            replace(
                self,
                starts=(*self.starts[:dim], start + low, *self.starts[dim + 1 :]),
                sizes=(*self.sizes[:dim], min(step, size - low), *self.sizes[dim + 1 :]),
                within=self,
                cut=(dim, most),
            )
            for low in range(0, size, step)
        )

    @property
    def siblings(self) -> tuple[LoopBox, ...]:
        """All parts of the box that buffers hold; none if it is whole."""
        return () if self.within is None else self.within.parts(*self.cut)


class KernelContext:
    """A kernel that is being generated: its buffers, and which box each staging buffer holds."""

    def __init__(
        self,
        builder: Builder,
        kernel: Kernel,
        tiling: Tiling,
        operands: tuple[Storage, ...],
        result: Storage,
        name: str,
        eagerness: Eagerness = PLANNED,
    ) -> None:
        self.builder = builder
        self.kernel = kernel
        self.tiling = tiling
        self.operands = operands
        self.result = result
        self.rank = builder.mesh.rank
        self.eagerness = eagerness
        self._pools: dict[str, tuple[Buffer, ...]] = {
            b.name: tuple(
                builder.buffer(f"{name}.{b.name}.{copy}", Space.L1, b.size_bytes)
                for copy in range(b.copies + (b.name in eagerness.thrice))
            )
            for b in buffers(kernel, tiling)
        }
        self._turns = dict.fromkeys(self._pools, -1)
        numbers = range(len(operands))
        self._is_staged = [is_staged(kernel, n) for n in numbers]
        self._is_padded = [is_padded(kernel, n) for n in numbers]
        self._is_result_staged = is_result_staged(kernel)
        self._used_dims = [sorted(loops) for loops in kernel.nest.operand_loops]
        self._staging_shapes = [staging_shape(kernel, tiling, n) for n in numbers]
        self._result_shape = result_shape(kernel, tiling)
        self._loaded: dict[int, tuple[int, ...]] = {}
        self._loaded_parts: dict[int, set[Box]] = {}
        self._gathered = GatheredOperands(self._gathered_operands())

    # ------------------------------------------------------------------ boxes

    def boxes_ahead(self, begin: Callable[[LoopBox, int], None]) -> Iterator[tuple[int, LoopBox]]:
        """Yield the boxes with their turns, each once the one behind it is begun.

        So one engine has work on the next box while another one is at this one.
        """
        boxes = tuple(self.boxes())
        begin(boxes[0], 0)
        for turn, box in enumerate(boxes):
            if turn + 1 < len(boxes):
                begin(boxes[turn + 1], turn + 1)
            yield turn, box

    def boxes(self) -> Iterator[LoopBox]:
        """Yield the boxes in the order of the tiling."""
        nest, tiling = self.kernel.nest, self.tiling
        trips = trip_counts(self.kernel, tiling)
        order = tuple(d for d in tiling.order if trips[d] > 1)
        reductions = [d for d in order if nest.dims[d].role is Role.REDUCTION]
        assert order[len(order) - len(reductions) :] == tuple(reductions), (
            "reductions are innermost"
        )
        assert all(n == 1 or d in order for d, n in enumerate(trips)), (
            "the order names every tiled loop"
        )
        for position in product(*(range(trips[d]) for d in order)):
            index = dict(zip(order, position, strict=True))
            starts = tuple(index.get(d, 0) * tiling.sizes[d] for d in range(len(trips)))
            sizes = tuple(
                min(size, dim.extent - start)
                for size, dim, start in zip(tiling.sizes, nest.dims, starts, strict=True)
            )
            yield LoopBox(
                starts=starts,
                sizes=sizes,
                is_first=all(index[d] == 0 for d in reductions),
                is_last=all(index[d] == trips[d] - 1 for d in reductions),
            )

    def _gathered_operands(self) -> dict[int, GatheredOperand]:
        gather, nest = self.kernel.gather, self.kernel.nest
        if gather is None:
            return {}
        boxes = tuple(self.boxes())
        return {
            number: GatheredOperand(
                self.builder,
                gather.axis,
                dim,
                self.operands[number],
                self._pools[f"operand{number}"],
                self._staging_shapes[number],
                (nest.box(nest.operands[number], box.starts, box.sizes) for box in boxes),
            )
            for number, dim in gather.dims
        }

    # ------------------------------------------------------------------ views

    def loop_view(
        self, storage: Storage, tensor: OperandMap, box: LoopBox, origin: tuple[int, ...]
    ) -> View:
        """Return the access of a tensor over the loops of a box.

        Args:
            storage: The dense tensor, or the staging box of a part of it.
            tensor: Its index map.
            box: The loops; the domain of the view is `box.sizes`.
            origin: Tensor index of the storage's first element.
        """
        size = storage.dtype.itemsize_bytes
        steps = [0] * len(box.sizes)
        first = storage.offset_bytes
        for dim, stride, low in zip(tensor, storage.element_strides(), origin, strict=True):
            assert not dim.whole, "whole dimensions have no loop"
            stride_bytes = stride * size
            index = dim.offset - low
            for term in dim.terms:
                index += term.stride * box.starts[term.dim]
                steps[term.dim] += term.stride * stride_bytes
            first += index * stride_bytes
        return View(
            buffer=storage.buffer,
            dtype=storage.dtype,
            offset_bytes=first,
            coefficients=storage.byte_coefficients(self.rank),
            strides=tuple(steps),
        )

    def operand(self, number: int, box: LoopBox) -> View:
        """Return the access of an operand, staged if the kernel does so."""
        tensor, storage = self.kernel.nest.operands[number], self.operands[number]
        if not self._is_staged[number]:
            return self.loop_view(storage, tensor, box, (0,) * len(tensor))
        staged, origin = self.staged(number, box)
        return self.loop_view(staged, tensor, box, origin)

    def staged(self, number: int, box: LoopBox) -> tuple[Storage, tuple[int, ...]]:
        """Return an operand's filled staging box and the tensor index of its first element."""
        if number in self._gathered:
            tensor = self.kernel.nest.operands[number]
            ranges = self.kernel.nest.box(tensor, box.starts, box.sizes)
            return self._gathered.staged(number, ranges)
        self.stage(number, box)
        ranges = self._whole_ranges(self.kernel.nest.operands[number], box)
        shape = self._staging_shapes[number]
        storage = self.pool(f"operand{number}", self.operands[number].dtype, shape)
        return storage, tuple(low for low, _ in ranges)

    def box_done(self, *operands: int) -> None:
        """Let go of what the product of a box has read of operands, once it is emitted."""
        for number in operands:
            self._gathered.box_done(number)

    def operand_box(self, number: int, box: LoopBox) -> View:
        """Return the access of an operand's box over the dimensions of the tensor, not the loops."""
        tensor, storage = self.kernel.nest.operands[number], self.operands[number]
        if self._is_staged[number]:
            staged, _ = self.staged(number, box)
            return staged.box((0,) * len(tensor), self.rank)
        return storage.box(self._origin(tensor, box), self.rank)

    def target(self, box: LoopBox) -> View:
        """Return the access of the result, or of its staging box."""
        nest = self.kernel.nest
        if not self._is_result_staged:
            return self.loop_view(self.result, nest.result, box, (0,) * len(nest.result))
        return self.temporary("result", self.result.dtype, box)

    def temporary(self, name: str, dtype: DType, box: LoopBox) -> View:
        """Return the access of a value with the shape of the result box."""
        nest = self.kernel.nest
        storage = self.pool(name, dtype, self._result_shape)
        return self.loop_view(storage, nest.result, box, self._origin(nest.result, box))

    def boxed(self, name: str, dtype: DType, tensor: OperandMap, box: LoopBox) -> View:
        """Return the access of a kernel buffer that holds a box of a tensor."""
        nest = self.kernel.nest
        whole = nest.box(tensor, (0,) * len(box.sizes), self.tiling.sizes)
        storage = self.pool(name, dtype, tuple(high - low for low, high in whole))
        return self.loop_view(storage, tensor, box, self._origin(tensor, box))

    def multiply(
        self,
        domain: tuple[int, ...],
        result: View,
        left: View,
        right: View,
        *,
        on_matrix_unit: bool,
        accumulate: bool,
    ) -> None:
        """Emit a product into sums of the result's type.

        The matrix unit has no 64-bit types: on the vector unit it is all products first, then their sums.
        """
        if on_matrix_unit:
            self.builder.matrix(domain, result, left, right, accumulate=accumulate)
            return
        storage = self.pool("product", result.dtype, domain)
        product = storage.box((0,) * len(domain), self.rank)
        self.builder.vector("mul", domain, product, (left, right))
        self.builder.reduce("sum", domain, result, product, accumulate=accumulate)

    def pool(self, name: str, dtype: DType, shape: tuple[int, ...]) -> Storage:
        """Return the current copy of a kernel buffer as a dense tensor."""
        copies = self._pools[name]
        assert prod(shape) * dtype.itemsize_bytes <= copies[0].size_bytes, (
            f"buffer {name} is too small"
        )
        return local_storage(copies[max(self._turns[name], 0) % len(copies)], dtype, shape)

    def _origin(self, tensor: OperandMap, box: LoopBox) -> tuple[int, ...]:
        return tuple(low for low, _ in self._whole_ranges(tensor, box))

    def _whole_ranges(self, tensor: OperandMap, box: LoopBox) -> Box:
        """Return the part of a tensor that a buffer for a box holds."""
        return self.kernel.nest.box(tensor, box.whole.starts, box.whole.sizes)

    # ------------------------------------------------------------------ operands

    def stage(self, number: int, box: LoopBox) -> Box:
        """Bring an operand's box into its staging buffer unless it is there; return its range."""
        tensor = self.kernel.nest.operands[number]
        ranges = self.kernel.nest.box(tensor, box.starts, box.sizes)
        whole = self._whole_ranges(tensor, box)
        # by loops, not ranges: windows may coincide by chance, which no one predicted
        position = tuple(box.whole.starts[d] for d in self._used_dims[number])
        name = f"operand{number}"
        if self._loaded.get(number) != position:
            self._loaded[number] = position
            self._loaded_parts[number] = set()
            self._turns[name] += 1
        elif box.within is None or not self._loaded_parts[number].isdisjoint((whole, ranges)):
            return ranges
        self._loaded_parts[number].add(ranges)
        storage = self.operands[number]
        staged = self.pool(name, storage.dtype, self._staging_shapes[number])
        valid = ranges
        if self._is_padded[number]:
            valid = tuple(
                (max(low, 0), min(high, d.size))
                for (low, high), d in zip(ranges, tensor, strict=True)
            )
            assert box.within is None, "padding is of whole boxes"
            self._pad(staged, ranges, valid)
        lengths = tuple(high - low for low, high in valid)
        if any(n <= 0 for n in lengths):
            return ranges
        inner = staged.box(tuple(v[0] - r[0] for v, r in zip(valid, whole, strict=True)), self.rank)
        source = storage.box(tuple(low for low, _ in valid), self.rank)
        if self.kernel.operand_memory[number] is Memory.DRAM:
            self.builder.load(
                lengths,
                inner,
                source,
                self.kernel.operand_shardings[number],
                is_beside=streams_beside(self.kernel, number),
            )
        else:
            self.builder.copy(lengths, inner, source)
        return ranges

    def staged_bytes(self, number: int) -> int:
        """Return the bytes of the largest box of an operand."""
        return prod(self._staging_shapes[number]) * self.operands[number].dtype.itemsize_bytes

    def _pad(self, staged: Storage, ranges: Box, valid: Box) -> None:
        """Fill the parts of a staging box that lie outside the tensor."""
        value = padding_value(self.kernel, staged.dtype)
        for slab in padding_slabs(ranges, valid):
            start = tuple(low - first for (low, _), (first, _) in zip(slab, ranges, strict=True))
            lengths = tuple(high - low for low, high in slab)
            self.builder.vector("fill", lengths, staged.box(start, self.rank), (), (value, 0.0))

    # ------------------------------------------------------------------ results

    def begin_result(self) -> None:
        """Take the next copy of the result's staging buffer."""
        if "result" in self._turns:
            self.turn("result")

    def turn(self, name: str) -> None:
        """Take the next copy of a kernel buffer."""
        self._turns[name] += 1

    def store_result(self, box: LoopBox) -> None:
        """Store a finished result box if the result lies in DRAM."""
        if not self._is_result_staged:
            return
        kernel, ranges = self.kernel, self.own_result(box)
        lengths = tuple(high - low for low, high in ranges)
        staged = self.pool("result", self.result.dtype, self._result_shape)
        origin = tuple(low for low, _ in self.own_result(box.whole))
        self.builder.store(
            lengths,
            self.result.box(tuple(low for low, _ in ranges), self.rank),
            staged.box(
                tuple(low - first for (low, _), first in zip(ranges, origin, strict=True)),
                self.rank,
            ),
            kernel.result_sharding,
        )

    def own_result(self, box: LoopBox) -> Box:
        """Return the part of the result that the tile has of a box: of scattered sums, its own piece."""
        nest, scatter = self.kernel.nest, self.kernel.scatter
        ranges = nest.box(nest.result, box.starts, box.sizes)
        if scatter is None:
            return ranges
        return (*ranges[: scatter.dim], (0, 1), *ranges[scatter.dim + 1 :])

    def finished(self, box: LoopBox) -> View:
        """Return the access of the tile's part of a result box over the dimensions of the result."""
        if self._is_result_staged:
            staged = self.pool("result", self.result.dtype, self._result_shape)
            return staged.box((0,) * len(staged.shape), self.rank)
        return self.result.box(tuple(low for low, _ in self.own_result(box)), self.rank)

    def parallel(self, box: LoopBox) -> tuple[tuple[int, ...], LoopBox]:
        """Return the domain and box of the result's loops, with one index of each of the others."""
        own = self.kernel.nest.result_loops
        sizes = tuple(size if d in own else 1 for d, size in enumerate(box.sizes))
        starts = tuple(start if d in own else 0 for d, start in enumerate(box.starts))
        return sizes, replace(box, starts=starts, sizes=sizes)


def padding_slabs(ranges: Box, valid: Box) -> Iterator[Box]:
    """Cut a box without its valid part into disjoint boxes, at most two for each dimension.

    >>> list(padding_slabs(((-1, 3), (0, 2)), ((0, 3), (0, 2))))
    [((-1, 0), (0, 2))]
    """
    if any(low >= high for low, high in valid):
        yield ranges
        return
    for dim, ((low, high), (first, last)) in enumerate(zip(ranges, valid, strict=True)):
        for part in ((low, first), (last, high)):
            if part[0] < part[1]:
                yield (*valid[:dim], part, *ranges[dim + 1 :])


def padding_value(kernel: Kernel, dtype: DType) -> float:
    """Return the neutral element that padding holds."""
    if kernel.kind == "pool" and kernel.nest.combine == "max":
        return float("-inf") if dtype.is_float else float(np.iinfo(dtype.numpy).min)
    return 0.0
