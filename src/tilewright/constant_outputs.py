"""Model outputs that do not depend on any input are computed at compile time."""

from __future__ import annotations

from dataclasses import replace

from tilewright.constants import Constants, absent, known
from tilewright.graph import Array, Graph
from tilewright.reference import evaluate_op


def fold_constant_outputs(graph: Graph) -> Graph:
    """Return the graph with such outputs as constants; the ops behind them stay for others."""
    fixed = set(graph.constants)
    for op in graph.ops:
        if all(name in fixed for name in op.inputs):
            fixed.update(op.outputs)
    wanted = {port.tensor for port in graph.outputs if port.tensor in fixed}
    if wanted <= set(graph.constants):
        return graph
    values: dict[str, Array] = {}
    needed = set(wanted)
    for op in reversed(graph.ops):
        if not needed.isdisjoint(op.outputs):
            needed.update(op.inputs)
    for op in graph.ops:
        if not needed.isdisjoint(op.outputs):
            region = graph.host_models[op.text("region")] if op.kind == "host" else None
            inputs = [values[n] if n in values else graph.constants[n] for n in op.inputs]
            results = evaluate_op(op, inputs, graph.types, region)
            values.update(zip(op.outputs, results, strict=True))
    folded = {name: values[name] for name in sorted(wanted) if name in values}
    ops = tuple(op for op in graph.ops if wanted.isdisjoint(op.outputs))
    constants = Constants({**known(graph.constants), **folded}, absent(graph.constants))
    return replace(graph, ops=ops, constants=constants)
