"""Turns an ONNX model into a graph of core operators, node by node.

For each node, in topological order, the first of these that works:

1. an importer for its type (which evaluates what is known);
2. evaluation in onnxruntime, when all inputs are known;
3. the function body that ONNX defines for the operator;
4. the host.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto

from tilewright.constants import absent_error
from tilewright.dtypes import DType
from tilewright.errors import CompileError, ModelError, ShapeError, UnsupportedOpError
from tilewright.frontend import (
    constants,
    ops_contract,
    ops_index,
    ops_math,
    ops_pool,
    ops_quant,
    ops_reduce,
    ops_resize,
    ops_shape,
    ops_window,
)
from tilewright.frontend.builder import Builder
from tilewright.frontend.checks import (
    captured_names,
    check_node,
    find_schema,
    label_of,
    sorted_nodes,
)
from tilewright.frontend.constants import value_of_proto
from tilewright.frontend.folding import fold_node
from tilewright.frontend.functions import function_body
from tilewright.frontend.host import find_host_types
from tilewright.frontend.model_file import MAX_OPSET, decode_sparse, subgraphs_of
from tilewright.frontend.onnx_nodes import HostNode
from tilewright.frontend.ports import bind_inputs
from tilewright.frontend.registry import ImportFunction, NodeContext, collect
from tilewright.frontend.values import FallbackError, Value
from tilewright.graph import Op, Port

MAX_DEPTH = 32
"""Function bodies and branches nest at most this deep."""

_DATA_ERRORS = (
    ValueError,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    ZeroDivisionError,
    MemoryError,
)


def all_importers() -> Mapping[tuple[str, str], ImportFunction]:
    """Return (domain, operator type) -> importer."""
    return collect(
        (
            constants,
            ops_contract,
            ops_index,
            ops_math,
            ops_pool,
            ops_quant,
            ops_reduce,
            ops_resize,
            ops_shape,
            ops_window,
        )
    )


@dataclass(slots=True)
class Scope:
    """Names visible in a graph, a branch or a function body."""

    values: dict[str, Value]
    opsets: Mapping[str, int]
    prefix: str = ""
    depth: int = 0


@dataclass(slots=True)
class ModelImport:
    """The state of one import."""

    model: ModelProto
    b: Builder
    forced: frozenset[str]
    """Keys of nodes that must run on the host, since host-only values pass them."""
    importers: Mapping[tuple[str, str], ImportFunction]
    hosts: dict[str, HostNode] = field(default_factory=dict)
    origin: dict[str, str] = field(default_factory=dict)
    """Operator name -> key of the node it came from."""
    notes: list[str] = field(default_factory=list)

    def run(
        self, dims: Mapping[str, int]
    ) -> tuple[tuple[Port, ...], tuple[tuple[str, Value], ...]]:
        """Import the whole model; return its input ports and its output values by name."""
        graph = self.model.graph
        reserve_names(self.b, graph)
        opsets = {
            ("" if o.domain == "ai.onnx" else o.domain): o.version for o in self.model.opset_import
        }
        scope = Scope({}, MappingProxyType(opsets))
        ports = bind_inputs(self.b, graph, dims)
        for port in ports:
            scope.values[port.name] = Value(name=port.tensor, shape=port.shape, dtype=port.dtype)
        self.add_initializers(graph, scope)
        self.import_nodes(sorted_nodes(graph), scope)
        return ports, tuple((o.name, scope.values[o.name]) for o in graph.output)

    def add_initializers(self, graph: GraphProto, scope: Scope) -> None:
        """Make initializers known values."""
        for tensor in graph.initializer:
            stem = (
                tensor.name if not scope.prefix else self.b.unique(f"{scope.prefix}{tensor.name}")
            )
            self.b.names.discard(stem)
            scope.values[tensor.name] = value_of_proto(self.b, tensor, stem)
        for sparse in graph.sparse_initializer:
            dense = decode_sparse(sparse, self.b.max_constant_bytes)
            scope.values[sparse.values.name] = self.b.constant(dense, f"{sparse.values.name}.dense")

    def import_nodes(self, nodes: Sequence[NodeProto], scope: Scope) -> None:
        """Import nodes in topological order into a scope."""
        for index, node in enumerate(nodes):
            label = f"{scope.prefix}{label_of(node, index)}"
            key = f"{scope.prefix}{index}"
            self.b.label = label
            start = len(self.b.ops)
            try:
                results = self.import_node(node, scope, label, key)
            except _DATA_ERRORS as error:
                raise ModelError(
                    f"{node.op_type} '{label}': cannot be imported: {str(error)[:300]}"
                ) from error
            except CompileError as error:
                if not str(error).startswith((node.op_type, label)) or not str(error).startswith(
                    node.op_type
                ):
                    raise type(error)(f"{node.op_type} {error}") from error
                raise
            self.bind(node, results, scope, start)
            for op in self.b.ops[start:]:
                self.origin.setdefault(op.name, key)

    def bind(self, node: NodeProto, results: Sequence[Value], scope: Scope, start: int) -> None:
        """Give a node's results their ONNX names."""
        if len(results) < len([n for n in node.output if n]):
            raise ModelError(
                f"{self.b.label}: {node.op_type} has {len(results)} outputs, {len(node.output)} are read"
            )
        for name, value in zip(node.output, results, strict=False):
            if name:
                scope.values[name] = self.renamed(value, f"{scope.prefix}{name}", start)

    def renamed(self, value: Value, wanted: str, start: int) -> Value:
        """Rename a tensor that an operator since `start` made to its ONNX name."""
        b, old = self.b, value.name
        made = any(old in op.outputs and op.kind != "host" for op in b.ops[start:])
        if not made or wanted in b.types:
            return value
        b.names.add(wanted)
        for i in range(start, len(b.ops)):
            op = b.ops[i]
            if old in op.inputs or old in op.outputs:
                b.ops[i] = replace(
                    op,
                    inputs=tuple(wanted if n == old else n for n in op.inputs),
                    outputs=tuple(wanted if n == old else n for n in op.outputs),
                )
        b.types[wanted] = b.types.pop(old)
        if old in b.missing:
            b.missing[wanted] = b.missing.pop(old)
        return replace(value, name=wanted)

    def import_node(self, node: NodeProto, scope: Scope, label: str, key: str) -> tuple[Value, ...]:
        """Import one node by the first way that works."""
        domain = "" if node.domain == "ai.onnx" else node.domain
        opset = scope.opsets.get(domain, 0)
        if not opset:
            raise ModelError(f"'{label}': domain '{domain}' is not in the model's opset imports")
        schema = find_schema(node, opset)
        if schema is None and not domain:
            raise UnsupportedOpError(
                f"'{label}': opset {opset} has no operator of this type; check the model"
            )
        check_node(node, schema, f"{label}")
        inputs = tuple(scope.values[n] if n else None for n in node.input)
        captured = [(n, scope.values[n]) for n in captured_names(node)]
        if node.op_type == "If" and not domain and key not in self.forced:
            condition = inputs[0]
            if condition is not None and condition.data is not None:
                return self.inline_branch(
                    node, bool(np.asarray(condition.data).reshape(-1)[0]), scope, label
                )
        reason = self.host_reason(node, inputs, key, schema.since_version if schema else 0)
        start, known_notes = len(self.b.ops), len(self.notes)
        if reason is None:
            function = self.importers.get((domain, node.op_type))
            try:
                if function is not None:
                    found = function(NodeContext(node, opset, self.b, inputs))
                    return found if isinstance(found, tuple) else (found,)
                reason = "no importer for this operator"
            except FallbackError as error:
                reason = str(error)
                del self.b.ops[start:]
        bindings = [
            (n, v) for n, v in zip(node.input, inputs, strict=True) if v is not None
        ] + captured
        opsets = tuple(scope.opsets.items())
        if not any(True for _ in subgraphs_of(node)):
            folded = fold_node(self.b, node, bindings, opsets) if key not in self.forced else None
            if folded is not None:
                return folded
            if key not in self.forced and all(v is None or v.is_tensor for v in inputs):
                inlined = self.inline_function(node, inputs, scope, label, opset)
                if inlined is not None:
                    return inlined
        if missing := self.b.missing_of(v for _, v in bindings if v.proto is None):
            raise absent_error(f"{label}: evaluation at compile time", missing)
        assert len(self.notes) == known_notes, "notes of an attempt that failed"
        return self.leave_to_host(node, bindings, opsets, label, reason, key)

    def host_reason(
        self, node: NodeProto, inputs: Sequence[Value | None], key: str, since: int
    ) -> str | None:
        """Return why a node cannot even be tried natively."""
        if key in self.forced:
            return "host-only values pass through its neighbours"
        if node.domain in ("", "ai.onnx") and since > MAX_OPSET:
            return f"this form of the operator is newer than opset {MAX_OPSET}"
        if any(v is not None and not v.is_tensor for v in inputs):
            return "an input is a sequence, a string or of a shape that depends on data"
        return None

    def inline_branch(
        self, node: NodeProto, taken: bool, scope: Scope, label: str
    ) -> tuple[Value, ...]:
        """Import the branch that a known condition selects."""
        wanted = "then_branch" if taken else "else_branch"
        (graph,) = (
            a.g for a in node.attribute if a.name == wanted and a.type == AttributeProto.GRAPH
        )
        self.notes.append(
            f"If '{label}': the condition is constant, only the {wanted.replace('_', ' ')} is kept"
        )
        inner = Scope(dict(scope.values), scope.opsets, f"{label}/", scope.depth + 1)
        if inner.depth > MAX_DEPTH:
            raise ModelError(f"'{label}': branches nest deeper than {MAX_DEPTH}")
        self.add_initializers(graph, inner)
        self.import_nodes(sorted_nodes(graph, scope.values), inner)
        return tuple(inner.values[o.name] for o in graph.output)

    def inline_function(
        self, node: NodeProto, inputs: Sequence[Value | None], scope: Scope, label: str, opset: int
    ) -> tuple[Value, ...] | None:
        """Import the body that ONNX defines for an operator; None when there is none."""
        if scope.depth >= MAX_DEPTH:
            return None
        body = function_body(node, inputs, opset)
        if body is None:
            return None
        opsets = dict(scope.opsets) | {o.domain: o.version for o in body.opset_import}
        inner = Scope({}, MappingProxyType(opsets), f"{label}/", scope.depth + 1)
        for name, value in zip(body.input, inputs, strict=False):
            if value is not None:
                inner.values[name] = value
        for node_ in body.node:
            for i, name in enumerate(node_.input):
                # formal inputs that the caller leaves out
                if name in body.input and name not in inner.values:
                    node_.input[i] = ""
        graph = GraphProto(node=body.node)
        self.import_nodes(sorted_nodes(graph, inner.values), inner)
        self.b.label = label
        unnamed = Value(name="", shape=None, dtype=None)
        return tuple(inner.values.get(n, unnamed) for n in body.output[: len(node.output)])

    def leave_to_host(
        self,
        node: NodeProto,
        bindings: Sequence[tuple[str, Value]],
        opsets: tuple[tuple[str, int], ...],
        label: str,
        reason: str,
        key: str,
    ) -> tuple[Value, ...]:
        """Make a host operator for a node."""
        names = tuple(self.b.unique(f"{label}.{name or 'unused'}") for name in node.output)
        named = [(n, out) for n, out in zip(node.output, names, strict=True) if n]
        draft = HostNode(
            node=node,
            inputs=tuple(bindings),
            outputs=tuple((n, Value(name=out, shape=None, dtype=None)) for n, out in named),
            opsets=opsets,
            label=label,
            reason=reason,
            key=key,
        )
        types, probed = find_host_types(draft, self.hosts)
        outputs = []
        for formal, out in named:
            if out_type := types.get(formal):
                outputs.append((formal, self.b.tensor(out, *out_type)))
            else:
                outputs.append((formal, Value(name=out, shape=None, dtype=None)))
        if probed:
            self.notes.append(
                f"{node.op_type} '{label}': output shapes come from trial runs, checked at run time"
            )
        op_name = self.b.unique(f"{label}.host")
        self.hosts[op_name] = replace(draft, outputs=tuple(outputs))
        sources = dict.fromkeys(v.name for _, v in bindings if v.data is None and v.proto is None)
        self.b.ops.append(
            Op(
                name=op_name,
                kind="host",
                inputs=tuple(sources),
                outputs=tuple(v.name for _, v in outputs),
            )
        )
        by_name = dict(outputs)
        unnamed = Value(name="", shape=None, dtype=None)
        return tuple(by_name.get(n, unnamed) for n in node.output)


def reserve_names(b: Builder, graph: GraphProto) -> None:
    """Keep generated names away from every name in the model."""
    b.names.update(i.name for i in graph.input)
    b.names.update(t.name for t in graph.initializer)
    for node in graph.node:
        b.names.update(node.output)
        for inner in subgraphs_of(node):
            reserve_names(b, inner)


def check_outputs(outputs: Sequence[tuple[str, Value]]) -> None:
    """Raise unless every output is a tensor of known shape."""
    for name, value in outputs:
        if value.dtype is None and value.shape is not None:
            raise UnsupportedOpError(
                f"output '{name}' has an element type that tensors cannot have"
            )
        if not value.is_tensor:
            raise ShapeError(
                f"output '{name}' is not a tensor of static shape: it is a sequence or its shape "
                "depends on data; cut the model before it"
            )


def port_of(name: str, value: Value) -> Port:
    """Return the port of an output."""
    dtype: DType = value.element
    return Port(name=name, tensor=value.name, shape=value.dims, dtype=dtype)
