"""Resize and Upsample: nearest by gathers, linear and cubic by constant interpolation matrices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor

import numpy as np

from tilewright.dtypes import DType
from tilewright.errors import ModelError, ShapeError
from tilewright.frontend.builder import Builder
from tilewright.frontend.registry import NodeContext, importer
from tilewright.frontend.values import FallbackError, Value

MAX_MATRIX = 1 << 22
"""Larger interpolation matrices are not built, [elements]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How output positions of one axis map to input positions."""

    size_in: int
    size_out: int
    scale: float
    coordinates: str

    def positions(self) -> np.ndarray:
        """Return the input coordinate of each output position, [size_out]."""
        out = np.arange(self.size_out, dtype=np.float64)
        match self.coordinates:
            case "half_pixel":
                return (out + 0.5) / self.scale - 0.5
            case "pytorch_half_pixel":
                return (out + 0.5) / self.scale - 0.5 if self.size_out > 1 else np.zeros(1)
            case "half_pixel_symmetric":
                centre = self.size_in / 2
                adjusted = self.size_out / (self.scale * self.size_in)
                return centre * (1 - adjusted) + (out + 0.5) / self.scale - 0.5
            case "align_corners":
                if self.size_out == 1:
                    return np.zeros(1)
                return out * (self.size_in - 1) / (self.size_out - 1)
            case "asymmetric":
                return out / self.scale
            case "tf_half_pixel_for_nn":
                return (out + 0.5) / self.scale
        raise FallbackError(f"coordinate mode '{self.coordinates}'")


def _nearest(sampling: Sampling, mode: str) -> np.ndarray:
    x = sampling.positions()
    match mode:
        case "round_prefer_floor":
            index = np.ceil(x - 0.5)
        case "round_prefer_ceil":
            index = np.floor(x + 0.5)
        case "floor":
            index = np.floor(x)
        case "ceil":
            index = np.ceil(x)
        case _:
            raise ModelError(f"nearest_mode '{mode}' is unknown")
    return np.clip(index, 0, sampling.size_in - 1).astype(np.int64)


def _linear_weight(distance: np.ndarray) -> np.ndarray:
    return np.maximum(1.0 - np.abs(distance), 0.0)


def _cubic_weight(distance: np.ndarray, a: float) -> np.ndarray:
    d = np.abs(distance)
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


def _matrix(
    sampling: Sampling, cubic: bool, a: float, antialias: bool, exclude_outside: bool
) -> np.ndarray:
    """Return interpolation weights [size_out, size_in]; taps outside take the border's value."""
    stretch = max(1.0 / sampling.scale, 1.0) if antialias else 1.0
    reach = (2.0 if cubic else 1.0) * stretch
    if sampling.size_in * sampling.size_out > MAX_MATRIX or sampling.size_out * reach > MAX_MATRIX:
        raise FallbackError(
            f"an interpolation matrix from {sampling.size_in} to {sampling.size_out}"
        )
    matrix = np.zeros((sampling.size_out, sampling.size_in))
    for row, x in enumerate(sampling.positions()):
        if not antialias and not cubic:
            # without clipping, the border would be extrapolated
            x = min(max(x, 0.0), sampling.size_in - 1.0)
        taps = np.arange(floor(x - reach) + 1, floor(x + reach) + 1)
        distance = (x - taps) / stretch
        weights = _cubic_weight(distance, a) if cubic else _linear_weight(distance)
        if exclude_outside:
            weights = np.where((taps >= 0) & (taps < sampling.size_in), weights, 0.0)
        weights = weights / weights.sum()
        np.add.at(matrix[row], np.clip(taps, 0, sampling.size_in - 1), weights)
    return matrix


def _apply_matrix(b: Builder, x: Value, axis: int, matrix: np.ndarray) -> Value:
    """Multiply one axis of x by matrix [size_out, size_in]."""
    weights = matrix.astype(x.element.numpy)
    if x.rank >= 2 and axis == x.rank - 2:
        return b.matmul(b.constant(weights), x)
    if axis == x.rank - 1:
        wide = b.reshape(x, (1, *x.dims)) if x.rank == 1 else x
        result = b.matmul(wide, b.constant(np.ascontiguousarray(weights.T)))
        return b.reshape(result, result.dims[1:]) if x.rank == 1 else result
    perm = [*(i for i in range(x.rank) if i != axis), axis]
    moved = b.matmul(b.transpose(x, perm), b.constant(np.ascontiguousarray(weights.T)))
    return b.transpose(moved, np.argsort(perm).tolist())


