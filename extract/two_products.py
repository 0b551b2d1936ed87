"""What kernels of two products share: sizes of what is between them, and the products themselves.

The loops are those of `tilewright.rules.two_products`: between a [*b, m, d] b [*b, d, n] and c [*b, n, e]
there is a tensor [*b, m, n], of which one box exists at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import NamedTuple

from tilewright.rules.loopnest import DimMap, LoopNest, OperandMap

Sizes = tuple[int, ...]
"""Number of indices on each loop."""


class Product(NamedTuple):
    """`times` equal matrix products [b, m, k] x [b, k, n]."""

    times: int
    b: int
    m: int
    n: int
    k: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoProducts:
    """Two products on local shapes.

    Args:
        nest: Loops *b, m, e, d, n; then the pieces of n if operands arrive in chunks.
    """

    nest: LoopNest

    @property
    def _inner_maps(self) -> OperandMap:
        """Index maps of the last dimension of b: n, or pieces and n where it arrives in chunks."""
        return self.nest.operands[1][len(self.nest.result) - 1 :]

    @property
    def inner_loops(self) -> frozenset[int]:
        """Numbers of the loops that the second product contracts."""
        return frozenset(term.dim for dim in self._inner_maps for term in dim.terms)

    @property
    def between_map(self) -> OperandMap:
        """Index map of what is between the products: batch loops of a or b, m, n."""
        m = len(self.nest.result) - 2
        both = [self.nest.operands[0][:m], self.nest.operands[1][:m]]
        used = {term.dim for operand in both for dim in operand for term in dim.terms}
        batch = [dim if i in used else DimMap(1) for i, dim in enumerate(self.nest.result[:m])]
        return (*batch, self.nest.result[m], *self._inner_maps)

    def domain(self, sizes: Sizes, *tensors: OperandMap) -> Sizes:
        """Return the sizes of the loops that some of the tensors have, 1 for the others."""
        used = {term.dim for tensor in tensors for dim in tensor for term in dim.terms}
        return tuple(size if i in used else 1 for i, size in enumerate(sizes))

    def elements(self, sizes: Sizes, *tensors: OperandMap) -> int:
        """Return the indices of a box that some of the tensors have."""
        return prod(self.domain(sizes, *tensors))

    def first_product(self, count: int, sizes: Sizes) -> Product:
        """Return the product a b of `count` boxes."""
        a, b = self.nest.operands[:2]
        return self._product(count, sizes, a, b, self.between_map)

    def second_product(self, count: int, sizes: Sizes) -> Product:
        """Return the product of what is between and c, of `count` boxes."""
        return self._product(
            count, sizes, self.between_map, self.nest.operands[2], self.nest.result
        )

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
