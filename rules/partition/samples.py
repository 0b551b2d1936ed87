"""Random small operators of every kind, for the checks of partition rules."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from tilewright.dtypes import DType
from tilewright.errors import ShapeError
from tilewright.graph import DEQUANTISE, PROLOGUE, AttrValue, Op, TensorType
from tilewright.rules.annotations import annotate
from tilewright.rules.inference import infer_type
from tilewright.rules.loopnest import LoopNest

_SIZES = (1, 2, 3, 4, 6, 6, 12)
"""Sizes that the axes of the checked meshes divide, or do not."""

_MOST_ITERATIONS = 20_000
"""Larger loop nests take the interpreter too long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """An operator with the types of its operands and result, and its annotation."""

    op: Op
    types: tuple[TensorType, ...]
    result: TensorType
    nest: LoopNest


class _Draw:
    """Random sizes, shapes and samples."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)

    def size(self) -> int:
        return int(self._random.choice(_SIZES))

    def shape(self, low: int = 2, high: int = 4) -> tuple[int, ...]:
        return tuple(self.size() for _ in range(int(self._random.integers(low, high + 1))))

    def pick[T](self, *choices: T) -> T:
        return choices[int(self._random.integers(len(choices)))]

    def broadcast(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(self.pick(size, size, 1) for size in shape)

    def axis(self, shape: tuple[int, ...]) -> int:
        return int(self._random.integers(len(shape)))


Shapes = tuple[tuple[int, ...], ...]


def _matmul(draw: _Draw) -> tuple[Shapes, dict[str, AttrValue]]:
    batch = draw.shape(0, 2)
    m, n, k = draw.size(), draw.size(), draw.size()
    a, b = (*draw.broadcast(batch), m, k), (*batch, k, n)
    if draw.pick(True, False):
        return (a, b), {}
    epilogue = draw.pick("add|relu", "mul")
    third = draw.broadcast((*batch, m, n))
    return (a, b, third), {"epilogue": epilogue, "product_dtype": "f64"}


def _quantised_matmul(draw: _Draw) -> tuple[Shapes, dict[str, AttrValue]]:
    shapes, attrs = _matmul(draw)
    return (*shapes, draw.broadcast(shapes[1])), {**attrs, PROLOGUE: DEQUANTISE}


def _window(draw: _Draw, rows: int, columns: int) -> dict[str, AttrValue]:
    reach = draw.pick(0, 1)
    step = draw.pick((1, 1), (2, 1), (rows, columns))
    return {"strides": step, "pads": (reach, 0, reach, 0), "dilations": (1, 1)}


def _conv(draw: _Draw) -> tuple[Shapes, dict[str, AttrValue]]:
    groups, own, made = draw.pick(1, 1, 2, 6), draw.pick(1, 2, 6), draw.pick(1, 2, 6)
    rows, columns = draw.pick(1, 2, 3, 6), draw.pick(1, 1, 3)
    image = (draw.pick(1, 2, 6), groups * own, draw.pick(4, 6, 6, 12), draw.pick(4, 6))
    weights = (groups * made, own, rows, columns)
    return (image, weights), {**_window(draw, rows, columns), "groups": groups}


def _quantised_conv(draw: _Draw) -> tuple[Shapes, dict[str, AttrValue]]:
    shapes, attrs = _conv(draw)
    return (*shapes, draw.broadcast(shapes[1])), {**attrs, PROLOGUE: DEQUANTISE}


def _pool(draw: _Draw) -> tuple[Shapes, dict[str, AttrValue]]:
    rows, columns = draw.pick(1, 2, 3, 6), draw.pick(1, 2)
    image = (draw.pick(1, 2), draw.pick(1, 6), draw.pick(4, 6, 12), draw.pick(4, 6))
    fn = draw.pick("max", "sum")
    return (image,), {**_window(draw, rows, columns), "fn": fn, "kernel": (rows, columns)}


def _map(draw: _Draw) -> tuple[Shapes, dict[str, AttrValue]]:
    shape = draw.shape()
    if draw.pick(True, False):
        return (shape,), {"fn": draw.pick("neg", "square", "relu", "identity", "add_const(1.0)")}
    fn = draw.pick("add", "sub", "mul", "max", "add|relu")
    return (shape, draw.broadcast(shape)), {"fn": fn}


def _reduce(draw: _Draw) -> tuple[Shapes, dict[str, AttrValue]]:
    shape = draw.shape()
    axes = tuple(sorted({draw.axis(shape), draw.axis(shape)}))
    return (shape,), {"fn": draw.pick("sum", "max", "min", "prod"), "axes": axes}


def _rows(draw: _Draw) -> tuple[Shapes, dict[str, AttrValue]]:
    return (draw.shape(),), {}


def _norm(draw: _Draw) -> tuple[Shapes, dict[str, AttrValue]]:
    return (draw.shape(),), {"epsilon": 1e-5}


def _attention(draw: _Draw) -> tuple[Shapes, dict[str, AttrValue]]:
    batch = draw.shape(0, 2)
    m, n = draw.size(), draw.size()
    q, k = (*batch, m, 2), (*draw.broadcast(batch), 2, n)
    mask = draw.pick((), (draw.broadcast((*batch, m, n)),))
    return (q, k, (*batch, n, draw.pick(1, 3)), *mask), {"scale": draw.pick(1.0, 0.5)}


def _chain(draw: _Draw) -> tuple[Shapes, dict[str, AttrValue]]:
    batch = draw.shape(0, 2)
    m, n = draw.size(), draw.size()
    a, b = (*batch, m, 2), (*draw.broadcast(batch), 2, n)
    third = draw.pick((), (draw.broadcast((*batch, m, n)),))
    fn = "add|relu" if third else draw.pick("identity", "square")
    attrs: dict[str, AttrValue] = {"between": fn, "inner_dtype": "f64"}
    c = (*batch, n, draw.pick(1, 3))
    if draw.pick(True, False):
        return (a, b, c, *third), attrs
    attrs |= {"epilogue": "mul|relu", "product_dtype": "f64"}
    return (a, b, c, *third, draw.broadcast((*batch, m, c[-1]))), attrs


def _reshape(draw: _Draw) -> tuple[Shapes, dict[str, AttrValue]]:
    shape = draw.shape(2, 3)
    after = draw.pick((prod(shape),), (*shape[:-2], shape[-2] * shape[-1]), (1, *shape))
    before, after = draw.pick((shape, after), (after, shape))
    return (before,), {"shape": after}


def _transpose(draw: _Draw) -> tuple[Shapes, dict[str, AttrValue]]:
    shape = draw.shape()
    turn = 1 + draw.axis(shape)
    return (shape,), {"perm": tuple((i + turn) % len(shape) for i in range(len(shape)))}


def _slice(draw: _Draw) -> tuple[Shapes, dict[str, AttrValue]]:
    shape = draw.shape()
    axis = draw.axis(shape)
    size = max(1, shape[axis] // 2)
    starts = tuple(shape[axis] - size if i == axis else 0 for i in range(len(shape)))
    sizes = tuple(size if i == axis else s for i, s in enumerate(shape))
    return (shape,), {"starts": starts, "sizes": sizes, "steps": (1,) * len(shape)}


def _concat(draw: _Draw) -> tuple[Shapes, dict[str, AttrValue]]:
    shape = draw.shape()
    axis = draw.axis(shape)
    other = tuple(draw.size() if i == axis else s for i, s in enumerate(shape))
    return (shape, other), {"axis": axis}


def _pad(draw: _Draw) -> tuple[Shapes, dict[str, AttrValue]]:
    shape = draw.shape()
    begins = tuple(draw.pick(0, 0, 2) for _ in shape)
    ends = tuple(draw.pick(0, 0, 1) for _ in shape)
    return (shape,), {"begins": begins, "ends": ends, "value": draw.pick(0.0, 1.5)}


def _expand(draw: _Draw) -> tuple[Shapes, dict[str, AttrValue]]:
    shape = draw.shape()
    return (draw.broadcast(shape),), {"shape": shape}


def _gather(draw: _Draw) -> tuple[Shapes, dict[str, AttrValue]]:
    shape = draw.shape(1, 3)
    return (shape, (draw.size(),)), {"axis": draw.axis(shape)}


_Make = Callable[[_Draw], tuple[Shapes, dict[str, AttrValue]]]

_MAKERS: tuple[tuple[str, _Make], ...] = (
    ("matmul", _matmul),
    ("conv", _conv),
    ("pool", _pool),
    ("map", _map),
    ("reduce", _reduce),
    ("softmax", _rows),
    ("layernorm", _norm),
    ("rmsnorm", _norm),
    ("attention", _attention),
    ("chain", _chain),
    ("reshape", _reshape),
    ("transpose", _transpose),
    ("slice", _slice),
    ("concat", _concat),
    ("pad", _pad),
    ("expand", _expand),
    ("gather", _gather),
    ("matmul", _quantised_matmul),
    ("conv", _quantised_conv),
)
"""Kinds of operators, some in several forms."""


def sampled_kinds() -> tuple[str, ...]:
    """Return the kinds of operators that there are samples of."""
    return tuple(dict.fromkeys(kind for kind, _ in _MAKERS))


def samples(count: int, seed: int) -> Iterator[Sample]:
    """Yield `count` samples of each form, in an order that does not depend on what fits."""
    draw = _Draw(seed)
    for kind, make in _MAKERS:
        made = 0
        while made < count:
            shapes, attrs = make(draw)
            sample = _sample(kind, shapes, attrs)
            if sample is not None:
                made += 1
                yield sample


def _sample(kind: str, shapes: Shapes, attrs: dict[str, AttrValue]) -> Sample | None:
    op = Op(name=kind, kind=kind, inputs=(), outputs=("y",), attrs=attrs)
    types = tuple(TensorType(shape, DType.F64) for shape in shapes)
    if kind == "gather":
        types = (types[0], replace(types[1], dtype=DType.I64))
    try:
        result = infer_type(kind, attrs, types, DType.F64)
        nest = annotate(op, types, result)
    except ShapeError:
        return None
    assert nest is not None, "core operators have annotations"
    if prod(loop.extent for loop in nest.dims) > _MOST_ITERATIONS:
        return None
    return Sample(op=op, types=types, result=result, nest=nest)
