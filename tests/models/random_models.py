"""Random small ONNX models: chains and DAGs of common ops on awkward shapes.

A model grows op by op from its inputs. Each step draws an op and one of the tensors made so far, so
tensors are reused; dimensions are often 1 or prime. Weights are seeded by a drawn number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from tilewright.graph import Array

MAX_ELEMENTS = 3000
DIMENSIONS = (1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 13, 16, 17, 19, 31, 32, 33)
ONNX_TYPES = {
    "float32": TensorProto.FLOAT,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
    "int8": TensorProto.INT8,
    "uint8": TensorProto.UINT8,
    "bool": TensorProto.BOOL,
}


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor of the model: name, shape and numpy type name."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def rank(self) -> int:
        """Number of dimensions."""
        return len(self.shape)


class Grower:
    """A model that grows by drawn steps."""

    def __init__(self, draw: Callable[..., Any]) -> None:
        self.draw = draw
        self.nodes: list[Any] = []
        self.stored: list[Any] = []
        self.inputs: list[Value] = []
        self.values: list[Value] = []
        self.rng = np.random.default_rng(draw(st.integers(0, 255)))

    def pick(self, options: Any) -> Any:
        """Draw one of the options."""
        return self.draw(st.sampled_from(list(options)))

    def number(self, low: int, high: int) -> int:
        """Draw an integer, both ends included."""
        return int(self.draw(st.integers(low, high)))

    def flag(self) -> bool:
        """Draw yes or no."""
        return bool(self.draw(st.booleans()))

    def add_input(self) -> None:
        """Add a model input of a drawn type and shape."""
        dtype = self.pick(("float32",) * 6 + ("int64", "int32", "int8", "uint8", "bool"))
        shape: tuple[int, ...] = ()
        for _ in range(self.number(0, 4)):
            fitting = [d for d in DIMENSIONS if d * prod(shape) <= MAX_ELEMENTS]
            shape = (*shape, self.pick(fitting))
        value = Value(f"in{len(self.inputs)}", shape, dtype)
        self.inputs.append(value)
        self.values.append(value)

    def constant(self, array: Array) -> str:
        """Store a weight and return its name."""
        name = f"w{len(self.stored)}"
        self.stored.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def normal(self, *shape: int, scale: float = 1.0) -> str:
        """Store a normally distributed float32 weight."""
        return self.constant((scale * self.rng.standard_normal(shape)).astype(np.float32))

    def ints(self, *numbers: int) -> str:
        """Store a vector of int64."""
        return self.constant(np.array(numbers, np.int64))

    def node(
        self, kind: str, args: list[str], shape: tuple[int, ...], dtype: str, **attrs: Any
    ) -> Value:
        """Add an op with one result."""
        value = Value(f"t{len(self.nodes)}", shape, dtype)
        self.nodes.append(helper.make_node(kind, args, [value.name], **attrs))
        self.values.append(value)
        return value

    def some(self, fits: Callable[[Value], bool]) -> Value | None:
        """Draw a tensor that fits; later ones are likelier, so that models get deep."""
        fitting = [v for v in self.values if fits(v)]
        return self.pick(fitting + fitting[-1:] * 2) if fitting else None

    def model(self, outputs: list[Value]) -> bytes:
        """Return the model's bytes."""
        takes, gives = (
            [helper.make_tensor_value_info(v.name, ONNX_TYPES[v.dtype], v.shape) for v in values]
            for values in (self.inputs, outputs)
        )
        graph = helper.make_graph(self.nodes, "random", takes, gives, self.stored)
        opset = [helper.make_opsetid("", 18)]
        return bytes(
            helper.make_model(graph, opset_imports=opset, ir_version=9).SerializeToString()
        )


def is_float(value: Value) -> bool:
    """Tell whether a tensor has floats."""
    return value.dtype == "float32"


def unary(g: Grower) -> None:
    """A function of each element."""
    if (x := g.some(is_float)) is None:
        return
    kinds = "Relu Sigmoid Tanh Neg Abs Erf HardSigmoid LeakyRelu Softplus Elu Floor Sin Identity HardSwish"
    g.node(g.pick(kinds.split()), [x.name], x.shape, x.dtype)


