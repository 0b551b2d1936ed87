"""Operators that move or make data: reshape, slice, pad, concat, shape arithmetic."""

from __future__ import annotations

from math import prod

import numpy as np

from tilewright.dtypes import DType
from tilewright.errors import ModelError, ShapeError
from tilewright.frontend.model_file import decode
from tilewright.frontend.registry import NodeContext, importer
from tilewright.frontend.values import FallbackError, Value


@importer("Shape")
def import_shape(c: NodeContext) -> Value:
    """Return the shape, which is known; start and end select dims."""
    rank = c.x.rank
    start, end = c.integer("start", 0), c.integer("end", rank)
    start, end = (min(max(v + rank if v < 0 else v, 0), rank) for v in (start, end))
    return c.b.constant(np.array(c.x.dims[start:end], np.int64))


@importer("Size")
def import_size(c: NodeContext) -> Value:
    """Return the number of elements, which is known."""
    return c.b.constant(np.array(c.x.elements, np.int64))


@importer("Reshape")
def import_reshape(c: NodeContext) -> Value:
    """Reshape with 0 (keep, unless allowzero) and -1 (infer)."""
    wanted = list(c.known_ints(1, "shape"))
    if not c.integer("allowzero", 0):
        for i, d in enumerate(wanted):
            if d == 0:
                if i >= c.x.rank:
                    raise ShapeError(
                        f"{c.b.label}: dimension {i} of shape {tuple(wanted)} keeps a missing dimension"
                    )
                wanted[i] = c.x.dims[i]
    if wanted.count(-1) > 1 or any(d < -1 for d in wanted):
        raise ShapeError(f"{c.b.label}: shape {tuple(wanted)} is ambiguous")
    if -1 in wanted:
        rest = prod(d for d in wanted if d != -1)
        if rest == 0 or c.x.elements % rest:
            raise ShapeError(f"{c.b.label}: cannot reshape {c.x.dims} to {tuple(wanted)}")
        wanted[wanted.index(-1)] = c.x.elements // rest
    return c.b.reshape(c.x, wanted)


@importer("Flatten")
def import_flatten(c: NodeContext) -> Value:
    """Two dims: before and from an axis."""
    axis = c.integer("axis", 1)
    axis = axis if axis == c.x.rank else c.axis(axis, c.x.rank)
    return c.b.reshape(c.x, (prod(c.x.dims[:axis]), prod(c.x.dims[axis:])))


@importer("Transpose")
def import_transpose(c: NodeContext) -> Value:
    """Permute axes; the default reverses them."""
    perm = c.ints("perm")
    return c.b.transpose(c.x, tuple(reversed(range(c.x.rank))) if perm is None else perm)


def _axes_input(c: NodeContext, since: int) -> tuple[int, ...] | None:
    """Return axes from the attribute (older opsets) or the second input."""
    if c.opset < since:
        return c.ints("axes")
    return None if c.opt(1) is None else c.known_ints(1, "axes")


@importer("Squeeze")
def import_squeeze(c: NodeContext) -> Value:
    """Drop axes of size 1."""
    given = _axes_input(c, 13)
    axes = (
        [i for i, d in enumerate(c.x.dims) if d == 1] if given is None else c.axes(given, c.x.rank)
    )
    if any(c.x.dims[i] != 1 for i in axes):
        raise ShapeError(f"{c.b.label}: cannot squeeze axes {tuple(axes)} of {c.x.dims}")
    return c.b.reshape(c.x, [d for i, d in enumerate(c.x.dims) if i not in axes])


@importer("Unsqueeze")
def import_unsqueeze(c: NodeContext) -> Value:
    """Insert axes of size 1."""
    given = _axes_input(c, 13)
    if given is None:
        raise ModelError(f"{c.b.label}: axes are missing")
    rank = c.x.rank + len(given)
    axes = c.axes(given, rank)
    dims = iter(c.x.dims)
    return c.b.reshape(c.x, [1 if i in axes else next(dims) for i in range(rank)])


@importer("Concat")
def import_concat(c: NodeContext) -> Value:
    """Join along an axis."""
    axis = c.integer("axis", 1 if c.opset < 4 else 0)
    return c.b.concat(c.values, c.axis(axis, c.x.rank))


