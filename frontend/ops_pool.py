"""Pooling over windows and over all of space."""

from __future__ import annotations

from dataclasses import replace
from math import ceil

import numpy as np

from tilewright.errors import ModelError
from tilewright.frontend.builder import Builder
from tilewright.frontend.ops_window import Window, as_2d, from_2d, spatial_of, window_of
from tilewright.frontend.registry import NodeContext, importer
from tilewright.frontend.values import FallbackError, Value


def _pool_window(c: NodeContext, spatial: tuple[int, ...]) -> tuple[Window, Window]:
    """Return the window as declared, and with ends grown to what ceil_mode reads."""
    kernel = c.ints("kernel_shape")
    if not kernel:
        raise ModelError(f"{c.b.label}: attribute 'kernel_shape' is missing")
    window = window_of(c, spatial, kernel)
    if not c.integer("ceil_mode", 0):
        return window, window
    ends = []
    for i, size in enumerate(spatial):
        span = window.dilations[i] * (window.kernel[i] - 1) + 1
        padded = size + window.begins[i] + window.ends[i]
        count = ceil((padded - span) / window.strides[i]) + 1
        # a window must start inside the input or its leading pad
        if (count - 1) * window.strides[i] >= size + window.begins[i]:
            count -= 1
        ends.append(window.ends[i] + (count - 1) * window.strides[i] + span - padded)
    return window, Window(
        window.kernel, window.strides, window.dilations, window.begins, tuple(ends)
    )


def _pool(b: Builder, fn: str, x: Value, window: Window) -> Value:
    """Pool x; a negative end means that no window reads the last elements."""
    for i, end in enumerate(window.ends):
        if end < 0:
            x = b.slice_axis(x, 2 + i, 0, x.dims[2 + i] + end)
    window = replace(window, ends=tuple(max(e, 0) for e in window.ends))
    result = b.pool(
        fn,
        as_2d(b, x),
        kernel=window.kernel2,
        strides=window.strides2,
        pads=window.pads2,
        dilations=window.dilations2,
    )
    return from_2d(b, result, x.rank - 2)


@importer("MaxPool")
def import_max_pool(c: NodeContext) -> Value:
    """Maximum over windows; the indices output goes to the host."""
    if c.uses_output(1):
        raise FallbackError("MaxPool with indices")
    _, grown = _pool_window(c, spatial_of(c, c.x))
    return _pool(c.b, "max", c.x, grown)


def _counts(
    c: NodeContext, spatial: tuple[int, ...], declared: Window, grown: Window
) -> np.ndarray:
    """Return how many elements each window averages over, [*output sizes]."""
    include = c.integer("count_include_pad", 0)
    per_axis = []
    for i, size in enumerate(spatial):
        low = 0 if include else declared.begins[i]
        high = declared.begins[i] + size + (declared.ends[i] if include else 0)
        dilation, taps = grown.dilations[i], grown.kernel[i]
        outputs = (
            size + grown.begins[i] + grown.ends[i] - dilation * (taps - 1) - 1
        ) // grown.strides[i] + 1
        c.b.charge(max(outputs, 0) * 8)
        # tap t of a window at s reads position s + t * dilation; count those in low..high - 1
        starts = np.arange(outputs) * grown.strides[i]
        first = np.maximum(-((starts - low) // dilation), 0)
        last = np.minimum((high - 1 - starts) // dilation, taps - 1)
        per_axis.append(np.maximum(last - first + 1, 0))
    counts = per_axis[0]
    for other in per_axis[1:]:
        c.b.charge(counts.size * other.size * 8)
        counts = counts[:, None] * other
    return np.asarray(np.maximum(counts, 1))


@importer("AveragePool")
def import_average_pool(c: NodeContext) -> Value:
    """Sum over windows times the reciprocal of the number of elements."""
    spatial = spatial_of(c, c.x)
    declared, grown = _pool_window(c, spatial)
    counts = _counts(c, spatial, declared, grown)
    total = _pool(c.b, "sum", c.x, grown)
    if counts.min() == counts.max():
        return total if counts.max() == 1 else c.b.mul_const(total, 1.0 / int(counts.max()))
    factors = (1.0 / counts).astype(c.x.element.numpy)
    return c.b.map("mul", total, c.b.constant(factors.reshape(1, 1, *factors.shape)))


@importer("LpPool")
def import_lp_pool(c: NodeContext) -> Value:
    """(sum |x|^p) ^ (1/p) over windows."""
    _, grown = _pool_window(c, spatial_of(c, c.x))
    p = c.integer("p", 2)
    powered = c.b.map("square" if p == 2 else f"abs|pow_const({float(p)!r})", c.x)
    return c.b.map(
        "sqrt" if p == 2 else f"pow_const({1.0 / p!r})", _pool(c.b, "sum", powered, grown)
    )


@importer("GlobalAveragePool")
def import_global_average_pool(c: NodeContext) -> Value:
    """Mean over all spatial axes."""
    return c.b.mean(c.x, range(2, c.x.rank))


@importer("GlobalMaxPool")
def import_global_max_pool(c: NodeContext) -> Value:
    """Maximum over all spatial axes."""
    return c.b.reduce("max", c.x, range(2, c.x.rank))


@importer("GlobalLpPool")
def import_global_lp_pool(c: NodeContext) -> Value:
    """(sum |x|^p) ^ (1/p) over all spatial axes."""
    p = c.integer("p", 2)
    powered = c.b.map(f"abs|pow_const({float(p)!r})", c.x)
    return c.b.map(f"pow_const({1.0 / p!r})", c.b.reduce("sum", powered, range(2, c.x.rank)))
