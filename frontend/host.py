"""Host regions: types of what they compute, and merging of neighbours into one model.

Operators are layered: a native operator comes one layer after the last host operator it depends on.
Host operators of one layer that exchange tensors form one region; the graph of regions is acyclic by
construction, and no two regions of a layer could exchange anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from tilewright.dtypes import DType
from tilewright.errors import UnsupportedOpError
from tilewright.frontend.onnx_nodes import (
    HostNode,
    infer_types,
    known_tensor,
    make_model,
    rename_node,
    run_model,
    tensor_info,
)
from tilewright.frontend.values import Value
from tilewright.graph import Array, HostModel, Op

HostType = tuple[tuple[int, ...], DType]


_DATA_DEPENDENT = frozenset({"NonMaxSuppression", "NonZero", "Unique", "Compress", "StringSplit"})
"""The output shape follows the data whatever trial runs say."""
_MISINFERRED = frozenset({"STFT"})
"""ONNX's inference ignores the default of `onesided`."""


MAX_TRIAL_BYTES = 1 << 26
"""Regions with larger inputs are not tried, [bytes]."""


class RetryWithHost(Exception):  # noqa: N818 - a signal, not an error
    """Nodes that host-only values pass through must run on the host too; holds their keys."""

    def __init__(self, keys: frozenset[str]) -> None:
        super().__init__("import again")
        self.keys = keys


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """An ONNX model of host nodes and the values it exchanges with the graph."""

    model: HostModel
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]


def build_region(nodes: Sequence[HostNode], outputs: Sequence[Value]) -> Region:
    """Return the model of host nodes in topological order that computes some of their values."""
    produced = {v.name: v for node in nodes for _, v in node.outputs}
    protos: list[NodeProto] = []
    constants: dict[str, TensorProto] = {}
    inputs: dict[str, Value] = {}
    views: set[str] = set()
    for node in nodes:
        names: dict[str, str] = {}
        for formal, value in node.inputs:
            names[formal] = _local_name(value, produced, protos, views, constants, inputs)
        names.update({formal: value.name for formal, value in node.outputs})
        copy = rename_node(node.node, names)
        copy.name = node.label
        protos.append(copy)
    infos = [ValueInfoProto(name=v.name) for v in outputs]
    model = make_model(
        protos,
        [tensor_info(n, v) for n, v in inputs.items()],
        infos,
        list(constants.values()),
        nodes[0].opsets,
    )
    host_model = HostModel(
        model_bytes=model.SerializeToString(),
        input_names=tuple(inputs),
        input_shapes=tuple(v.dims for v in inputs.values()),
        output_names=tuple(v.name for v in outputs),
        op_types=tuple(sorted({n.node.op_type for n in nodes})),
        reason="; ".join(dict.fromkeys(f"{n.node.op_type} '{n.label}': {n.reason}" for n in nodes)),
    )
    return Region(model=host_model, inputs=tuple(inputs.values()), outputs=tuple(outputs))


def _local_name(
    value: Value,
    produced: Mapping[str, Value],
    protos: list[NodeProto],
    views: set[str],
    constants: dict[str, TensorProto],
    inputs: dict[str, Value],
) -> str:
    """Return what a value is called in a region's model, adding what defines it."""
    # one tensor of the graph may be () and (1,) for ONNX: each form has its own name
    name = value.name if value.shape != () else f"{value.name}:scalar"
    if value.data is not None or value.proto is not None:
        tensor = known_tensor(name, value)
        assert tensor is not None, f"{name} is known"
        constants[name] = tensor
        return name
    if value.name not in produced:
        inputs[name] = value
        return name
    maker = produced[value.name]
    if maker.shape == value.shape or not value.is_tensor or not maker.is_tensor:
        return value.name
    view = f"{value.name}:view{len(value.dims)}"
    if view not in views:
        views.add(view)
        target = numpy_helper.from_array(np.array(value.dims, np.int64), f"{view}:shape")
        constants[target.name] = target
        protos.append(helper.make_node("Reshape", [value.name, target.name], [view]))
    return view


