"""The values that matrix, vector and reduction instructions compute, as numpy.

Arrays have leading mesh dimensions (`lead` of them, of size 1 where tiles agree), then the domain's.
Half-precision floats are computed in f32 and rounded once, when written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np

from tilewright.dtypes import BlockFormat
from tilewright.errors import ProgramError
from tilewright.lowering.isa import Instruction, dimension_roles
from tilewright.lowering.vector_functions import PARAMETERS
from tilewright.reference import map_function
from tilewright.simulator.block_floats import block_product

AnyArray = np.ndarray[Any, np.dtype[Any]]

_EXACT_F32 = 2**24
_EXACT_F64 = 2**53


def is_float(dtype: np.dtype[Any]) -> bool:
    """Whether this is a floating-point type (bfloat16 is of numpy's kind V)."""
    return dtype.kind in "fV"


def widen(x: AnyArray) -> AnyArray:
    """Return half-precision floats as f32, others unchanged."""
    return x.astype(np.float32) if is_float(x.dtype) and x.dtype.itemsize == 2 else x


def convert(x: AnyArray, dtype: np.dtype[Any]) -> AnyArray:
    """Convert element types: floats round to nearest or truncate to integers, integers wrap."""
    with np.errstate(all="ignore"):
        return x.astype(dtype, copy=False)


def _fill(value: float, dtype: np.dtype[Any]) -> AnyArray:
    if dtype.kind in "iu":
        # the largest 64-bit integers have no exact float; saturating names them
        info = np.iinfo(dtype)
        number = info.max if value >= info.max else info.min if value <= info.min else int(value)
        return np.asarray(number, dtype)
    return convert(np.asarray(value, np.float64), dtype)


def elementwise(instruction: Instruction, operands: Sequence[AnyArray], lead: int) -> AnyArray:
    """Return the value of a VEC instruction, of dst's element type.

    Args:
        instruction: The instruction.
        operands: Its sources [*mesh, *domain]; sizes of 1 broadcast.
        lead: Number of mesh dimensions.

    Raises:
        ProgramError: The function does not exist for these element types.
    """
    assert instruction.dst is not None
    dtype = instruction.dst.dtype.numpy
    fn = instruction.fn
    if fn == "fill":
        value = (
            0.0
            if np.isnan(instruction.immediates[0]) and dtype.kind in "iub"
            else instruction.immediates[0]
        )
        return _fill(value, dtype).reshape((1,) * (lead + len(instruction.domain)))
    if fn == "cast":
        return convert(operands[0], dtype)
    if fn == "mul" and is_float(operands[1].dtype) and not is_float(operands[0].dtype):
        # integers are rounded as by a cast, which half-precision floats would hide when widened
        operands = (convert(operands[0], operands[1].dtype), operands[1])
    arguments = tuple(repr(x) for x in instruction.immediates[: PARAMETERS.get(fn, 0)])
    wide = [widen(x) for x in operands]
    try:
        with np.errstate(all="ignore"):
            result = map_function(fn, arguments)(*wide)
    except (TypeError, ValueError, ArithmeticError) as error:
        kinds = ", ".join(str(s.dtype) for s in instruction.sources)
        raise ProgramError(f"{fn} of {kinds} cannot be computed: {error}") from error
    if result.dtype != dtype and not (is_float(result.dtype) and is_float(dtype)):
        raise ProgramError(f"{fn} gives {result.dtype}, dst is {instruction.dst.dtype}; use cast")
    return convert(result, dtype)


_REDUCERS: dict[str, Callable[..., AnyArray]] = {
    "sum": np.sum,
    "prod": np.prod,
    "max": np.max,
    "min": np.min,
}
_COMBINERS: dict[str, Callable[..., AnyArray]] = {
    "sum": np.add,
    "prod": np.multiply,
    "max": np.maximum,
    "min": np.minimum,
}


def _same_kind(instruction: Instruction, found: np.dtype[Any], dtype: np.dtype[Any]) -> None:
    if found != dtype and is_float(found) != is_float(dtype):
        raise ProgramError(f"{instruction.fn} of {found} does not give {dtype}")


def reduce(instruction: Instruction, source: AnyArray, old: AnyArray | None, lead: int) -> AnyArray:
    """Return the value of a RED instruction: `source` reduced over the dims that dst lacks.

    Args:
        instruction: The instruction.
        source: [*mesh, *domain] with all dimensions present.
        old: dst's value, if it takes part.
        lead: Number of mesh dimensions.
    """
    assert instruction.dst is not None
    dtype = instruction.dst.dtype.numpy
    _same_kind(instruction, source.dtype, dtype)
    axes = tuple(lead + d for d, stride in enumerate(instruction.dst.strides) if stride == 0)
    wide = widen(source)
    # Floats are added in 64 bits: numpy's own order of a sum depends on strides, an engine's does not.
    is_wide = is_float(wide.dtype)
    work = np.dtype(np.float64) if is_wide else np.promote_types(wide.dtype, dtype)
    with np.errstate(all="ignore"):
        if instruction.fn in ("sum", "prod"):
            result = _REDUCERS[instruction.fn](wide, axis=axes, keepdims=True, dtype=work)
        else:
            result = _REDUCERS[instruction.fn](wide, axis=axes, keepdims=True)
        if old is not None:
            result = _COMBINERS[instruction.fn](result, widen(old))
    return convert(result, dtype)


def _arranged(
    x: AnyArray, lead: int, parts: Sequence[Sequence[int]], dtype: np.dtype[Any]
) -> AnyArray:
    """Return [*mesh, p0, p1, …] of a type where p is the product of the domain dims of each part."""
    present = [lead + d for part in parts for d in part]
    dropped = [d for d in range(lead, x.ndim) if d not in present]
    moved = x.transpose(*range(lead), *present, *dropped)
    sizes = [prod(x.shape[lead + d] for d in part) for part in parts]
    # one copy that orders and converts
    with np.errstate(all="ignore"):
        dense = moved.astype(dtype, order="C", copy=False)
    return dense.reshape(*x.shape[:lead], *sizes)


def _largest(x: AnyArray) -> int:
    return max(abs(int(x.max())), abs(int(x.min()))) if x.size else 0


def _integer_product(a: AnyArray, b: AnyArray, dtype: np.dtype[Any]) -> AnyArray:
    """Multiply integer matrices exactly, through a float unit where its integers are exact."""
    bound = _largest(a) * _largest(b) * a.shape[-1]
    if bound <= _EXACT_F32:
        return convert(np.matmul(a.astype(np.float32), b.astype(np.float32)), dtype)
    if bound <= _EXACT_F64:
        return convert(
            np.matmul(a.astype(np.float64), b.astype(np.float64)).astype(np.int64), dtype
        )
    return convert(np.matmul(a.astype(np.int64), b.astype(np.int64)), dtype)


def matrix_product(
    instruction: Instruction, a: AnyArray, b: AnyArray, old: AnyArray | None, lead: int
) -> AnyArray:
    """Return the value of an MM instruction, [*mesh, *domain] with size 1 for the contracted dims.

    Args:
        instruction: The instruction.
        a: src0 [*mesh, *domain], absent dims of size 1.
        b: src1, likewise.
        old: dst's value if the instruction accumulates.
        lead: Number of mesh dimensions.
    """
    assert instruction.dst is not None
    dtype = instruction.dst.dtype.numpy
    roles = dimension_roles(instruction)
    dims = {role: [d for d, r in enumerate(roles) if r == role] for role in "bmnk"}
    types = (a.dtype, b.dtype)
    if is_float(a.dtype):
        types = (np.dtype(np.float32 if instruction.fn else np.float64),) * 2
    left = _arranged(a, lead, (dims["b"], dims["m"], dims["k"]), types[0])
    right = _arranged(b, lead, (dims["b"], dims["k"], dims["n"]), types[1])
    if instruction.fn:
        accumulator = None
        if old is not None:
            accumulator = _arranged(old, lead, (dims["b"], dims["m"], dims["n"]), dtype)
        product = block_product(left, right, accumulator, BlockFormat(instruction.fn))
        old = None
    elif is_float(a.dtype):
        # In 64 bits, so that equal columns have equal sums wherever they lie: an array adds all in one
        # order, a BLAS library has other orders for the columns that are left over.
        with np.errstate(all="ignore"):
            product = np.matmul(left, right)
    else:
        product = _integer_product(left, right, dtype)
    order = [*dims["b"], *dims["m"], *dims["n"]]
    split = product.reshape(*product.shape[:lead], *(instruction.domain[d] for d in order))
    # back to the order of the domain, then size-1 dims in place of the contracted ones
    places = sorted(range(len(order)), key=lambda k: order[k])
    result = split.transpose(*range(lead), *(lead + k for k in places))
    sizes = [1 if role == "k" else n for role, n in zip(roles, instruction.domain, strict=True)]
    result = result.reshape(*product.shape[:lead], *sizes)
    if old is not None:
        with np.errstate(all="ignore"):
            result = result + widen(old)
    return convert(result, dtype)
