"""Types of a pattern's tensor variables, drawn so that they often fit their operator."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tilewright.dtypes import DType
from tilewright.graph import TensorType
from tilewright.rules.constructors import Constructor
from tilewright.rules.instances import drawn

Types = Mapping[int, TensorType]
"""Types of the operands that are known, by their place."""


def leaf_type(
    random: np.random.Generator,
    constructor: Constructor,
    place: int,
    known: Types,
    fallback: TensorType,
    sizes: tuple[int, ...],
) -> TensorType:
    """Return a type for an operand.

    Args:
        random: Source of randomness.
        constructor: The operator.
        place: Which operand.
        known: The other operands.
        fallback: A type for an operand that nothing constrains; gives the element type.
        sizes: Sizes to choose from.
    """
    kind, dtype = constructor.kind, fallback.dtype
    if kind == "gather" and place == 1:
        return TensorType((drawn(random, sizes),), DType.I64)
    if kind == "map" and place == 0 and constructor.operands == 3:
        dtype = DType.BOOL  # the condition of a selection
    if not known or random.random() < 0.1:
        return TensorType(fallback.shape, dtype)
    first = known[max(known)]
    dtype = first.dtype if dtype is not DType.BOOL else dtype
    match kind:
        case "matmul" | "conv" if constructor.dequantises and place == constructor.arity - 1:
            return TensorType(_broadcast(random, known.get(1, first).shape, sizes), dtype)
        case "matmul" if place < 2 and first.rank >= 2:
            return TensorType(_factor(random, place, first.shape, sizes), dtype)
        case "conv" if place == 1:
            return TensorType(_weight(random, first.shape, sizes), dtype)
        case "conv" if place == 0:
            return TensorType(_image(random, first.shape, sizes), dtype)
        case "concat":
            return TensorType(_one_other(random, first.shape, sizes), dtype)
        case "matmul" | "conv":
            return TensorType(_third(random, constructor, known), dtype)
        case "map":
            return TensorType(_broadcast(random, first.shape, sizes), dtype)
        case _:
            return TensorType(fallback.shape, dtype)


def _factor(
    random: np.random.Generator, place: int, other: tuple[int, ...], sizes: tuple[int, ...]
) -> tuple[int, ...]:
    """Return a shape that multiplies: its K is that of the other factor."""
    batch = tuple(b if random.random() < 0.6 else 1 for b in other[:-2])
    free = drawn(random, sizes)
    return (*batch, other[-1], free) if place == 1 else (*batch, free, other[-2])


def _weight(
    random: np.random.Generator, image: tuple[int, ...], sizes: tuple[int, ...]
) -> tuple[int, ...]:
    """Return weights [o, c / groups, r, s] of an image [n, c, h, w]."""
    divisors = [g for g in range(1, image[1] + 1) if image[1] % g == 0]
    groups = drawn(random, divisors) if random.random() < 0.5 else 1
    kernel = [int(random.integers(1, min(3, size) + 1)) for size in image[2:]]
    return (groups * drawn(random, tuple(s for s in sizes if s <= 3)), image[1] // groups, *kernel)


def _image(
    random: np.random.Generator, weight: tuple[int, ...], sizes: tuple[int, ...]
) -> tuple[int, ...]:
    """Return an image [n, c, h, w] for weights [o, c / groups, r, s]."""
    groups = weight[0] if random.random() < 0.3 else 1
    spatial = [int(random.integers(k, k + 3)) for k in weight[2:]]
    return (drawn(random, sizes), groups * weight[1], *spatial)


def _third(random: np.random.Generator, constructor: Constructor, known: Types) -> tuple[int, ...]:
    """Return the shape of a third operand, which broadcasts over the product."""
    a, b = known.get(0), known.get(1)
    if a is None or b is None or a.rank != b.rank or a.rank < 2:
        return next(iter(known.values())).shape
    if constructor.kind == "conv":
        shape: tuple[int, ...] = (a.shape[0], b.shape[0], 1, 1)
    else:
        batch = tuple(max(x, y) for x, y in zip(a.shape[:-2], b.shape[:-2], strict=True))
        shape = (*batch, a.shape[-2], b.shape[-1])
    return tuple(size if random.random() < 0.6 else 1 for size in shape)


def _one_other(
    random: np.random.Generator, shape: tuple[int, ...], sizes: tuple[int, ...]
) -> tuple[int, ...]:
    """Return a shape that differs in at most one dimension."""
    axis = int(random.integers(len(shape)))
    size = drawn(random, sizes) if random.random() < 0.7 else shape[axis]
    return (*shape[:axis], size, *shape[axis + 1 :])


def _broadcast(
    random: np.random.Generator, shape: tuple[int, ...], sizes: tuple[int, ...]
) -> tuple[int, ...]:
    """Return a shape that broadcasts with another one: equal, one element, one axis, or mixed."""
    form = random.random()
    if form < 0.35:
        return shape
    if form < 0.5:
        return (1,) * len(shape)
    if form < 0.7:
        axis = int(random.integers(len(shape)))
        return tuple(size if i == axis else 1 for i, size in enumerate(shape))
    return tuple(_beside(random, size, sizes) for size in shape)


def _beside(random: np.random.Generator, size: int, sizes: tuple[int, ...]) -> int:
    """Return a size that broadcasts with another one."""
    if size == 1 and random.random() < 0.5:
        return drawn(random, sizes)
    return size if random.random() < 0.6 else 1