def clipped_exp(g: Grower) -> None:
    """Exp, Sqrt and Log where they are harmless."""
    if (x := g.some(is_float)) is None:
        return
    y = g.node("Tanh", [x.name], x.shape, x.dtype)
    kind = g.pick(("Exp", "Sqrt", "Log", "Reciprocal"))
    if kind != "Exp":
        y = g.node("Add", [y.name, g.constant(np.array(1.5, np.float32))], x.shape, x.dtype)
    g.node(kind, [y.name], x.shape, x.dtype)


def broadcast_shape(g: Grower, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Draw a shape that broadcasts to another."""
    kept = shape[g.number(0, len(shape)) :] if shape else ()
    return tuple(1 if g.flag() else d for d in kept)


def other_operand(g: Grower, x: Value) -> Value | str:
    """Draw a weight, or a tensor that broadcasts with x."""

    def fits(v: Value) -> bool:
        pairs = zip(x.shape[::-1], v.shape[::-1], strict=False)
        return v.dtype == x.dtype and all(a == b or 1 in (a, b) for a, b in pairs)

    if g.flag() and (other := g.some(fits)) is not None:
        total = np.broadcast_shapes(x.shape, other.shape)
        if prod(total) <= MAX_ELEMENTS:
            return other
    shape = broadcast_shape(g, x.shape)
    if is_float(x):
        return g.normal(*shape)
    return g.constant(g.rng.integers(0, 5, shape).astype(x.dtype))


def arithmetic(g: Grower) -> None:
    """Add, Sub, Mul, Max, Min of floats or integers with broadcasting."""
    x = g.some(lambda v: v.dtype in ("float32", "int32", "int64"))
    if x is None:
        return
    other = other_operand(g, x)
    name, shape = (other, x.shape) if isinstance(other, str) else (other.name, other.shape)
    args = [x.name, name] if g.flag() else [name, x.name]
    kind = g.pick(("Add", "Sub", "Mul", "Max", "Min"))
    g.node(kind, args, np.broadcast_shapes(x.shape, shape), x.dtype)


def select(g: Grower) -> None:
    """A comparison with weights, and a Where that uses it."""
    if (x := g.some(lambda v: v.dtype in ("float32", "int64", "int32"))) is None:
        return
    shape = broadcast_shape(g, x.shape)
    if is_float(x):
        kind, limit = g.pick(("Greater", "Less")), g.normal(*shape)
    else:
        kind = g.pick(("Equal", "Greater", "LessOrEqual"))
        limit = g.constant(g.rng.integers(0, 3, shape).astype(x.dtype))
    mask = g.node(kind, [x.name, limit], x.shape, "bool")
    if g.flag():
        mask = g.node("Not", [mask.name], x.shape, "bool")
    if is_float(x) and g.flag():
        g.node(
            "Where", [mask.name, x.name, g.normal(*broadcast_shape(g, x.shape))], x.shape, x.dtype
        )


def cast(g: Grower) -> None:
    """A conversion that rounds nothing."""
    if (x := g.some(lambda v: not is_float(v))) is not None:
        dtype = g.pick(("float32", "int32"))
        g.node("Cast", [x.name], x.shape, dtype, to=ONNX_TYPES[dtype])


def matmul(g: Grower) -> None:
    """MatMul with a weight, of any ranks, or with a tensor's own transpose."""
    if (x := g.some(lambda v: is_float(v) and v.rank >= 1)) is None:
        return
    k = x.shape[-1]
    scale = k**-0.5
    if x.rank >= 2 and g.flag() and x.shape[-2] ** 2 * prod(x.shape[:-2]) <= MAX_ELEMENTS:
        order = (*range(x.rank - 2), x.rank - 1, x.rank - 2)
        turned = g.node(
            "Transpose", [x.name], tuple(x.shape[i] for i in order), x.dtype, perm=order
        )
        g.node("MatMul", [x.name, turned.name], (*x.shape[:-1], x.shape[-2]), x.dtype)
        return
    columns = g.pick(d for d in DIMENSIONS if d == 1 or prod(x.shape) // k * d <= MAX_ELEMENTS)
    if x.rank >= 3 and g.flag():
        batch = tuple(1 if g.flag() else d for d in x.shape[:-2])
        weight = g.normal(*batch, k, columns, scale=scale)
    else:
        weight = g.normal(k, columns, scale=scale)
    g.node("MatMul", [x.name, weight], (*x.shape[:-1], columns), x.dtype)


def gemm(g: Grower) -> None:
    """Gemm with transposed or plain operands, scales and an optional bias."""
    if (x := g.some(lambda v: is_float(v) and v.rank == 2)) is None:
        return
    trans_a, trans_b = g.number(0, 1), g.number(0, 1)
    rows, k = x.shape[::-1] if trans_a else x.shape
    columns = g.pick(DIMENSIONS)
    args = [x.name, g.normal(*((columns, k) if trans_b else (k, columns)), scale=k**-0.5)]
    if g.flag():
        args.append(g.normal(*broadcast_shape(g, (rows, columns))))
    attrs = {
        "transA": trans_a,
        "transB": trans_b,
        "alpha": g.pick((1.0, 0.5)),
        "beta": g.pick((1.0, 2.0)),
    }
    g.node("Gemm", args, (rows, columns), x.dtype, **attrs)


def windows(g: Grower, x: Value, largest: int) -> tuple[dict[str, Any], tuple[int, ...]]:
    """Draw kernel, strides, pads and dilations that fit; return them with the spatial result."""
    spatial = x.shape[2:]
    kernel = [g.number(1, min(largest, d)) for d in spatial]
    strides = [g.number(1, 3) for _ in spatial]
    dilations = [
        g.number(1, 2) if (k - 1) * 2 < d else 1 for k, d in zip(kernel, spatial, strict=True)
    ]
    pads = [g.number(0, k - 1) for k in (*kernel, *kernel)]
    size = tuple(
        (d + b + e - (k - 1) * r - 1) // s + 1
        for d, k, s, r, b, e in zip(
            spatial,
            kernel,
            strides,
            dilations,
            pads[: len(kernel)],
            pads[len(kernel) :],
            strict=True,
        )
    )
    return {"kernel_shape": kernel, "strides": strides, "dilations": dilations, "pads": pads}, size


def conv(g: Grower) -> None:
    """Conv in one or two dimensions, dense, grouped or depthwise."""
    if (x := g.some(lambda v: is_float(v) and v.rank in (3, 4))) is None:
        return
    channels = x.shape[1]
    groups = g.pick(d for d in (1, 2, 3, channels) if channels % d == 0)
    attrs, size = windows(g, x, 3)
    per_group = g.number(1, 9)
    fan_in = channels // groups * prod(attrs["kernel_shape"])
    shape = (x.shape[0], groups * per_group, *size)
    if prod(shape) > 4 * MAX_ELEMENTS:
        return
    args = [
        x.name,
        g.normal(shape[1], channels // groups, *attrs["kernel_shape"], scale=fan_in**-0.5),
    ]
    if g.flag():
        args.append(g.normal(shape[1]))
    g.node("Conv", args, shape, x.dtype, group=groups, **attrs)


def pool(g: Grower) -> None:
    """Max and average pooling, global too."""
    if (x := g.some(lambda v: is_float(v) and v.rank in (3, 4))) is None:
        return
    kind = g.pick(("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"))
    if kind.startswith("Global"):
        g.node(kind, [x.name], (*x.shape[:2], *(1 for _ in x.shape[2:])), x.dtype)
        return
    attrs, size = windows(g, x, 4)
    if kind == "AveragePool":
        attrs["count_include_pad"] = g.number(0, 1)
        del attrs["dilations"]
        k, pads = attrs["kernel_shape"], attrs["pads"]
        size = tuple(
            (d + pads[i] + pads[i + len(k)] - k[i]) // attrs["strides"][i] + 1
            for i, d in enumerate(x.shape[2:])
        )
    g.node(kind, [x.name], (*x.shape[:2], *size), x.dtype, **attrs)


def normalise(g: Grower) -> None:
    """Softmax, LayerNormalization, BatchNormalization, InstanceNormalization."""
    if (x := g.some(lambda v: is_float(v) and v.rank >= 1)) is None:
        return
    kind = g.pick(
        (
            "Softmax",
            "LogSoftmax",
            "LayerNormalization",
            "BatchNormalization",
            "InstanceNormalization",
        )
    )
    if kind in ("Softmax", "LogSoftmax"):
        g.node(kind, [x.name], x.shape, x.dtype, axis=g.number(-x.rank, x.rank - 1))
    elif kind == "LayerNormalization":
        axis = g.number(0, x.rank - 1)
        args = [x.name, g.normal(*x.shape[axis:]), g.normal(*x.shape[axis:])]
        g.node(kind, args[: g.number(2, 3)], x.shape, x.dtype, axis=axis, epsilon=1e-3)
    elif x.rank >= 3:
        channels = x.shape[1]
        args = [x.name, g.normal(channels), g.normal(channels)]
        if kind == "BatchNormalization":
            variance = g.constant(g.rng.uniform(0.5, 2, channels).astype(np.float32))
            args += [g.normal(channels), variance]
        g.node(kind, args, x.shape, x.dtype, epsilon=1e-2)


def reduce(g: Grower) -> None:
    """Reductions over drawn axes."""
    if (x := g.some(lambda v: is_float(v) and v.rank >= 1)) is None:
        return
    kind = g.pick(
        "ReduceSum ReduceMean ReduceMax ReduceMin ReduceL2 ReduceL1 ReduceSumSquare".split()
    )
    axes = sorted(g.draw(st.sets(st.integers(0, x.rank - 1), min_size=1)))
    keep = g.number(0, 1)
    kept = tuple(1 if i in axes else d for i, d in enumerate(x.shape) if keep or i not in axes)
    g.node(kind, [x.name, g.ints(*axes)], kept, x.dtype, keepdims=keep)


def reshape(g: Grower) -> None:
    """Any other shape with as many elements."""
    if (x := g.some(lambda v: True)) is None:
        return
    left = prod(x.shape)
    shape: list[int] = []
    while left > 1 and len(shape) < 4:
        shape.append(g.pick(d for d in range(1, left + 1) if left % d == 0))
        left //= shape[-1]
    shape += [left] * (left > 1) + [1] * g.number(0, 1)
    g.node("Reshape", [x.name, g.ints(*shape)], tuple(shape), x.dtype)


def transpose(g: Grower) -> None:
    """A drawn order of dimensions."""
    if (x := g.some(lambda v: v.rank >= 2)) is not None:
        order = g.draw(st.permutations(range(x.rank)))
        g.node("Transpose", [x.name], tuple(x.shape[i] for i in order), x.dtype, perm=list(order))


def unsqueeze(g: Grower) -> None:
    """A dimension of size 1 more, or all of them less."""
    if (x := g.some(lambda v: v.rank <= 4)) is None:
        return
    ones = [i for i, d in enumerate(x.shape) if d == 1]
    if ones and g.flag():
        g.node("Squeeze", [x.name, g.ints(*ones)], tuple(d for d in x.shape if d != 1), x.dtype)
        return
    axis = g.number(0, x.rank)
    g.node("Unsqueeze", [x.name, g.ints(axis)], (*x.shape[:axis], 1, *x.shape[axis:]), x.dtype)


def concat(g: Grower) -> None:
    """A tensor with a weight, itself, or one of the same shape."""
    if (x := g.some(lambda v: v.rank >= 1 and prod(v.shape) * 3 <= MAX_ELEMENTS)) is None:
        return
    axis = g.number(0, x.rank - 1)

    def fits(v: Value) -> bool:
        sizes = enumerate(zip(x.shape, v.shape, strict=False))
        return (
            v.dtype == x.dtype
            and v.rank == x.rank
            and all(i == axis or a == b for i, (a, b) in sizes)
        )

    parts = [x, *(p for _ in range(g.number(1, 2)) if (p := g.some(fits)))]
    names, total = [p.name for p in parts], sum(p.shape[axis] for p in parts)
    if is_float(x) and g.flag():
        extra = g.number(1, 3)
        names.insert(
            g.number(0, len(names)), g.normal(*x.shape[:axis], extra, *x.shape[axis + 1 :])
        )
        total += extra
    if total * prod(x.shape) // x.shape[axis] <= MAX_ELEMENTS:
        g.node("Concat", names, (*x.shape[:axis], total, *x.shape[axis + 1 :]), x.dtype, axis=axis)


def split(g: Grower) -> None:
    """Two parts of uneven size, one of which may stay unused."""
    if (x := g.some(lambda v: any(d > 1 for d in v.shape))) is None:
        return
    axis = g.pick(i for i, d in enumerate(x.shape) if d > 1)
    first = g.number(1, x.shape[axis] - 1)
    sizes = (first, x.shape[axis] - first)
    parts = [
        Value(f"t{len(g.nodes)}_{i}", (*x.shape[:axis], size, *x.shape[axis + 1 :]), x.dtype)
        for i, size in enumerate(sizes)
    ]
    g.nodes.append(
        helper.make_node("Split", [x.name, g.ints(*sizes)], [p.name for p in parts], axis=axis)
    )
    g.values += parts


def cut(g: Grower) -> None:
    """A Slice with a step, forwards or backwards."""
    if (x := g.some(lambda v: v.rank >= 1)) is None:
        return
    axis = g.number(0, x.rank - 1)
    start, stop = sorted((g.number(0, x.shape[axis] - 1), g.number(1, x.shape[axis])))
    if start == stop:
        return
    step = g.number(1, 3)
    size = -(-(stop - start) // step)
    if g.flag():  # the same elements, or as many, from the other end
        start, stop, step = stop - 1, start - 1 if start else -(2**31), -step
    args = [x.name, *(g.ints(n) for n in (start, stop, axis, step))]
    g.node("Slice", args, (*x.shape[:axis], size, *x.shape[axis + 1 :]), x.dtype)


def gather(g: Grower) -> None:
    """Rows by known indices, or by an integer input's values."""
    if (x := g.some(lambda v: v.rank >= 1)) is None:
        return
    axis = g.number(0, x.rank - 1)
    shape = g.pick(((), (1,), (3,), (2, 3)))
    rows = prod(x.shape) // x.shape[axis]
    if rows * prod(shape) <= MAX_ELEMENTS:
        indices = g.constant(g.rng.integers(-x.shape[axis], x.shape[axis], shape).astype(np.int64))
        g.node(
            "Gather",
            [x.name, indices],
            (*x.shape[:axis], *shape, *x.shape[axis + 1 :]),
            x.dtype,
            axis=axis,
        )


def pad(g: Grower) -> None:
    """Constant, edge or reflected borders."""
    if (x := g.some(lambda v: is_float(v) and v.rank >= 1)) is None:
        return
    mode = g.pick(("constant", "edge", "reflect"))
    pads = [g.number(0, min(2, d - 1) if mode == "reflect" else 2) for d in x.shape * 2]
    shape = tuple(d + pads[i] + pads[i + x.rank] for i, d in enumerate(x.shape))
    if prod(shape) <= MAX_ELEMENTS:
        g.node("Pad", [x.name, g.ints(*pads)], shape, x.dtype, mode=mode)


def expand(g: Grower) -> None:
    """Ones repeated, and new leading dimensions."""
    if (x := g.some(lambda v: prod(v.shape) * 6 <= MAX_ELEMENTS)) is None:
        return
    shape = tuple(g.number(1, 3) if d == 1 else d for d in x.shape)
    shape = (2,) * g.number(0, 1) + shape
    if prod(shape) <= MAX_ELEMENTS:
        g.node("Expand", [x.name, g.ints(*shape)], shape, x.dtype)


def resize(g: Grower) -> None:
    """Nearest or linear upsampling of images."""
    if (
        x := g.some(lambda v: is_float(v) and v.rank == 4 and prod(v.shape) * 4 <= MAX_ELEMENTS)
    ) is None:
        return
    scales = g.constant(np.array([1, 1, 2, 2], np.float32))
    shape = (*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])
    mode = g.pick(
        (("nearest", "asymmetric", "floor"), ("linear", "half_pixel", "round_prefer_floor"))
    )
    attrs = {"mode": mode[0], "coordinate_transformation_mode": mode[1], "nearest_mode": mode[2]}
    g.node("Resize", [x.name, "", scales], shape, x.dtype, **attrs)


def hosted(g: Grower) -> None:
    """Ops that the host does: the largest elements, and where the largest is."""
    if (x := g.some(lambda v: is_float(v) and v.rank >= 1)) is None:
        return
    axis = g.number(0, x.rank - 1)
    kind = g.pick(("TopK", "TopK", "Hardmax", "ArgMax"))
    if kind == "Hardmax":
        g.node(kind, [x.name], x.shape, x.dtype, axis=axis)
    elif kind == "ArgMax":
        shape = (*x.shape[:axis], *x.shape[axis + 1 :])
        g.node(kind, [x.name], shape, "int64", axis=axis, keepdims=0)
    else:
        most = g.number(1, x.shape[axis])
        shape = (*x.shape[:axis], most, *x.shape[axis + 1 :])
        names = [f"t{len(g.nodes)}_{i}" for i in range(2)]
        g.nodes.append(helper.make_node(kind, [x.name, g.ints(most)], names, axis=axis))
        g.values += [Value(names[0], shape, x.dtype), Value(names[1], shape, "int64")]


def quantised_weight(g: Grower) -> None:
    """MatMul with an int8 weight that DequantizeLinear turns into floats."""
    if (x := g.some(lambda v: is_float(v) and v.rank >= 2)) is None:
        return
    k, columns = x.shape[-1], g.pick((1, 3, 8, 13))
    if prod(x.shape) // k * columns > MAX_ELEMENTS:
        return
    weight = g.constant(g.rng.integers(-127, 128, (k, columns)).astype(np.int8))
    scale = g.constant(g.rng.uniform(0.001, 0.01, columns).astype(np.float32))
    zero = g.constant(np.zeros(columns, np.int8))
    name = f"q{len(g.nodes)}"
    g.nodes.append(helper.make_node("DequantizeLinear", [weight, scale, zero], [name], axis=1))
    g.node("MatMul", [x.name, name], (*x.shape[:-1], columns), x.dtype)


def integer_matmul(g: Grower) -> None:
    """MatMulInteger of bytes with int8 weights."""
    if (x := g.some(lambda v: v.dtype in ("int8", "uint8") and v.rank >= 2)) is None:
        return
    columns = g.pick((1, 3, 8, 13))
    if prod(x.shape) // x.shape[-1] * columns <= MAX_ELEMENTS:
        weight = g.constant(g.rng.integers(-127, 128, (x.shape[-1], columns)).astype(np.int8))
        g.node("MatMulInteger", [x.name, weight], (*x.shape[:-1], columns), "int32")


STEPS = (
    unary,
    clipped_exp,
    arithmetic,
    select,
    cast,
    matmul,
    gemm,
    conv,
    pool,
    normalise,
    reduce,
    reshape,
    transpose,
    unsqueeze,
    concat,
    split,
    cut,
    gather,
    pad,
    expand,
    resize,
    hosted,
    quantised_weight,
    integer_matmul,
)


@st.composite
def random_models(draw: Callable[..., Any], most_steps: int = 8) -> bytes:
    """Draw a model's bytes: one to three inputs, up to `most_steps` steps, one to three outputs."""
    grower = Grower(draw)
    for _ in range(grower.number(1, 3)):
        grower.add_input()
    wanted = grower.number(1, most_steps)
    for _ in range(4 * wanted):  # a step that fits no tensor adds nothing
        if len(grower.nodes) < wanted:
            grower.pick(STEPS)(grower)
    last = grower.values[-1]
    others = draw(st.lists(st.sampled_from(grower.values), max_size=2, unique=True))
    return grower.model([last, *(v for v in others if v != last)])
