"""Model inputs: symbolic dimensions are bound to numbers here."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping

from onnx import GraphProto, TypeProto, helper

from tilewright.dtypes import DType
from tilewright.errors import ModelError, ShapeError, UnsupportedOpError
from tilewright.frontend.builder import Builder
from tilewright.graph import Port

_OPERATORS: Mapping[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
}


_UNNAMED = frozenset({"", "?", "*", "None", "-1", "unk", "unknown"})
"""What exporters write for a dimension without a name."""


def bind_inputs(b: Builder, graph: GraphProto, dims: Mapping[str, int]) -> tuple[Port, ...]:
    """Return the model's input ports with all dimensions bound.

    Initializers that are also inputs are constants and get no port.

    Raises:
        ShapeError: A dimension is unbound, or `dims` names one that does not exist.
        UnsupportedOpError: An input is not a tensor of a supported element type.
    """
    for name, size in dims.items():
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ShapeError(
                f"dimension '{name}' is bound to {size!r}; expected a positive integer"
            )
    constant = {t.name for t in graph.initializer} | {
        s.values.name for s in graph.sparse_initializer
    }
    used: set[str] = set()
    unbound: dict[str, str] = {}
    ports = []
    for info in graph.input:
        if info.name in constant:
            continue
        dtype = _element_type(info.name, info.type)
        shape = _bound_shape(info.name, info.type.tensor_type, dims, used, unbound)
        b.label = f"input '{info.name}'"
        b.tensor(info.name, shape, dtype)
        ports.append(Port(name=info.name, tensor=info.name, shape=shape, dtype=dtype))
    if unbound:
        levers = " ".join(f"--dim {symbol}=value" for symbol in unbound)
        raise ShapeError(f"{'; '.join(unbound.values())}; bind with {levers}")
    unknown = sorted(set(dims) - used)
    if unknown:
        raise ShapeError(
            f"no input has a dimension named {', '.join(repr(n) for n in unknown)}; remove the binding"
        )
    return tuple(ports)


def _element_type(name: str, kind: TypeProto) -> DType:
    if not kind.HasField("tensor_type"):
        found = kind.WhichOneof("value") or "no type"
        raise UnsupportedOpError(f"input '{name}' is a {found}; only dense tensors can be inputs")
    try:
        return DType.from_numpy(helper.tensor_dtype_to_np_dtype(kind.tensor_type.elem_type))
    except KeyError:
        raise UnsupportedOpError(
            f"input '{name}' has element type {kind.tensor_type.elem_type}; supported are {', '.join(DType)}"
        ) from None


def _bound_shape(
    name: str,
    tensor: TypeProto.Tensor,
    dims: Mapping[str, int],
    used: set[str],
    unbound: dict[str, str],
) -> tuple[int, ...]:
    """Return an input's shape; unbound dimensions are noted and count as 1."""
    if not tensor.HasField("shape"):
        raise ShapeError(f"input '{name}' has no shape, not even a rank; export the model with one")
    shape = []
    for i, d in enumerate(tensor.shape.dim):
        if d.HasField("dim_value") and d.dim_value > 0:
            shape.append(d.dim_value)
            continue
        # unnamed dimensions (also 0 and -1, which old exporters write) are called after their place
        symbol = d.dim_param if d.dim_param not in _UNNAMED else f"{name}.{i}"
        size = _evaluate(symbol, dims, used)
        if size is None:
            unbound.setdefault(symbol, f"input '{name}': dimension {i} ('{symbol}') is unbound")
            size = 1
        if size < 1:
            raise ShapeError(
                f"input '{name}': dimension {i} ('{symbol}') is {size}; expected a positive integer"
            )
        shape.append(size)
    return tuple(shape)


def _evaluate(symbol: str, dims: Mapping[str, int], used: set[str]) -> int | None:
    """Return a symbol's number; sums like "past + 1" are computed from their parts."""
    if symbol in dims:
        used.add(symbol)
        return dims[symbol]
    try:
        tree = ast.parse(symbol, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None

    def value(node: ast.expr) -> int | None:
        if isinstance(node, ast.Constant) and type(node.value) is int:
            return node.value
        if isinstance(node, ast.Name) and node.id in dims:
            used.add(node.id)
            return dims[node.id]
        if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
            left, right = value(node.left), value(node.right)
            if left is None or right is None:
                return None
            try:
                return _OPERATORS[type(node.op)](left, right)
            except ZeroDivisionError:
                raise ModelError(f"dimension '{symbol}' divides by zero") from None
        return None

    return value(tree) if isinstance(tree, ast.BinOp) else None
