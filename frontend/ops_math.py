"""Elementwise operators: arithmetic, activations, comparisons, logic, casts."""

from __future__ import annotations

from functools import reduce

import numpy as np
from onnx import TensorProto, helper

from tilewright.dtypes import DType
from tilewright.errors import ModelError
from tilewright.frontend.registry import NodeContext, importer
from tilewright.frontend.values import FallbackError, Value

_UNARY = {
    "Abs": "abs", "Neg": "neg", "Exp": "exp", "Log": "log", "Sqrt": "sqrt", "Floor": "floor", "Ceil": "ceil",
    "Round": "round", "Sign": "sign", "Relu": "relu", "Sigmoid": "sigmoid", "Tanh": "tanh", "Erf": "erf",
    "Softplus": "softplus", "Sin": "sin", "Cos": "cos", "Tan": "tan", "Asin": "asin", "Acos": "acos",
    "Atan": "atan", "Sinh": "sinh", "Cosh": "cosh", "Not": "not", "BitwiseNot": "not", "IsNaN": "isnan",
    "Reciprocal": "reciprocal",
}  # fmt: skip
_BINARY = {
    "Add": "add", "Sub": "sub", "Mul": "mul", "Div": "div", "Equal": "eq", "Less": "lt", "LessOrEqual": "le",
    "Greater": "gt", "GreaterOrEqual": "ge", "And": "and", "Or": "or", "Xor": "xor", "BitwiseAnd": "bitand",
    "BitwiseOr": "bitor", "BitwiseXor": "bitxor", "PRelu": "prelu",
}  # fmt: skip
_VARIADIC = {"Min": "min", "Max": "max", "Sum": "add"}


@importer(*_UNARY)
def import_unary(c: NodeContext) -> Value:
    """Operators that are one function of one value."""
    return c.b.map(_UNARY[c.node.op_type], c.x)


@importer(*_BINARY)
def import_binary(c: NodeContext) -> Value:
    """Operators that are one function of two broadcast values; neutral constants vanish."""
    fn, x, y = _BINARY[c.node.op_type], c.x, c.inp(1)
    neutral = {"add": 0, "sub": 0, "mul": 1, "div": 1}.get(fn)
    if neutral is not None:
        for kept, other in ((x, y), (y, x))[: 2 if fn in ("add", "mul") else 1]:
            known = (
                other.data is not None
                and other.elements == 1
                and other.data.reshape(-1)[0] == neutral
            )
            if known and other.rank <= kept.rank and kept.element is other.element:
                return kept
    return c.b.map(fn, x, y)


@importer(*_VARIADIC)
def import_variadic(c: NodeContext) -> Value:
    """Min, Max and Sum of one or more values."""
    fn = _VARIADIC[c.node.op_type]
    return reduce(lambda a, b: c.b.map(fn, a, b), c.values)


@importer("Mean")
def import_mean(c: NodeContext) -> Value:
    """Mean of one or more values: their sum times 1 / count."""
    total = reduce(lambda a, b: c.b.map("add", a, b), c.values)
    return total if len(c.values) == 1 else c.b.mul_const(total, 1.0 / len(c.values))


@importer("Pow")
def import_pow(c: NodeContext) -> Value:
    """x ** y in the type of x; common constant exponents become cheaper functions."""
    x, y = c.x, c.inp(1)
    if y.data is not None and y.elements == 1 and y.rank <= x.rank:
        exponent = float(y.data.reshape(-1)[0].astype(np.float64))
        special = {1.0: "identity", 2.0: "square"}
        if x.element.is_float:
            special |= {0.5: "sqrt", -0.5: "rsqrt", -1.0: "reciprocal"}
        if exponent == 1.0:
            return x
        if exponent in special:
            return c.b.map(special[exponent], x)
        if x.element.is_float:
            return c.b.map(f"pow_const({exponent!r})", x)
    if x.element is y.element and x.element.is_float:
        return c.b.map("pow", x, y)
    # integer bases go through f64, which is exact up to 2^53
    power = c.b.map("pow", c.b.cast(x, DType.F64), c.b.cast(y, DType.F64))
    return c.b.cast(power, x.element)


@importer("Mod")
def import_mod(c: NodeContext) -> Value:
    """Remainder with the sign of the divisor, or of the dividend when fmod is set."""
    return c.b.map("fmod" if c.integer("fmod", 0) else "mod", c.x, c.inp(1))


@importer("BitShift")
def import_bitshift(c: NodeContext) -> Value:
    """Shift left or right."""
    return c.b.map("shl" if c.text("direction", "LEFT") == "LEFT" else "shr", c.x, c.inp(1))


