"""Result types of operators: the analysis that every e-node is held against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

from tilewright.dtypes import DType
from tilewright.errors import ShapeError
from tilewright.graph import (
    AttrValue,
    Op,
    TensorType,
    dequantises,
    pipeline_dtype,
    third_operands,
)


def broadcast_shapes(shapes: Sequence[tuple[int, ...]], where: str) -> tuple[int, ...]:
    """Return the common shape of operands of equal rank whose dimensions are equal or 1."""
    if len({len(s) for s in shapes}) != 1:
        raise ShapeError(
            f"{where}: operands have shapes {[list(s) for s in shapes]}, expected one rank"
        )
    result = []
    for sizes in zip(*shapes, strict=True):
        found = sorted({*sizes} - {1})
        if len(found) > 1:
            raise ShapeError(
                f"{where}: operands have shapes {[list(s) for s in shapes]}, "
                "expected dimensions equal or 1"
            )
        result.append(found[0] if found else 1)
    return tuple(result)


def _windows(size: int, kernel: int, stride: int, dilation: int, pads: int) -> int:
    """Return how many windows fit along one dimension."""
    return (size + pads - dilation * (kernel - 1) - 1) // stride + 1


def _window_shape(op: Op, shape: tuple[int, ...], kernel: tuple[int, ...]) -> tuple[int, ...]:
    """Return the two spatial sizes of a conv or pool."""
    stride, dilation, pads = op.ints("strides"), op.ints("dilations"), op.ints("pads")
    sizes = tuple(
        _windows(shape[2 + i], kernel[i], stride[i], dilation[i], pads[i] + pads[i + 2])
        for i in (0, 1)
    )
    if min(sizes) < 1:
        raise ShapeError(
            f"{op.kind} '{op.name}': kernel {list(kernel)} does not fit into {list(shape)}"
        )
    return sizes


def _product_shape(op: Op, shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """Return the shape of a matmul, conv or chain, fused or not."""
    a, b = shapes[0], shapes[1]
    where = f"{op.kind} '{op.name}'"
    if op.kind == "chain":
        return _two_products_shape(
            where, shapes[: len(shapes) - len(third_operands(op.attrs, shapes))]
        )
    if op.kind == "conv":
        if a[1] != b[1] * op.integer("groups") or b[0] % op.integer("groups"):
            raise ShapeError(f"{where}: input {list(a)} does not fit weights {list(b)}")
        return (a[0], b[0], *_window_shape(op, a, b[2:]))
    a, b = _transposed(op, "perm_a", a), _transposed(op, "perm_b", b)
    if len(a) != len(b) or len(a) < 2 or a[-1] != b[-2]:
        raise ShapeError(f"{where}: {list(a)} does not multiply {list(b)}")
    product = (*broadcast_shapes((a[:-2], b[:-2]), where), a[-2], b[-1])
    return _transposed(op, "perm_out", product)


def _transposed(op: Op, key: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return a shape transposed by an optional attribute."""
    if key in op.attrs and sorted(op.ints(key)) != list(range(len(shape))):
        raise ShapeError(
            f"{op.kind} '{op.name}': {key} {list(op.ints(key))} does not permute {list(shape)}"
        )
    return op.permuted(key, shape)


def _check_slice(op: Op, shape: tuple[int, ...]) -> None:
    """Raise ShapeError unless a slice stays inside of a tensor."""
    starts, sizes, steps = op.ints("starts"), op.ints("sizes"), op.ints("steps")
    for size, start, count, step in zip(shape, starts, sizes, steps, strict=True):
        last = start + (count - 1) * step
        if count and not (0 <= start < size and 0 <= last < size):
            raise ShapeError(
                f"{op.kind} '{op.name}': indices {start} to {last} of a dimension of {size}"
            )


