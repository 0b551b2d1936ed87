"""Element types that tensors, descriptors and instructions share."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import ml_dtypes
import numpy as np


class DType(StrEnum):
    """An element type; the value is the name used in targets, listings and reports."""

    F32 = "f32"
    F16 = "f16"
    BF16 = "bf16"
    F64 = "f64"
    I8 = "i8"
    U8 = "u8"
    I16 = "i16"
    U16 = "u16"
    I32 = "i32"
    U32 = "u32"
    I64 = "i64"
    U64 = "u64"
    BOOL = "bool"

    @property
    def itemsize_bytes(self) -> int:
        """Bytes of one element in memory (a bool takes one)."""
        return self.numpy.itemsize

    @property
    def numpy(self) -> np.dtype[Any]:
        """The numpy type with the same layout."""
        return _NUMPY[self]

    @property
    def is_float(self) -> bool:
        """Whether this is a floating-point type."""
        return self in (DType.F32, DType.F16, DType.BF16, DType.F64)

    @property
    def lowest(self) -> float:
        """The lowest finite number of a floating-point type."""
        return float(ml_dtypes.finfo(self.numpy).min)  # type: ignore[no-untyped-call]

    @property
    def code(self) -> int:
        """The 4-bit number of this type in encoded descriptors."""
        return _CODES[self]

    @classmethod
    def from_numpy(cls, dtype: np.dtype[Any]) -> DType:
        """Return the element type of a numpy array; KeyError when there is none."""
        return _FROM_NUMPY[np.dtype(dtype)]

    @classmethod
    def from_code(cls, code: int) -> DType:
        """Return the element type with an encoded number; KeyError when there is none."""
        return _FROM_CODE[code]


_NUMPY: dict[DType, np.dtype[Any]] = {
    DType.F32: np.dtype(np.float32),
    DType.F16: np.dtype(np.float16),
    DType.BF16: np.dtype(ml_dtypes.bfloat16),
    DType.F64: np.dtype(np.float64),
    DType.I8: np.dtype(np.int8),
    DType.U8: np.dtype(np.uint8),
    DType.I16: np.dtype(np.int16),
    DType.U16: np.dtype(np.uint16),
    DType.I32: np.dtype(np.int32),
    DType.U32: np.dtype(np.uint32),
    DType.I64: np.dtype(np.int64),
    DType.U64: np.dtype(np.uint64),
    DType.BOOL: np.dtype(np.bool_),
}
_FROM_NUMPY = {value: key for key, value in _NUMPY.items()}
_CODES = {dtype: number for number, dtype in enumerate(DType)}
_FROM_CODE = {number: dtype for dtype, number in _CODES.items()}


class BlockFormat(StrEnum):
    """A block floating-point format: integers of 8 bits that share a power of two.

    The largest magnitude m of a block sets the exponent, floor(log2 m); elements are rounded to the nearest
    multiple of 2^(exponent - 6), ties to even, and saturate at 127 of them. Blocks run along the contracting
    dimension.

    Source: OCP Microscaling Formats (MX) Specification v1.0, MXINT8 with blocks of 32; d-Matrix's
    dmx-compressor, BFP[8|8]{64}, for blocks of 64.
    """

    MXINT8 = "mxint8"
    BFP16_64 = "bfp16_64"

    @property
    def block(self) -> int:
        """Elements that share an exponent."""
        return {BlockFormat.MXINT8: 32, BlockFormat.BFP16_64: 64}[self]


BLOCK_SOURCES = (DType.F32, DType.F16, DType.BF16)
"""Element types that a block format can be made of."""
