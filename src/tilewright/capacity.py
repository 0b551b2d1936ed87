"""Refuse models that no plan can hold before any plan is looked for."""

from __future__ import annotations

from tilewright.errors import InfeasibleError
from tilewright.graph import Graph
from tilewright.hwmodel.target import Target


def least_dram_bytes(graph: Graph) -> int:
    """Return bytes that every program of a graph keeps in DRAM: weights, inputs and outputs.

    Weights are in the program's memory image even when tiles keep copies of them. Weights that only
    slices and gathers read are left out, since rules may replace them by smaller ones.
    """
    read = {
        name
        for op in graph.ops
        for position, name in enumerate(op.inputs)
        if not (op.kind in ("slice", "gather") and position == 0)
    }
    names = {name for name in graph.constants if name in read}
    names |= {port.tensor for port in (*graph.inputs, *graph.outputs)}
    return sum(graph.types[name].size_bytes for name in sorted(names))


def check_capacity(graph: Graph, target: Target) -> None:
    """Check that the weights and the interface of a model fit the target's DRAM.

    Raises:
        InfeasibleError: They do not; says demand, limit and shortfall.
    """
    demand, limit = least_dram_bytes(graph), target.dram.size_bytes
    if demand > limit:
        raise InfeasibleError(
            f"model '{graph.name}' on '{target.name}': weights, inputs and outputs need "
            f"{demand:_} bytes of DRAM, the target has {limit:_}, {demand - limit:_} short; "
            "choose a target with more DRAM or a smaller model"
        )
