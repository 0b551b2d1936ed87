"""Evaluates nodes whose inputs are all known and that no importer could evaluate."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from onnx import NodeProto

from tilewright.frontend.builder import Builder
from tilewright.frontend.onnx_nodes import infer_types, run_model, single_node_model
from tilewright.frontend.values import Value

_NOT_FOLDED = frozenset(
    (
        "Loop Scan If RandomNormal RandomUniform RandomNormalLike RandomUniformLike "
        "Multinomial Bernoulli Dropout"
    ).split()
)
MAX_UNKNOWN_BYTES = 1 << 24
"""Inputs of nodes whose output size is unknown beforehand may have this size."""


def fold_node(
    b: Builder,
    node: NodeProto,
    inputs: Sequence[tuple[str, Value]],
    opsets: Iterable[tuple[str, int]],
) -> tuple[Value, ...] | None:
    """Return a node's outputs as known values, None when it cannot or must not be evaluated.

    Raises:
        ModelError: The result would exceed the budget for constants.
    """
    if node.op_type in _NOT_FOLDED or any(v.data is None for _, v in inputs) or not inputs:
        return None
    names = [n for n in node.output if n]
    model = single_node_model(node, inputs, opsets)
    types = infer_types(model, names)
    if len(types) < len(names):
        if (
            node.op_type.endswith("Window")
            or sum(v.inner.size_bytes for _, v in inputs) > MAX_UNKNOWN_BYTES
        ):
            return None
    else:
        elements = 0
        for shape, _ in types.values():
            count = 1
            for d in shape:
                count *= d
            elements += count
        b.charge(elements * 4)
    try:
        (results,) = run_model(model, [{}])
    except RuntimeError:
        return None
    if len(results) != len(names):
        return None
    found = iter(results)
    values = []
    for name in node.output:
        array = next(found) if name else None
        if name and (array is None or array.dtype.kind not in "fiubV"):
            return None
        # outputs that the node does not name get a value that nothing reads
        values.append(
            b.constant(np.zeros(1, np.bool_) if array is None else array, f"{name}.value")
        )
    return tuple(values)
