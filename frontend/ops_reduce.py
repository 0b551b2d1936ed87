"""Reductions, softmax, normalisations, cumulative sums."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np

from tilewright.dtypes import DType
from tilewright.errors import ShapeError
from tilewright.frontend.builder import Builder
from tilewright.frontend.registry import NodeContext, importer
from tilewright.frontend.values import FallbackError, Value

_Step = Callable[[Builder, Value], Value]
_PARTS: dict[str, tuple[str, str, str]] = {
    "ReduceSum": ("", "sum", ""),
    "ReduceMax": ("", "max", ""),
    "ReduceMin": ("", "min", ""),
    "ReduceProd": ("", "prod", ""),
    "ReduceL1": ("abs", "sum", ""),
    "ReduceL2": ("square", "sum", "sqrt"),
    "ReduceLogSum": ("", "sum", "log"),
    "ReduceSumSquare": ("square", "sum", ""),
}


def reduce_axes(c: NodeContext) -> tuple[int, ...] | None:
    """Return the axes of a reduction; None when it reduces nothing."""
    since = 13 if c.node.op_type == "ReduceSum" else 18
    if c.opset < since:
        given = c.ints("axes")
    else:
        given = None if c.opt(1) is None else c.known_ints(1, "axes")
    if not given:
        return None if c.integer("noop_with_empty_axes", 0) else tuple(range(c.x.rank))
    return c.axes(given, c.x.rank)


@importer(*_PARTS)
def import_reduce(c: NodeContext) -> Value:
    """Apply a function before, a reduction, a function after."""
    before, fn, after = _PARTS[c.node.op_type]
    axes = reduce_axes(c)
    keep = bool(c.integer("keepdims", 1))
    x = c.b.map(before, c.x) if before else c.x
    if axes is None:
        return c.b.map(after, x) if after else x
    if x.element is DType.BOOL:
        result = c.b.cast(c.b.reduce(fn, c.b.cast(x, DType.U8), axes, keepdims=keep), DType.BOOL)
    else:
        result = c.b.reduce(fn, x, axes, keepdims=keep)
    return c.b.map(after, result) if after else result


@importer("ReduceMean")
def import_reduce_mean(c: NodeContext) -> Value:
    """Sum times 1 / count."""
    axes = reduce_axes(c)
    return c.x if axes is None else c.b.mean(c.x, axes, keepdims=bool(c.integer("keepdims", 1)))


@importer("ReduceLogSumExp")
def import_reduce_log_sum_exp(c: NodeContext) -> Value:
    """max + log(sum(exp(x - max))), which does not overflow."""
    axes = reduce_axes(c)
    if axes is None:
        return c.x
    top = c.b.reduce("max", c.x, axes)
    finite = c.b.map("where", c.b.map("isinf", top), c.b.scalar(0, c.x.element), top)
    total = c.b.reduce("sum", c.b.map("exp", c.b.map("sub", c.x, finite)), axes)
    result = c.b.map("add", c.b.map("log", total), finite)
    if c.integer("keepdims", 1):
        return result
    return c.b.reshape(result, [d for i, d in enumerate(c.x.dims) if i not in axes])


def _over_axis(c: NodeContext, apply: _Step) -> Value:
    """Apply a function of the last axis along the node's axis; before opset 13 along all from it."""
    x, b = c.x, c.b
    if c.opset < 13:
        axis = c.integer("axis", 1)
        axis = axis if axis == x.rank else c.axis(axis, x.rank)
        if axis == x.rank - 1:
            return apply(b, x)
        return b.reshape(apply(b, b.reshape(x, (prod(x.dims[:axis]), prod(x.dims[axis:])))), x.dims)
    if x.rank == 0:
        return b.reshape(apply(b, b.reshape(x, (1,))), ())
    axis = c.axis(c.integer("axis", -1), x.rank)
    if axis == x.rank - 1:
        return apply(b, x)
    perm = [*(i for i in range(x.rank) if i != axis), axis]
    return b.transpose(apply(b, b.transpose(x, perm)), np.argsort(perm).tolist())


def log_softmax(b: Builder, x: Value) -> Value:
    """Return x - max - log(sum(exp(x - max))) over the last axis."""
    last = (x.rank - 1,)
    shifted = b.map("sub", x, b.reduce("max", x, last))
    return b.map("sub", shifted, b.map("log", b.reduce("sum", b.map("exp", shifted), last)))


@importer("Softmax")
def import_softmax(c: NodeContext) -> Value:
    """Softmax."""
    return _over_axis(c, lambda b, x: b.last_axis("softmax", x))


