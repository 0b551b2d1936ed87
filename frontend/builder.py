"""Emits core operators: checks shapes, drops no-ops, evaluates what is known.

Importers call these methods with `Value`s of real shape and get `Value`s of real shape; the
builder takes care of rank 0, of broadcasting between different ranks, and of folding.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import prod
from types import MappingProxyType

import numpy as np

from tilewright.dtypes import DType
from tilewright.errors import ModelError, ShapeError, UnsupportedOpError
from tilewright.frontend.quantised import is_quantised
from tilewright.frontend.values import Value, inner_shape
from tilewright.graph import Array, AttrValue, Op, TensorType, parse_pipeline, pipeline_dtype
from tilewright.reference import evaluate_op

MAX_TENSOR_BYTES = 1 << 40
"""Larger tensors are taken for mistakes."""
GROWTH_BYTES = 1 << 20
"""Folding may make constants grow by this much: int8 weights stay int8, small tables are expanded."""


def with_constant(fn: str, values: tuple[Value, ...]) -> tuple[str, tuple[Value, ...]]:
    """Write a known scalar operand into the function: add(x, 2.0) becomes add_const(2.0) of x."""
    head, bar, tail = fn.partition("|")
    if len(values) != 2:
        return fn, values
    x, scalar = values
    commutes = head in ("add", "mul", "max", "min")
    if commutes and x.data is not None and scalar.data is None:
        x, scalar = scalar, x
    if x.data is not None or scalar.data is None or scalar.elements != 1 or scalar.rank > x.rank:
        return fn, values
    if x.element is not scalar.element or x.element is DType.BOOL:
        return fn, values
    number = scalar.data.reshape(-1)[0].item()
    step = {"add": "add_const", "mul": "mul_const", "max": "clip_min", "min": "clip_max"}.get(head)
    if head == "sub" and (x.element.is_float or np.issubdtype(x.element.numpy, np.signedinteger)):
        step, number = "add_const", -number
    return (fn, values) if step is None else (f"{step}({number!r}){bar}{tail}", (x,))


@dataclass(slots=True)
class Builder:
    """Collects operators, types and constants of a graph under construction."""

    max_constant_bytes: int
    ops: list[Op] = field(default_factory=list)
    types: dict[str, TensorType] = field(default_factory=dict)
    constants: dict[str, Array] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    """Constants without values: which tensor of which file has them."""
    missing: dict[str, str] = field(default_factory=dict)
    """What only absent values keep from being known: one of these."""
    label: str = "node"
    """Name of the node being imported; names and errors start with it."""
    folded_bytes: int = 0
    names: set[str] = field(default_factory=set)
    counter: dict[str, int] = field(default_factory=dict)

    # -- names and constants

    def unique(self, stem: str) -> str:
        """Return a name that is not in use, `stem` itself if possible."""
        name = stem
        while name in self.names:
            self.counter[stem] = self.counter.get(stem, 0) + 1
            name = f"{stem}.{self.counter[stem]}"
        self.names.add(name)
        return name

    def constant(self, data: Array, stem: str = "") -> Value:
        """Return a known value; it enters the graph when an operator reads it."""
        array = np.asarray(data)
        try:
            dtype = DType.from_numpy(array.dtype)
        except KeyError:
            raise UnsupportedOpError(
                f"{self.label}: constants of type {array.dtype} are not supported"
            ) from None
        name = self.unique(stem or f"{self.label}.const")
        self.constants[name] = array.reshape(inner_shape(array.shape))
        self.types[name] = TensorType(inner_shape(array.shape), dtype)
        return Value(name=name, shape=array.shape, dtype=dtype, data=array)

    def scalar(self, number: float | bool, dtype: DType) -> Value:
        """Return a known scalar."""
        return self.constant(np.asarray(number).astype(dtype.numpy))

    def absent_constant(self, stem: str, type_: TensorType, place: str) -> Value:
        """Return a constant that is known by type only.

        Args:
            stem: Its name, if that is free.
            type_: Its type as ONNX sees it; the shape may be ().
            place: Which tensor of which file has its values.
        """
        value = self.tensor(self.unique(stem), type_.shape, type_.dtype)
        self.absent[value.name] = place
        self.missing[value.name] = place
        return value

    def missing_of(self, values: Iterable[Value]) -> str | None:
        """Return the place of absent values but for which all of `values` were known."""
        found = [self.missing.get(v.name) for v in values if v.data is None]
        return next((m for m in found), None) if all(found) else None

    def charge(self, size_bytes: int) -> None:
        """Count bytes that constant folding creates.

        Raises:
            ModelError: The budget `max_constant_bytes` is spent.
        """
        self.folded_bytes += size_bytes
        if self.folded_bytes > self.max_constant_bytes:
            raise ModelError(
                f"{self.label}: constants computed from the model need {self.folded_bytes:_} bytes, "
                f"allowed are {self.max_constant_bytes:_}; raise max_constant_bytes"
            )

    def tensor(self, name: str, shape: tuple[int, ...], dtype: DType) -> Value:
        """Declare a tensor that something else defines (an input, a host output)."""
        self.check_size(shape, dtype)
        self.types[name] = TensorType(inner_shape(shape), dtype)
        return Value(name=name, shape=shape, dtype=dtype)

    def check_size(self, shape: tuple[int, ...], dtype: DType) -> None:
        """Refuse negative and absurdly large shapes."""
        if any(d < 0 for d in shape):
            raise ShapeError(f"{self.label}: shape {shape} has a negative dimension")
        if prod(shape) * dtype.itemsize_bytes > MAX_TENSOR_BYTES:
            raise ShapeError(
                f"{self.label}: a tensor of shape {shape} needs "
                f"{prod(shape) * dtype.itemsize_bytes:_} bytes, the limit is {MAX_TENSOR_BYTES:_}; "
                "check the model's dimensions"
            )

    # -- the one place where operators are made

    def emit(
        self,
        kind: str,
        inputs: Sequence[Value],
        shape: tuple[int, ...],
        dtype: DType,
        /,
        **attrs: AttrValue,
    ) -> Value:
        """Append an operator, or evaluate it when all its inputs are known.

        Args:
            kind: A core operator kind.
            inputs: Its inputs; shapes must already satisfy the kind's contract.
            shape: Real shape of the output; () becomes (1,) inside.
            dtype: Element type of the output.
            **attrs: The operator's attributes.
        """
        self.check_size(shape, dtype)
        inner = TensorType(inner_shape(shape), dtype)
        if inner.elements == 0:
            return self.constant(np.zeros(shape, dtype.numpy))
        if kind == "reshape" and inputs[0].name in self.absent:
            # the same bytes, as another type
            stem, place = f"{self.label}.{kind}", self.absent[inputs[0].name]
            return self.absent_constant(stem, TensorType(shape, dtype), place)
        name = self.unique(f"{self.label}.{kind}")
        op = Op(
            name=name,
            kind=kind,
            inputs=tuple(v.name for v in inputs),
            outputs=(name,),
            attrs=MappingProxyType(dict(attrs)),
        )
        self.types[name] = inner
        is_weight = dtype.is_float and kind == "map" and is_quantised(inputs[0].inner)
        if (
            all(v.data is not None for v in inputs)
            and not is_weight
            and self._may_fold(inputs, inner)
        ):
            (array,) = evaluate_op(op, [self.constants[v.name] for v in inputs], {name: inner})
            self.constants[name] = array
            return Value(name=name, shape=shape, dtype=dtype, data=array.reshape(shape))
        if missing := self.missing_of(inputs):
            self.missing[name] = missing
        self.ops.append(op)
        return Value(name=name, shape=shape, dtype=dtype)

    def _may_fold(self, inputs: Sequence[Value], out: TensorType) -> bool:
        if out.size_bytes > 2 * sum(v.inner.size_bytes for v in inputs) + GROWTH_BYTES:
            return False
        if self.folded_bytes + out.size_bytes > self.max_constant_bytes:
            return False
        self.folded_bytes += out.size_bytes
        return True

    # -- elementwise

    def broadcast_shape(self, shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
        """Return the numpy broadcast of shapes.

        Raises:
            ShapeError: They do not broadcast.
        """
        try:
            return np.broadcast_shapes(*shapes)
        except ValueError:
            listed = " and ".join(str(s) for s in shapes)
            raise ShapeError(f"{self.label}: shapes {listed} do not broadcast") from None

    def map(self, fn: str, *values: Value) -> Value:
        """Apply a pipeline to one to three broadcast values.

        The output's element type is that of the last input, bool for comparisons, or what a cast
        in the pipeline says.
        """
        fn, values = with_constant(fn, values)
        first, _ = parse_pipeline(fn)[0]
        operands = values[1:] if first == "where" else values
        if len({v.element for v in operands}) > 1:
            listed = ", ".join(str(v.element) for v in operands)
            raise ModelError(
                f"{self.label}: operands of '{first}' have different element types: {listed}"
            )
        shape = self.broadcast_shape([v.dims for v in values])
        aligned = [self.reshape(v, (1,) * (len(shape) - v.rank) + v.dims) for v in values]
        return self.emit("map", aligned, shape, pipeline_dtype(fn, values[-1].element), fn=fn)

    def cast(self, x: Value, dtype: DType) -> Value:
        """Convert the element type."""
        return x if x.element is dtype else self.map(f"cast({dtype})", x)

    def mul_const(self, x: Value, factor: float) -> Value:
        """Multiply by a number."""
        return self.map(f"mul_const({factor!r})", x)

    # -- layout

    def reshape(self, x: Value, shape: Sequence[int]) -> Value:
        """Give x another shape of the same size."""
        target = tuple(int(d) for d in shape)
        if prod(target) != x.elements:
            raise ShapeError(
                f"{self.label}: cannot reshape {x.dims} to {target}: {x.elements} and {prod(target)} elements"
            )
        if target == x.dims:
            return x
        if inner_shape(target) == inner_shape(x.dims):
            data = None if x.data is None else x.data.reshape(target)
            return Value(name=x.name, shape=target, dtype=x.dtype, data=data)
        return self.emit("reshape", [x], target, x.element, shape=inner_shape(target))

    def transpose(self, x: Value, perm: Sequence[int]) -> Value:
        """Permute axes: output axis i is input axis perm[i]."""
        order = tuple(int(p) for p in perm)
        if sorted(order) != list(range(x.rank)):
            raise ShapeError(f"{self.label}: perm {order} is not a permutation of {x.rank} axes")
        if order == tuple(range(x.rank)):
            return x
        shape = tuple(x.dims[p] for p in order)
        # moving axes of size 1 does not move data
        if [p for p in order if x.dims[p] != 1] == sorted(p for p in order if x.dims[p] != 1):
            return self.reshape(x, shape)
        return self.emit("transpose", [x], shape, x.element, perm=order)

    def slice(
        self, x: Value, starts: Sequence[int], sizes: Sequence[int], steps: Sequence[int]
    ) -> Value:
        """Take starts + i * steps for i < sizes on each axis."""
        if tuple(sizes) == x.dims and all(s == 0 for s in starts) and all(s == 1 for s in steps):
            return x
        return self.emit(
            "slice",
            [x],
            tuple(sizes),
            x.element,
            starts=tuple(starts),
            sizes=tuple(sizes),
            steps=tuple(steps),
        )

    def slice_axis(self, x: Value, axis: int, start: int, size: int, step: int = 1) -> Value:
        """Take a range of one axis."""
        starts, sizes, steps = [0] * x.rank, list(x.dims), [1] * x.rank
        starts[axis], sizes[axis], steps[axis] = start, size, step
        return self.slice(x, starts, sizes, steps)

    def concat(self, values: Sequence[Value], axis: int) -> Value:
        """Join values along an axis."""
        first = values[0]
        for v in values:
            same = v.rank == first.rank and all(
                a == b for i, (a, b) in enumerate(zip(v.dims, first.dims, strict=True)) if i != axis
            )
            if not same or v.element is not first.element:
                raise ShapeError(
                    f"{self.label}: cannot concatenate {v.inner} with {first.inner} along axis {axis}"
                )
        parts = [v for v in values if v.elements] or [first]
        if len(parts) == 1:
            return parts[0]
        shape = list(first.dims)
        shape[axis] = sum(v.dims[axis] for v in parts)
        return self.emit("concat", parts, tuple(shape), first.element, axis=axis)

    def pad(
        self, x: Value, begins: Sequence[int], ends: Sequence[int], value: float = 0.0
    ) -> Value:
        """Pad with a number; amounts are not negative."""
        if not any(begins) and not any(ends):
            return x
        shape = tuple(d + b + e for d, b, e in zip(x.dims, begins, ends, strict=True))
        return self.emit(
            "pad", [x], shape, x.element, begins=tuple(begins), ends=tuple(ends), value=value
        )

    def expand(self, x: Value, shape: Sequence[int]) -> Value:
        """Broadcast x to the broadcast of its shape and `shape`."""
        target = self.broadcast_shape([x.dims, tuple(int(d) for d in shape)])
        aligned = self.reshape(x, (1,) * (len(target) - x.rank) + x.dims)
        if target == aligned.dims:
            return aligned
        return self.emit("expand", [aligned], target, x.element, shape=target)

    def gather(self, table: Value, indices: Value, axis: int) -> Value:
        """Take rows of an axis; indices are 1-D, in range and non-negative."""
        if indices.data is not None:
            taken = np.asarray(indices.data, np.int64)
            size = table.dims[axis]
            if taken.size and (taken.min() < 0 or taken.max() >= size):
                raise ModelError(f"{self.label}: an index is outside 0..{size - 1}")
            step = int(taken[1] - taken[0]) if taken.size > 1 else 1
            if (
                taken.size
                and step
                and np.array_equal(taken, taken[0] + step * np.arange(taken.size))
            ):
                return self.slice_axis(table, axis, int(taken[0]), taken.size, step)
        shape = (*table.dims[:axis], indices.dims[0], *table.dims[axis + 1 :])
        return self.emit("gather", [table, indices], shape, table.element, axis=axis)

    # -- contractions, windows, reductions

    def matmul(self, a: Value, b: Value, dtype: DType | None = None) -> Value:
        """Multiply [*batch, m, k] by [*batch, k, n]; batch dims broadcast, ranks may differ."""
        if a.rank < 2 or b.rank < 2 or a.dims[-1] != b.dims[-2]:
            raise ShapeError(
                f"{self.label}: cannot multiply {a.dims} by {b.dims}; the inner sizes must agree"
            )
        if dtype is None and a.element is not b.element:
            raise ModelError(
                f"{self.label}: matmul of {a.element} by {b.element}; cast one of them"
            )
        batch = self.broadcast_shape([a.dims[:-2], b.dims[:-2]])
        left = self.reshape(a, (1,) * (len(batch) + 2 - a.rank) + a.dims)
        right = self.reshape(b, (1,) * (len(batch) + 2 - b.rank) + b.dims)
        shape = (*batch, a.dims[-2], b.dims[-1])
        if a.dims[-1] == 0:
            return self.constant(np.zeros(shape, (dtype or a.element).numpy))
        return self.emit("matmul", [left, right], shape, dtype or a.element)

    def conv(
        self,
        x: Value,
        w: Value,
        *,
        strides: tuple[int, int],
        pads: tuple[int, int, int, int],
        dilations: tuple[int, int],
        groups: int,
        dtype: DType | None = None,
    ) -> Value:
        """Convolve x [n, c, h, w] with w [o, c/groups, r, s]."""
        if groups < 1 or x.dims[1] != w.dims[1] * groups or w.dims[0] % groups:
            raise ShapeError(
                f"{self.label}: {x.dims} does not fit weights {w.dims} with {groups} groups"
            )
        size = self.window_shape(x, w.dims[2:], strides, pads, dilations)
        return self.emit(
            "conv",
            [x, w],
            (x.dims[0], w.dims[0], *size),
            dtype or x.element,
            strides=strides,
            pads=pads,
            dilations=dilations,
            groups=groups,
        )

    def pool(
        self,
        fn: str,
        x: Value,
        *,
        kernel: tuple[int, int],
        strides: tuple[int, int],
        pads: tuple[int, int, int, int],
        dilations: tuple[int, int],
    ) -> Value:
        """Pool windows of the last two dims of x [n, c, h, w]; fn is "max" or "sum"."""
        shape = (*x.dims[:2], *self.window_shape(x, kernel, strides, pads, dilations))
        return self.emit(
            "pool",
            [x],
            shape,
            x.element,
            fn=fn,
            kernel=kernel,
            strides=strides,
            pads=pads,
            dilations=dilations,
        )

    def window_shape(
        self,
        x: Value,
        kernel: Sequence[int],
        strides: Sequence[int],
        pads: Sequence[int],
        dilations: Sequence[int],
    ) -> tuple[int, int]:
        """Return (oh, ow) of sliding windows over x [n, c, h, w]."""
        sizes = []
        for i in range(2):
            if (
                strides[i] < 1
                or dilations[i] < 1
                or kernel[i] < 1
                or pads[i] < 0
                or pads[i + 2] < 0
            ):
                raise ShapeError(
                    f"{self.label}: kernel, strides and dilations must be positive, pads not negative"
                )
            span = x.dims[2 + i] + pads[i] + pads[i + 2] - dilations[i] * (kernel[i] - 1) - 1
            if span < 0:
                raise ShapeError(
                    f"{self.label}: kernel {tuple(kernel)} does not fit into padded input {x.dims}"
                )
            sizes.append(span // strides[i] + 1)
        return (sizes[0], sizes[1])

    def reduce(self, fn: str, x: Value, axes: Sequence[int], *, keepdims: bool = True) -> Value:
        """Reduce axes with "sum", "max", "min" or "prod"."""
        chosen = tuple(sorted(axes))
        kept = tuple(1 if i in chosen else d for i, d in enumerate(x.dims))
        squeezed = tuple(d for i, d in enumerate(x.dims) if i not in chosen)
        if all(x.dims[i] == 1 for i in chosen):
            return self.reshape(x, kept if keepdims else squeezed)
        if x.elements == 0:
            start = {"sum": 0, "prod": 1}.get(fn)
            if start is None:
                raise ShapeError(f"{self.label}: {fn} over an empty axis of {x.dims}")
            return self.constant(np.full(kept if keepdims else squeezed, start, x.element.numpy))
        result = self.emit("reduce", [x], kept, x.element, fn=fn, axes=chosen)
        return result if keepdims else self.reshape(result, squeezed)

    def mean(self, x: Value, axes: Sequence[int], *, keepdims: bool = True) -> Value:
        """Return the mean over axes."""
        total = self.reduce("sum", x, axes, keepdims=keepdims)
        count = prod(x.dims[i] for i in axes)
        if count == 1:
            return total
        if x.element.is_float:
            return self.mul_const(total, 1.0 / max(count, 1))
        return self.map("div", total, self.scalar(count, x.element))

    def last_axis(self, kind: str, x: Value, **attrs: AttrValue) -> Value:
        """Emit softmax, layernorm or rmsnorm over the last axis."""
        return self.emit(kind, [x], x.dims, x.element, **attrs)
