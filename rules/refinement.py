"""The loop nest of a reshape: the common refinement of two shapes."""

from __future__ import annotations

from itertools import pairwise
from math import prod

from tilewright.rules.index_maps import mixed_radix
from tilewright.rules.loopnest import DimMap, LoopDim, LoopNest, Role


def _reshape_groups(
    before: tuple[int, ...], after: tuple[int, ...]
) -> tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]:
    """Pair up the smallest runs of dimensions with equal products; size-1 dimensions are left out.

    Returns:
        Pairs of dimension numbers of `before` and of `after`.
    """
    left = [i for i, size in enumerate(before) if size != 1]
    right = [i for i, size in enumerate(after) if size != 1]
    groups = []
    while left:
        a, b = [left.pop(0)], [right.pop(0)]
        size_a, size_b = before[a[0]], after[b[0]]
        while size_a != size_b:
            if size_a < size_b:
                a.append(left.pop(0))
                size_a *= before[a[-1]]
            else:
                b.append(right.pop(0))
                size_b *= after[b[-1]]
        groups.append((tuple(a), tuple(b)))
    assert not right, f"reshape {before} -> {after} changes the number of elements"
    return tuple(groups)


def _cuts(sizes: tuple[int, ...]) -> list[int]:
    """Return the products of the trailing sizes: strides at which a row-major index is cut."""
    return [prod(sizes[i:]) for i in range(len(sizes) + 1)]


def _whole_map(shape: tuple[int, ...]) -> list[DimMap]:
    """Return maps in which every iteration touches every dimension."""
    return [DimMap(size) if size == 1 else DimMap(size, whole=True) for size in shape]


def reshape_nest(before: tuple[int, ...], after: tuple[int, ...]) -> LoopNest:
    """Return the nest that copies a row-major tensor from one shape to another of as many elements.

    Runs of dimensions without a common refinement ([4, 6] -> [6, 4]) are processed whole.
    """
    maps_before, maps_after = _whole_map(before), _whole_map(after)
    if prod(before) == 0:
        return LoopNest((LoopDim("all", 0, Role.WHOLE),), (tuple(maps_before),), tuple(maps_after))
    loops: list[LoopDim] = []
    for left, right in _reshape_groups(before, after):
        sizes_left, sizes_right = tuple(before[i] for i in left), tuple(after[i] for i in right)
        cuts = sorted({*_cuts(sizes_left), *_cuts(sizes_right)}, reverse=True)
        if any(high % low for high, low in pairwise(cuts)):
            loops.append(LoopDim(f"d{len(loops)}", cuts[0], Role.WHOLE))
            continue
        first = len(loops)
        loops += [
            LoopDim(f"d{first + i}", high // low, Role.PARALLEL)
            for i, (high, low) in enumerate(pairwise(cuts))
        ]
        for numbers, sizes, maps in (
            (left, sizes_left, maps_before),
            (right, sizes_right, maps_after),
        ):
            ends = _cuts(sizes)
            for number, size, high, low in zip(numbers, sizes, ends, ends[1:], strict=False):
                digits = range(first + cuts.index(high), first + cuts.index(low))
                maps[number] = mixed_radix(size, tuple(loops), tuple(digits))
    # one element has no loops; consumers of nests may count on one
    dims = tuple(loops) or (LoopDim("one", 1, Role.PARALLEL),)
    return LoopNest(dims, (tuple(maps_before),), tuple(maps_after))
