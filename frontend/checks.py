"""Checks of a graph's structure: names, order, arity, attributes."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from typing import Any

import onnx
from onnx import AttributeProto, GraphProto, NodeProto

from tilewright.errors import ModelError
from tilewright.frontend.model_file import subgraphs_of

DEFAULT_DOMAINS = ("", "ai.onnx")


def label_of(node: NodeProto, index: int) -> str:
    """Return the name that messages and operators use for a node."""
    return node.name or f"{node.op_type}_{index}"


def captured_names(node: NodeProto) -> tuple[str, ...]:
    """Return the outer names that a node's subgraphs read, in order of first use."""
    found: dict[str, None] = {}
    for graph in subgraphs_of(node):
        found.update(dict.fromkeys(free_names(graph)))
    return tuple(found)


def free_names(graph: GraphProto) -> tuple[str, ...]:
    """Return the names that a graph reads and does not define."""
    inside = {i.name for i in graph.input} | {t.name for t in graph.initializer}
    inside |= {s.values.name for s in graph.sparse_initializer}
    inside |= {name for node in graph.node for name in node.output}
    used: dict[str, None] = {}
    for node in graph.node:
        used.update(dict.fromkeys((*node.input, *captured_names(node))))
    used.update(dict.fromkeys(o.name for o in graph.output))
    return tuple(name for name in used if name and name not in inside)


def sorted_nodes(graph: GraphProto, outer: Iterable[str] = ()) -> tuple[NodeProto, ...]:
    """Return a graph's nodes in topological order, stable for nodes that are in order already.

    Args:
        graph: The graph.
        outer: Names defined outside that its nodes may read.

    Raises:
        ModelError: A name is defined twice or never, or nodes form a cycle.
    """
    known = set(outer)
    named = [
        *(i.name for i in graph.initializer),
        *(s.values.name for s in graph.sparse_initializer),
    ]
    _check_unique([i.name for i in graph.input], "graph input")
    _check_unique(named, "initializer")
    known.update(named)
    known.update(i.name for i in graph.input)
    producer: dict[str, int] = {}
    for index, node in enumerate(graph.node):
        for name in filter(None, node.output):
            if name in producer or name in known:
                raise ModelError(
                    f"{label_of(node, index)}: output '{name}' is already defined; names must be unique"
                )
            producer[name] = index
    waiting = [0] * len(graph.node)
    consumers: list[list[int]] = [[] for _ in graph.node]
    ready: list[int] = []
    for index, node in enumerate(graph.node):
        sources = set()
        for name in filter(None, (*node.input, *captured_names(node))):
            if name in producer:
                sources.add(producer[name])
            elif name not in known:
                raise ModelError(f"{label_of(node, index)}: input '{name}' is not defined anywhere")
        for source in sorted(sources):
            consumers[source].append(index)
        waiting[index] = len(sources)
        if not sources:
            ready.append(index)
    order = []
    while ready:
        index = heapq.heappop(ready)
        order.append(index)
        for consumer in consumers[index]:
            waiting[consumer] -= 1
            if not waiting[consumer]:
                heapq.heappush(ready, consumer)
    if len(order) < len(graph.node):
        stuck = next(i for i in range(len(graph.node)) if waiting[i])
        raise ModelError(
            f"{label_of(graph.node[stuck], stuck)}: nodes form a cycle; a graph must be acyclic"
        )
    for output in graph.output:
        if output.name not in producer and output.name not in known:
            raise ModelError(f"output '{output.name}' is not defined by any node")
    return tuple(graph.node[i] for i in order)


def _check_unique(names: Sequence[str], what: str) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ModelError(f"{what} '{name}' is defined twice; names must be unique")
        seen.add(name)


def find_schema(node: NodeProto, opset: int) -> onnx.defs.OpSchema | None:
    """Return the schema of a node's operator, None when ONNX does not define it."""
    domain = "" if node.domain in DEFAULT_DOMAINS else node.domain
    try:
        return onnx.defs.get_schema(node.op_type, opset, domain)
    except onnx.defs.SchemaError:
        return None


def check_node(node: NodeProto, schema: onnx.defs.OpSchema | None, label: str) -> None:
    """Raise ModelError when a node contradicts its operator's schema."""
    if schema is None:
        return
    for what, count, low, high in (
        ("inputs", len(node.input), schema.min_input, schema.max_input),
        ("outputs", len(node.output), schema.min_output, schema.max_output),
    ):
        if not low <= count <= high:
            expected = (
                f"{low}" if low == high else f"{low} to {high if high < 2**31 - 1 else 'many'}"
            )
            raise ModelError(f"{node.op_type} '{label}': {count} {what}, expected {expected}")
    for index, formal in enumerate(schema.inputs[: len(node.input)]):
        if (
            formal.option == onnx.defs.OpSchema.FormalParameterOption.Single
            and not node.input[index]
        ):
            raise ModelError(
                f"{node.op_type} '{label}': input {index} ('{formal.name}') must not be empty"
            )
    present = {a.name: a for a in node.attribute}
    for name, attribute in schema.attributes.items():
        if name not in present:
            if attribute.required:
                raise ModelError(f"{node.op_type} '{label}': attribute '{name}' is missing")
            continue
        found = present[name]
        if found.ref_attr_name or found.type == AttributeProto.UNDEFINED:
            raise ModelError(f"{node.op_type} '{label}': attribute '{name}' has no value")
        expected_type: Any = attribute.type
        if found.type != int(expected_type.value):
            raise ModelError(f"{node.op_type} '{label}': attribute '{name}' has the wrong type")
