"""Two products as one kernel on one tile: which buffers it needs besides those of any product.

What is between the products exists for one box of rows and of the loop h at a time; the sums of the second
product grow over the boxes of h:

    for each box of (batch, m):
        for each box of h:
            slice <- between(a b (, t))
            total <- total + slice c
        result <- epilogue(total (, last))

The slice of the next box is multiplied while the vector unit is at this one, so that there are two.
"""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.dtypes import DType
from tilewright.extract.two_products import Sizes, TwoProducts
from tilewright.graph import STATISTIC_FUNCTIONS


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain(TwoProducts):
    """Two products and what is between them, on local shapes.

    Args:
        pipeline: What happens between the products, without steps that do nothing; may be empty.
        types: Types that a slice takes: the first accumulator, the product, then after each step.
        multiplied: Type of the left operand of each product.
        on_matrix_unit: Whether the matrix unit takes it; the product goes to the vector unit otherwise.
        third: Type of the operand that the pipeline reads beside the product; None if there is none.
    """

    pipeline: str
    types: tuple[DType, ...]
    multiplied: tuple[DType, DType]
    on_matrix_unit: tuple[bool, bool]
    third: DType | None

    @property
    def takes_statistic(self) -> bool:
        """Whether the pipeline begins with a function of a statistic of rows."""
        return self.pipeline.partition("(")[0] in STATISTIC_FUNCTIONS

    def temporaries(self, sizes: Sizes, boxes: int) -> list[tuple[str, int]]:
        """Return names and bytes of the buffers of slices, and of products on the vector unit.

        Args:
            sizes: The largest box.
            boxes: Number of boxes; from two on, the slice of the next is computed ahead.
        """
        between = self.elements(sizes, self.between_map)
        slices = {
            self.slice_name(dtype, turn): between * dtype.itemsize_bytes
            for turn in range(min(boxes, 2))
            for dtype in self.types
        }
        return [*slices.items(), *self._others(sizes)]

    def slice_name(self, dtype: DType, turn: int) -> str:
        """Return the buffer in which a slice lies while it has a type.

        Only what a product writes or reads has to be there twice.
        """
        if dtype in (self.types[0], self.types[-1]):
            return f"slice{turn % 2}_{dtype}"
        return f"between_{dtype}"

    def _others(self, sizes: Sizes) -> list[tuple[str, int]]:
        found = []
        if self.third is not None and self.takes_statistic:
            elements = self.elements(sizes, self.nest.operands[3])
            found.append(("root", elements * self.third.itemsize_bytes))
        products = zip(
            (self.nest.operands[0], self.nest.operands[2]),
            *(self.multiplied, self.on_matrix_unit),
            strict=True,
        )
        parts = [
            self.elements(sizes, self.between_map, other) * dtype.itemsize_bytes
            for other, dtype, on_matrix in products
            if not on_matrix  # such products have the type of what is multiplied
        ]
        return [*found, ("product", max(parts))] if parts else found