@importer("LogSoftmax")
def import_log_softmax(c: NodeContext) -> Value:
    """Logarithm of softmax."""
    return _over_axis(c, log_softmax)


def normalise_from(b: Builder, kind: str, x: Value, axis: int, epsilon: float) -> Value:
    """Apply layernorm or rmsnorm over the axes from `axis` on."""
    flat = b.reshape(x, (*x.dims[:axis], prod(x.dims[axis:])))
    return b.reshape(b.last_axis(kind, flat, epsilon=epsilon), x.dims)


def _scaled(b: Builder, x: Value, scale: Value | None, bias: Value | None) -> Value:
    for fn, value, neutral in (("mul", scale, 1), ("add", bias, 0)):
        if value is not None and not (value.data is not None and np.all(value.data == neutral)):
            x = b.map(fn, x, value)
    return x


def _in_f32(c: NodeContext, x: Value) -> Value:
    """Return x in the type that statistics are computed in (stash_type 1 is f32)."""
    return c.b.cast(x, DType.F32) if x.element in (DType.F16, DType.BF16) else x


@importer("LayerNormalization")
def import_layer_norm(c: NodeContext) -> Value:
    """Normalise from an axis on, then scale and bias."""
    if c.uses_output(1) or c.uses_output(2):
        raise FallbackError("LayerNormalization with statistics outputs")
    x = _in_f32(c, c.x)
    axis = c.axis(c.integer("axis", -1), x.rank)
    normal = c.b.cast(
        normalise_from(c.b, "layernorm", x, axis, c.number("epsilon", 1e-5)), c.x.element
    )
    return _scaled(c.b, normal, c.inp(1), c.opt(2))


@importer("RMSNormalization", "SimplifiedLayerNormalization")
def import_rms_norm(c: NodeContext) -> Value:
    """Divide by the root mean square from an axis on, then scale."""
    x = _in_f32(c, c.x)
    axis = c.axis(c.integer("axis", -1), x.rank)
    normal = c.b.cast(
        normalise_from(c.b, "rmsnorm", x, axis, c.number("epsilon", 1e-5)), c.x.element
    )
    return _scaled(c.b, normal, c.inp(1), None)


@importer("SkipLayerNormalization", "SkipSimplifiedLayerNormalization", domain="com.microsoft")
def import_skip_layer_norm(c: NodeContext) -> Value | tuple[Value, ...]:
    """Add a residual (and a bias), then normalise; the sum is the fourth output."""
    simple = c.node.op_type == "SkipSimplifiedLayerNormalization"
    beta, bias = (None, c.opt(3)) if simple else (c.opt(3), c.opt(4))
    total = c.b.map("add", c.x, c.inp(1))
    if bias is not None:
        total = c.b.map("add", total, bias)
    if c.uses_output(1) or c.uses_output(2):
        raise FallbackError("statistics outputs")
    kind, axis = ("rmsnorm" if simple else "layernorm"), total.rank - 1
    normal = normalise_from(c.b, kind, total, axis, c.number("epsilon", 1e-5))
    result = _scaled(c.b, normal, c.inp(2), beta)
    return (result, total, total, total) if c.uses_output(3) else result


def per_channel(b: Builder, value: Value, rank: int) -> Value:
    """Return a vector [c] as [1, c, 1, ...]."""
    return b.reshape(value, (1, value.elements, *(1,) * (rank - 2)))


@importer("BatchNormalization")
def import_batch_norm(c: NodeContext) -> Value:
    """Inference form: one multiplication and one addition per channel."""
    if c.integer("training_mode", 0) or any(c.uses_output(i) for i in range(1, 5)):
        raise FallbackError("BatchNormalization in training mode")
    b, x = c.b, c.x
    scale, bias, mean, variance = (c.inp(i) for i in range(1, 5))
    if x.rank < 2 or any(v.elements != x.dims[1] for v in (scale, bias, mean, variance)):
        raise ShapeError(f"{b.label}: statistics do not fit the channels of {x.dims}")
    deviation = b.map(f"add_const({c.number('epsilon', 1e-5)!r})|sqrt", variance)
    factor = b.map("div", b.cast(scale, variance.element), deviation)
    offset = b.map("sub", b.cast(bias, variance.element), b.map("mul", mean, factor))
    factor, offset = (per_channel(b, b.cast(v, x.element), x.rank) for v in (factor, offset))
    return b.map("add", b.map("mul", x, factor), offset)


