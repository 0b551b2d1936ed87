"""Model outputs that do not depend on any input are computed at compile time."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

from tilewright.graph import Array, Graph
from tilewright.reference import evaluate_op


def fold_constant_outputs(graph: Graph) -> Graph:
    """Return the graph with such outputs as constants; the ops behind them stay for others."""
    known = set(graph.constants)
    for op in graph.ops:
        if all(name in known for name in op.inputs):
            known.update(op.outputs)
    wanted = {port.tensor for port in graph.outputs if port.tensor in known}
    if wanted <= set(graph.constants):
        return graph
    values: dict[str, Array] = dict(graph.constants)
    needed = set(wanted)
    for op in reversed(graph.ops):
        if not needed.isdisjoint(op.outputs):
            needed.update(op.inputs)
    for op in graph.ops:
        if not needed.isdisjoint(op.outputs):
            region = graph.host_models[op.text("region")] if op.kind == "host" else None
            results = evaluate_op(op, [values[name] for name in op.inputs], graph.types, region)
            values.update(zip(op.outputs, results, strict=True))
    folded = {name: values[name] for name in sorted(wanted)}
    ops = tuple(op for op in graph.ops if wanted.isdisjoint(op.outputs))
    constants = MappingProxyType({**graph.constants, **folded})
    return replace(graph, ops=ops, constants=constants)