def _two_products_shape(where: str, shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """Return [*batch, m, e] for a [*batch, m, d], b [*batch, d, n], c [*batch, n, e] and one more."""
    a, b, c, *others = shapes
    if not 2 <= len(a) == len(b) == len(c) or a[-1] != b[-2] or b[-1] != c[-2]:
        raise ShapeError(
            f"{where}: {list(a)}, {list(b)}, {list(c)} are not [*batch, m, d], [*batch, d, n] and "
            "[*batch, n, e]"
        )
    between = (*broadcast_shapes((a[:-2], b[:-2]), where), a[-2], b[-1])
    for other in others:
        if broadcast_shapes((between, other), where) != between:
            raise ShapeError(
                f"{where}: the last operand {list(other)} is larger than {list(between)}"
            )
    return (*broadcast_shapes((between[:-2], c[:-2]), where), a[-2], c[-1])


def _shape(op: Op, shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """Return the result shape of an operator with one output."""
    x = shapes[0]
    where = f"{op.kind} '{op.name}'"
    match op.kind:
        case "matmul" | "conv" | "chain":
            product = _product_shape(op, shapes)
            for third in third_operands(op.attrs, shapes):
                if broadcast_shapes((product, third), where) != product:
                    raise ShapeError(
                        f"{where}: third operand {list(third)} is larger than {list(product)}"
                    )
            if dequantises(op.attrs) and (
                broadcast_shapes((shapes[1], shapes[-1]), where) != shapes[1]
            ):
                raise ShapeError(
                    f"{where}: scale {list(shapes[-1])} does not fit {list(shapes[1])}"
                )
            return product
        case "attention":
            return _two_products_shape(where, shapes)
        case "map":
            return broadcast_shapes(shapes, where)
        case "pool":
            return (*x[:2], *_window_shape(op, x, op.ints("kernel")))
        case "reduce":
            if not set(op.ints("axes")) <= set(range(len(x))):
                raise ShapeError(
                    f"{where}: axes {list(op.ints('axes'))} are not dimensions of {list(x)}"
                )
            return tuple(1 if i in op.ints("axes") else size for i, size in enumerate(x))
        case "reshape":
            if prod(x) != prod(op.ints("shape")):
                raise ShapeError(
                    f"{where}: {list(x)} and {list(op.ints('shape'))} differ in elements"
                )
            return op.ints("shape")
        case "expand":
            if broadcast_shapes((x, op.ints("shape")), where) != op.ints("shape"):
                raise ShapeError(f"{where}: {list(x)} does not expand to {list(op.ints('shape'))}")
            return op.ints("shape")
        case "transpose":
            return _transposed(op, "perm", x)
        case "slice":
            _check_slice(op, x)
            return op.ints("sizes")
        case "pad":
            widths = zip(x, op.ints("begins"), op.ints("ends"), strict=True)
            return tuple(size + low + high for size, low, high in widths)
        case "concat":
            axis = op.integer("axis")
            around = {(*s[:axis], *s[axis + 1 :]) for s in shapes}
            if axis >= len(x) or len({len(s) for s in shapes}) > 1 or len(around) > 1:
                raise ShapeError(f"{where}: {[list(s) for s in shapes]} do not join on axis {axis}")
            return (*x[:axis], sum(s[axis] for s in shapes), *x[axis + 1 :])
        case "gather":
            axis = op.integer("axis")
            return (*x[:axis], shapes[1][0], *x[axis + 1 :])
        case _:  # softmax and the norms
            if any(shape != x for shape in shapes):
                raise ShapeError(f"{where}: {[list(s) for s in shapes]} are not of one shape")
            return x


def infer_type(
    kind: str, attrs: Mapping[str, AttrValue], inputs: Sequence[TensorType], dtype: DType
) -> TensorType:
    """Return the type of an operator's result.

    Args:
        kind: Any operator kind with one output.
        attrs: Its attributes; `epilogue` and `product_dtype` for fused products.
        inputs: Types of its inputs.
        dtype: The element type that the operator says it has.

    Raises:
        ShapeError: Operands do not fit, or the element type cannot be `dtype`.
    """
    op = Op(name="", kind=kind, inputs=(), outputs=("",), attrs=attrs)
    shape = _shape(op, [t.shape for t in inputs])
    if kind == "map":
        natural = pipeline_dtype(op.text("fn"), inputs[-1].dtype)
    elif "epilogue" in attrs:
        third = third_operands(attrs, inputs)
        first = third[0].dtype if third else DType(op.text("product_dtype"))
        natural = pipeline_dtype(op.text("epilogue"), first)
    elif kind in ("matmul", "conv", "chain"):
        natural = dtype
    else:
        natural = inputs[0].dtype
    if natural != dtype:
        raise ShapeError(f"{kind}: result is {natural}, expected {dtype}")
    return TensorType(shape, dtype)
