"""Gathers, one-hot and ranges: everything that reads by index."""

from __future__ import annotations

from math import prod

import numpy as np

from tilewright.dtypes import DType
from tilewright.errors import ModelError, ShapeError
from tilewright.frontend.builder import Builder
from tilewright.frontend.ops_math import dtype_of_proto
from tilewright.frontend.registry import NodeContext, importer
from tilewright.frontend.values import Value


def wrapped(b: Builder, indices: Value, size: int) -> Value:
    """Return indices counted from the front: index mod size, which is exact for -size..size-1.

    Raises:
        ModelError: A known index is out of range.
    """
    if indices.data is None:
        return b.map("mod", indices, b.scalar(size, indices.element))
    known = np.asarray(indices.data, np.int64)
    if known.size and (known.min() < -size or known.max() >= size):
        raise ModelError(f"{b.label}: an index is outside -{size}..{size - 1}")
    return (
        b.constant(np.where(known < 0, known + size, known).astype(indices.element.numpy))
        if (known < 0).any()
        else indices
    )


@importer("Gather")
def import_gather(c: NodeContext) -> Value:
    """Rows of an axis; indices of any rank are flattened first."""
    b, table, indices = c.b, c.x, c.inp(1)
    axis = c.axis(c.integer("axis", 0), table.rank)
    if table.dims[axis] == 0:
        raise ShapeError(f"{b.label}: axis {axis} of {table.dims} is empty")
    flat = b.reshape(wrapped(b, indices, table.dims[axis]), (indices.elements,))
    shape = (*table.dims[:axis], *indices.dims, *table.dims[axis + 1 :])
    if indices.elements == 0:
        return b.constant(np.zeros(shape, table.element.numpy))
    return b.reshape(b.gather(table, flat, axis), shape)


def _integer(b: Builder, x: Value) -> Value:
    """Return indices as i64, in which linear indices are computed."""
    return b.cast(x, DType.I64)


@importer("GatherElements")
def import_gather_elements(c: NodeContext) -> Value:
    """Single elements, as a gather from the flattened data by linear indices."""
    b, x, indices = c.b, c.x, c.inp(1)
    axis = c.axis(c.integer("axis", 0), x.rank)
    if indices.rank != x.rank:
        raise ShapeError(f"{b.label}: indices of rank {indices.rank} for data of rank {x.rank}")
    strides = [prod(x.dims[i + 1 :]) for i in range(x.rank)]
    offset = np.zeros(indices.dims, np.int64)
    for i, size in enumerate(indices.dims):
        if i != axis:
            offset += (np.arange(size) * strides[i]).reshape(
                [-1 if j == i else 1 for j in range(x.rank)]
            )
    along = wrapped(b, _integer(b, indices), x.dims[axis])
    scaled = b.map("mul", along, b.scalar(strides[axis], DType.I64))
    linear = b.map("add", scaled, b.constant(offset))
    flat = b.gather(b.reshape(x, (x.elements,)), b.reshape(linear, (indices.elements,)), 0)
    return b.reshape(flat, indices.dims)


@importer("GatherND")
def import_gather_nd(c: NodeContext) -> Value:
    """Slices by index tuples, as a gather by linear indices from flattened leading axes."""
    b, x, indices, batch = c.b, c.x, c.inp(1), c.integer("batch_dims", 0)
    if not indices.rank or not 0 <= batch < min(x.rank, indices.rank):
        raise ShapeError(f"{b.label}: {batch} batch dims for {x.dims} and indices {indices.dims}")
    depth = indices.dims[-1]
    if batch + depth > x.rank or x.dims[:batch] != indices.dims[:batch]:
        raise ShapeError(f"{b.label}: indices {indices.dims} do not fit data {x.dims}")
    sizes = x.dims[batch : batch + depth]
    strides = [prod(sizes[i + 1 :]) for i in range(depth)]
    parts = [
        b.map(
            "mul",
            wrapped(b, b.slice_axis(_integer(b, indices), indices.rank - 1, i, 1), sizes[i]),
            b.scalar(strides[i], DType.I64),
        )
        for i in range(depth)
    ]
    linear = parts[0]
    for part in parts[1:]:
        linear = b.map("add", linear, part)
    if batch:
        count = prod(x.dims[:batch])
        base = (np.arange(count, dtype=np.int64) * prod(sizes)).reshape(
            *x.dims[:batch], *(1,) * (indices.rank - batch)
        )
        linear = b.map("add", linear, b.constant(base))
    rest = x.dims[batch + depth :]
    table = b.reshape(x, (prod(x.dims[: batch + depth]), *rest))
    taken = b.gather(table, b.reshape(linear, (linear.elements,)), 0)
    return b.reshape(taken, (*indices.dims[:-1], *rest))


@importer("Range")
def import_range(c: NodeContext) -> Value:
    """Compute a known arithmetic sequence."""
    start, limit, delta = (c.known(i, "range").reshape(-1)[0] for i in range(3))
    if delta == 0:
        raise ModelError(f"{c.b.label}: the step of a range is 0")
    count = max(int(np.ceil((float(limit) - float(start)) / float(delta))), 0)
    c.b.check_size((count,), c.x.element)
    c.b.charge(count * c.x.element.itemsize_bytes)
    return c.b.constant((start + np.arange(count) * delta).astype(c.x.element.numpy))


@importer("OneHot")
def import_one_hot(c: NodeContext) -> Value:
    """Compare indices with 0..depth-1 and choose between two values."""
    b, indices = c.b, c.x
    depth = int(c.known(1, "depth").reshape(-1)[0])
    if depth < 1:
        raise ShapeError(f"{b.label}: depth {depth}, expected a positive number")
    axis = c.axis(c.integer("axis", -1), indices.rank + 1)
    integers = _integer(b, indices)
    shape = (*indices.dims[:axis], 1, *indices.dims[axis:])
    classes = np.arange(depth).reshape([-1 if i == axis else 1 for i in range(indices.rank + 1)])
    column = b.reshape(integers, shape)
    # indices from -depth to -1 count from the end, others give the off value everywhere
    hit = b.map(
        "or",
        b.map("eq", column, b.constant(classes)),
        b.map("eq", column, b.constant(classes - depth)),
    )
    values = c.inp(2)
    off, on = (b.reshape(b.slice_axis(values, 0, i, 1), ()) for i in range(2))
    return b.map("where", hit, on, off)


@importer("EyeLike")
def import_eye_like(c: NodeContext) -> Value:
    """Make a known identity matrix."""
    number = c.integer("dtype", 0)
    dtype = dtype_of_proto(number, c.b.label) if number else c.x.element
    if c.x.rank != 2:
        raise ShapeError(f"{c.b.label}: rank {c.x.rank}, expected 2")
    return c.b.constant(np.eye(c.x.dims[0], c.x.dims[1], k=c.integer("k", 0)).astype(dtype.numpy))
