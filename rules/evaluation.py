"""Alternatives evaluated with the reference semantics: what soundness of rules is checked with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tilewright.dtypes import DType
from tilewright.graph import PROLOGUE, Array, Graph, Op, TensorType, third_operands
from tilewright.reference import after_prologue, evaluate_op, run_pipeline
from tilewright.rules.alternatives import KEEP, Alternatives, LogicalNode
from tilewright.rules.inference import infer_type


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A node or named tensor whose value differs from the value of its class."""

    what: str
    origin: str
    class_number: int
    largest_error: float


def evaluate_product(op: Op, inputs: Sequence[Array], dtype: DType) -> Array:
    """Evaluate a fused matmul, conv or chain: the product, rounded, then its epilogue.

    Args:
        op: Has the attributes `epilogue` and `product_dtype`.
        inputs: Those of the product, perhaps one more; then the scale, if it dequantises its weights.
        dtype: Element type of the result.
    """
    third = third_operands(op.attrs, inputs)
    inputs = after_prologue(op, inputs)
    own = inputs[: len(inputs) - len(third)]
    left_out = ("epilogue", "product_dtype", PROLOGUE)
    attrs = {k: v for k, v in op.attrs.items() if k not in left_out}
    types = [TensorType(x.shape, DType.from_numpy(x.dtype)) for x in own]
    product_type = infer_type(op.kind, attrs, types, DType(op.text("product_dtype")))
    plain = replace(op, attrs=attrs, outputs=("product",))
    (product,) = evaluate_op(plain, own, {"product": product_type})
    result = run_pipeline(op.text("epilogue"), (product, *third))
    assert result.dtype == dtype.numpy, f"epilogue gives {result.dtype}, expected {dtype}"
    return np.asarray(result)


def evaluate(op: Op, inputs: Sequence[Array], result: TensorType) -> Array:
    """Evaluate an operator with one result, which may have an epilogue and is no host region."""
    if "epilogue" in op.attrs:
        return evaluate_product(op, inputs, result.dtype)
    return evaluate_op(op, inputs, {op.output: result})[0]


def evaluate_node(node: LogicalNode, inputs: Sequence[Array], result: TensorType) -> Array:
    """Evaluate a node with one result."""
    if node.kind == KEEP:
        return inputs[0]
    op = Op(name=node.op_name, kind=node.kind, inputs=(), outputs=("result",), attrs=node.attrs)
    return evaluate(op, inputs, result)


def _reference_values(graph: Graph, leaves: Mapping[str, Array]) -> dict[str, Array]:
    """Return the value of every tensor of a graph."""
    values = dict(leaves)
    for op in graph.ops:
        if "epilogue" in op.attrs:
            operands = [values[name] for name in op.inputs]
            values[op.output] = evaluate_product(op, operands, graph.types[op.output].dtype)
            continue
        host = graph.host_models[op.text("region")] if op.kind == "host" else None
        results = evaluate_op(op, [values[name] for name in op.inputs], graph.types, host)
        values.update(zip(op.outputs, results, strict=True))
    return values


def _error(found: Array, expected: Array) -> float:
    """Return the largest error relative to the largest finite magnitude; 0 for equal bits."""
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return float("inf")
    wide_found, wide_expected = found.astype(np.float64), expected.astype(np.float64)
    if np.array_equal(wide_found, wide_expected, equal_nan=True):
        return 0.0
    with np.errstate(all="ignore"):
        scale = max(float(np.max(np.abs(wide_expected))), 1.0)
        error = float(np.max(np.abs(wide_found - wide_expected))) / scale
    return error if np.isfinite(error) else float("inf")


def disagreements(
    graph: Graph, alternatives: Alternatives, leaves: Mapping[str, Array], tolerance: float
) -> tuple[Disagreement, ...]:
    """Return the nodes and tensors that do not compute the value of their class.

    The value of a class is that of its first named tensor, evaluated as in the graph, or else that of its
    first node.

    Args:
        graph: The block graph.
        alternatives: What `saturate` returned for it.
        leaves: Values of the graph's inputs and constants, by tensor name.
        tolerance: Largest error, relative to the largest magnitude of a tensor; 0 asks for equal values.
    """
    reference = _reference_values(graph, leaves)
    found = []
    values: dict[int, Array] = {}
    for tensor_class in alternatives.classes:
        for name in tensor_class.names:
            value = values.setdefault(tensor_class.number, reference[name])
            error = _error(reference[name], value)
            if error > tolerance:
                found.append(Disagreement(f"tensor '{name}'", "", tensor_class.number, error))
    types = {c.number: c.type for c in alternatives.classes}
    for node in alternatives.nodes:
        if node.kind == "host":
            continue  # only the graph makes them, and the reference has run them
        result = evaluate_node(node, [values[arg] for arg in node.args], types[node.result])
        value = values.setdefault(node.result, result)
        error = _error(result, value)
        if error > tolerance:
            what = f"{node.kind} {dict(node.attrs)} of {node.args}"
            found.append(Disagreement(what, node.origin, node.result, error))
    return tuple(found)
