"""Give every model output a tensor of its own."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from types import MappingProxyType

from tilewright.graph import Graph, Op, Port


def separate_outputs(graph: Graph) -> Graph:
    """Insert copies so that no output is an input, a constant, another output or a view of one of these.

    A view is a chain of reshapes. Afterwards every output is made by an op and owns its memory.
    """
    views = {op.output: op.inputs[0] for op in graph.ops if op.kind == "reshape"}
    taken = {port.tensor for port in graph.inputs} | set(graph.constants)
    taken |= {name for op in graph.ops if op.kind == "host" for name in op.outputs}

    def root(name: str) -> str:
        while name in views:
            name = views[name]
        return name

    ops, types, ports = list(graph.ops), dict(graph.types), []
    for port in graph.outputs:
        source = root(port.tensor)
        is_view = source != port.tensor
        if port.tensor not in taken and source not in taken:
            taken |= {port.tensor, source}
            ports.append(port)
            continue
        if not is_view and any(op.kind == "host" and port.tensor in op.outputs for op in graph.ops):
            if port.tensor not in {p.tensor for p in ports}:
                ports.append(port)
                continue
        copy = _fresh(f"{port.tensor}.output", types)
        types[copy] = types[port.tensor]
        ops.append(
            Op(name=copy, kind="map", inputs=(port.tensor,), outputs=(copy,), attrs=MappingProxyType({"fn": "identity"}))
        )
        ports.append(Port(name=port.name, tensor=copy, shape=port.shape, dtype=port.dtype))
    return replace(graph, ops=tuple(ops), types=MappingProxyType(types), outputs=tuple(ports))


def _fresh(name: str, taken: Collection[str]) -> str:
    while name in taken:
        name += "_"
    return name
