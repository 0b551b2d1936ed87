"""A compiled sort in place: numpy's needs numba's runtime."""

from __future__ import annotations

from tilewright.lowering.packing_jit import compiled_part
from tilewright.lowering.packing_tables import Ints


@compiled_part
def sort_pairs(pairs: Ints, count: int) -> None:
    """Sort the first columns by their first row (Shell's sort, gaps of Ciura)."""
    gap = 1
    while gap < count:
        gap = gap * 9 // 4 + 1
    while gap > 0:
        for k in range(gap, count):
            low, high, j = pairs[0, k], pairs[1, k], k
            while j >= gap and pairs[0, j - gap] > low:
                pairs[0, j], pairs[1, j] = pairs[0, j - gap], pairs[1, j - gap]
                j -= gap
            pairs[0, j], pairs[1, j] = low, high
        gap = gap * 4 // 9
