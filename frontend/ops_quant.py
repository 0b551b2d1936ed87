"""Quantised operators, as casts, subtractions, products and roundings.

Products of 8-bit integers keep 8-bit operands: unsigned operands are shifted to signed ones, and the
zero points are corrected by row and column sums, which is exact in i32.
"""

from __future__ import annotations

import numpy as np

from tilewright.dtypes import DType
from tilewright.errors import ShapeError
from tilewright.frontend.builder import Builder
from tilewright.frontend.ops_math import dtype_of_proto
from tilewright.frontend.ops_window import channel_bias, convolve
from tilewright.frontend.registry import NodeContext, importer
from tilewright.frontend.values import FallbackError, Value

_RANGES = {
    DType.I8: (-128, 127),
    DType.U8: (0, 255),
    DType.I16: (-32768, 32767),
    DType.U16: (0, 65535),
}


def _along(c: NodeContext, x: Value, parameter: Value) -> Value:
    """Return a scale or zero point so that it broadcasts over x: scalar, per axis or per block."""
    if parameter.elements == 1 and parameter.rank <= 1:
        return c.b.reshape(parameter, ())
    axis = c.axis(c.integer("axis", 1), x.rank)
    if parameter.rank == 1:
        if parameter.dims[0] != x.dims[axis]:
            raise ShapeError(
                f"{c.b.label}: {parameter.dims[0]} scales for an axis of {x.dims[axis]}"
            )
        return c.b.reshape(parameter, [x.dims[axis] if i == axis else 1 for i in range(x.rank)])
    block = c.integer("block_size", 0)
    if not block or parameter.rank != x.rank:
        raise ShapeError(f"{c.b.label}: scale {parameter.dims} does not fit {x.dims}")
    shape = parameter.dims
    wide = c.b.reshape(parameter, (*shape[: axis + 1], 1, *shape[axis + 1 :]))
    grown = c.b.expand(wide, (*shape[: axis + 1], block, *shape[axis + 1 :]))
    flat = c.b.reshape(grown, (*shape[:axis], shape[axis] * block, *shape[axis + 1 :]))
    return c.b.slice_axis(flat, axis, 0, x.dims[axis])


def _is_zero(value: Value | None) -> bool:
    return value is None or (value.data is not None and not np.any(value.data))


@importer("DequantizeLinear")
def import_dequantize(c: NodeContext) -> Value:
    """(x - zero) * scale, in the type of the scale."""
    x, scale, zero = c.x, c.inp(1), c.opt(2)
    if not scale.element.is_float:
        raise FallbackError("the scale is not a float")
    if c.integer("output_dtype", 0) not in (0, 1):
        raise FallbackError("output_dtype is set")
    wide = c.b.cast(x, scale.element)
    if zero is not None and not _is_zero(zero):
        wide = c.b.map("sub", wide, c.b.cast(_along(c, x, zero), scale.element))
    return c.b.map("mul", wide, _along(c, x, scale))


def quantized(b: Builder, x: Value, scale: Value | None, zero: Value | None, dtype: DType) -> Value:
    """Return round(x / scale) + zero, clipped to an integer type; without a scale x is not divided."""
    if dtype not in _RANGES:
        raise FallbackError(f"quantisation to {dtype}")
    low, high = _RANGES[dtype]
    value = b.map("round", x if scale is None else b.map("div", x, scale))
    if zero is not None and not _is_zero(zero):
        value = b.map("add", value, b.cast(zero, value.element))
    return b.map(f"clip_min({low})|clip_max({high})|cast({dtype})", value)


@importer("QuantizeLinear")
def import_quantize(c: NodeContext) -> Value:
    """Divide, round half to even, add the zero point, clip, cast."""
    x, scale, zero = c.x, c.inp(1), c.opt(2)
    if zero is not None and zero.proto is not None:
        raise FallbackError("the quantised type has 4 bits")
    number = c.integer("output_dtype", 0)
    dtype = (
        zero.element
        if zero is not None
        else dtype_of_proto(number, c.b.label)
        if number
        else DType.U8
    )
    source = c.b.cast(x, scale.element)
    offset = None if zero is None else _along(c, x, zero)
    return quantized(c.b, source, _along(c, x, scale), offset, dtype)


def dynamically_quantized(b: Builder, x: Value) -> tuple[Value, Value, Value]:
    """Return x as u8, with scale and zero point from its range, which includes 0."""
    axes = range(x.rank)
    high = b.map("clip_min(0.0)", b.reduce("max", x, axes, keepdims=False))
    low = b.map("clip_max(0.0)", b.reduce("min", x, axes, keepdims=False))
    span = b.map("sub", high, low)
    one = b.scalar(1.0, x.element)
    raw = b.map("div", span, b.scalar(255.0, x.element))
    # an all-zero input has no range; onnxruntime takes a scale of 1
    scale = b.map("where", b.map("eq", span, b.scalar(0.0, x.element)), one, raw)
    zero = b.map("neg|round|clip_min(0.0)|clip_max(255.0)|cast(u8)", b.map("div", low, scale))
    return quantized(b, x, scale, zero, DType.U8), scale, zero


@importer("DynamicQuantizeLinear")
def import_dynamic_quantize(c: NodeContext) -> tuple[Value, ...]:
    """Quantise to u8 by the range of the data."""
    return dynamically_quantized(c.b, c.x)


def _signed(b: Builder, x: Value, zero: Value | None) -> tuple[Value, Value | None]:
    """Return an 8-bit operand as i8 and its zero point as i32 (None for 0)."""
    offset = None if _is_zero(zero) or zero is None else b.cast(zero, DType.I32)
    if x.element is DType.I8:
        return x, offset
    if x.element is not DType.U8:
        raise FallbackError(f"integer product of {x.element}")
    shifted = b.map("cast(i32)|add_const(-128)|cast(i8)", x)
    base = b.scalar(0, DType.I32) if offset is None else offset
    return shifted, b.map("add_const(-128)", base)


