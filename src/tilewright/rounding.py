"""Which models round values on the way to their outputs."""

from __future__ import annotations

from tilewright.dtypes import DType
from tilewright.graph import Graph, parse_pipeline


def rounds_values(graph: Graph) -> bool:
    """Whether an operator rounds floats or makes integers of them, as quantised activations do."""
    for op in graph.ops:
        steps = parse_pipeline(op.text("fn")) if op.kind == "map" else ()
        has_float = any(graph.types[name].dtype.is_float for name in op.inputs)
        for fn, args in steps:
            is_integer_cast = fn == "cast" and not DType(args[0]).is_float and args[0] != DType.BOOL
            if fn == "round" or (is_integer_cast and has_float):
                return True
    return False


def rounds_somewhere(graph: Graph) -> bool:
    """Whether values are rounded, by an operator here or by one that the host runs quantised."""
    kinds = {kind for model in graph.host_models.values() for kind in model.op_types}
    return rounds_values(graph) or any("Quant" in kind or "QLinear" in kind for kind in kinds)
