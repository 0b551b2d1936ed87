"""The one annotation of an operator: its loop nest with affine index maps.

A nest has loop dimensions; each operand and the result say how loop indices make up the index of each of
their tensor dimensions:

    index = sum(term.stride * loop[term.dim] for term in terms) + offset

From it follow what an axis of the mesh may split (partition rules), what a tile of a kernel touches
(tiling rules and buffer sizes) and the accesses of the instructions that a kernel generator emits.

Examples (loops in brackets, reductions after the bar):

    matmul   [m n | k]        a: m, k      b: k, n      -> m, n
    conv     [n g o h w | c r s]   x: n, C g + c, sh h + dh r - top, sw w + dw s - left   w: O g + o, c, r, s
                                   -> n, O g + o, h, w
    reshape [128, 384] -> [128, 12, 32]   [a h d]   x: a, 32 h + d   -> a, h, d
    slice    [i j]   x: i, 2 j + 1   -> i, j
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property


class Role(StrEnum):
    """What a loop dimension does."""

    PARALLEL = "parallel"  # one result element (or more) for each index
    REDUCTION = "reduction"  # results of different indices are combined
    WHOLE = "whole"  # must be processed at once (the row of a softmax, a gathered table dimension)


@dataclass(frozen=True, slots=True)
class LoopDim:
    """A loop dimension: `0 <= index < extent`."""

    name: str
    extent: int
    role: Role


@dataclass(frozen=True, slots=True)
class Term:
    """`stride` times the index of loop dimension number `dim`."""

    dim: int
    stride: int


@dataclass(frozen=True, slots=True)
class DimMap:
    """How loop indices make up the index of one tensor dimension of `size` elements.

    No terms: index is `offset` always (a broadcast dimension of size 1), unless `whole`: then every
    iteration touches the whole dimension. Indices outside [0, size) are padding.
    """

    size: int
    terms: tuple[Term, ...] = ()
    offset: int = 0
    whole: bool = False

    def span(self, sizes: tuple[int, ...]) -> int:
        """Return how far from first to last the indices lie that a tile of the loops touches.

        Args:
            sizes: Number of indices of the tile on each loop dimension.
        """
        if self.whole:
            return self.size
        return 1 + sum([abs(term.stride * (sizes[term.dim] - 1)) for term in self.terms])


UNCUT = -1
"""The dimension of a tensor that no split cuts, as in a sharding (replicated)."""

OperandMap = tuple[DimMap, ...]
"""One DimMap for each dimension of a tensor."""


def used_dims(operand: OperandMap) -> frozenset[int]:
    """Return the loop dimensions that an index map depends on."""
    return frozenset(t.dim for dim in operand if not dim.whole for t in dim.terms if t.stride)


@dataclass(frozen=True)
class LoopNest:
    """Loop dimensions with the index maps of operands and result.

    Pricing asks for the properties once for each tiling, so they are worked out once.
    """

    dims: tuple[LoopDim, ...]
    operands: tuple[OperandMap, ...]
    result: OperandMap
    combine: str = "sum"
    """How reduction dimensions combine: "sum", "max", "min", "prod", or "softmax" (sums weighted by a
    running softmax). Only sum and max may be partial: the others stay on one tile, in boxes one after
    the other."""

    def __hash__(self) -> int:
        """Return a hash that is worked out once: memos of kernels ask for it all the time."""
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash((self.dims, self.operands, self.result, self.combine))

    @cached_property
    def extents(self) -> tuple[int, ...]:
        """Extent of each loop dimension."""
        return tuple(dim.extent for dim in self.dims)

    @cached_property
    def reductions(self) -> tuple[int, ...]:
        """Numbers of the loop dimensions that combine results."""
        return tuple(n for n, dim in enumerate(self.dims) if dim.role is Role.REDUCTION)

    @cached_property
    def operand_loops(self) -> tuple[frozenset[int], ...]:
        """Of each operand the loop dimensions that it depends on."""
        return tuple(map(used_dims, self.operands))

    @cached_property
    def result_loops(self) -> frozenset[int]:
        """The loop dimensions that the result depends on."""
        return used_dims(self.result)

    @cached_property
    def leaves_operand(self) -> tuple[bool, ...]:
        """Of each operand whether some iteration touches indices outside, which are padding."""
        return tuple(any(map(self._leaves, operand)) for operand in self.operands)

    def _leaves(self, dim: DimMap) -> bool:
        if dim.whole:
            return False
        low = high = dim.offset
        for term in dim.terms:
            span = term.stride * (self.dims[term.dim].extent - 1)
            low, high = low + min(span, 0), high + max(span, 0)
        return low < 0 or high >= dim.size

    def box(
        self, operand: OperandMap, starts: tuple[int, ...], sizes: tuple[int, ...]
    ) -> tuple[tuple[int, int], ...]:
        """Return the half-open index range of each tensor dimension that a tile of the loops touches.

        Ranges are not clipped: parts outside [0, size) are padding.

        Args:
            operand: One of `operands` or `result`.
            starts: First index of the tile on each loop dimension.
            sizes: Number of indices of the tile on each loop dimension.
        """
        ranges = []
        for dim in operand:
            if dim.whole:
                ranges.append((0, dim.size))
                continue
            low = high = dim.offset
            for term in dim.terms:
                first = term.stride * starts[term.dim]
                last = term.stride * (starts[term.dim] + sizes[term.dim] - 1)
                low += min(first, last)
                high += max(first, last)
            ranges.append((low, high + 1))
        return tuple(ranges)

    def major_dim(self, dim_map: DimMap) -> int | None:
        """Return the loop dimension whose equal split cuts the tensor dimension into contiguous equal pieces.

        That is the term of stride s and extent e with s * e == size whose other terms span less than s.
        """
        if dim_map.whole or dim_map.offset:
            return None
        for term in dim_map.terms:
            if term.stride > 0 and term.stride * self.dims[term.dim].extent == dim_map.size:
                others = [t for t in dim_map.terms if t is not term]
                if any(t.stride < 0 for t in others):
                    return None
                span = sum(t.stride * (self.dims[t.dim].extent - 1) for t in others)
                return term.dim if span < term.stride else None
        return None

    def cut_dim(self, tensor: OperandMap, loop: int) -> int | None:
        """Return the tensor dimension that an equal split of a loop cuts into contiguous pieces.

        Returns:
            The dimension, UNCUT if the tensor does not depend on the loop, None if pieces overlap.
        """
        touched = [i for i, m in enumerate(tensor) if any(t.dim == loop for t in m.terms)]
        if not touched:
            return UNCUT
        if len(touched) > 1 or self.major_dim(tensor[touched[0]]) != loop:
            return None
        return touched[0]
