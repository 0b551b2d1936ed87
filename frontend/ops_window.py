"""Convolutions in one and two dimensions; 1-D ones get a height of 1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from tilewright.dtypes import DType
from tilewright.errors import ModelError, ShapeError
from tilewright.frontend.builder import Builder
from tilewright.frontend.registry import NodeContext, importer
from tilewright.frontend.values import FallbackError, Value


@dataclass(frozen=True, slots=True)
class Window:
    """Sliding-window parameters for the spatial axes, one entry per axis."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begins: tuple[int, ...]
    ends: tuple[int, ...]

    def twod(self, values: tuple[int, ...], neutral: int) -> tuple[int, int]:
        """Return values for (h, w); h is neutral in one dimension."""
        return (values[0], values[1]) if len(values) == 2 else (neutral, values[0])

    @property
    def kernel2(self) -> tuple[int, int]:
        """Kernel as (h, w)."""
        return self.twod(self.kernel, 1)

    @property
    def strides2(self) -> tuple[int, int]:
        """Strides as (h, w)."""
        return self.twod(self.strides, 1)

    @property
    def dilations2(self) -> tuple[int, int]:
        """Dilations as (h, w)."""
        return self.twod(self.dilations, 1)

    @property
    def pads2(self) -> tuple[int, int, int, int]:
        """Pads as (top, left, bottom, right)."""
        return (*self.twod(self.begins, 0), *self.twod(self.ends, 0))


def spatial_of(c: NodeContext, x: Value) -> tuple[int, ...]:
    """Return the spatial sizes of x [n, c, ...]; FallbackError unless there are one or two."""
    if x.rank < 3:
        raise ShapeError(f"{c.b.label}: rank {x.rank}, expected [n, c, spatial...]")
    if x.rank > 4:
        raise FallbackError(f"{x.rank - 2}-D windows are not supported")
    return x.dims[2:]


def _expect(
    c: NodeContext, name: str, values: tuple[int, ...] | None, count: int, default: int
) -> tuple[int, ...]:
    found = values if values else (default,) * count
    if len(found) != count:
        raise ShapeError(
            f"{c.b.label}: attribute '{name}' has {len(found)} numbers, expected {count}"
        )
    if any(v < (0 if name == "pads" else 1) for v in found):
        if name == "pads":
            raise FallbackError("negative pads")
        raise ShapeError(f"{c.b.label}: attribute '{name}' must be positive, found {found}")
    return found


