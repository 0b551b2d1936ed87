"""Block floating point: operands of a matrix product rounded to blocks that share an exponent."""

from __future__ import annotations

from typing import Any

import numpy as np

from tilewright.dtypes import BlockFormat

AnyArray = np.ndarray[Any, np.dtype[Any]]

_ELEMENT_BITS = 8
_LARGEST = 2 ** (_ELEMENT_BITS - 1) - 1
_EXPONENT_RANGE = (-127, 127)


def to_blocks(x: AnyArray, block_format: BlockFormat) -> tuple[AnyArray, AnyArray]:
    """Round the last dimension to blocks.

    Args:
        x: Floats of at most 32 bits [..., k].
        block_format: The format.

    Returns:
        Elements, integers as f32 [..., blocks, block], and scales, powers of two as f64 [..., blocks]:
        0 for blocks of zeros, NaN for those with a NaN or infinity.
    """
    block = block_format.block
    blocks = -(-x.shape[-1] // block)
    padded = np.zeros((*x.shape[:-1], blocks * block))
    padded[..., : x.shape[-1]] = x
    parts = padded.reshape(*x.shape[:-1], blocks, block)
    largest = np.abs(parts).max(axis=-1, initial=0.0)
    finite = np.isfinite(largest)
    # frexp gives a mantissa in [0.5, 1)
    exponents = np.frexp(np.where(finite, largest, 1.0))[1] - 1
    steps = np.ldexp(1.0, np.clip(exponents, *_EXPONENT_RANGE) - (_ELEMENT_BITS - 2))
    with np.errstate(invalid="ignore"):
        elements = np.clip(np.rint(parts / steps[..., None]), -_LARGEST, _LARGEST)
    elements = np.where(finite[..., None], elements, 0.0).astype(np.float32)
    scales = np.where(finite, np.where(largest > 0.0, steps, 0.0), np.nan)
    return elements, scales


def rounded(x: AnyArray, axis: int, block_format: BlockFormat) -> AnyArray:
    """Return floats rounded to blocks along an axis, with their element type."""
    moved = np.moveaxis(x, axis, -1)
    elements, scales = to_blocks(moved, block_format)
    values = (elements * scales[..., None]).reshape(*moved.shape[:-1], -1)[..., : moved.shape[-1]]
    return np.moveaxis(values, -1, axis).astype(x.dtype)


def block_product(
    left: AnyArray, right: AnyArray, old: AnyArray | None, block_format: BlockFormat
) -> AnyArray:
    """Multiply [..., m, k] by [..., k, n] in a block format.

    Products of a block are exact; blocks are rounded to f32 and added in f32 in ascending order.

    Args:
        left: Floats of at most 32 bits.
        right: Likewise.
        old: f32 [..., m, n] to begin with; None for 0.
        block_format: The format of both.

    Returns:
        f32 [..., m, n].
    """
    a, a_scales = to_blocks(left, block_format)
    b, b_scales = to_blocks(right.swapaxes(-1, -2), block_format)
    shape = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    total = np.zeros((*shape, left.shape[-2], right.shape[-1]), np.float32)
    if old is not None:
        total = total + old
    with np.errstate(all="ignore"):
        for number in range(a.shape[-2]):
            # sums of at most 64 products below 2^14 are exact in f32, in any order
            sums = np.matmul(a[..., number, :], b[..., number, :].swapaxes(-1, -2))
            scales = a_scales[..., :, None, number] * b_scales[..., None, :, number]
            total = total + (sums * scales).astype(np.float32)
    return total