def find_host_types(
    draft: HostNode, hosts: Mapping[str, HostNode]
) -> tuple[dict[str, HostType], bool]:
    """Return the types of a host node's outputs by formal name, and whether trial runs were needed.

    ONNX's inference comes first; what it leaves open is taken from trial runs that agree. Outputs that
    are not tensors, or whose shape differs between runs, are left out.
    """
    nodes = _chain(draft, hosts)
    region = build_region(nodes, [v for _, v in draft.outputs])
    model = _parse(region)
    formal_of = {v.name: formal for formal, v in draft.outputs}
    found: dict[str, HostType] = {}
    inferred = {} if draft.node.op_type in _MISINFERRED else infer_types(model, list(formal_of))
    for name, (shape, number) in inferred.items():
        dtype = _dtype(number)
        if dtype is not None:
            found[formal_of[name]] = (shape, dtype)
    if len(inferred) == len(formal_of):
        return found, False
    if any(n.node.op_type in _DATA_DEPENDENT for n in nodes):
        return found, False
    trial = _trial_types(region)
    probed = {formal_of[n]: t for n, t in trial.items() if formal_of[n] not in found}
    return found | probed, bool(probed)


def _parse(region: Region) -> ModelProto:
    model = ModelProto()
    model.ParseFromString(region.model.model_bytes)
    return model


def _dtype(number: int) -> DType | None:
    try:
        return DType.from_numpy(helper.tensor_dtype_to_np_dtype(number))
    except KeyError:
        return None


def _chain(draft: HostNode, hosts: Mapping[str, HostNode]) -> tuple[HostNode, ...]:
    """Return a node after the host nodes that it gets host-only values from."""
    makers = {v.name: h for h in hosts.values() for _, v in h.outputs if not v.is_tensor}
    chain: dict[str, HostNode] = {}

    def visit(node: HostNode) -> None:
        for _, value in node.inputs:
            if value.name in makers and makers[value.name].key not in chain:
                visit(makers[value.name])
        chain[node.key] = node

    visit(draft)
    return tuple(chain.values())


def _trial_types(region: Region) -> dict[str, HostType]:
    """Run a region on different data; return the types of outputs on which the runs agree."""
    if sum(v.inner.size_bytes for v in region.inputs) > MAX_TRIAL_BYTES:
        return {}
    rng = np.random.default_rng(0)
    feeds = [
        {
            n: _sample(v, kind, rng)
            for n, v in zip(region.model.input_names, region.inputs, strict=True)
        }
        for kind in ("zeros", "ones", "sparse", "normal")
    ]
    try:
        runs = [r for r in run_model(_parse(region), feeds) if r]
    except RuntimeError as error:
        raise _unsupported(region, error) from None
    if len(runs) < 2 and region.inputs:
        return {}
    found = {}
    for index, name in enumerate(region.model.output_names):
        arrays = [r[index] for r in runs]
        shapes = {None if a is None else (a.shape, a.dtype.str) for a in arrays}
        first = arrays[0] if arrays else None
        if len(shapes) == 1 and first is not None and first.dtype.kind in "fiub":
            found[name] = (tuple(first.shape), DType.from_numpy(first.dtype))
    return found


def _sample(value: Value, kind: str, rng: np.random.Generator) -> Array:
    dtype = value.element.numpy
    if kind == "zeros":
        return np.zeros(value.dims, dtype)
    if kind == "ones" or not value.element.is_float:
        return (
            np.ones(value.dims, dtype)
            if kind != "sparse"
            else rng.integers(0, 2, value.dims).astype(dtype)
        )
    data = rng.normal(size=value.dims)
    return np.asarray((data * (data > 0) if kind == "sparse" else data).astype(dtype))


def merge_regions(
    ops: Sequence[Op], hosts: Mapping[str, HostNode], origin: Mapping[str, str], kept: Iterable[str]
) -> tuple[tuple[Op, ...], dict[str, HostModel]]:
    """Merge host operators into regions and put all operators in topological order.

    Args:
        ops: Operators in topological order; each host operator is one node of `hosts`.
        hosts: Operator name -> host node.
        origin: Operator name -> key of the ONNX node that it came from.
        kept: Tensors that must survive (graph outputs).

    Raises:
        RetryWithHost: A host-only value would leave its region.
        UnsupportedOpError: onnxruntime cannot run a region.
    """
    groups = _groups(ops, hosts)
    _check_host_only(ops, hosts, groups, origin)
    survivors = set(kept)
    members: dict[int, list[Op]] = {}
    for op in ops:
        if op.kind == "host":
            members.setdefault(groups[op.name], []).append(op)
    used_by: dict[str, set[int]] = {}
    for op in ops:
        for name in op.inputs:
            used_by.setdefault(name, set()).add(groups.get(op.name, -1))
    models: dict[str, HostModel] = {}
    region_ops: dict[int, Op] = {}
    for group, part in members.items():
        nodes = [hosts[op.name] for op in part]
        exported = [
            v
            for n in nodes
            for _, v in n.outputs
            if v.name in survivors or used_by.get(v.name, set()) - {group}
        ]
        if not exported:
            continue
        region = build_region(nodes, exported)
        check_runs(region)
        name = part[0].name
        models[name] = region.model
        region_ops[group] = Op(
            name=name,
            kind="host",
            inputs=tuple(v.name for v in region.inputs),
            outputs=tuple(v.name for v in exported),
            attrs=MappingProxyType({"region": name}),
        )
    return _ordered(ops, groups, region_ops), models


