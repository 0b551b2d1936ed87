"""Operators of TASO and TENSAT in core operators, for operands of known types.

What their graphs leave to shapes is derived as TASO derives it: groups of a convolution from the
channels, padding from SAME or VALID, where a split cuts from the concat that its operand goes
back to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from types import MappingProxyType

from tilewright.errors import ShapeError
from tilewright.graph import AttrValue, Op, TensorType, pipeline_dtype
from tilewright.rules.importing.foreign import Call
from tilewright.rules.inference import infer_type

SAME, VALID = 0, 1
_LARGEST_WINDOW = 16
_MOST_DIMS = 8
ACTIVATIONS: Mapping[int, str] = MappingProxyType({0: "", 1: "sigmoid", 2: "relu", 3: "tanh"})
"""Function of an activation's number."""

UNARY = frozenset({"relu", "sigmoid", "tanh"})
BINARY: Mapping[str, str] = MappingProxyType(
    {
        "ewadd": "add",
        "ewmul": "mul",
        "ewsub": "sub",
        "ewdiv": "div",
        "ewmax": "max",
        "ewmin": "min",
        "smul": "mul",
    }
)
"""Map function of each element-wise operator of two operands."""

INEXACT = frozenset({"sigmoid", "tanh", "poolavg", "ewdiv"})
"""Operators whose results on small integers are rounded."""

CLIPPING = frozenset({"relu", "ewmax", "ewmin", "poolmax"})
"""Operators that hide what they do not let through."""

Cuts = tuple[tuple[int, ...], ...]
"""Where concats joined a tensor, for each axis; the last cut of an axis is the outermost."""


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """Type of a term and what splits must know of it; a pattern has one object for each."""

    type: TensorType
    cuts: Cuts

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the term."""
        return self.type.shape


@dataclass(frozen=True, slots=True)
class Lowered:
    """A chain of core operators: the first takes the operands `uses`, each other the one before."""

    ops: tuple[tuple[Op, TensorType], ...]
    uses: tuple[int, ...]
    value: Value


Attrs = Mapping[str, AttrValue]
_Lowering = Callable[[Call, Sequence[Value], "Attrs | None"], tuple[tuple[str, Attrs], ...]]


def uncovered(call: Call) -> str:
    """Return why an operator has no core operators, or nothing if it has."""
    if call.operator not in _LOWERINGS:
        return f"operator {call.operator}"
    parameters = dict(call.parameters)
    if parameters.get("acti", 0) not in ACTIVATIONS:
        return f"activation {parameters['acti']} of {call.operator}"
    if parameters.get("pad", SAME) not in (SAME, VALID):
        return f"padding mode {parameters['pad']} of {call.operator}"
    for name in ("stride_h", "stride_w", "kernel_h", "kernel_w"):
        if name in parameters and not 1 <= call.number(name) <= _LARGEST_WINDOW:
            return f"{name} {parameters[name]} of {call.operator}"
    for name in ("perm", "shape"):
        if name in parameters and len(call.numbers(name)) > _MOST_DIMS:
            return f"{name} of {len(call.numbers(name))} dimensions"
    if "ndim" in parameters and not 0 <= call.number("ndim") <= _MOST_DIMS:
        return f"concat of {parameters['ndim']} dimensions"
    return ""


def lower(call: Call, operands: Sequence[Value], window: Attrs | None = None) -> Lowered:
    """Return the core operators of a call on operands of these types.

    Args:
        call: A covered operator.
        operands: Its operands.
        window: Attributes of a convolution, instead of those that its parameters and shapes give.

    Raises:
        ShapeError: The operands do not fit.
    """
    steps = _LOWERINGS[call.operator](call, operands, window)
    uses = (0,) if call.operator == "enlarge" else tuple(range(len(operands)))
    types = [operands[i].type for i in uses]
    ops = []
    for kind, attrs in steps:
        dtype = types[-1].dtype
        if kind == "map":
            dtype = pipeline_dtype(str(attrs["fn"]), dtype)
        result = infer_type(kind, attrs, types, dtype)
        ops.append(
            (Op(name=call.operator, kind=kind, inputs=(), outputs=("y",), attrs=attrs), result)
        )
        types = [result]
    return Lowered(tuple(ops), uses, Value(types[0], _cuts(call, operands, types[0])))


def _map(fn: str) -> tuple[str, Attrs]:
    return "map", {"fn": fn}


def _activated(call: Call, kind: str, attrs: Attrs) -> tuple[tuple[str, Attrs], ...]:
    function = ACTIVATIONS[call.number("acti")]
    return ((kind, attrs), _map(function)) if function else ((kind, attrs),)


def _unary(
    call: Call, operands: Sequence[Value], window: Attrs | None
) -> tuple[tuple[str, Attrs], ...]:
    return (_map(call.operator),)


def _binary(
    call: Call, operands: Sequence[Value], window: Attrs | None
) -> tuple[tuple[str, Attrs], ...]:
    if call.operator == "smul" and prod(operands[1].shape) != 1:
        raise ShapeError(f"smul: {list(operands[1].shape)} is no scalar")
    return (_map(BINARY[call.operator]),)


def _matmul(
    call: Call, operands: Sequence[Value], window: Attrs | None
) -> tuple[tuple[str, Attrs], ...]:
    return _activated(call, "matmul", {})


def same_pads(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Return the padding before and after one dimension so that ceil(size / stride) windows fit."""
    rest = size % stride or stride
    total = max(kernel - rest, 0)
    return total // 2, total - total // 2


