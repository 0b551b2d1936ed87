"""Recognises normalisations and activations that exporters write out in pieces."""

from __future__ import annotations

from math import isclose, pi, sqrt

from tilewright.frontend.editing import Editor
from tilewright.graph import Graph, Op, parse_pipeline

_TOLERANCE = 1e-5


def recognise(graph: Graph) -> Graph:
    """Replace known subgraphs by single operators.

    x / sqrt(mean(x^2) + e)             ->  rmsnorm(x)
    rmsnorm(x - mean(x))                ->  layernorm(x)
    x sigmoid(x)                        ->  silu(x)
    x (1 + erf(x / sqrt 2)) / 2         ->  gelu(x)
    x (1 + tanh(c (x + d x^3))) / 2     ->  gelu_tanh(x)
    """
    editor = Editor(graph)
    for index, op in enumerate(graph.ops):
        found = _rmsnorm(editor, op) or _layernorm(editor, op) or _activation(editor, op)
        if found is not None:
            editor.set_op(index, found)
    return editor.finish() if editor.changed else graph


def _same(a: float | None, b: float) -> bool:
    return a is not None and isclose(a, b, rel_tol=_TOLERANCE)


def _step(editor: Editor, name: str) -> tuple[str, float | None, tuple[str, ...]] | None:
    """Return (function, its number, inputs) of a one-step map; x + c and x * c with known c are unary."""
    op = editor.producer.get(name)
    if op is None or op.kind != "map":
        return None
    steps = parse_pipeline(op.text("fn"))
    if len(steps) != 1:
        return None
    fn, args = steps[0]
    number = float(args[0]) if len(args) == 1 and not fn.startswith("cast") else None
    if len(op.inputs) == 2 and fn == "div":
        divisor = editor.scalar(op.inputs[1])
        if divisor:
            return "mul_const", 1.0 / divisor, op.inputs[:1]
        if _same(editor.scalar(op.inputs[0]), 1.0):
            return "reciprocal", None, op.inputs[1:]
    return fn, number, op.inputs


def _mean_of(editor: Editor, name: str) -> str | None:
    """Return x when a tensor is the mean of x over its last axis."""
    step = _step(editor, name)
    if step is None or step[0] != "mul_const":
        return None
    total = editor.producer.get(step[2][0])
    if total is None or total.kind != "reduce" or total.text("fn") != "sum":
        return None
    shape = editor.types[total.inputs[0]].shape
    if total.ints("axes") != (len(shape) - 1,) or not _same(step[1], 1.0 / shape[-1]):
        return None
    return total.inputs[0]


def _square_of(editor: Editor, name: str) -> str | None:
    """Return x when a tensor is x * x."""
    step = _step(editor, name)
    if step is None:
        return None
    fn, _, inputs = step
    if fn == "square" or (fn == "mul" and inputs[0] == inputs[-1]):
        return inputs[0]
    return None


def _inverse_deviation(editor: Editor, name: str, inverse: bool) -> tuple[str, float] | None:
    """Return (x, e) when a tensor is sqrt(mean(x^2) + e), or 1 / of it."""
    step = _step(editor, name)
    if inverse and step is not None and step[0] == "reciprocal":
        return _inverse_deviation(editor, step[2][0], False)
    if step is None or step[0] != ("rsqrt" if inverse else "sqrt"):
        return None
    shifted = _step(editor, step[2][0])
    if shifted is None or shifted[0] != "add_const" or shifted[1] is None:
        return None
    squares = _mean_of(editor, shifted[2][0])
    x = None if squares is None else _square_of(editor, squares)
    return None if x is None else (x, shifted[1])


def _rmsnorm(editor: Editor, op: Op) -> Op | None:
    if op.kind != "map" or len(op.inputs) != 2 or op.attrs["fn"] not in ("mul", "div"):
        return None
    divides = op.attrs["fn"] == "div"
    pairs = [op.inputs] if divides else [op.inputs, op.inputs[::-1]]
    for x, factor in pairs:
        found = _inverse_deviation(editor, factor, inverse=not divides)
        if found is not None and found[0] == x:
            return editor.remake(op, "rmsnorm", (x,), epsilon=found[1])
    return None


def _layernorm(editor: Editor, op: Op) -> Op | None:
    if op.kind != "rmsnorm":
        return None
    centred = editor.is_map(op.inputs[0], "sub")
    if centred is None or _mean_of(editor, centred.inputs[1]) != centred.inputs[0]:
        return None
    return editor.remake(op, "layernorm", (centred.inputs[0],), epsilon=op.number("epsilon"))


def _factors(editor: Editor, name: str, depth: int = 0) -> tuple[float, list[str]]:
    """Return a product as (number, tensors), looking through at most four multiplications."""
    step = _step(editor, name) if depth < 4 else None
    if step is not None and step[0] == "mul_const" and step[1] is not None:
        number, tensors = _factors(editor, step[2][0], depth + 1)
        return number * step[1], tensors
    if step is not None and step[0] == "mul" and len(step[2]) == 2:
        left, right = (_factors(editor, n, depth + 1) for n in step[2])
        return left[0] * right[0], left[1] + right[1]
    if step is not None and step[0] in ("square", "pow_const") and step[1] in (None, 3.0):
        return 1.0, list(step[2]) * (2 if step[0] == "square" else 3)
    return 1.0, [name]


def _activation(editor: Editor, op: Op) -> Op | None:
    if op.kind != "map" or not (
        op.attrs["fn"] == "mul" or str(op.attrs["fn"]).startswith("mul_const(")
    ):
        return None
    number, tensors = _factors(editor, op.output)
    if len(tensors) != 2:
        return None
    for x, gate in (tensors, tensors[::-1]):
        if editor.types[x] != editor.types[op.output]:
            continue
        if number == 1.0:
            sigmoid = editor.is_map(gate, "sigmoid")
            if sigmoid is not None and sigmoid.inputs == (x,):
                return editor.remake(op, "map", (x,), fn="silu")
        fn = _gelu(editor, number, x, gate)
        if fn is not None:
            return editor.remake(op, "map", (x,), fn=fn)
    return None


def _gelu(editor: Editor, number: float, x: str, gate: str) -> str | None:
    """Return which gelu x * gate * number is."""
    shifted = _step(editor, gate)
    if not _same(number, 0.5) or shifted is None or shifted[0] != "add_const" or shifted[1] != 1.0:
        return None
    curve = _step(editor, shifted[2][0])
    if curve is None or curve[0] not in ("erf", "tanh"):
        return None
    scale, inner = _factors(editor, curve[2][0])
    if curve[0] == "erf":
        return "gelu" if _same(scale, 1 / sqrt(2)) and inner == [x] else None
    if not _same(scale, sqrt(2 / pi)) or len(inner) != 1:
        return None
    total = editor.is_map(inner[0], "add")
    if total is None:
        return None
    for first, second in (total.inputs, total.inputs[::-1]):
        factor, cubed = _factors(editor, second)
        if first == x and cubed == [x, x, x] and _same(factor, 0.044715):
            return "gelu_tanh"
    return None
