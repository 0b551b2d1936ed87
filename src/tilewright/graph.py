"""The graph that frontends produce and every later stage consumes.

A graph is static (every dimension is a number), typed, in topological order and immutable.
Its operators are the small core set below; frontends decompose everything else into it, or
leave it to a host region.

Core operators (`Op.kind`), their inputs and attributes. `r` is the rank of the first input;
attributes are numbers, strings or tuples of numbers.

=============  =====================  ==============================================================
kind           inputs                 attributes and meaning
=============  =====================  ==============================================================
matmul         a, b                   a [*batch, m, k] x b [*batch, k, n] -> [*batch, m, n]; equal ranks
                                      >= 2, batch dims equal or 1. perm_a, perm_b, perm_out (each
                                      optional): the operand is transposed so before, the result after.
                                      With prologue "dequantise", b has integers and one more input, the
                                      last, a scale of a's type that broadcasts to b: the product reads
                                      cast(b) * scale. Frontends do not make it: rules find it
conv           x, w                   x [n, c, h, w], w [o, c/groups, r, s] -> [n, o, oh, ow];
                                      strides (2), pads (top, left, bottom, right), dilations (2),
                                      groups. 1-D convolutions are 2-D with h = 1. May have the prologue
                                      "dequantise" as well
pool           x                      fn "max" | "sum"; kernel (2), strides (2), pads (4), dilations (2)
                                      over the last two dims of [n, c, h, w]; padding is -inf or 0
map            1 to 3 tensors         fn: a pipeline "f|g|h"; f takes all inputs, g, h take one. Equal ranks,
                                      sizes equal or 1 (broadcast). Functions: see `MAP_FUNCTIONS`.
                                      dtype_out is the type of the output tensor
reduce         x                      fn "sum"|"max"|"min"|"prod"; axes (tuple); dims are kept as 1
softmax        x                      over the last axis
layernorm      x [, y]                epsilon; (x - mean) / sqrt(var + epsilon) over the last axis
rmsnorm        x [, y]                epsilon; x / sqrt(mean(x^2) + epsilon) over the last axis.
                                      Both norms of two tensors of one type: the norm of x + y. Frontends
                                      do not make it: rules find it
attention      q, k, v [, mask]       q [*batch, m, d], k [*batch, d, n] (transposed), v [*batch, n, e],
                                      batch dims equal or 1; mask broadcasts to q k; scale (float);
                                      softmax(scale * q k + mask) v -> [*batch, m, e]. Frontends do not
                                      make it: rules find it
chain          a, b, c [, t]          a [*batch, m, d], b [*batch, d, n], c [*batch, n, e], batch dims equal
                                      or 1. between: a pipeline whose first function takes a b, of type
                                      inner_dtype, and, if it takes two values, t, which broadcasts to a b;
                                      between(a b, t) c -> [*batch, m, e]. Frontends do not make it: rules
                                      find it
reshape        x                      shape (the output shape, no -1)
transpose      x                      perm
slice          x                      starts, sizes, steps; out[i] = x[starts + i * steps]
concat         one or more            axis
pad            x                      begins, ends (non-negative), value (float)
expand         x                      shape (equal rank; broadcasts dims of size 1)
gather         table, indices [n]     axis; indices are 1-D, in range, non-negative;
                                      out = table.shape[:axis] + [n] + table.shape[axis + 1:]
host           any                    region: a key of `Graph.host_models`; the only kind with several
                                      outputs; runs in onnxruntime on the host
=============  =====================  ==============================================================

Scalars and vectors: tensors of rank 0 do not occur, frontends write shape (1,). (The names and
shapes that the user sees are in `Graph.signature`.)
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from math import prod
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from tilewright.dtypes import DType
from tilewright.errors import ShapeError

AttrValue = int | float | str | tuple[int, ...]
Array = NDArray[np.generic]

PROLOGUE, DEQUANTISE = "prologue", "dequantise"
"""Attribute of a product whose second operand is dequantised on its way into it, and its value."""


def dequantises(attrs: Mapping[str, AttrValue]) -> bool:
    """Whether a product reads quantised weights; its last input is then their scale."""
    return attrs.get(PROLOGUE) == DEQUANTISE


def third_operands[T](attrs: Mapping[str, AttrValue], inputs: Sequence[T]) -> tuple[T, ...]:
    """Return what the epilogue of a product reads of its inputs: the third operand, if there is one."""
    return tuple(inputs[_product_inputs(attrs) : len(inputs) - dequantises(attrs)])


def _product_inputs(attrs: Mapping[str, AttrValue]) -> int:
    """Return how many inputs a product reads before its epilogue, the scale of weights left out."""
    if "between" not in attrs:
        return 2
    return 4 if reads_two(str(attrs["between"])) else 3


def reads_two(pipeline: str) -> bool:
    """Whether the first function of a pipeline takes two values."""
    ((name, _), *_) = parse_pipeline(pipeline)
    return name in BINARY_FUNCTIONS or name in STATISTIC_FUNCTIONS


UNARY_FUNCTIONS = (
    "abs neg exp log sqrt rsqrt reciprocal floor ceil round sign relu sigmoid tanh erf "
    "gelu gelu_tanh silu softplus sin cos tan asin acos atan sinh cosh not identity isnan isinf square"
).split()
"""Functions of one value; `gelu` is the erf form, `gelu_tanh` the tanh form; `round` is half to even."""

PARAMETRIC_FUNCTIONS = (
    "cast leaky_relu elu hard_sigmoid clip_min clip_max pow_const add_const mul_const".split()
)
"""Functions of one value with numbers in their name, written `f(a,b)`.

