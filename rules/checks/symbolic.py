"""Operators on arrays of symbols: the meanings that a proof needs, written apart from the reference.

Functions that are neither linear nor piecewise linear are symbols, too: what holds whatever `exp` may be
holds for exp. A quotient x / y is x times a symbol for 1 / y.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from tilewright.graph import Op, dequantises, parse_pipeline, third_operands
from tilewright.reference import AnyArray


class NotSymbolicError(Exception):
    """An operator without a meaning for symbols."""


class Symbolic:
    """Evaluates operators on arrays whose entries are terms of a solver."""

    def __init__(self, solver: Any) -> None:
        self._z3 = solver
        self.unknown: set[str] = set()
        """Functions so far of which nothing is known but that equal values give equal ones."""

    def apply(self, op: Op, inputs: Sequence[AnyArray]) -> AnyArray:
        """Return the value of an operator.

        Raises:
            NotSymbolicError: It is not covered.
        """
        x = inputs[0]
        match op.kind:
            case "map":
                return self._map(op.text("fn"), inputs)
            case "matmul" | "conv":
                w, third = inputs[1], third_operands(op.attrs, inputs)
                w = w * inputs[-1] if dequantises(op.attrs) else w
                plain = _matmul(op, x, w) if op.kind == "matmul" else _conv(op, x, w)
                if "epilogue" in op.attrs:
                    return self._map(op.text("epilogue"), (plain, *third))
                return plain
            case "reduce":
                return self._reduce(op.text("fn"), op.ints("axes"), x)
            case "softmax":
                return self._softmax(x)
            case "attention":
                return self._attention(op, inputs)
            case "chain":
                return self._chain(op, inputs)
            case "layernorm" | "rmsnorm":
                return self._normalised(op, x + inputs[1] if len(inputs) == 2 else x)
            case "transpose":
                return x.transpose(op.ints("perm"))
            case "reshape":
                return x.reshape(op.ints("shape"))
            case "expand":
                return np.broadcast_to(x, op.ints("shape"))
            case "concat":
                return np.concatenate(inputs, axis=op.integer("axis"))
            case "slice":
                parts = zip(op.ints("starts"), op.ints("sizes"), op.ints("steps"), strict=True)
                return x[np.ix_(*([s + i * step for i in range(n)] for s, n, step in parts))]
            case "pad":
                widths = list(zip(op.ints("begins"), op.ints("ends"), strict=True))
                return np.pad(x, widths, constant_values=self._number(op.number("value")))
        raise NotSymbolicError(op.kind)

    def _number(self, value: float) -> Any:
        return self._z3.RealVal(repr(value))

    def _in_order(self, a: Any, b: Any) -> tuple[Any, Any]:
        """Return two terms in an order of their own, so that functions that commute give one term."""
        pair = (self._normal(a), self._normal(b))
        return pair if pair[0].get_id() <= pair[1].get_id() else (pair[1], pair[0])

    def _larger(self, a: Any, b: Any) -> Any:
        a, b = self._in_order(a, b)
        return self._z3.If(a >= b, a, b)

    def _smaller(self, a: Any, b: Any) -> Any:
        a, b = self._in_order(a, b)
        return self._z3.If(a <= b, a, b)

    def _normal(self, a: Any) -> Any:
        """Return a term as a sum of products."""
        return self._z3.simplify(self._z3.RealVal(0) + a, som=True, sort_sums=True)

    def _symbol(self, name: str, *operands: Any) -> Any:
        """Return an unknown function of terms."""
        self.unknown.add(name)
        real = self._z3.RealSort()
        function = self._z3.Function(name, *(real for _ in operands), real)
        return function(*(self._normal(operand) for operand in operands))

    def _quotient(self, a: Any, b: Any) -> Any:
        return a * self._symbol("reciprocal", b)

    def _over_root(self, a: Any, square: Any) -> Any:
        return self._quotient(a, self._symbol("sqrt", square))

    def _map(self, fn: str, operands: Sequence[AnyArray]) -> AnyArray:
        (first, args), *rest = parse_pipeline(fn)
        value = self._step(first, args, operands)
        for name, arguments in rest:
            value = self._step(name, arguments, (value,))
        return value

    def _step(self, name: str, args: Sequence[str], operands: Sequence[AnyArray]) -> AnyArray:
        numbers = [self._number(float(arg)) for arg in args if name != "cast"]
        functions: dict[str, Callable[..., Any]] = {
            "add": lambda a, b: a + b,
            "sub": lambda a, b: a - b,
            "mul": lambda a, b: a * b,
            "div": self._quotient,
            "max": self._larger,
            "min": self._smaller,
            "neg": lambda a: -a,
            "identity": lambda a: a,
            "cast": lambda a: a,
            "square": lambda a: a * a,
            "relu": lambda a: self._larger(a, self._number(0.0)),
            "abs": lambda a: self._larger(a, -a),
            "mul_const": lambda a: a * numbers[0],
            "add_const": lambda a: a + numbers[0],
            "clip_min": lambda a: self._larger(a, numbers[0]),
            "clip_max": lambda a: self._smaller(a, numbers[0]),
            "div_rms": lambda a, s: self._over_root(a, s * numbers[0] + numbers[1]),
            "where": lambda c, a, b: self._z3.If(c != 0, a, b),
        }
        text = f"{name}({','.join(args)})" if args else name
        apply: Any = np.frompyfunc  # its overloads know no number of operands
        function = functions.get(name, partial(self._symbol, text))
        return np.asarray(apply(function, len(operands), 1)(*operands))

    def _reduce(self, fn: str, axes: Sequence[int], x: AnyArray) -> AnyArray:
        steps = {"sum": lambda a, b: a + b, "max": self._larger, "min": self._smaller}
        if fn not in steps:
            raise NotSymbolicError(f"reduce {fn}")
        step = np.frompyfunc(steps[fn], 2, 1)
        for axis in axes:
            x = np.asarray(step.reduce(x, axis=axis, keepdims=True))
        return x

    def _softmax(self, x: AnyArray) -> AnyArray:
        last = (x.ndim - 1,)
        e = self._step("exp", (), (x - self._reduce("max", last, x),))
        return self._step("div", (), (e, self._reduce("sum", last, e)))

    def _attention(self, op: Op, inputs: Sequence[AnyArray]) -> AnyArray:
        q, k, v, *masks = inputs
        scores = sum(masks, start=np.matmul(q, k) * self._number(op.number("scale")))
        return np.asarray(np.matmul(self._softmax(scores), v))

    def _chain(self, op: Op, inputs: Sequence[AnyArray]) -> AnyArray:
        third = third_operands(op.attrs, inputs)
        a, b, c, *others = inputs[: len(inputs) - len(third)]
        between = self._map(op.text("between"), (np.matmul(a, b), *others))
        plain = np.asarray(np.matmul(between, c))
        return self._map(op.text("epilogue"), (plain, *third)) if "epilogue" in op.attrs else plain

    def _normalised(self, op: Op, x: AnyArray) -> AnyArray:
        last, share = (x.ndim - 1,), self._z3.Q(1, x.shape[-1])
        if op.kind == "layernorm":
            x = x - self._reduce("sum", last, x) * share
        square = self._reduce("sum", last, x * x) * share + self._number(op.number("epsilon"))
        apply: Any = np.frompyfunc
        return np.asarray(apply(self._over_root, 2, 1)(x, square))


def _matmul(op: Op, a: AnyArray, b: AnyArray) -> AnyArray:
    """Multiply operands that may lie permuted in memory, as the result may."""

    def permuted(key: str, x: AnyArray) -> AnyArray:
        return x.transpose(op.ints(key)) if key in op.attrs else x

    return permuted("perm_out", np.matmul(permuted("perm_a", a), permuted("perm_b", b)))


def _conv(op: Op, x: AnyArray, w: AnyArray) -> AnyArray:
    """Add up windows one weight at a time."""
    top, left, bottom, right = op.ints("pads")
    strides, dilations, groups = op.ints("strides"), op.ints("dilations"), op.integer("groups")
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=0)
    outs, per_group, *kernel = w.shape
    size = [
        (padded.shape[2 + i] - dilations[i] * (kernel[i] - 1) - 1) // strides[i] + 1 for i in (0, 1)
    ]
    result = np.zeros((x.shape[0], outs, *size), dtype=object)
    for n, o, i, j in np.ndindex(result.shape):
        start = o // (outs // groups) * per_group
        for c, r, s in product(range(per_group), range(kernel[0]), range(kernel[1])):
            y, z = i * strides[0] + r * dilations[0], j * strides[1] + s * dilations[1]
            result[n, o, i, j] += padded[n, start + c, y, z] * w[o, c, r, s]
    return result
