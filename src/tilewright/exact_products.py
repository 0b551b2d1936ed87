"""Models whose integer products onnxruntime computes exactly.

On x86 processors without VNNI its kernels for u8 by i8 add pairs of products in 16 bits and saturate. Its
kernels for u8 by u8 do not, and (w + 128) - (z + 128) is w - z: weights of signed bytes become unsigned ones.

Source:
    onnxruntime, docs/performance/model-optimizations/quantization.md, "When and why do I need to try U8U8?".
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

_INPUTS: Mapping[str, tuple[int, int, int]] = MappingProxyType(
    {
        "MatMulInteger": (2, 1, 3),
        "ConvInteger": (2, 1, 3),
        "QLinearMatMul": (2, 3, 5),
        "QLinearConv": (2, 3, 5),
    }
)
"""Which inputs of a product are the activations' zero point, the weights and their zero point."""

_LARGEST_PROTO_BYTES = 2**31 - 1


def with_exact_products(
    model: str | os.PathLike[str] | bytes,
) -> str | os.PathLike[str] | bytes:
    """Return a model with constant signed 8-bit weights of unsigned activations as unsigned bytes.

    What has none is returned as it is, and so is what is too large for one protocol buffer.
    """
    proto = (
        onnx.load_from_string(model)
        if isinstance(model, bytes)
        else onnx.load(model, load_external_data=False)
    )
    if not any(node.op_type in _INPUTS for node in proto.graph.node):
        return model
    if not isinstance(model, bytes):
        proto = onnx.load(model)
    if proto.ByteSize() > _LARGEST_PROTO_BYTES:
        return model
    is_changed = [_change(node, f"{i}.unsigned", proto) for i, node in enumerate(proto.graph.node)]
    return bytes(proto.SerializeToString()) if any(is_changed) else model


def _change(node: onnx.NodeProto, name: str, proto: onnx.ModelProto) -> bool:
    """Make the weights of a product unsigned, as new tensors called after `name`, if they are not yet."""
    if node.domain or node.op_type not in _INPUTS:
        return False
    activations, *places = _INPUTS[node.op_type]
    names = [*node.input, *[""] * (max(places) + 1 - len(node.input))]
    stored = {tensor.name: tensor for tensor in proto.graph.initializer}
    given = [stored.get(names[place]) for place in places if names[place]]
    signed = [t for t in given if t is not None and t.data_type == TensorProto.INT8]
    if len(signed) < len(given) or names[activations] not in _unsigned(proto):
        return False
    for place in places:
        # a zero point that is left out is 0
        values = numpy_helper.to_array(stored[names[place]]) if names[place] else np.int8(0)
        names[place] = f"{name}.{place}"
        shifted = np.asarray(values + np.int16(128)).astype(np.uint8)
        proto.graph.initializer.append(numpy_helper.from_array(shifted, names[place]))
    del node.input[:]
    node.input.extend(names)
    return True


def _unsigned(proto: onnx.ModelProto) -> set[str]:
    """Return the names of zero points that are unsigned for certain."""
    stored = {t.name for t in proto.graph.initializer if t.data_type == TensorProto.UINT8}
    dynamic = (node for node in proto.graph.node if node.op_type == "DynamicQuantizeLinear")
    return stored | {node.output[2] for node in dynamic if len(node.output) > 2}