`cast(dtype)`, `leaky_relu(alpha)`, `elu(alpha)`, `hard_sigmoid(alpha,beta)`, `clip_min(low)`,
`clip_max(high)`, `pow_const(e)`, `add_const(c)`, `mul_const(c)`; numbers are written with repr().
"""

BINARY_FUNCTIONS = (
    "add sub mul div pow mod fmod min max eq ne lt le gt ge and or xor prelu "
    "bitand bitor bitxor shl shr"
).split()
"""Functions of two values; `prelu(x, slope)`; comparisons give bool; integer `div` truncates
towards zero, `mod` has the sign of the divisor, `fmod` that of the dividend."""

STATISTIC_FUNCTIONS = ["div_rms"]
"""Functions of a value and a statistic of its row, with numbers in their name.

`div_rms(scale,epsilon)` of x and s is x / sqrt(s scale + epsilon): s is a sum of squares, whose root is taken
once a row where s has one value a row. Rules make them; hardware runs them as several functions.
"""

TERNARY_FUNCTIONS = ["where"]
"""`where(condition, x, y)`."""

PREDICATES = frozenset({"isnan", "isinf", "eq", "ne", "lt", "le", "gt", "ge"})
"""Functions that give bool, whatever they take."""


@dataclass(frozen=True, slots=True)
class TensorType:
    """Shape and element type of a tensor in the global view (no devices)."""

    shape: tuple[int, ...]
    dtype: DType

    def __post_init__(self) -> None:
        if any(d < 0 for d in self.shape):
            raise ShapeError(f"shape {self.shape} has a negative dimension; bind it to a number")

    @property
    def rank(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def elements(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def size_bytes(self) -> int:
        """Bytes of a dense copy."""
        return self.elements * self.dtype.itemsize_bytes

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Op:
    """One operator of the core set: reads `inputs`, defines `outputs` (tensor names)."""

    name: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attrs: Mapping[str, AttrValue] = field(default_factory=lambda: MappingProxyType({}))

    def ints(self, key: str) -> tuple[int, ...]:
        """Return a tuple attribute."""
        value = self.attrs[key]
        assert isinstance(value, tuple), f"{self.name}: {key} is not a tuple"
        return value

    def integer(self, key: str) -> int:
        """Return an integer attribute."""
        value = self.attrs[key]
        assert isinstance(value, int), f"{self.name}: {key} is not an integer"
        return value

    def number(self, key: str) -> float:
        """Return a numeric attribute."""
        value = self.attrs[key]
        assert isinstance(value, int | float), f"{self.name}: {key} is not a number"
        return float(value)

    def text(self, key: str) -> str:
        """Return a string attribute."""
        value = self.attrs[key]
        assert isinstance(value, str), f"{self.name}: {key} is not a string"
        return value

    def permuted(self, key: str, sizes: tuple[int, ...]) -> tuple[int, ...]:
        """Return a shape transposed by the optional attribute `key`."""
        return tuple(sizes[i] for i in self.ints(key)) if key in self.attrs else sizes

    @property
    def output(self) -> str:
        """The only output; host regions may have several."""
        (name,) = self.outputs
        return name


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """A model input or output as the user sees it; `tensor` is its name inside the graph."""

    name: str
    tensor: str
    shape: tuple[int, ...]
    dtype: DType


@dataclass(frozen=True, slots=True, kw_only=True)
class HostModel:
    """An ONNX model that runs on the host; its inputs and outputs follow the `host` op's.

    Value names are those of `input_names` and `output_names`, shapes are those of
    `output_shapes` before rank-0 normalisation.
    """

    model_bytes: bytes
    input_names: tuple[str, ...]
    input_shapes: tuple[tuple[int, ...], ...]
    output_names: tuple[str, ...]
    op_types: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """A model: typed tensors, operators in topological order, constants by name."""

    name: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    types: Mapping[str, TensorType]
    constants: Mapping[str, Array]
    ops: tuple[Op, ...]
    host_models: Mapping[str, HostModel] = field(default_factory=lambda: MappingProxyType({}))
    notes: tuple[str, ...] = ()
    """What a user should know of the import, one sentence each (folded shapes, host regions…)."""

    def validate(self) -> None:
        """Raise ShapeError unless every tensor is defined once, before use, and typed."""
        defined = {port.tensor for port in self.inputs} | set(self.constants)
        for op in self.ops:
            for name in op.inputs:
                if name not in defined:
                    raise ShapeError(
                        f"{op.kind} '{op.name}': input '{name}' is not defined before use"
                    )
            for name in op.outputs:
                if name in defined:
                    raise ShapeError(f"{op.kind} '{op.name}': output '{name}' is defined twice")
                defined.add(name)
        for name in defined:
            if name not in self.types:
                raise ShapeError(f"tensor '{name}' has no type")
        for port in self.outputs:
            if port.tensor not in defined:
                raise ShapeError(f"output '{port.name}' is not defined")


def unused_name(stem: str, taken: Container[str]) -> str:
    """Return the stem, or the stem with the first number that makes a name that is not taken.

    >>> unused_name("x", ("x", "x.1")), unused_name("y", ("x",))
    ('x.2', 'y')
    """
    name, number = stem, 0
    while name in taken:
        number += 1
        name = f"{stem}.{number}"
    return name


@lru_cache(maxsize=1 << 12)  # pricing asks for the few pipelines of a model for each tiling
def parse_pipeline(fn: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Split a map pipeline into (function, arguments) pairs.

    >>> parse_pipeline("add|clip_min(0.0)|cast(f16)")
    (('add', ()), ('clip_min', ('0.0',)), ('cast', ('f16',)))
    """
    steps = []
    for step in fn.split("|"):
        head, _, tail = step.partition("(")
        steps.append((head, tuple(tail.removesuffix(")").split(",")) if tail else ()))
    return tuple(steps)


def step_dtype(name: str, args: tuple[str, ...], dtype: DType) -> DType:
    """Return the element type that a step of a map pipeline makes of its last operand's."""
    if name == "cast":
        return DType(args[0])
    return DType.BOOL if name in PREDICATES else dtype


def pipeline_dtype(fn: str, dtype: DType) -> DType:
    """Return the element type after a map pipeline whose (last) operand has type `dtype`.

    >>> str(pipeline_dtype("lt|cast(i8)", DType.F32))
    'i8'
    """
    for name, args in parse_pipeline(fn):
        dtype = step_dtype(name, args, dtype)
    return dtype
