"""Function bodies that ONNX itself defines for operators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import onnx
from onnx import AttributeProto, FunctionProto, NodeProto, TypeProto, helper

from tilewright.frontend.checks import find_schema
from tilewright.frontend.model_file import MAX_OPSET
from tilewright.frontend.onnx_nodes import onnx_type
from tilewright.frontend.values import Value


def function_body(
    node: NodeProto, inputs: Sequence[Value | None], opset: int
) -> FunctionProto | None:
    """Return an operator's function body with the node's attributes filled in, None if there is none."""
    # the stub of OpSchema lacks the methods for function bodies
    schema: Any = find_schema(node, opset)
    if schema is None or schema.since_version > MAX_OPSET:
        return None
    data = b""
    if schema.has_context_dependent_function:
        types = [_type_bytes(v) for v in inputs]
        data = _newest(
            schema.context_dependent_function_opset_versions,
            opset,
            lambda v: schema.get_context_dependent_function_with_opset_version(
                v, node.SerializeToString(), types
            ),
        )
    if not data and schema.has_function:
        data = _newest(
            schema.function_opset_versions, opset, schema.get_function_with_opset_version
        )
    if not data:
        return None
    body = FunctionProto()
    body.ParseFromString(data)
    values = {d.name: d for d in body.attribute_proto} | {a.name: a for a in node.attribute}
    for name, formal in schema.attributes.items():
        if name not in values and formal.default_value.type != AttributeProto.UNDEFINED:
            values[name] = formal.default_value
    for inner in body.node:
        _fill_attributes(inner, values)
    return body


def _newest(versions: Sequence[int], opset: int, get: Callable[[int], bytes]) -> bytes:
    """Return the body of the newest version that the opset allows, b"" if it has none."""
    for version in sorted((v for v in versions if v <= opset), reverse=True):
        try:
            return get(version)
        except (onnx.defs.SchemaError, RuntimeError, TypeError, ValueError):
            continue
    return b""


def _type_bytes(value: Value | None) -> bytes:
    kind = TypeProto()
    if value is not None:
        kind = helper.make_tensor_type_proto(onnx_type(value.element), list(value.dims))
    return bytes(kind.SerializeToString())


def _fill_attributes(node: NodeProto, values: dict[str, AttributeProto]) -> None:
    """Replace references to the function's attributes by their values; absent ones are dropped."""
    filled = []
    for a in node.attribute:
        if a.ref_attr_name and a.ref_attr_name not in values:
            continue
        copy = AttributeProto()
        copy.CopyFrom(values[a.ref_attr_name] if a.ref_attr_name else a)
        copy.name = a.name
        filled.append(copy)
    del node.attribute[:]
    node.attribute.extend(filled)