def integer_matmul(
    b: Builder, x: Value, y: Value, x_zero: Value | None, y_zero: Value | None
) -> Value:
    """Return (x - x_zero) (y - y_zero) in i32.

    x_zero is a scalar or broadcasts over rows [m, 1], y_zero is a scalar or over columns [1, n].
    """
    if x.rank < 2 or y.rank < 2:
        raise FallbackError("integer product of vectors")
    left, zx = _signed(b, x, x_zero)
    right, zy = _signed(b, y, y_zero)
    result = b.matmul(left, right, DType.I32)
    if zx is not None:
        zx = b.reshape(zx, (*zx.dims, 1)) if zx.rank == 1 and zx.dims[0] > 1 else zx
        columns = b.reduce("sum", b.cast(right, DType.I32), (right.rank - 2,))
        result = b.map("sub", result, b.map("mul", columns, zx))
    if zy is not None:
        rows = b.reduce("sum", b.cast(left, DType.I32), (left.rank - 1,))
        result = b.map("sub", result, b.map("mul", rows, zy))
    if zx is not None and zy is not None:
        product = b.map("mul", b.map("mul", zx, zy), b.scalar(left.dims[-1], DType.I32))
        result = b.map("add", result, product)
    return result


@importer("MatMulInteger")
def import_matmul_integer(c: NodeContext) -> Value:
    """Product of 8-bit integers in i32."""
    return integer_matmul(c.b, c.x, c.inp(1), c.opt(2), c.opt(3))


@importer("MatMulIntegerToFloat", domain="com.microsoft")
def import_matmul_integer_to_float(c: NodeContext) -> Value:
    """Product of 8-bit integers, scaled to floats, plus a bias."""
    product = integer_matmul(c.b, c.x, c.inp(1), c.opt(4), c.opt(5))
    scale = c.b.map("mul", c.inp(2), c.inp(3))
    result = c.b.map("mul", c.b.cast(product, scale.element), scale)
    bias = c.opt(6)
    return result if bias is None else c.b.map("add", result, bias)


@importer("DynamicQuantizeMatMul", domain="com.microsoft")
def import_dynamic_quantize_matmul(c: NodeContext) -> Value:
    """DynamicQuantizeLinear of the left operand, then an integer product scaled to floats."""
    data, scale_x, zero_x = dynamically_quantized(c.b, c.x)
    product = integer_matmul(c.b, data, c.inp(1), zero_x, c.opt(3))
    result = c.b.map("mul", c.b.cast(product, scale_x.element), c.b.map("mul", scale_x, c.inp(2)))
    bias = c.opt(4)
    return result if bias is None else c.b.map("add", result, bias)


@importer("QLinearMatMul")
def import_qlinear_matmul(c: NodeContext) -> Value:
    """Integer product, rescaled and quantised again."""
    x, x_scale, x_zero, y, y_scale, y_zero, out_scale, out_zero = (c.inp(i) for i in range(8))
    if x_scale.elements > 1 and x_scale.rank == 1:
        raise FallbackError("per-row scales")
    product = integer_matmul(c.b, x, y, x_zero, y_zero)
    scale = c.b.map("div", c.b.map("mul", x_scale, y_scale), out_scale)
    value = c.b.map("mul", c.b.cast(product, scale.element), scale)
    return quantized(c.b, value, None, out_zero, out_zero.element)


def _integer_conv(
    c: NodeContext, x: Value, w: Value, x_zero: Value | None, w_zero: Value | None
) -> Value:
    """Return the convolution of (x - x_zero) with (w - w_zero) in i32; padding is x_zero."""
    b = c.b
    if _is_zero(x_zero) and _is_zero(w_zero) and x.element is DType.I8 and w.element is DType.I8:
        return convolve(c, x, w, dtype=DType.I32)
    wide_x, wide_w = b.cast(x, DType.I32), b.cast(w, DType.I32)
    if x_zero is not None and not _is_zero(x_zero):
        wide_x = b.map("sub", wide_x, b.reshape(b.cast(x_zero, DType.I32), ()))
    if w_zero is not None and not _is_zero(w_zero):
        zero = b.cast(w_zero, DType.I32)
        shape = (zero.elements, *(1,) * (w.rank - 1)) if zero.elements > 1 else ()
        wide_w = b.map("sub", wide_w, b.reshape(zero, shape))
    return convolve(c, wide_x, wide_w)


@importer("ConvInteger")
def import_conv_integer(c: NodeContext) -> Value:
    """Convolution of 8-bit integers in i32."""
    return _integer_conv(c, c.x, c.inp(1), c.opt(2), c.opt(3))


@importer("QLinearConv")
def import_qlinear_conv(c: NodeContext) -> Value:
    """Integer convolution plus bias, rescaled and quantised again."""
    b = c.b
    x, x_scale, x_zero, w, w_scale, w_zero, out_scale, out_zero = (c.inp(i) for i in range(8))
    total = channel_bias(c, _integer_conv(c, x, w, x_zero, w_zero), c.opt(8))
    if w_scale.elements > 1:
        w_scale = b.reshape(w_scale, (1, w_scale.elements, *(1,) * (x.rank - 2)))
    else:
        w_scale = b.reshape(w_scale, ())
    scale = b.map("div", b.map("mul", b.reshape(x_scale, ()), w_scale), b.reshape(out_scale, ()))
    value = b.map("mul", b.cast(total, scale.element), scale)
    return quantized(b, value, None, b.reshape(out_zero, ()), out_zero.element)