@importer("Split")
def import_split(c: NodeContext) -> tuple[Value, ...]:
    """Cut along an axis; sizes are given or (nearly) equal."""
    axis = c.axis(c.integer("axis", 0), c.x.rank)
    size, count = c.x.dims[axis], len(c.node.output)
    if c.opset >= 13:
        sizes = None if c.opt(1) is None else c.known_ints(1, "split")
    else:
        sizes = c.ints("split")
    if sizes is None:
        if c.opset < 18 and size % count:
            raise ShapeError(f"{c.b.label}: {size} does not divide into {count} equal parts")
        chunk = -(-size // count)
        sizes = tuple(min(chunk, max(size - i * chunk, 0)) for i in range(count))
    if sum(sizes) != size or len(sizes) != count or any(s < 0 for s in sizes):
        raise ShapeError(f"{c.b.label}: sizes {sizes} do not split {size} into {count} parts")
    starts = [sum(sizes[:i]) for i in range(count)]
    return tuple(
        c.b.slice_axis(c.x, axis, start, part) for start, part in zip(starts, sizes, strict=True)
    )


def _taken(begin: int, stop: int, step: int, size: int) -> tuple[int, int]:
    """Return start and count of a slice of one axis.

    Unlike numpy, ONNX moves a negative-step start that lies before the axis to its first element.
    """
    low, high = (0, size) if step > 0 else (-1, size - 1)
    first = min(max(begin + size if begin < 0 else begin, 0), high)
    last = min(max(stop + size if stop < 0 else stop, low), high)
    count = max(-((first - last) // step), 0) if size else 0
    return (first if count else 0), count


@importer("Slice")
def import_slice(c: NodeContext) -> Value:
    """Slice axes; parameters are attributes before opset 10."""
    rank = c.x.rank
    if c.opset < 10:
        begins, stops = c.ints("starts") or (), c.ints("ends") or ()
        axes = c.ints("axes") or tuple(range(len(begins)))
        strides: tuple[int, ...] = (1,) * len(begins)
    else:
        begins, stops = c.known_ints(1, "starts"), c.known_ints(2, "ends")
        axes = tuple(range(len(begins))) if c.opt(3) is None else c.known_ints(3, "axes")
        strides = (1,) * len(begins) if c.opt(4) is None else c.known_ints(4, "steps")
    if not len(begins) == len(stops) == len(axes) == len(strides):
        raise ShapeError(f"{c.b.label}: starts, ends, axes and steps differ in length")
    c.axes(axes, rank)
    starts, sizes, steps = [0] * rank, list(c.x.dims), [1] * rank
    for begin, stop, axis, step in zip(begins, stops, axes, strides, strict=True):
        i = c.axis(axis, rank)
        if step == 0:
            raise ShapeError(f"{c.b.label}: a step is 0")
        starts[i], sizes[i] = _taken(begin, stop, step, c.x.dims[i])
        steps[i] = step if sizes[i] > 1 else 1
    return c.b.slice(c.x, starts, sizes, steps)


@importer("Expand")
def import_expand(c: NodeContext) -> Value:
    """Broadcast to a shape."""
    return c.b.expand(c.x, c.known_ints(1, "shape"))


@importer("Tile")
def import_tile(c: NodeContext) -> Value:
    """Repeat along axes: insert an axis, broadcast it, merge it."""
    repeats = c.known_ints(1, "repeats")
    if len(repeats) != c.x.rank or any(r < 0 for r in repeats):
        raise ShapeError(f"{c.b.label}: repeats {repeats} do not fit a tensor of rank {c.x.rank}")
    x = c.x
    for axis, count in enumerate(repeats):
        if count == 1:
            continue
        shape = x.dims
        wide = c.b.reshape(x, (*shape[:axis], 1, *shape[axis:]))
        grown = c.b.expand(wide, (*shape[:axis], count, *shape[axis:])) if count else x
        if count == 0:
            return c.b.slice_axis(x, axis, 0, 0)
        x = c.b.reshape(grown, (*shape[:axis], count * shape[axis], *shape[axis + 1 :]))
    return x


@importer("Pad")
def import_pad(c: NodeContext) -> Value:
    """Pad with a number, or by reflection, edge or wrap-around as gathers; negative amounts crop."""
    x, rank = c.x, c.x.rank
    value = 0.0
    if c.opset < 11:
        pads, axes = c.ints("pads") or (), tuple(range(rank))
        value = c.number("value", 0.0)
    else:
        pads = c.known_ints(1, "pads")
        axes = tuple(range(rank)) if c.opt(3) is None else c.known_ints(3, "axes")
        if c.opt(2) is not None:
            number = c.known(2, "pad value").reshape(-1)
            value = number[0].item() if number.size else 0.0
    if len(pads) != 2 * len(axes):
        raise ShapeError(f"{c.b.label}: {len(pads)} pads for {len(axes)} axes")
    mode = c.text("mode", "constant")
    begins, ends = [0] * rank, [0] * rank
    for i, axis in enumerate(axes):
        begins[c.axis(axis, rank)], ends[c.axis(axis, rank)] = pads[i], pads[i + len(axes)]
    if mode == "constant":
        for i in range(rank):
            lo, hi = min(begins[i], 0), min(ends[i], 0)
            if lo or hi:
                size = x.dims[i] + lo + hi
                if size < 0:
                    raise ShapeError(f"{c.b.label}: pads {pads} crop more than there is")
                x = c.b.slice_axis(x, i, -lo, size)
        return c.b.pad(x, [max(v, 0) for v in begins], [max(v, 0) for v in ends], float(value))
    for i in range(rank):
        if begins[i] or ends[i]:
            x = c.b.gather(
                x, c.b.constant(_padded_indices(c, mode, x.dims[i], begins[i], ends[i])), i
            )
    return x


def _padded_indices(c: NodeContext, mode: str, size: int, begin: int, end: int) -> np.ndarray:
    """Return the source index of each position after padding one axis."""
    positions = np.arange(-begin, size + end)
    if mode == "edge":
        return np.clip(positions, 0, size - 1)
    if mode == "wrap":
        return np.mod(positions, size)
    if mode != "reflect":
        raise ModelError(f"{c.b.label}: pad mode '{mode}' is unknown")
    if size == 1:
        return np.zeros_like(positions)
    period = 2 * (size - 1)
    folded = np.mod(positions, period)
    return np.where(folded < size, folded, period - folded)


@importer("ConstantOfShape")
def import_constant_of_shape(c: NodeContext) -> Value:
    """Make a constant of one repeated number, without allocating it."""
    shape = c.known_ints(0, "shape")
    proto = c.proto("value")
    number = np.zeros(1, np.float32) if proto is None else decode(proto)
    if number.size != 1:
        raise ModelError(f"{c.b.label}: value has {number.size} elements, expected 1")
    c.b.check_size(shape, DType.F32)
    c.b.charge(prod(shape) * number.dtype.itemsize)
    return c.b.constant(np.broadcast_to(number.reshape(()), shape))


def space(c: NodeContext) -> tuple[int, tuple[int, int, int, int]]:
    """Return the block size and the [n, c, h, w] dims."""
    block = c.integer("blocksize", 0)
    if block < 1 or c.x.rank != 4:
        raise ShapeError(
            f"{c.b.label}: needs a positive blocksize and rank 4, found {block} and {c.x.rank}"
        )
    n, ch, h, w = c.x.dims
    return block, (n, ch, h, w)


@importer("DepthToSpace")
def import_depth_to_space(c: NodeContext) -> Value:
    """Move channel blocks into space."""
    k, (n, ch, h, w) = space(c)
    if ch % (k * k):
        raise ShapeError(f"{c.b.label}: {ch} channels do not divide by {k * k}")
    depth = ch // (k * k)
    if c.text("mode", "DCR") == "DCR":
        blocks = c.b.transpose(c.b.reshape(c.x, (n, k, k, depth, h, w)), (0, 3, 4, 1, 5, 2))
    else:
        blocks = c.b.transpose(c.b.reshape(c.x, (n, depth, k, k, h, w)), (0, 1, 4, 2, 5, 3))
    return c.b.reshape(blocks, (n, depth, h * k, w * k))


@importer("SpaceToDepth")
def import_space_to_depth(c: NodeContext) -> Value:
    """Move spatial blocks into channels."""
    k, (n, ch, h, w) = space(c)
    if h % k or w % k:
        raise ShapeError(f"{c.b.label}: {h} x {w} does not divide by {k}")
    blocks = c.b.transpose(c.b.reshape(c.x, (n, ch, h // k, k, w // k, k)), (0, 3, 5, 1, 2, 4))
    return c.b.reshape(blocks, (n, ch * k * k, h // k, w // k))


@importer("Trilu")
def import_trilu(c: NodeContext) -> Value:
    """Upper or lower triangle, by a constant mask."""
    diagonal = 0 if c.opt(1) is None else int(c.known(1, "k").reshape(-1)[0])
    if c.x.rank < 2:
        raise ShapeError(f"{c.b.label}: rank {c.x.rank}, expected at least 2")
    ones = np.ones(c.x.dims[-2:], np.bool_)
    mask = np.triu(ones, diagonal) if c.integer("upper", 1) else np.tril(ones, diagonal)
    return c.b.map("where", c.b.constant(mask), c.x, c.b.scalar(0, c.x.element))


@importer("ReverseSequence")
def import_reverse_sequence(c: NodeContext) -> Value:
    """Reverse, when every sequence has the full length; else the host."""
    time = c.axis(c.integer("time_axis", 0), c.x.rank)
    lengths = c.known_ints(1, "sequence lengths")
    if any(v != c.x.dims[time] for v in lengths):
        raise FallbackError("sequences of different lengths")
    size = c.x.dims[time]
    return c.b.slice_axis(c.x, time, size - 1, size, -1) if size > 1 else c.x
