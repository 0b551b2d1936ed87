"""How far outputs may be off when a model rounds on the way: quantised activations.

Where a value is rounded to an integer, the last bit of a sum decides between two neighbours, and layer by
layer such steps add up: two evaluators that are both right differ by far more than float tolerances. How
much is taken from an experiment that this package has no part in: onnxruntime runs the model again with
weights that are off by about a millionth, as sums of hundreds of 32-bit floats in another order are.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from math import prod

import numpy as np
import onnx
from onnx import numpy_helper

from tilewright.dtypes import DType
from tilewright.graph import Array, Graph
from tilewright.rounding import rounds_somewhere
from tilewright.verification import compare, default_tolerance, reference_outputs

DRAWS = 2.0
"""A right evaluator's error may be so many times the largest that was drawn."""

_EXPERIMENTS = 3
_NOISE = 1e-6
"""Standard deviation of a sum's relative error: a unit roundoff, 6e-8, times the root of some 300 terms.

Source:
    Higham, "Accuracy and Stability of Numerical Algorithms", 2nd ed. 2002, section 2.8 (the rule of thumb).
"""

_LARGEST_WEIGHT = 1e30
_LARGEST_PROTO_BYTES = 2**31 - 1
"""Protocol buffers end there; larger models are not run again."""


def rounding_tolerances(
    model: str | os.PathLike[str] | bytes,
    graph: Graph,
    inputs: Mapping[str, Array],
    exact: Mapping[str, Array],
) -> dict[str, float] | None:
    """Return the tolerance of each output, relative to its largest magnitude; None if nothing is rounded.

    Args:
        model: The ONNX model.
        graph: The same, imported.
        inputs: Its inputs.
        exact: Its outputs in onnxruntime.
    """
    if not rounds_somewhere(graph):
        return None
    proto = onnx.load_from_string(model) if isinstance(model, bytes) else onnx.load(model)
    if proto.ByteSize() > _LARGEST_PROTO_BYTES:
        return None
    largest = dict.fromkeys(exact, 0.0)
    for seed in range(_EXPERIMENTS):
        moved = reference_outputs(_nudged(proto, seed), inputs)
        for check in compare(moved, exact):
            if np.isfinite(check.relative_error):
                largest[check.name] = max(largest[check.name], check.relative_error)
    return {
        name: DRAWS * error + default_tolerance(DType.from_numpy(exact[name].dtype))
        for name, error in largest.items()
    }


def _nudged(proto: onnx.ModelProto, seed: int) -> bytes:
    """Return the model with every 32-bit weight off by about a millionth."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    rng = np.random.default_rng(seed)
    for tensor in _weights(copy):
        values = numpy_helper.to_array(tensor)
        moved = values * (1 + _NOISE * rng.standard_normal(values.shape))
        # masks stay what they are
        kept = np.where(np.abs(values) < _LARGEST_WEIGHT, moved, values)
        tensor.CopyFrom(numpy_helper.from_array(kept.astype(np.float32), tensor.name))
    return bytes(copy.SerializeToString())


def _weights(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    constants = (node for node in proto.graph.node if node.op_type == "Constant")
    values = (a.t for node in constants for a in node.attribute if a.name == "value")
    for tensor in (*proto.graph.initializer, *values):
        # what has one element is a scale, a limit or an epsilon rather than a weight
        if tensor.data_type == onnx.TensorProto.FLOAT and prod(tensor.dims) > 1:
            yield tensor
