"""Give every model output a tensor of its own."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from types import MappingProxyType

from tilewright.graph import Graph, Op


def separate_outputs(graph: Graph) -> Graph:
    """Insert copies so that no output is an input, a constant, another output or a view of these.

    A view is a chain of reshapes. Afterwards every output is made by an op and owns its memory.
    What a host region makes may be an output as it is, but a view of it may not.
    """
    views = {op.output: op.inputs[0] for op in graph.ops if op.kind == "reshape"}
    by_host = {name for op in graph.ops if op.kind == "host" for name in op.outputs}
    taken = {port.tensor for port in graph.inputs} | set(graph.constants)

    def root(name: str) -> str:
        while name in views:
            name = views[name]
        return name

    ops, types, ports = list(graph.ops), dict(graph.types), []
    for port in graph.outputs:
        source = root(port.tensor)
        is_view_of_host = source in by_host and source != port.tensor
        if source not in taken and not is_view_of_host:
            taken.add(source)
            ports.append(port)
            continue
        copy = _fresh(f"{port.tensor}.output", types)
        types[copy] = types[port.tensor]
        attrs = MappingProxyType({"fn": "identity"})
        ops.append(Op(name=copy, kind="map", inputs=(port.tensor,), outputs=(copy,), attrs=attrs))
        ports.append(replace(port, tensor=copy))
    return replace(graph, ops=tuple(ops), types=MappingProxyType(types), outputs=tuple(ports))


def _fresh(name: str, taken: Collection[str]) -> str:
    while name in taken:
        name += "_"
    return name
