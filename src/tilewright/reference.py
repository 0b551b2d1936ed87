"""The meaning of every core operator, in numpy.

This is the oracle that rules, lowering and simulators are checked against, and the engine
that folds constants. It favours obviousness; convolutions go through one matrix product per
group, so that networks of the size of ResNet-50 run in seconds.

Half-precision floats (f16, bf16) are computed in f32 and rounded once per map step or operator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod, sqrt
from threading import Timer
from typing import Any

import numpy as np
import scipy
from numpy.lib.stride_tricks import as_strided

from tilewright.dtypes import DType
from tilewright.errors import ProgramError, ShapeError
from tilewright.graph import (
    PREDICATES,
    Array,
    Graph,
    HostModel,
    Op,
    TensorType,
    dequantises,
    parse_pipeline,
)

AnyArray = np.ndarray[Any, np.dtype[Any]]
MapCallable = Callable[..., AnyArray]


def _sigmoid(x: AnyArray) -> AnyArray:
    return np.asarray(scipy.special.expit(x))


def _erf(x: AnyArray) -> AnyArray:
    return np.asarray(scipy.special.erf(x))


def _gelu(x: AnyArray) -> AnyArray:
    half, root = x.dtype.type(0.5), x.dtype.type(1.0 / sqrt(2.0))
    return np.asarray(half * x * (x.dtype.type(1) + scipy.special.erf(x * root)))


def _gelu_tanh(x: AnyArray) -> AnyArray:
    kind = x.dtype.type
    inner = kind(sqrt(2.0 / np.pi)) * (x + kind(0.044715) * x * x * x)
    return np.asarray(kind(0.5) * x * (kind(1) + np.tanh(inner)))


def _truncated_div(a: AnyArray, b: AnyArray) -> AnyArray:
    if not np.issubdtype(a.dtype, np.integer):
        return np.asarray(np.divide(a, b))
    quotient = a // b
    inexact = (quotient * b != a) & ((a < 0) != (b < 0))
    return np.asarray(quotient + inexact.astype(a.dtype))


_UNARY: Mapping[str, MapCallable] = {
    "abs": np.abs,
    "neg": np.negative,
    "exp": np.exp,
    "log": np.log,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: x.dtype.type(1) / np.sqrt(x),
    "reciprocal": lambda x: x.dtype.type(1) / x,
    "floor": np.floor,
    "ceil": np.ceil,
    "round": np.rint,
    "sign": np.sign,
    "relu": lambda x: np.maximum(x, x.dtype.type(0)),
    "sigmoid": _sigmoid,
    "tanh": np.tanh,
    "erf": _erf,
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
    "silu": lambda x: x * _sigmoid(x),
    "softplus": lambda x: np.logaddexp(x.dtype.type(0), x),
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "not": np.invert,
    "identity": lambda x: x,
    "isnan": np.isnan,
    "isinf": np.isinf,
    "square": lambda x: x * x,
}

_BINARY: Mapping[str, MapCallable] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": _truncated_div,
    "pow": np.power,
    "mod": np.mod,
    "fmod": np.fmod,
    "min": np.minimum,
    "max": np.maximum,
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "and": np.logical_and,
    "or": np.logical_or,
    "xor": np.logical_xor,
    "prelu": lambda x, slope: np.where(x < 0, x * slope, x),
    "bitand": np.bitwise_and,
    "bitor": np.bitwise_or,
    "bitxor": np.bitwise_xor,
    "shl": np.left_shift,
    "shr": np.right_shift,
}


def _number(text: str) -> int | float:
    """Parse a pipeline argument; integers stay exact."""
    try:
        return int(text)
    except ValueError:
        return float(text)


def _parametric(name: str, args: Sequence[str]) -> MapCallable:
    """Return the callable of a parametric function on full-precision values."""
    values = tuple(_number(a) for a in args)
    if name == "leaky_relu":
        return lambda x: np.where(x < 0, x * x.dtype.type(values[0]), x)
    if name == "elu":
        # expm1 of the positive side would overflow although it is not selected
        return lambda x: np.where(x < 0, x.dtype.type(values[0]) * np.expm1(np.minimum(x, 0)), x)
    if name == "div_rms":
        return lambda x, s: x / np.sqrt(s * s.dtype.type(values[0]) + s.dtype.type(values[1]))
    if name == "hard_sigmoid":
        return lambda x: np.clip(x * x.dtype.type(values[0]) + x.dtype.type(values[1]), 0, 1)
    simple: Mapping[str, MapCallable] = {
        "clip_min": np.maximum,
        "clip_max": np.minimum,
        "pow_const": np.power,
        "add_const": np.add,
        "mul_const": np.multiply,
    }
    if name not in simple:
        raise ProgramError(f"map function '{name}' is unknown; see the lists in tilewright.graph")
    function = simple[name]
    return lambda x: function(x, x.dtype.type(values[0]))


def map_function(name: str, args: Sequence[str] = ()) -> MapCallable:
    """Return a numpy callable for one step of a map pipeline.

    The callable keeps the element type of its (last) argument: f32 in, f32 out. Predicates give
    bool, `cast` gives the type it names.

    Args:
        name: A function of `tilewright.graph`, such as "add" or "clip_min".
        args: Its written arguments, as `parse_pipeline` returns them.

    Raises:
        ProgramError: The function is unknown.
    """
    if name == "cast":
        target = DType(args[0]).numpy
        return lambda x: cast_array(x, target)
    if name == "where":
        return lambda c, x, y: np.asarray(np.where(c, x, y))
    function = _UNARY.get(name) or _BINARY.get(name) or _parametric(name, args)

    def apply(*operands: AnyArray) -> AnyArray:
        dtype = operands[-1].dtype
        half = dtype.kind in "fV" and dtype.itemsize == 2
        if half:
            operands = tuple(o.astype(np.float32) for o in operands)
        with np.errstate(all="ignore"):
            result = np.asarray(function(*operands))
        if name in PREDICATES:
            return result
        return result.astype(dtype, copy=False)

    return apply


def cast_array(x: AnyArray, dtype: np.dtype[Any]) -> AnyArray:
    """Convert element types: floats truncate towards zero, out-of-range values are unspecified."""
    with np.errstate(all="ignore"):
        return x.astype(dtype, copy=False)


def run_pipeline(fn: str, operands: Sequence[AnyArray]) -> AnyArray:
    """Evaluate a pipeline: the first step takes all operands, the others one value."""
    first, *rest = parse_pipeline(fn)
    value = map_function(*first)(*operands)
    for name, args in rest:
        value = map_function(name, args)(value)
    return value


def _wide(x: AnyArray) -> AnyArray:
    """Return half-precision values as f32, others unchanged."""
    return x.astype(np.float32) if x.dtype.kind in "fV" and x.dtype.itemsize == 2 else x


def matmul_arrays(a: AnyArray, b: AnyArray, dtype: np.dtype[Any]) -> AnyArray:
    """Multiply [*batch, m, k] by [*batch, k, n].

    Floats are added in f64, so that equal columns have equal sums (a BLAS library adds leftover
    columns in another order). 8- and 16-bit integers go through f64 too, which is exact: products
    are below 2^32. Other integers accumulate in `dtype`.
    """
    if a.dtype.kind in "iu" and a.dtype.itemsize <= 2 and b.dtype.itemsize <= 2:
        return (a.astype(np.float64) @ b.astype(np.float64)).astype(np.int64).astype(dtype)
    if a.dtype.kind in "iub":
        return np.asarray(np.matmul(a.astype(dtype), b.astype(dtype)))
    with np.errstate(all="ignore"):
        return np.asarray(np.matmul(a.astype(np.float64), b.astype(np.float64))).astype(dtype)


def after_prologue(op: Op, inputs: Sequence[AnyArray]) -> tuple[AnyArray, ...]:
    """Return the operands of a product, without the scale of weights that it dequantises."""
    if not dequantises(op.attrs):
        return tuple(inputs)
    a, quantised, *third, scale = inputs
    weights = map_function("mul")(cast_array(quantised, scale.dtype), scale)
    return (a, weights, *third)


def _permuted(op: Op, key: str, x: AnyArray) -> AnyArray:
    """Return an array transposed by the attribute `key`, if the operator has it."""
    return x.transpose(op.ints(key)) if key in op.attrs else x


def _pad_spatial(x: AnyArray, pads: Sequence[int], value: float) -> AnyArray:
    top, left, bottom, right = pads
    if not any(pads):
        return x
    return np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=value)


def windows(
    x: AnyArray, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> AnyArray:
    """Return a view [n, c, kernel_h, kernel_w, oh, ow] of the sliding windows of x [n, c, h, w]."""
    n, c, h, w = x.shape
    oh = (h - dilations[0] * (kernel[0] - 1) - 1) // strides[0] + 1
    ow = (w - dilations[1] * (kernel[1] - 1) - 1) // strides[1] + 1
    if oh <= 0 or ow <= 0:
        raise ShapeError(f"kernel {tuple(kernel)} does not fit into the padded input {x.shape[2:]}")
    sn, sc, sh, sw = x.strides
    steps = (sn, sc, sh * dilations[0], sw * dilations[1], sh * strides[0], sw * strides[1])
    return as_strided(x, (n, c, *kernel, oh, ow), steps, writeable=False)


def _conv(op: Op, x: AnyArray, w: AnyArray, dtype: np.dtype[Any]) -> AnyArray:
    groups = op.integer("groups")
    padded = _pad_spatial(x, op.ints("pads"), 0)
    o, per_group, r, s = w.shape
    view = windows(padded, (r, s), op.ints("strides"), op.ints("dilations"))
    n, oh, ow = view.shape[0], view.shape[4], view.shape[5]
    columns = view.reshape(n, groups, per_group * r * s, oh * ow)
    kernels = w.reshape(1, groups, o // groups, per_group * r * s)
    return matmul_arrays(kernels, columns, dtype).reshape(n, o, oh, ow)


def _pool(op: Op, x: AnyArray) -> AnyArray:
    is_max = op.text("fn") == "max"
    lowest = (-np.inf if x.dtype.kind in "fV" else np.iinfo(x.dtype).min) if is_max else 0
    wide = _wide(x)
    padded = _pad_spatial(wide, op.ints("pads"), lowest)
    view = windows(padded, op.ints("kernel"), op.ints("strides"), op.ints("dilations"))
    result = view[:, :, 0, 0].copy()
    for i in range(view.shape[2]):
        for j in range(view.shape[3]):
            if i or j:
                np.maximum(result, view[:, :, i, j], out=result) if is_max else np.add(
                    result, view[:, :, i, j], out=result
                )
    return result.astype(x.dtype, copy=False)


def _reduce(op: Op, x: AnyArray) -> AnyArray:
    functions: Mapping[str, MapCallable] = {
        "sum": np.sum,
        "max": np.max,
        "min": np.min,
        "prod": np.prod,
    }
    # the explicit dtype keeps numpy from widening small integers
    wide = _wide(x)
    kwargs = {"dtype": wide.dtype} if op.text("fn") in ("sum", "prod") else {}
    with np.errstate(all="ignore"):
        return functions[op.text("fn")](wide, axis=op.ints("axes"), keepdims=True, **kwargs).astype(
            x.dtype
        )


def _softmax(x: AnyArray) -> AnyArray:
    wide = _wide(x)
    with np.errstate(all="ignore"):
        shifted = np.exp(wide - wide.max(axis=-1, keepdims=True))
        return (shifted / shifted.sum(axis=-1, keepdims=True)).astype(x.dtype)


def _attention(op: Op, inputs: Sequence[AnyArray]) -> AnyArray:
    """Return softmax(scale * q k + mask) v; halves are rounded once, at the end."""
    q, k, v, *masks = (_wide(x) for x in inputs)
    with np.errstate(all="ignore"):
        scores = matmul_arrays(q, k, q.dtype) * q.dtype.type(op.number("scale"))
        for mask in masks:
            scores = scores + mask
        return matmul_arrays(_softmax(scores), v, q.dtype).astype(inputs[0].dtype)


def _chain(op: Op, inputs: Sequence[AnyArray], dtype: np.dtype[Any]) -> AnyArray:
    """Return between(a b, third) c; what is between is rounded as the graph types it."""
    a, b, c, *third = inputs
    product = matmul_arrays(a, b, DType(op.text("inner_dtype")).numpy)
    return matmul_arrays(run_pipeline(op.text("between"), (product, *third)), c, dtype)


def _normalise(op: Op, x: AnyArray) -> AnyArray:
    wide = _wide(x)
    if op.kind == "layernorm":
        wide = wide - wide.mean(axis=-1, keepdims=True)
    variance = (wide * wide).mean(axis=-1, keepdims=True)
    with np.errstate(all="ignore"):
        deviation = np.sqrt(variance + wide.dtype.type(op.number("epsilon")))
        return np.asarray(wide / deviation).astype(x.dtype)


def _slice(op: Op, x: AnyArray) -> AnyArray:
    index = []
    for start, size, step in zip(
        op.ints("starts"), op.ints("sizes"), op.ints("steps"), strict=True
    ):
        stop = start + size * step
        index.append(slice(start, None if stop < 0 else stop, step) if size else slice(0, 0))
    return x[tuple(index)]


def _pad(op: Op, x: AnyArray) -> AnyArray:
    widths = tuple(zip(op.ints("begins"), op.ints("ends"), strict=True))
    with np.errstate(all="ignore"):
        value = np.asarray(op.attrs["value"]).astype(x.dtype)
    result = np.full(
        [d + lo + hi for d, (lo, hi) in zip(x.shape, widths, strict=True)], value, x.dtype
    )
    result[tuple(slice(lo, lo + d) for d, (lo, _) in zip(x.shape, widths, strict=True))] = x
    return result


def _gather(op: Op, table: AnyArray, indices: AnyArray) -> AnyArray:
    size = table.shape[op.integer("axis")]
    if indices.size and (indices.min() < 0 or indices.max() >= size):
        raise ProgramError(f"gather '{op.name}': an index is outside 0..{size - 1}")
    return np.take(table, indices, axis=op.integer("axis"))


def _single(op: Op, inputs: Sequence[AnyArray], out: TensorType) -> AnyArray:
    """Evaluate an operator that has one output."""
    x = inputs[0]
    dtype = out.dtype.numpy
    match op.kind:
        case "map":
            result = run_pipeline(op.text("fn"), inputs)
        case "matmul":
            weights = after_prologue(op, inputs)[1]
            left, right = _permuted(op, "perm_a", x), _permuted(op, "perm_b", weights)
            result = _permuted(op, "perm_out", matmul_arrays(left, right, dtype))
        case "conv":
            result = _conv(op, x, after_prologue(op, inputs)[1], dtype)
        case "pool":
            result = _pool(op, x)
        case "reduce":
            result = _reduce(op, x)
        case "softmax":
            result = _softmax(x)
        case "layernorm" | "rmsnorm":
            total = map_function("add")(x, inputs[1]) if len(inputs) == 2 else x
            result = _normalise(op, total)
        case "attention":
            result = _attention(op, inputs)
        case "chain":
            result = _chain(op, inputs, dtype)
        case "reshape":
            result = x.reshape(op.ints("shape"))
        case "transpose":
            result = x.transpose(op.ints("perm"))
        case "slice":
            result = _slice(op, x)
        case "concat":
            result = np.concatenate(inputs, axis=op.integer("axis"))
        case "pad":
            result = _pad(op, x)
        case "expand":
            result = np.broadcast_to(x, op.ints("shape"))
        case "gather":
            result = _gather(op, x, inputs[1])
        case _:
            raise ProgramError(f"operator kind '{op.kind}' has no reference meaning")
    if result.shape != out.shape or result.dtype != dtype:
        raise ShapeError(
            f"{op.kind} '{op.name}': result is {result.dtype}{list(result.shape)}, the graph says {out}"
        )
    return result


def evaluate_op(
    op: Op,
    inputs: Sequence[Array],
    types: Mapping[str, TensorType],
    host_model: HostModel | None = None,
) -> tuple[Array, ...]:
    """Evaluate one operator.

    Args:
        op: The operator.
        inputs: Its input arrays, with the shapes of the graph.
        types: Types of (at least) its outputs.
        host_model: The region's model; needed for `host` only.

    Returns:
        One array for each output.

    Raises:
        ShapeError: A result is not of the type that the graph promises.
        ProgramError: Invalid data, such as a gather index out of range.
    """
    if op.kind == "host":
        if host_model is None:
            raise ProgramError(f"host '{op.name}': its model is missing; evaluate the whole graph")
        return evaluate_host(host_model, inputs, tuple(types[name] for name in op.outputs))
    return (_single(op, inputs, types[op.output]),)


def evaluate_host(
    model: HostModel,
    inputs: Sequence[Array],
    outputs: Sequence[TensorType],
    max_seconds: float | None = None,
) -> tuple[Array, ...]:
    """Run a host region in onnxruntime, without its graph optimisations.

    Args:
        model: The region.
        inputs: Its inputs.
        outputs: Types of its outputs.
        max_seconds: Wall time after which it is stopped; None for no limit.

    Raises:
        ProgramError: onnxruntime refuses it, or it takes too long.
        ShapeError: An output is of another type.
    """
    import onnxruntime  # most models have no host regions

    stop = onnxruntime.RunOptions()
    timer = None if max_seconds is None else Timer(max_seconds, setattr, (stop, "terminate", True))
    if timer is not None:
        timer.daemon = True
        timer.start()
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(
            model.model_bytes, options, providers=["CPUExecutionProvider"]
        )
        feed = {
            name: np.ascontiguousarray(array).reshape(shape)
            for name, array, shape in zip(
                model.input_names, inputs, model.input_shapes, strict=True
            )
        }
        results = session.run(list(model.output_names), feed, stop)
    except Exception as error:  # onnxruntime has no common base class
        raise ProgramError(
            f"host region with {', '.join(model.op_types)}: {str(error)[:500]}"
        ) from error
    finally:
        if timer is not None:
            timer.cancel()
    arrays = []
    for name, result, expected in zip(model.output_names, results, outputs, strict=True):
        array = np.asarray(result)
        if (array.shape or (1,)) != expected.shape or array.dtype != expected.dtype.numpy:
            raise ShapeError(
                f"host output '{name}' is {array.dtype}{list(array.shape)}, the graph says {expected}; "
                "its shape depends on data"
            )
        arrays.append(array.reshape(expected.shape))
    return tuple(arrays)


def evaluate(
    graph: Graph,
    inputs: Mapping[str, Array],
    change: Callable[[Op, Sequence[Array]], Sequence[Array]] | None = None,
) -> dict[str, Array]:
    """Evaluate a graph.

    Args:
        graph: The graph.
        inputs: An array for each input port, by port name, with the port's shape and type.
        change: Called with each operator and its operands; what it returns takes their place.

    Returns:
        An array for each output port, by port name.

    Raises:
        ShapeError: An input is missing or of another type.
    """
    values: dict[str, Array] = {}
    for port in graph.inputs:
        if port.name not in inputs:
            raise ShapeError(f"input '{port.name}' is missing")
        array = np.asarray(inputs[port.name])
        if array.shape != port.shape or array.dtype != port.dtype.numpy:
            found = f"{array.dtype}{list(array.shape)}"
            raise ShapeError(
                f"input '{port.name}' is {found}, expected {port.dtype}{list(port.shape)}"
            )
        values[port.tensor] = array.reshape(graph.types[port.tensor].shape)
    last_use = {name: index for index, op in enumerate(graph.ops) for name in op.inputs}
    kept = {port.tensor for port in graph.outputs}
    for index, op in enumerate(graph.ops):
        operands = [values[n] if n in values else graph.constants[n] for n in op.inputs]
        host_model = graph.host_models[op.text("region")] if op.kind == "host" else None
        operands = operands if change is None else list(change(op, operands))
        results = evaluate_op(op, operands, graph.types, host_model)
        values.update(zip(op.outputs, results, strict=True))
        for name in (*op.inputs, *op.outputs):
            if last_use.get(name, index) <= index and name not in kept:
                values.pop(name, None)
    found_outputs = {}
    for port in graph.outputs:
        array = values[port.tensor] if port.tensor in values else graph.constants[port.tensor]
        assert array.size == prod(port.shape), (
            f"output '{port.name}' has another size than its port"
        )
        found_outputs[port.name] = array.reshape(port.shape)
    return found_outputs
