"""Random attributes of the operators that `tilewright.rules.instances` has none for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tilewright.graph import AttrValue, TensorType
from tilewright.rules.constructors import REST, Constructor, encode, encode_value
from tilewright.rules.instances import drawn, random_text

_PAD_VALUES = (0.0, 0.0, 1.0, -2.0)


def attribute_text(
    random: np.random.Generator,
    constructor: Constructor,
    column: str,
    operands: Sequence[TensorType],
) -> str:
    """Return a random text of an attribute column that may fit the operands.

    Args:
        random: Source of randomness.
        constructor: The operator.
        column: One of its columns.
        operands: Types of its operands.
    """
    shape = operands[0].shape
    match constructor.kind, column:
        case "concat", "axis":
            differing = [i for i, sizes in enumerate(_columns(operands)) if len(set(sizes)) > 1]
            axis = differing[0] if differing else int(random.integers(len(shape)))
            return encode_value(axis)
        case "expand", "shape":
            grown = (drawn(random, (1, 2, 3)) if size == 1 else size for size in shape)
            return encode_value(tuple(grown))
        case "reshape", "shape" if len(shape) > 1 and random.random() < 0.7:
            return encode_value(_merged(random, shape))
        case "transpose", "perm" if len(shape) > 1 and random.random() < 0.5:
            *outer, i, j = range(len(shape))  # as products have it that read transposed
            return encode_value((*outer, j, i))
        case "reduce", "fn":
            return drawn(random, ("sum", "max", "sum", "max", "min", "prod"))
        case "pad", column if column == REST:
            return _text(constructor, _padding(random, len(shape)))
        case "slice", column if column == REST:
            return _text(constructor, _part(random, shape))
        case "pool", column if column == REST:
            return _text(constructor, _window(random))
        case "pool" | "pad" | "slice", _:
            return encode_value(int(random.integers(max(len(shape), 1))))
    return random_text(random, constructor, column, list(operands))


def _merged(random: np.random.Generator, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape with two neighbouring dimensions as one, in front of matrices if there are any."""
    at = int(random.integers(max(1, len(shape) - 3)))
    return (*shape[:at], shape[at] * shape[at + 1], *shape[at + 2 :])


def _columns(operands: Sequence[TensorType]) -> list[tuple[int, ...]]:
    return list(zip(*(operand.shape for operand in operands), strict=False))


def _text(constructor: Constructor, attrs: dict[str, AttrValue]) -> str:
    return encode(constructor, attrs)[constructor.columns.index(REST)]


def _padding(random: np.random.Generator, rank: int) -> dict[str, AttrValue]:
    widths = [int(w) * int(random.random() < 0.5) for w in random.integers(0, 3, 2 * rank)]
    return {
        "begins": tuple(widths[:rank]),
        "ends": tuple(widths[rank:]),
        "value": drawn(random, _PAD_VALUES),
    }


def _part(random: np.random.Generator, shape: tuple[int, ...]) -> dict[str, AttrValue]:
    if random.random() < 0.5 and max(shape) > 1:
        return _half(random, shape)
    starts, sizes, steps = [], [], []
    for size in shape:
        start = int(random.integers(size)) if random.random() < 0.5 else 0
        step = drawn(random, (1, 1, 2))
        most = (size - start - 1) // step + 1
        starts.append(start)
        sizes.append(most if random.random() < 0.5 else int(random.integers(1, most + 1)))
        steps.append(step)
    return {"starts": tuple(starts), "sizes": tuple(sizes), "steps": tuple(steps)}


def _half(random: np.random.Generator, shape: tuple[int, ...]) -> dict[str, AttrValue]:
    """Return the first or second part of the largest dimension: two such slices often meet."""
    starts, sizes, axis = [0] * len(shape), list(shape), shape.index(max(shape))
    cut = (shape[axis] + 1) // 2
    if random.random() < 0.5:
        sizes[axis] = cut
    else:
        starts[axis], sizes[axis] = cut, shape[axis] - cut
    return {"starts": tuple(starts), "sizes": tuple(sizes), "steps": (1,) * len(shape)}


def _window(random: np.random.Generator) -> dict[str, AttrValue]:
    return {
        "fn": drawn(random, ("max", "sum")),
        "kernel": tuple(int(k) for k in random.integers(1, 3, 2)),
        "strides": tuple(int(s) for s in random.integers(1, 3, 2)),
        "pads": tuple(int(p) for p in random.integers(0, 2, 4)),
        "dilations": (1, 1),
    }