@importer("Where")
def import_where(c: NodeContext) -> Value:
    """Choose elements by a condition."""
    return c.b.map("where", c.x, c.inp(1), c.inp(2))


@importer("IsInf")
def import_isinf(c: NodeContext) -> Value:
    """Infinity test; one-sided tests compare with the infinity."""
    negative, positive = c.integer("detect_negative", 1), c.integer("detect_positive", 1)
    if negative and positive:
        return c.b.map("isinf", c.x)
    if not negative and not positive:
        return c.b.map("cast(bool)", c.b.mul_const(c.b.cast(c.x, DType.I32), 0))
    return c.b.map("eq", c.x, c.b.scalar(np.inf if positive else -np.inf, c.x.element))


def limited(c: NodeContext, x: Value, low: Value | None, high: Value | None) -> Value:
    """Clip x to known or computed scalar bounds."""
    steps = []
    for bound, step, fn in ((low, "clip_min", "max"), (high, "clip_max", "min")):
        if bound is None:
            continue
        if bound.data is None:
            return limited(
                c,
                c.b.map(fn, x, bound),
                low if fn == "min" else None,
                high if fn == "max" else None,
            )
        steps.append(f"{step}({bound.data.reshape(-1)[0].item()!r})")
    return c.b.map("|".join(steps), x) if steps else x


@importer("Clip")
def import_clip(c: NodeContext) -> Value:
    """Clip; bounds are attributes before opset 11, inputs afterwards."""
    if c.opset < 11:
        limits = np.finfo(np.float32)
        low, high = c.number("min", float(limits.min)), c.number("max", float(limits.max))
        return limited(c, c.x, c.b.scalar(low, c.x.element), c.b.scalar(high, c.x.element))
    low_in, high_in = c.opt(1), c.opt(2)
    if all(v is None or v.data is not None for v in (low_in, high_in)):
        return limited(c, c.x, low_in, high_in)
    x = c.x if low_in is None else c.b.map("max", c.x, low_in)
    return x if high_in is None else c.b.map("min", x, high_in)


@importer("LeakyRelu")
def import_leaky_relu(c: NodeContext) -> Value:
    """max(x, 0) + alpha min(x, 0)."""
    return c.b.map(f"leaky_relu({c.number('alpha', 0.01)!r})", c.x)


@importer("Elu")
def import_elu(c: NodeContext) -> Value:
    """X where positive, alpha (exp(x) - 1) elsewhere."""
    return c.b.map(f"elu({c.number('alpha', 1.0)!r})", c.x)


@importer("Selu")
def import_selu(c: NodeContext) -> Value:
    """Gamma times elu."""
    alpha, gamma = (
        c.number("alpha", 1.67326319217681884765625),
        c.number("gamma", 1.05070102214813232421875),
    )
    return c.b.map(f"elu({alpha!r})|mul_const({gamma!r})", c.x)


@importer("Celu")
def import_celu(c: NodeContext) -> Value:
    """alpha elu(x / alpha)."""
    alpha = c.number("alpha", 1.0)
    return c.b.map(f"mul_const({1.0 / alpha!r})|elu(1.0)|mul_const({alpha!r})", c.x)


@importer("HardSigmoid")
def import_hard_sigmoid(c: NodeContext) -> Value:
    """Clip alpha x + beta to 0..1."""
    return c.b.map(f"hard_sigmoid({c.number('alpha', 0.2)!r},{c.number('beta', 0.5)!r})", c.x)


@importer("HardSwish")
def import_hard_swish(c: NodeContext) -> Value:
    """X times hard_sigmoid(x / 6 + 1/2)."""
    return c.b.map("mul", c.x, c.b.map(f"hard_sigmoid({1 / 6!r},0.5)", c.x))


@importer("Softsign")
def import_softsign(c: NodeContext) -> Value:
    """x / (1 + |x|)."""
    return c.b.map("div", c.x, c.b.map("abs|add_const(1.0)", c.x))


@importer("Mish")
def import_mish(c: NodeContext) -> Value:
    """X times tanh(softplus(x))."""
    return c.b.map("mul", c.x, c.b.map("softplus|tanh", c.x))


@importer("Swish")
def import_swish(c: NodeContext) -> Value:
    """X times sigmoid(alpha x)."""
    alpha = c.number("alpha", 1.0)
    if alpha == 1.0:
        return c.b.map("silu", c.x)
    return c.b.map("mul", c.x, c.b.map(f"mul_const({alpha!r})|sigmoid", c.x))


