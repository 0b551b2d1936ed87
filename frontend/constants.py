"""Constants of a model as values: initializers, Constant nodes, sparse tensors."""

from __future__ import annotations

from math import prod

import ml_dtypes
import numpy as np
from onnx import AttributeProto, TensorProto, helper

from tilewright.constants import absent_error
from tilewright.dtypes import DType
from tilewright.errors import ModelError
from tilewright.frontend.builder import Builder
from tilewright.frontend.model_file import decode, decode_sparse, reference_of
from tilewright.frontend.registry import NodeContext, importer
from tilewright.frontend.values import Value
from tilewright.graph import TensorType

_WIDENED = {
    np.dtype(ml_dtypes.int4): np.dtype(np.int8),
    np.dtype(ml_dtypes.uint4): np.dtype(np.uint8),
}
_HOST_ONLY = frozenset(
    {
        TensorProto.STRING,
        TensorProto.COMPLEX64,
        TensorProto.COMPLEX128,
        TensorProto.FLOAT8E4M3FN,
        TensorProto.FLOAT8E4M3FNUZ,
        TensorProto.FLOAT8E5M2,
        TensorProto.FLOAT8E5M2FNUZ,
        TensorProto.FLOAT4E2M1,
    }
)


def value_of_proto(b: Builder, tensor: TensorProto, stem: str) -> Value:
    """Return a stored tensor as a value.

    4-bit integers are widened to 8 bits; types that the graph does not have stay host-only.
    """
    if tensor.data_type in _HOST_ONLY:
        if tensor.data_location == TensorProto.EXTERNAL:
            what = f"{stem}: an element type that only the host has"
            raise absent_error(what, _place(tensor))
        return Value(name=b.unique(stem), shape=tuple(tensor.dims), dtype=None, proto=tensor)
    if tensor.data_location == TensorProto.EXTERNAL:
        return _absent(b, tensor, stem)
    array = decode(tensor)
    if array.dtype not in _WIDENED:
        return b.constant(array, stem)
    value = b.constant(array.astype(_WIDENED[array.dtype]), stem)
    return Value(
        name=value.name, shape=value.shape, dtype=value.dtype, data=value.data, proto=tensor
    )


def _absent(b: Builder, tensor: TensorProto, stem: str) -> Value:
    """Return an initializer whose values were not loaded."""
    found = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type))
    dtype = DType.from_numpy(_WIDENED.get(found, found))
    return b.absent_constant(stem, TensorType(tuple(tensor.dims), dtype), _place(tensor))


def _place(tensor: TensorProto) -> str:
    return f"'{tensor.name}' ({reference_of(tensor)})"


@importer("Constant")
def import_constant(c: NodeContext) -> Value:
    """Every form of Constant: tensor, numbers, strings, sparse."""
    if len(c.node.attribute) != 1:
        raise ModelError(
            f"{c.b.label}: Constant needs exactly one attribute, found {len(c.node.attribute)}"
        )
    (a,) = c.node.attribute
    stem = c.node.output[0]
    match a.type:
        case AttributeProto.TENSOR:
            return value_of_proto(c.b, a.t, f"{stem}.value")
        case AttributeProto.SPARSE_TENSOR:
            c.b.charge(prod(a.sparse_tensor.dims) * 8)
            return c.b.constant(decode_sparse(a.sparse_tensor, c.b.max_constant_bytes))
        case AttributeProto.FLOAT:
            return c.b.constant(np.array(a.f, np.float32))
        case AttributeProto.FLOATS:
            return c.b.constant(np.array(a.floats, np.float32))
        case AttributeProto.INT:
            return c.b.constant(np.array(a.i, np.int64))
        case AttributeProto.INTS:
            return c.b.constant(np.array(a.ints, np.int64))
        case AttributeProto.STRING | AttributeProto.STRINGS:
            strings = [a.s] if a.type == AttributeProto.STRING else list(a.strings)
            dims = [] if a.type == AttributeProto.STRING else [len(strings)]
            proto = TensorProto(data_type=TensorProto.STRING, dims=dims, string_data=strings)
            return Value(
                name=c.b.unique(f"{stem}.value"), shape=tuple(dims), dtype=None, proto=proto
            )
    raise ModelError(f"{c.b.label}: Constant with attribute '{a.name}' is not supported")
