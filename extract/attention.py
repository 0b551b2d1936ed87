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
from typing import NamedTuple

from tilewright.dtypes import DType
from tilewright.extract.two_products import Product, Sizes, TwoProducts
from tilewright.rules.loopnest import DimMap, OperandMap

_HALVES = frozenset({DType.F16, DType.BF16})


class Step(NamedTuple):
    """`times` equal vector instructions; the fields are those of `kernel_work.VectorWork`."""

    times: int
    fn: str
    elements: int
    dtype: DType
    operands: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention(TwoProducts):
    """A fused attention on local shapes.

    Args:
        dtype: Element type of the operands.
        scale: Factor of the scores before the mask.
        on_matrix_unit: Whether the matrix unit takes the type; products go to the vector unit otherwise.
    """

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
    def row_map(self) -> OperandMap:
        """Index map of one number for each query."""
        return (*self.between_map[: len(self.nest.result) - 1], DimMap(1))

    def temporaries(self, sizes: Sizes, boxes: int, key_boxes: int) -> list[tuple[str, int]]:
        """Return names and bytes of the kernel's buffers besides staged operands and results.

        Args:
            sizes: The largest box.
            boxes: Number of boxes; from two on, the scores of the next are computed ahead.
            key_boxes: Number of boxes of keys for each box of queries.
        """
        q, _, v = self.nest.operands[:3]
        wide = self.wide.itemsize_bytes
        scores, rows = (self.elements(sizes, m) for m in (self.between_map, self.row_map))
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
                self.elements(sizes, self.between_map, q), self.elements(sizes, self.between_map, v)
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
            scores = self.elements(sizes, self.between_map)
            for fn, operands in (("max", 1), ("sub", 3), ("exp", 2), ("sum", 1)):
                yield Step(count, fn, scores, self.wide, operands)
            if self.is_masked:
                yield Step(count, "add", scores, self.wide, 3)
            if self.is_half:
                yield Step(count, "cast", scores, self.wide, 2)
            if not self.on_matrix_unit:
                for other in (q, v):
                    elements = self.elements(sizes, self.between_map, other)
                    yield Step(count, "mul", elements, self.wide, 3)
                    yield Step(count, "sum", elements, self.wide, 1)

    def products(self, boxes: Iterable[tuple[int, Sizes]]) -> Iterator[Product]:
        """Yield the matrix products: scores of queries and keys, mixtures of values."""
        if not self.on_matrix_unit:
            return
        for count, sizes in boxes:
            yield self.first_product(count, sizes)
            yield self.second_product(count, sizes)
