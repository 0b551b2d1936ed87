"""Fused attention on one tile: which buffers it needs and which instructions it takes.

Scores exist for one box of queries and keys at a time. Going through the boxes of keys, each query
keeps the maximum of its scores so far, the total of their exponentials, and the mixture of values
that these weigh; when the maximum grows, total and mixture are scaled down:

    for each box of (batch, m):
        maximum <- lowest finite number;  scaled <- scale * q
        for each box of n:
            scores  <- scaled k (+ mask)
            rescale <- exp(maximum - max(maximum, scores)), maximum <- max(maximum, scores)
            scores  <- exp(scores - maximum)
            total   <- total * rescale + sum(scores)
            mixed   <- mixed * rescale + scores v
        result <- mixed / total

The lowest finite number, not -inf, is where maxima begin: keys masked by -inf then get the weight
exp(-inf - lowest) = 0 also in a box without any other; a row that is masked altogether is 0 / 0, as in
the reference. Halves are multiplied as such; everything else is in f32.

Source: Milakov and Gimelshein (arXiv 1805.02867); Dao et al., FlashAttention (arXiv 2205.14135).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

from tilewright.dtypes import DType
from tilewright.rules.loopnest import DimMap, LoopNest, OperandMap

_HALVES = frozenset({DType.F16, DType.BF16})

Sizes = tuple[int, ...]
"""Number of indices on each loop."""


class Step(NamedTuple):
    """`times` equal vector instructions; the fields are those of `kernel_work.VectorWork`."""

    times: int
    fn: str
    elements: int
    dtype: DType
    operands: int


class Product(NamedTuple):
    """`times` equal matrix products [b, m, k] x [b, k, n]."""

    times: int
    b: int
    m: int
    n: int
    k: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """A fused attention on local shapes.

    Args:
        nest: Loops *b, m, e, d, n; then the pieces of n if keys and values arrive in chunks.
        dtype: Element type of the operands.
        scale: Factor of the scores before the mask.
        on_matrix_unit: Whether the matrix unit takes the type; products go to the vector unit otherwise.
    """

    nest: LoopNest
    dtype: DType
    scale: float
    on_matrix_unit: bool

    @property
    def is_masked(self) -> bool:
        """Whether there is a mask."""
        return len(self.nest.operands) == 4

    @property
    def is_half(self) -> bool:
        """Whether operands are narrower than what is computed."""
        return self.dtype in _HALVES

    @property
    def wide(self) -> DType:
        """Type of scores, totals and mixtures."""
        return DType.F32 if self.is_half else self.dtype

    @property
    def _key_maps(self) -> OperandMap:
        """Index maps of the keys: n, or pieces and n of keys that arrive in chunks."""
        return self.nest.operands[1][len(self.nest.result) - 1 :]

    @property
    def key_loops(self) -> frozenset[int]:
        """Numbers of the loops over keys."""
        return frozenset(term.dim for dim in self._key_maps for term in dim.terms)

    @property
    def score_map(self) -> OperandMap:
        """Index map of the scores: batch loops of q or k, m, keys."""
        m = len(self.nest.result) - 2
        both = [self.nest.operands[0][:m], self.nest.operands[1][:m]]
        used = {term.dim for operand in both for dim in operand for term in dim.terms}
        batch = [dim if i in used else DimMap(1) for i, dim in enumerate(self.nest.result[:m])]
        return (*batch, self.nest.result[m], *self._key_maps)

    @property
    def row_map(self) -> OperandMap:
        """Index map of one number for each query."""
        return (*self.score_map[: len(self.nest.result) - 1], DimMap(1))

    def domain(self, sizes: Sizes, *tensors: OperandMap) -> Sizes:
        """Return the sizes of the loops that some of the tensors have, 1 for the others."""
        used = {term.dim for tensor in tensors for dim in tensor for term in dim.terms}
        return tuple(size if i in used else 1 for i, size in enumerate(sizes))

    def elements(self, sizes: Sizes, *tensors: OperandMap) -> int:
        """Return the indices of a box that some of the tensors have."""
        return prod(self.domain(sizes, *tensors))

    def temporaries(self, sizes: Sizes, boxes: int, key_boxes: int) -> list[tuple[str, int]]:
        """Return names and bytes of the kernel's buffers besides staged operands and results.

        Args:
            sizes: The largest box.
            boxes: Number of boxes; from two on, the scores of the next are computed ahead.
            key_boxes: Number of boxes of keys for each box of queries.
        """
        q, _, v = self.nest.operands[:3]
        wide = self.wide.itemsize_bytes
        scores, rows = (self.elements(sizes, m) for m in (self.score_map, self.row_map))
        mixed = self.elements(sizes, self.nest.result)
        found = [(f"scores{i}", scores * wide) for i in range(min(boxes, 2))]
        found += [("maximum", rows * wide), ("total", rows * wide)]
        if key_boxes > 1:
            found.append(("rescale", rows * wide))
        if self.scale != 1.0:
            found.append(("scaled", self.elements(sizes, q) * self.dtype.itemsize_bytes))
        if self.is_half:
            found.append(("weights", scores * self.dtype.itemsize_bytes))
            found.append(("mixed", mixed * wide))
        if not self.on_matrix_unit:
            larger = max(
                self.elements(sizes, self.score_map, q), self.elements(sizes, self.score_map, v)
            )
            found.append(("product", larger * wide))
        return found

    def steps(
        self,
        queries: Iterable[tuple[int, Sizes]],
        boxes: Iterable[tuple[int, Sizes]],
        key_boxes: int,
    ) -> Iterator[Step]:
        """Yield the vector instructions.

        Args:
            queries: (number, sizes) of boxes of queries, by size.
            boxes: (number, sizes) of boxes, by size.
            key_boxes: Number of boxes of keys for each box of queries.
        """
        q, _, v = self.nest.operands[:3]
        for count, sizes in queries:
            rows = self.elements(sizes, self.row_map)
            mixed = self.elements(sizes, self.nest.result)
            yield Step(count, "fill", rows, self.wide, 1)
            if self.scale != 1.0:
                yield Step(count, "mul_const", self.elements(sizes, q), self.dtype, 2)
            for fn, elements, operands in (
                *(("identity", rows, 2), ("sub", rows, 3), ("exp", rows, 2)),
                *(("mul", rows, 3), ("mul", mixed, 3)),
            ):
                if key_boxes > 1:
                    yield Step(count * (key_boxes - 1), fn, elements, self.wide, operands)
            yield Step(count, "div", mixed, self.wide, 3)
            if self.is_half:
                yield Step(count, "cast", mixed, self.wide, 2)
        for count, sizes in boxes:
            scores = self.elements(sizes, self.score_map)
            for fn, operands in (("max", 1), ("sub", 3), ("exp", 2), ("sum", 1)):
                yield Step(count, fn, scores, self.wide, operands)
            if self.is_masked:
                yield Step(count, "add", scores, self.wide, 3)
            if self.is_half:
                yield Step(count, "cast", scores, self.wide, 2)
            if not self.on_matrix_unit:
                for other in (q, v):
                    elements = self.elements(sizes, self.score_map, other)
                    yield Step(count, "mul", elements, self.wide, 3)
                    yield Step(count, "sum", elements, self.wide, 1)

    def products(self, boxes: Iterable[tuple[int, Sizes]]) -> Iterator[Product]:
        """Yield the matrix products: scores of queries and keys, mixtures of values."""
        if not self.on_matrix_unit:
            return
        q, k, v = self.nest.operands[:3]
        for count, sizes in boxes:
            yield self._product(count, sizes, q, k, self.score_map)
            yield self._product(count, sizes, self.score_map, v, self.nest.result)

    def _product(
        self, count: int, sizes: Sizes, left: OperandMap, right: OperandMap, own: OperandMap
    ) -> Product:
        present = [
            {term.dim for dim in tensor for term in dim.terms} for tensor in (left, right, own)
        ]
        roles = {(True, True, True): "b", (True, False, True): "m", (False, True, True): "n"}
        found = dict.fromkeys("bmnk", 1)
        for i, size in enumerate(sizes):
            membership = (i in present[0], i in present[1], i in present[2])
            if any(membership):
                found[roles.get(membership, "k")] *= size
        return Product(count, **found)
