"""Small ONNX models made from nodes and values: for folding, shape inference, probing, host regions."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import (
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    ValueInfoProto,
    helper,
    numpy_helper,
)

from tilewright.dtypes import DType
from tilewright.frontend.model_file import subgraphs_of
from tilewright.frontend.values import Value
from tilewright.graph import Array


@dataclass(frozen=True, slots=True, kw_only=True)
class HostNode:
    """A node that is left to the host."""

    node: NodeProto
    inputs: tuple[tuple[str, Value], ...]
    """Names in `node` (also those its subgraphs capture) and the values they stand for."""
    outputs: tuple[tuple[str, Value], ...]
    opsets: tuple[tuple[str, int], ...]
    label: str
    reason: str
    key: str
    """Identifies the node among all nodes of the model."""


def onnx_type(dtype: DType) -> int:
    """Return ONNX's number of an element type."""
    return int(helper.np_dtype_to_tensor_dtype(dtype.numpy))


def tensor_info(name: str, value: Value) -> ValueInfoProto:
    """Declare a graph input."""
    return helper.make_tensor_value_info(name, onnx_type(value.element), list(value.dims))


def known_tensor(name: str, value: Value) -> TensorProto | None:
    """Return a known value as an initializer, None when it is not known."""
    if value.proto is not None:
        copy = TensorProto()
        copy.CopyFrom(value.proto)
        copy.name = name
        return copy
    if value.data is None:
        return None
    return numpy_helper.from_array(np.ascontiguousarray(value.data).reshape(value.dims), name)


def rename_node(node: NodeProto, names: Mapping[str, str]) -> NodeProto:
    """Return a copy of a node with outer names replaced, in its subgraphs too."""
    copy = NodeProto()
    copy.CopyFrom(node)
    _rename(copy, names)
    return copy


def _rename(node: NodeProto, names: Mapping[str, str]) -> None:
    node.input[:] = [names.get(n, n) for n in node.input]
    node.output[:] = [names.get(n, n) for n in node.output]
    for graph in subgraphs_of(node):
        _rename_captured(graph, names)


def _rename_captured(graph: GraphProto, names: Mapping[str, str]) -> None:
    own = {i.name for i in graph.input} | {t.name for t in graph.initializer}
    own |= {name for node in graph.node for name in node.output}
    outer = {old: new for old, new in names.items() if old not in own}
    for node in graph.node:
        _rename(node, outer)
    for output in graph.output:
        output.name = outer.get(output.name, output.name)


def make_model(
    nodes: Sequence[NodeProto],
    inputs: Sequence[ValueInfoProto],
    outputs: Sequence[ValueInfoProto],
    constants: Sequence[TensorProto],
    opsets: Iterable[tuple[str, int]],
) -> ModelProto:
    """Return a model of nodes in topological order."""
    graph = helper.make_graph(list(nodes), "region", list(inputs), list(outputs), list(constants))
    versions = [helper.make_opsetid(domain, version) for domain, version in opsets]
    # IR 10 is read by every onnxruntime that knows these opsets
    return helper.make_model(graph, opset_imports=versions, ir_version=10)


def single_node_model(
    node: NodeProto, inputs: Sequence[tuple[str, Value]], opsets: Iterable[tuple[str, int]]
) -> ModelProto:
    """Return a model of one node; known inputs become initializers."""
    infos, constants = [], []
    for name, value in dict(inputs).items():
        tensor = known_tensor(name, value)
        if tensor is None:
            infos.append(tensor_info(name, value))
        else:
            constants.append(tensor)
    outputs = [ValueInfoProto(name=n) for n in node.output if n]
    return make_model([node], infos, outputs, constants, opsets)


def run_model(model: ModelProto, feeds: Sequence[Mapping[str, Array]]) -> list[list[Array | None]]:
    """Run a model once per feed in onnxruntime.

    Returns:
        The outputs of each run; None for outputs that are not tensors. A failed run is [].

    Raises:
        RuntimeError: onnxruntime does not accept the model.
    """
    import onnxruntime  # most models need nothing of it

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        # onnxruntime prints when it retries a model that it cannot read
        with contextlib.redirect_stdout(io.StringIO()):
            session = onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
    except Exception as error:  # onnxruntime has no common base class
        raise RuntimeError(str(error)) from None
    results: list[list[Array | None]] = []
    for feed in feeds:
        try:
            found = session.run(None, dict(feed))
        except Exception:  # a probe may be invalid data for the model
            results.append([])
            continue
        results.append(
            [np.asarray(v) if isinstance(v, np.ndarray | np.generic) else None for v in found]
        )
    return results


def infer_types(model: ModelProto, names: Sequence[str]) -> dict[str, tuple[tuple[int, ...], int]]:
    """Return shape and ONNX element type of those names that ONNX's inference determines fully."""
    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except Exception:  # the C++ inference raises bare exceptions; probing decides then
        return {}
    found = {}
    for info in inferred.graph.output:
        tensor = info.type.tensor_type
        if (
            info.name not in names
            or not info.type.HasField("tensor_type")
            or not tensor.HasField("shape")
        ):
            continue
        if all(d.HasField("dim_value") for d in tensor.shape.dim) and tensor.elem_type:
            found[info.name] = (tuple(d.dim_value for d in tensor.shape.dim), tensor.elem_type)
    return found
