"""Functions of VEC and RED: how many operands and immediates they take, and of which types."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from tilewright.dtypes import DType
from tilewright.graph import BINARY_FUNCTIONS, TERNARY_FUNCTIONS
from tilewright.reference import map_function

ARITY: dict[str, int] = {
    "fill": 0,
    **dict.fromkeys(BINARY_FUNCTIONS, 2),
    **dict.fromkeys(TERNARY_FUNCTIONS, 3),
}
"""Sources of a vector function; those not listed take one."""

PARAMETERS: dict[str, int] = {
    "leaky_relu": 1,
    "elu": 1,
    "hard_sigmoid": 2,
    "clip_min": 1,
    "clip_max": 1,
    "pow_const": 1,
    "add_const": 1,
    "mul_const": 1,
}
"""Immediates of a vector function; those not listed take none."""

REDUCTIONS = ("sum", "max", "min", "prod")


@lru_cache(maxsize=1 << 12)
def result_type(fn: str, sources: tuple[DType, ...]) -> DType | None:
    """Return what a vector function makes of types; None if it does not take them."""
    # f16 and bf16 are computed in f32
    wide = [DType.F32 if s in (DType.F16, DType.BF16) else s for s in sources]
    arguments = ("1.0",) * PARAMETERS.get(fn, 0)
    try:
        with np.errstate(all="ignore"):
            result = map_function(fn, arguments)(*(np.ones(1, s.numpy) for s in wide))
        return DType.from_numpy(result.dtype)
    except (TypeError, ValueError, ArithmeticError, KeyError):
        return None
