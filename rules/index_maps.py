"""Index maps that annotations are made of."""

from __future__ import annotations

from tilewright.errors import ShapeError
from tilewright.rules.loopnest import DimMap, LoopDim, OperandMap, Term


def along(size: int, dim: int) -> DimMap:
    """Return the map of a tensor dimension that one loop walks along."""
    return DimMap(size, (Term(dim, 1),))


def identity(shape: tuple[int, ...]) -> OperandMap:
    """Return the map in which loop i walks along dimension i."""
    return tuple(along(size, i) for i, size in enumerate(shape))


def broadcast(shape: tuple[int, ...], loops: tuple[LoopDim, ...], what: str) -> OperandMap:
    """Return the map in which loop i walks along dimension i unless that is broadcast."""
    if len(shape) != len(loops):
        raise ShapeError(f"{what}: an operand has rank {len(shape)}, expected {len(loops)}")
    maps = []
    for i, size in enumerate(shape):
        if size != loops[i].extent and size != 1:
            raise ShapeError(
                f"{what}: dimension {i} is {size}, expected 1 or {loops[i].extent} to broadcast"
            )
        maps.append(along(size, i) if size == loops[i].extent else DimMap(size))
    return tuple(maps)


def mixed_radix(size: int, loops: tuple[LoopDim, ...], digits: tuple[int, ...]) -> DimMap:
    """Return the index whose digits, most significant first, are the given loops."""
    terms, stride = [], 1
    for dim in reversed(digits):
        if loops[dim].extent != 1:
            terms.append(Term(dim, stride))
        stride *= loops[dim].extent
    assert stride == size, f"digits {digits} make {stride} indices, expected {size}"
    return DimMap(size, tuple(reversed(terms)))


def window(size: int, outer: int, stride: int, inner: int, dilation: int, before: int) -> DimMap:
    """Return the index of a sliding window: stride * outer + dilation * inner - before."""
    return DimMap(size, (Term(outer, stride), Term(inner, dilation)), offset=-before)