def _targets(c: NodeContext, first: int) -> tuple[list[int], list[float], list[int]]:
    """Return resized axes, their scales and output sizes, from inputs scales and sizes."""
    x = c.x
    axes = list(c.ints("axes") or range(x.rank)) if c.opset >= 18 else list(range(x.rank))
    axes = [c.axis(a, x.rank) for a in axes]
    scales_in, sizes_in = c.opt(first), c.opt(first + 1)
    if sizes_in is not None and sizes_in.elements:
        sizes = list(c.known_ints(first + 1, "sizes"))
        if len(sizes) != len(axes):
            raise ShapeError(f"{c.b.label}: {len(sizes)} sizes for {len(axes)} axes")
        scales = [s / x.dims[a] for s, a in zip(sizes, axes, strict=True)]
        policy = c.text("keep_aspect_ratio_policy", "stretch")
        if policy != "stretch":
            scale = min(scales) if policy == "not_larger" else max(scales)
            scales = [scale] * len(axes)
            sizes = [floor(scale * x.dims[a] + 0.5) for a in axes]
        return axes, scales, sizes
    if scales_in is None:
        raise ModelError(f"{c.b.label}: neither scales nor sizes are given")
    scales = [float(v) for v in c.known(first, "scales").reshape(-1)]
    return axes, scales, _scaled_sizes(c, axes, scales)


def _scaled_sizes(c: NodeContext, axes: Sequence[int], scales: Sequence[float]) -> list[int]:
    if len(scales) != len(axes) or any(not 0 < s < 1e6 for s in scales):
        raise ShapeError(f"{c.b.label}: scales {tuple(scales)} do not fit {len(axes)} axes")
    return [floor(c.x.dims[a] * s) for a, s in zip(axes, scales, strict=True)]


@importer("Resize")
def import_resize(c: NodeContext) -> Value:
    """Resize axis by axis."""
    legacy = c.opset < 11
    axes, scales, sizes = _targets(c, 1 if legacy else 2)
    mode = c.text("mode", "nearest")
    coordinates = "asymmetric" if legacy else c.text("coordinate_transformation_mode", "half_pixel")
    nearest = "floor" if legacy else c.text("nearest_mode", "round_prefer_floor")
    return _resized(c, mode, coordinates, nearest, axes, scales, sizes)


@importer("Upsample")
def import_upsample(c: NodeContext) -> Value:
    """Resize's predecessor; scales are an attribute before opset 9."""
    scales = (
        list(c.numbers("scales") or ())
        if c.opset < 9
        else [float(v) for v in c.known(1, "scales").reshape(-1)]
    )
    axes = list(range(c.x.rank))
    sizes = _scaled_sizes(c, axes, scales)
    return _resized(c, c.text("mode", "nearest"), "asymmetric", "floor", axes, scales, sizes)


def _resized(
    c: NodeContext,
    mode: str,
    coordinates: str,
    nearest: str,
    axes: Sequence[int],
    scales: Sequence[float],
    sizes: Sequence[int],
) -> Value:
    if any(s < 1 for s in sizes):
        raise ShapeError(f"{c.b.label}: output sizes {tuple(sizes)} must be positive")
    if mode not in ("nearest", "linear", "cubic", "bilinear"):
        raise ModelError(f"{c.b.label}: mode '{mode}' is unknown")
    if mode != "nearest" and not c.x.element.is_float:
        raise FallbackError("interpolation of integers")
    x = c.x
    source = x.element
    if mode != "nearest" and source is not DType.F64:
        x = c.b.cast(x, DType.F32)
    for axis, scale, size in zip(axes, scales, sizes, strict=True):
        if size == x.dims[axis] and scale == 1.0:
            continue
        c.b.charge(8 * size)
        sampling = Sampling(
            size_in=x.dims[axis], size_out=size, scale=scale, coordinates=coordinates
        )
        if mode == "nearest":
            x = c.b.gather(x, c.b.constant(_nearest(sampling, nearest)), axis)
            continue
        matrix = _matrix(
            sampling,
            mode == "cubic",
            c.number("cubic_coeff_a", -0.75),
            bool(c.integer("antialias", 0)),
            bool(c.integer("exclude_outside", 0)),
        )
        x = _apply_matrix(c.b, x, axis, matrix)
    return c.b.cast(x, source)