@importer("ThresholdedRelu")
def import_thresholded_relu(c: NodeContext) -> Value:
    """X where above alpha, 0 elsewhere."""
    alpha = c.b.scalar(c.number("alpha", 1.0), c.x.element)
    return c.b.map("where", c.b.map("gt", c.x, alpha), c.x, c.b.scalar(0, c.x.element))


@importer("Shrink")
def import_shrink(c: NodeContext) -> Value:
    """X moved towards zero by bias outside -lambd..lambd, 0 inside."""
    lambd, bias, x = c.number("lambd", 0.5), c.number("bias", 0.0), c.x
    zero = c.b.scalar(0, x.element)
    low = c.b.map(
        "where",
        c.b.map("lt", x, c.b.scalar(-lambd, x.element)),
        c.b.map(f"add_const({bias!r})", x),
        zero,
    )
    return c.b.map(
        "where",
        c.b.map("gt", x, c.b.scalar(lambd, x.element)),
        c.b.map(f"add_const({-bias!r})", x),
        low,
    )


@importer("Gelu")
def import_gelu(c: NodeContext) -> Value:
    """Gelu by erf or by tanh."""
    return c.b.map("gelu_tanh" if c.text("approximate", "none") == "tanh" else "gelu", c.x)


@importer("Gelu", "FastGelu", "BiasGelu", "QuickGelu", domain="com.microsoft")
def import_contrib_gelu(c: NodeContext) -> Value:
    """Import the gelus of onnxruntime's optimiser; an optional second input is a bias."""
    bias = c.opt(1)
    x = c.x if bias is None else c.b.map("add", c.x, bias)
    if c.node.op_type == "QuickGelu":
        return c.b.map("mul", x, c.b.map(f"mul_const({c.number('alpha', 1.702)!r})|sigmoid", x))
    return c.b.map("gelu_tanh" if c.node.op_type == "FastGelu" else "gelu", x)


def dtype_of_proto(number: int, label: str) -> DType:
    """Return the element type with an ONNX number; FallbackError when the graph has none."""
    try:
        return DType.from_numpy(helper.tensor_dtype_to_np_dtype(number))
    except KeyError:
        raise FallbackError(
            f"element type {_type_name(number)} of '{label}' is host-only"
        ) from None


def _type_name(number: int) -> str:
    try:
        return str(TensorProto.DataType.Name(number)).lower()
    except ValueError:
        raise ModelError(f"element type {number} is unknown") from None


@importer("Cast")
def import_cast(c: NodeContext) -> Value:
    """Convert the element type."""
    return c.b.cast(c.x, dtype_of_proto(c.integer("to", 0), c.b.label))


@importer("CastLike")
def import_cast_like(c: NodeContext) -> Value:
    """Convert to the element type of the second input."""
    return c.b.cast(c.x, c.inp(1).element)


@importer("Identity")
def import_identity(c: NodeContext) -> Value:
    """Pass the input through."""
    return c.x


@importer("Dropout")
def import_dropout(c: NodeContext) -> tuple[Value, ...]:
    """Pass the input through; the mask is all true. Training mode goes to the host."""
    training = c.opt(2)
    if training is not None and (training.data is None or bool(training.data.reshape(-1)[0])):
        raise FallbackError("Dropout in training mode is random")
    mask_type = DType.BOOL if c.opset >= 10 else c.x.element
    if not c.uses_output(1):
        return (c.x,)
    return c.x, c.b.expand(c.b.constant(np.ones((1,) * c.x.rank, mask_type.numpy)), c.x.dims)


@importer("Asinh")
def import_asinh(c: NodeContext) -> Value:
    """sign(x) log(|x| + sqrt(x^2 + 1)), which does not cancel for negative x."""
    root = c.b.map("square|add_const(1.0)|sqrt", c.x)
    grown = c.b.map("add|log", c.b.map("abs", c.x), root)
    return c.b.map("mul", c.b.map("sign", c.x), grown)


@importer("Acosh")
def import_acosh(c: NodeContext) -> Value:
    """log(x + sqrt(x^2 - 1))."""
    return c.b.map("add|log", c.x, c.b.map("square|add_const(-1.0)|sqrt", c.x))


@importer("Atanh")
def import_atanh(c: NodeContext) -> Value:
    """log((1 + x) / (1 - x)) / 2."""
    return c.b.map(
        "div|log|mul_const(0.5)", c.b.map("add_const(1.0)", c.x), c.b.map("neg|add_const(1.0)", c.x)
    )