@importer("InstanceNormalization")
def import_instance_norm(c: NodeContext) -> Value:
    """Normalise over space, then scale and bias per channel."""
    normal = normalise_from(c.b, "layernorm", c.x, 2, c.number("epsilon", 1e-5))
    scale, bias = per_channel(c.b, c.inp(1), c.x.rank), per_channel(c.b, c.inp(2), c.x.rank)
    return _scaled(c.b, normal, scale, bias)


@importer("GroupNormalization")
def import_group_norm(c: NodeContext) -> Value:
    """Normalise over channel groups and space; scale is per group before opset 21, per channel after."""
    b, x, groups = c.b, c.x, c.integer("num_groups", 0)
    if x.rank < 3 or groups < 1 or x.dims[1] % groups:
        raise ShapeError(f"{b.label}: {x.dims} does not divide into {groups} groups")
    wide = _in_f32(c, x)
    grouped = b.reshape(wide, (x.dims[0], groups, wide.elements // (x.dims[0] * groups)))
    normal = b.cast(b.last_axis("layernorm", grouped, epsilon=c.number("epsilon", 1e-5)), x.element)
    scale, bias = c.inp(1), c.inp(2)
    if c.opset < 21 and scale.elements == groups:
        columns = _scaled(
            b, normal, b.reshape(scale, (1, groups, 1)), b.reshape(bias, (1, groups, 1))
        )
        return b.reshape(columns, x.dims)
    return _scaled(
        b, b.reshape(normal, x.dims), per_channel(b, scale, x.rank), per_channel(b, bias, x.rank)
    )


@importer("LpNormalization")
def import_lp_norm(c: NodeContext) -> Value:
    """Divide by the L1 or L2 norm along an axis; a norm of 0 gives 0."""
    axis, p = c.axis(c.integer("axis", -1), c.x.rank), c.integer("p", 2)
    if p == 1:
        norm = c.b.reduce("sum", c.b.map("abs", c.x), (axis,))
    else:
        norm = c.b.map("sqrt", c.b.reduce("sum", c.b.map("square", c.x), (axis,)))
    zero = c.b.scalar(0, c.x.element)
    return c.b.map("where", c.b.map("eq", norm, zero), zero, c.b.map("div", c.x, norm))


@importer("MeanVarianceNormalization")
def import_mean_variance_norm(c: NodeContext) -> Value:
    """(x - mean) / (deviation + 1e-9) over axes."""
    axes = c.axes(c.ints("axes") or (0, 2, 3), c.x.rank)
    centred = c.b.map("sub", c.x, c.b.mean(c.x, axes))
    variance = c.b.mean(c.b.map("square", centred), axes)
    return c.b.map("div", centred, c.b.map("sqrt|add_const(1e-09)", variance))


@importer("LRN")
def import_lrn(c: NodeContext) -> Value:
    """Divide by a power of the sum of squares over neighbouring channels, a banded matrix product."""
    b, x, size = c.b, c.x, c.integer("size", 1)
    if x.rank < 2:
        raise ShapeError(f"{b.label}: rank {x.rank}, expected [n, c, ...]")
    channels, before, after = x.dims[1], (size - 1) // 2, -(-(size - 1) // 2)
    offsets = np.arange(channels)[None, :] - np.arange(channels)[:, None]
    band = ((offsets >= -before) & (offsets <= after)).astype(x.element.numpy)
    squares = b.reshape(b.map("square", x), (x.dims[0], channels, prod(x.dims[2:])))
    sums = b.reshape(b.matmul(b.constant(band), squares), x.dims)
    alpha, beta, bias = c.number("alpha", 1e-4), c.number("beta", 0.75), c.number("bias", 1.0)
    return b.map(
        "mul",
        x,
        b.map(f"mul_const({alpha / size!r})|add_const({bias!r})|pow_const({-beta!r})", sums),
    )


@importer("CumSum")
def import_cumsum(c: NodeContext) -> Value:
    """Product with a constant triangular matrix."""
    x, b = c.x, c.b
    axis = c.axis(int(c.known(1, "axis").reshape(-1)[0]), x.rank)
    size = x.dims[axis]
    if size > 4096:
        raise FallbackError(f"CumSum over {size} elements")
    matrix = np.triu(np.ones((size, size)), 1 if c.integer("exclusive", 0) else 0)
    matrix = matrix.T if c.integer("reverse", 0) else matrix
    perm = [*(i for i in range(x.rank) if i != axis), axis]
    moved = b.transpose(x, perm)
    flat = b.reshape(moved, (prod(moved.dims[:-1]), size))
    product = b.matmul(flat, b.constant(matrix.astype(x.element.numpy)))
    return b.transpose(b.reshape(product, moved.dims), np.argsort(perm).tolist())
