"""Numbers for instances: small whole ones first, then reals, then extremes."""

from __future__ import annotations

from enum import StrEnum

import numpy as np

from tilewright.dtypes import DType
from tilewright.graph import Array, TensorType
from tilewright.reference import AnyArray


class Values(StrEnum):
    """What kind of numbers the tensors of an instance have."""

    WHOLE = "whole"  # -3 to 3: sums in any order are equal
    NONZERO = "nonzero"  # the same without 0, which denominators must not be
    REAL = "real"  # normal, away from 0
    EXTREME = "extreme"  # far apart in magnitude, and the ends of integer types


def random_values(
    random: np.random.Generator, kind: TensorType, values: Values, limit: int | None
) -> Array:
    """Return the numbers of a tensor.

    Args:
        random: Source of randomness.
        kind: Its type.
        values: What kind of numbers.
        limit: For indices, the size of the table that they pick from.
    """
    if limit is not None:
        return random.integers(0, limit, kind.shape).astype(kind.dtype.numpy)
    if kind.dtype is DType.BOOL:
        return random.integers(0, 2, kind.shape).astype(np.bool_)
    if kind.dtype.is_float and values in (Values.REAL, Values.EXTREME):
        reals = random.normal(size=kind.shape)
        reals = reals + np.copysign(0.5, reals)
        if values is Values.EXTREME:
            reals = np.ldexp(reals, random.integers(-6, 7, kind.shape))
        return reals.astype(kind.dtype.numpy)
    if not kind.dtype.is_float and values is Values.EXTREME:
        return _ends(random, kind)
    whole: AnyArray = random.integers(-3, 4, kind.shape)
    if kind.dtype in (DType.U8, DType.U16, DType.U32, DType.U64):
        whole = np.abs(whole)
    if values is not Values.WHOLE or (not kind.dtype.is_float and random.random() < 0.5):
        whole = np.where(whole == 0, 1, whole)
    return whole.astype(kind.dtype.numpy)


def _ends(random: np.random.Generator, kind: TensorType) -> Array:
    """Return numbers near the ends of an integer type, and of the narrower ones."""
    info = np.iinfo(kind.dtype.numpy)
    ends = [info.min, info.max, *(2**bits + d for bits in (7, 8, 15, 16) for d in (-1, 0, 1))]
    usable = np.array([e for e in ends if info.min <= e <= info.max], dtype=kind.dtype.numpy)
    return random.choice(usable, kind.shape)