def _groups(ops: Sequence[Op], hosts: Mapping[str, HostNode]) -> dict[str, int]:
    """Return the region number of each host operator: the index of its first member."""
    maker = {name: op for op in ops for name in op.outputs}
    layer: dict[str, int] = {}
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    index = {op.name: i for i, op in enumerate(ops)}
    for op in ops:
        sources = [maker[n] for n in op.inputs if n in maker]
        is_host = op.kind == "host"
        layer[op.name] = max(
            (layer[s.name] + (s.kind == "host" and not is_host) for s in sources), default=0
        )
        if not is_host:
            continue
        parent[op.name] = op.name
        for s in sources:
            same = s.kind == "host" and layer[s.name] == layer[op.name]
            if same and hosts[s.name].opsets == hosts[op.name].opsets:
                first, second = sorted((root(s.name), root(op.name)), key=lambda n: index[n])
                parent[second] = first
    return {name: index[root(name)] for name in parent}


def _check_host_only(
    ops: Sequence[Op],
    hosts: Mapping[str, HostNode],
    groups: Mapping[str, int],
    origin: Mapping[str, str],
) -> None:
    """Raise RetryWithHost for the native operators between regions that share a host-only value."""
    maker = {name: op for op in ops for name in op.outputs}
    host_only = {v.name for h in hosts.values() for _, v in h.outputs if not v.is_tensor}
    keys: set[str] = set()
    for op in ops:
        for name in op.inputs:
            if (
                name in host_only
                and name in maker
                and groups[maker[name].name] != groups.get(op.name)
            ):
                keys |= _between(ops, maker[name].name, op.name, origin)
    if keys:
        raise RetryWithHost(frozenset(keys))


def _between(ops: Sequence[Op], first: str, last: str, origin: Mapping[str, str]) -> set[str]:
    """Return the keys of the native operators on paths from one operator to another."""
    maker = {name: op.name for op in ops for name in op.outputs}
    after = {first}
    for op in ops:
        if any(maker.get(n) in after for n in op.inputs):
            after.add(op.name)
    before = {last}
    for op in reversed(ops):
        if op.name in before:
            before.update(maker[n] for n in op.inputs if n in maker)
    return {origin[op.name] for op in ops if op.kind != "host" and op.name in after & before}


def check_runs(region: Region) -> None:
    """Raise UnsupportedOpError unless onnxruntime accepts a region."""
    try:
        run_model(_parse(region), [])
    except RuntimeError as error:
        raise _unsupported(region, error) from None


def _unsupported(region: Region, error: RuntimeError) -> UnsupportedOpError:
    return UnsupportedOpError(
        f"{', '.join(region.model.op_types)}: neither the target nor the host can run it "
        f"({region.model.reason[:200]}); onnxruntime says: {str(error)[:300]}"
    )


def _ordered(
    ops: Sequence[Op], groups: Mapping[str, int], region_ops: Mapping[int, Op]
) -> tuple[Op, ...]:
    """Return native operators and regions in topological order, as close to the given one as possible."""
    pending = [
        region_ops[groups[op.name]] if op.kind == "host" else op
        for op in ops
        if op.kind != "host" or (groups[op.name] in region_ops)
    ]
    pending = list({op.name: op for op in pending}.values())
    maker = {name: op for op in pending for name in op.outputs}
    done: dict[str, Op] = {}
    for start in pending:
        stack = [start]
        while stack:
            op = stack[-1]
            missing = [maker[n] for n in op.inputs if n in maker and maker[n].name not in done]
            if op.name in done or not missing:
                done.setdefault(op.name, op)
                stack.pop()
            else:
                stack.extend(reversed(missing))
    return tuple(done.values())