def window_of(c: NodeContext, spatial: tuple[int, ...], kernel: tuple[int, ...]) -> Window:
    """Read strides, dilations, pads and auto_pad of a node."""
    count = len(spatial)
    kernel = _expect(c, "kernel_shape", kernel, count, 1)
    strides = _expect(c, "strides", c.ints("strides"), count, 1)
    dilations = _expect(c, "dilations", c.ints("dilations"), count, 1)
    mode = c.text("auto_pad", "NOTSET") or "NOTSET"
    if mode == "NOTSET":
        pads = _expect(c, "pads", c.ints("pads"), 2 * count, 0)
        return Window(kernel, strides, dilations, pads[:count], pads[count:])
    if mode == "VALID":
        return Window(kernel, strides, dilations, (0,) * count, (0,) * count)
    if mode not in ("SAME_UPPER", "SAME_LOWER"):
        raise ModelError(f"{c.b.label}: auto_pad '{mode}' is unknown")
    totals = [
        max((ceil(d / s) - 1) * s + (k - 1) * dil + 1 - d, 0)
        for d, s, k, dil in zip(spatial, strides, kernel, dilations, strict=True)
    ]
    small, large = tuple(t // 2 for t in totals), tuple(t - t // 2 for t in totals)
    begins, ends = (small, large) if mode == "SAME_UPPER" else (large, small)
    return Window(kernel, strides, dilations, begins, ends)


def as_2d(b: Builder, x: Value) -> Value:
    """Return [n, c, l] as [n, c, 1, l]."""
    return b.reshape(x, (x.dims[0], x.dims[1], 1, x.dims[2])) if x.rank == 3 else x


def from_2d(b: Builder, x: Value, count: int) -> Value:
    """Undo `as_2d` for `count` spatial axes."""
    return b.reshape(x, (x.dims[0], x.dims[1], x.dims[3])) if count == 1 else x


def convolve(c: NodeContext, x: Value, w: Value, dtype: DType | None = None) -> Value:
    """Convolve without bias, reading the node's window attributes; `dtype` is the result's, else x's."""
    spatial = spatial_of(c, x)
    if w.rank != x.rank:
        raise ShapeError(f"{c.b.label}: weights {w.dims} do not fit input {x.dims}")
    kernel = c.ints("kernel_shape") or w.dims[2:]
    if kernel != w.dims[2:]:
        raise ShapeError(f"{c.b.label}: kernel_shape {kernel} contradicts weights {w.dims}")
    window = window_of(c, spatial, kernel)
    result = c.b.conv(
        as_2d(c.b, x),
        as_2d(c.b, w),
        strides=window.strides2,
        pads=window.pads2,
        dilations=window.dilations2,
        groups=c.integer("group", 1),
        dtype=dtype,
    )
    return from_2d(c.b, result, len(spatial))


def channel_bias(c: NodeContext, x: Value, bias: Value | None) -> Value:
    """Add bias [channels] to x [n, channels, ...]."""
    if bias is None:
        return x
    if bias.dims != (x.dims[1],):
        raise ShapeError(f"{c.b.label}: bias {bias.dims} does not fit {x.dims[1]} channels")
    return c.b.map("add", x, c.b.reshape(bias, (1, x.dims[1], *(1,) * (x.rank - 2))))


@importer("Conv")
def import_conv(c: NodeContext) -> Value:
    """Convolution with groups, then the bias."""
    return channel_bias(c, convolve(c, c.x, c.inp(1)), c.opt(2))


@importer("ConvTranspose")
def import_conv_transpose(c: NodeContext) -> Value:
    """Zeros between the elements, then a convolution with the mirrored kernel."""
    b, x, w = c.b, c.x, c.inp(1)
    spatial = spatial_of(c, x)
    count, groups = len(spatial), c.integer("group", 1)
    if w.rank != x.rank or groups < 1 or w.dims[0] != x.dims[1] or x.dims[1] % groups:
        raise ShapeError(
            f"{b.label}: weights {w.dims} do not fit input {x.dims} with {groups} groups"
        )
    kernel = c.ints("kernel_shape") or w.dims[2:]
    if kernel != w.dims[2:]:
        raise ShapeError(f"{b.label}: kernel_shape {kernel} contradicts weights {w.dims}")
    strides = _expect(c, "strides", c.ints("strides"), count, 1)
    dilations = _expect(c, "dilations", c.ints("dilations"), count, 1)
    extra = c.ints("output_padding") or (0,) * count
    begins, ends = _transposed_pads(c, spatial, kernel, strides, dilations, extra)
    stuffed = as_2d(b, _stuff_zeros(b, x, strides))
    spans = [d * (k - 1) for d, k in zip(dilations, kernel, strict=True)]
    before = [s - p for s, p in zip(spans, begins, strict=True)]
    after = [s - p + e for s, p, e in zip(spans, ends, extra, strict=True)]
    stuffed = _pad_or_crop(b, stuffed, before, after)
    flipped = _mirror(b, w, groups)
    window = Window(kernel, (1,) * count, dilations, (0,) * count, (0,) * count)
    result = b.conv(
        stuffed,
        as_2d(b, flipped),
        strides=(1, 1),
        pads=(0, 0, 0, 0),
        dilations=window.dilations2,
        groups=groups,
    )
    return channel_bias(c, from_2d(b, result, count), c.opt(2))


def _transposed_pads(
    c: NodeContext,
    spatial: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    extra: Sequence[int],
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return begin and end pads of a transposed convolution from pads, auto_pad or output_shape."""
    count = len(spatial)
    mode = c.text("auto_pad", "NOTSET") or "NOTSET"
    wanted = c.ints("output_shape")
    if mode in ("SAME_UPPER", "SAME_LOWER") and not wanted:
        wanted = tuple(d * s for d, s in zip(spatial, strides, strict=True))
    if not wanted:
        pads = c.ints("pads") if mode == "NOTSET" else None
        pads = pads or (0,) * (2 * count)
        return pads[:count], pads[count:]
    wanted = wanted[-count:]
    totals = [
        s * (d - 1) + e + (k - 1) * dil + 1 - o
        for s, d, e, k, dil, o in zip(
            strides, spatial, extra, kernel, dilations, wanted, strict=True
        )
    ]
    # a wanted shape beyond the natural one grows at the end
    small = tuple(max(t // 2, 0) for t in totals)
    large = tuple(max(t - t // 2, 0) for t in totals)
    begins, ends = (large, small) if mode != "SAME_UPPER" else (small, large)
    return begins, tuple(min(t, 0) or e for t, e in zip(totals, ends, strict=True))


def _stuff_zeros(b: Builder, x: Value, strides: Sequence[int]) -> Value:
    """Put strides - 1 zeros between neighbours of each spatial axis."""
    for i, stride in enumerate(strides):
        axis, size = 2 + i, x.dims[2 + i]
        if stride == 1 or size == 1:
            continue
        wide = b.reshape(x, (*x.dims[: axis + 1], 1, *x.dims[axis + 1 :]))
        ends = [0] * wide.rank
        ends[axis + 1] = stride - 1
        padded = b.pad(wide, [0] * wide.rank, ends)
        flat = b.reshape(padded, (*x.dims[:axis], size * stride, *x.dims[axis + 1 :]))
        x = b.slice_axis(flat, axis, 0, (size - 1) * stride + 1)
    return x


def _pad_or_crop(b: Builder, x: Value, before: Sequence[int], after: Sequence[int]) -> Value:
    """Pad the last axes by amounts that may be negative."""
    first = x.rank - len(before)
    for i, (lo, hi) in enumerate(zip(before, after, strict=True)):
        if lo < 0 or hi < 0:
            cropped = x.dims[first + i] - max(-lo, 0) - max(-hi, 0)
            if cropped < 1:
                raise FallbackError("pads are larger than the input")
            x = b.slice_axis(x, first + i, max(-lo, 0), cropped)
    lead = [0] * first
    return b.pad(x, [*lead, *(max(p, 0) for p in before)], [*lead, *(max(p, 0) for p in after)])


def _mirror(b: Builder, w: Value, groups: int) -> Value:
    """Turn [c, o/groups, ...] into [o, c/groups, ...] with mirrored spatial axes."""
    channels, per_group, *kernel = w.dims
    spatial = tuple(range(3, 3 + len(kernel)))
    grouped = b.reshape(w, (groups, channels // groups, per_group, *kernel))
    swapped = b.transpose(grouped, (0, 2, 1, *spatial))
    flat = b.reshape(swapped, (groups * per_group, channels // groups, *kernel))
    starts = (0, 0, *(k - 1 for k in kernel))
    steps = (1, 1, *(-1 if k > 1 else 1 for k in kernel))
    return b.slice(flat, starts, flat.dims, steps)