def _window(call: Call, shape: Sequence[int], kernel: Sequence[int]) -> dict[str, AttrValue]:
    """Return the attributes of a sliding window over [n, c, h, w]."""
    strides = call.number("stride_h"), call.number("stride_w")
    pads = ((0, 0), (0, 0))
    if call.number("pad") == SAME:
        (top, bottom), (left, right) = (
            same_pads(shape[2 + i], kernel[i], strides[i]) for i in (0, 1)
        )
        pads = ((top, left), (bottom, right))
    return {"strides": strides, "dilations": (1, 1), "pads": (*pads[0], *pads[1])}


def _four(call: Call, operands: Sequence[Value]) -> None:
    for operand in operands:
        if operand.type.rank != 4:
            raise ShapeError(f"{call.operator}: {list(operand.shape)} has not four dimensions")


def _conv(
    call: Call, operands: Sequence[Value], window: Attrs | None
) -> tuple[tuple[str, Attrs], ...]:
    _four(call, operands)
    x, w = (operand.shape for operand in operands)
    if window is None:
        if x[1] % w[1]:
            raise ShapeError(f"conv2d: input {list(x)} does not fit weights {list(w)}")
        window = {"groups": x[1] // w[1], **_window(call, x, w[2:])}
    return _activated(call, "conv", window)


def _pool(
    call: Call, operands: Sequence[Value], window: Attrs | None
) -> tuple[tuple[str, Attrs], ...]:
    _four(call, operands)
    kernel = call.number("kernel_h"), call.number("kernel_w")
    if min(kernel) < 1:
        raise ShapeError(f"{call.operator}: kernel {list(kernel)} is empty")
    is_max = call.operator == "poolmax"
    attrs = _window(call, operands[0].shape, kernel)
    attrs |= {"fn": "max" if is_max else "sum", "kernel": kernel}
    first, *rest = _activated(call, "pool", attrs)
    # TASO averages by a convolution with 1 / (h w), so padding counts
    mean = () if is_max else (_map(f"mul_const({1.0 / prod(kernel)!r})"),)
    return (first, *mean, *rest)


def _concat(
    call: Call, operands: Sequence[Value], window: Attrs | None
) -> tuple[tuple[str, Attrs], ...]:
    axis = call.number("axis")
    shapes = [operand.shape for operand in operands]
    if len({len(shape) for shape in shapes}) > 1 or not 0 <= axis < len(shapes[0]):
        raise ShapeError(f"concat: axis {axis} of {[list(s) for s in shapes]} does not exist")
    if len({(*shape[:axis], *shape[axis + 1 :]) for shape in shapes}) > 1:
        raise ShapeError(f"concat: {[list(s) for s in shapes]} do not fit along axis {axis}")
    return (("concat", {"axis": axis}),)


def _split(
    call: Call, operands: Sequence[Value], window: Attrs | None
) -> tuple[tuple[str, Attrs], ...]:
    axis, parts = call.number("axis"), call.number("parts")
    (x,) = operands
    if not 0 <= axis < len(x.shape) or len(x.cuts[axis]) < parts - 1:
        raise ShapeError(f"split: {list(x.shape)} is not joined of {parts} along axis {axis}")
    start, stop = _bounds(x, axis, parts)[call.output]
    sizes = (*x.shape[:axis], stop - start, *x.shape[axis + 1 :])
    starts = tuple(start if i == axis else 0 for i in range(len(sizes)))
    return (("slice", {"starts": starts, "sizes": sizes, "steps": (1,) * len(sizes)}),)


def _bounds(x: Value, axis: int, parts: int) -> list[tuple[int, int]]:
    """Return start and stop of each part of a split: it undoes the last concats."""
    cuts = list(x.cuts[axis])
    stops = [x.shape[axis]]
    while len(stops) < parts:
        last = cuts.pop()
        stops.insert(0, last)
        cuts = [cut for cut in cuts if cut < last]
    return list(zip([0, *stops[:-1]], stops, strict=True))


def _transpose(
    call: Call, operands: Sequence[Value], window: Attrs | None
) -> tuple[tuple[str, Attrs], ...]:
    return (("transpose", {"perm": call.numbers("perm")}),)


def _reshape(
    call: Call, operands: Sequence[Value], window: Attrs | None
) -> tuple[tuple[str, Attrs], ...]:
    return (("reshape", {"shape": call.numbers("shape")}),)


def _enlarge(
    call: Call, operands: Sequence[Value], window: Attrs | None
) -> tuple[tuple[str, Attrs], ...]:
    """Surround a kernel with zeros up to the size of another, its centre in the centre."""
    _four(call, operands)
    small, large = (operand.shape[2:] for operand in operands)
    spare = [b - a for a, b in zip(small, large, strict=True)]
    if min(spare) < 0:
        raise ShapeError(f"enlarge: {list(small)} is larger than {list(large)}")
    begins = (0, 0, *(s // 2 for s in spare))
    ends = (0, 0, *(s - s // 2 for s in spare))
    return (("pad", {"begins": begins, "ends": ends, "value": 0.0}),)


_LOWERINGS: Mapping[str, _Lowering] = MappingProxyType(
    {
        **dict.fromkeys(UNARY, _unary),
        **dict.fromkeys(BINARY, _binary),
        "matmul": _matmul,
        "conv2d": _conv,
        "poolmax": _pool,
        "poolavg": _pool,
        "concat": _concat,
        "split": _split,
        "transpose": _transpose,
        "reshape": _reshape,
        "enlarge": _enlarge,
    }
)


def _cuts(call: Call, operands: Sequence[Value], result: TensorType) -> Cuts:
    """Return where the result was joined, as `SplitInfo` in TASO's `ops.h`."""
    none: Cuts = ((),) * result.rank
    first = operands[0]
    match call.operator:
        case "relu" | "sigmoid" | "tanh" | "smul":
            return first.cuts
        case "matmul":
            return (*none[2:], first.cuts[-2], operands[1].cuts[-1])
        case "conv2d":
            return (first.cuts[0], operands[1].cuts[0], (), ())
        case "poolmax" | "poolavg":
            return (*first.cuts[:2], (), ())
        case "transpose":
            return tuple(first.cuts[i] for i in call.numbers("perm"))
        case "concat":
            return _joined(call.number("axis"), operands)
        case "split":
            axis, parts = call.number("axis"), call.number("parts")
            start, stop = _bounds(first, axis, parts)[call.output]
            inside = tuple(cut - start for cut in first.cuts[axis] if start < cut < stop)
            return (*first.cuts[:axis], inside, *first.cuts[axis + 1 :])
        case operator if operator in BINARY:
            other = operands[1]
            pairs = zip(first.cuts, other.cuts, first.shape, other.shape, strict=True)
            return tuple(_combined(*pair) for pair in pairs)
        case _:
            return none


def _combined(a: tuple[int, ...], b: tuple[int, ...], m: int, n: int) -> tuple[int, ...]:
    """Return the cuts of an axis of an element-wise result; a broadcast operand has none."""
    if m == 1 or n == 1:
        return b if m == 1 else a
    return a if a == b else ()


def _joined(axis: int, operands: Sequence[Value]) -> Cuts:
    cuts: list[tuple[int, ...]] = []
    for i, parts in enumerate(zip(*(operand.cuts for operand in operands), strict=True)):
        cuts.append(parts[0] if len(set(parts)) == 1 and i != axis else ())
    place, merged = 0, list(operands[0].cuts[axis])
    for before, operand in pairwise(operands):
        place += before.shape[axis]
        merged += [place + cut for cut in operand.cuts[axis]]
        merged.append(place)
    cuts[axis] = tuple(merged)
    return tuple(cuts)


def leaf(kind: TensorType) -> Value:
    """Return the value of a variable: joined nowhere."""
    return Value(kind, ((),) * kind.rank)
