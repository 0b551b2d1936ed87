"""ONNX's own node tests for the operators that are imported natively."""

from __future__ import annotations

import functools
import warnings
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, numpy_helper

from tilewright.frontend import load_onnx
from tilewright.frontend.model_file import MAX_OPSET
from tilewright.reference import evaluate

NATIVE = frozenset(
    """
    Abs Acos Acosh Add And Asin Asinh Atan Atanh Attention AveragePool BatchNormalization BitShift
    BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Cast CastLike Ceil Celu CenterCropPad Clip Concat Constant
    ConstantOfShape Conv ConvInteger ConvTranspose Cos Cosh CumSum DepthToSpace DequantizeLinear Div
    Dropout DynamicQuantizeLinear Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor Gather
    GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual
    GroupNormalization HardSigmoid HardSwish Identity InstanceNormalization IsInf IsNaN LRN
    LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax LpPool MatMul MatMulInteger Max MaxPool
    Mean MeanVarianceNormalization Min Mish Mod Mul Neg Not OneHot Or PRelu Pad Pow QLinearConv
    QLinearMatMul QuantizeLinear RMSNormalization Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum
    ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape
    Resize RotaryEmbedding Round Selu Shape Shrink Sigmoid Sign Sin Sinh Size Slice Softmax Softplus
    Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh ThresholdedRelu Tile Transpose Trilu
    Unsqueeze Upsample Where Xor
    """.split()
)

HOST_BY_DESIGN = {
    "3d": "windows in three dimensions",
    "maxpool_with_argmax": "indices output",
    "batchnorm_epsilon_training_mode": "training",
    "batchnorm_example_training_mode": "training",
    "training_dropout": "random",
    "tf_crop_and_resize": "extrapolation",
    "layer_normalization": "statistics outputs",
}
"""Parts of test names that are left to the host, with the reason."""

NOT_COMPARED = {
    "resize_downsample_scales_linear_align_corners": "onnxruntime rounds the output length, so do we",
    "resize_downsample_scales_cubic_align_corners": "onnxruntime rounds the output length, so do we",
    "training_dropout": "random",
}
HALF_TOLERANCE = 2.0**-7
"""Relative to the maximum; bf16 has 8 bits of mantissa, and we round after each operator."""


LETTERS = "abcdefghilmnopqrstuwx"
"""First letters of the tests; to collect them takes seconds, which only the process that runs them spends."""


@functools.cache
def cases() -> dict[str, Any]:
    """Return ONNX's node tests of one operator from `NATIVE`, by name."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        collected = collect_testcases(None)
    found = {}
    for case in collected:
        model = case.model
        if model is None or {n.op_type for n in model.graph.node} - NATIVE or not model.graph.node:
            continue
        version = next((o.version for o in model.opset_import if not o.domain), 0)
        newest = [
            onnx.defs.get_schema(n.op_type, version, n.domain).since_version
            for n in model.graph.node
        ]
        if 7 <= version and max(newest) <= MAX_OPSET:
            found[case.name] = case
    return found


def prepared(case: Any) -> tuple[ModelProto, dict[str, np.ndarray], list[np.ndarray]]:
    """Return a case at a supported opset with all inputs but the first as constants."""
    model = ModelProto()
    model.CopyFrom(case.model)
    for entry in model.opset_import:
        if not entry.domain:
            entry.version = min(entry.version, MAX_OPSET)
    inputs, outputs = case.data_sets[0]
    arrays = dict(zip([i.name for i in model.graph.input], map(np.asarray, inputs), strict=True))
    # a single number is a size, on which shapes depend
    fed = {
        name: array
        for name, array in list(arrays.items())[:1]
        if array.ndim or array.dtype.kind == "f"
    }
    for name, array in arrays.items():
        if name not in fed:
            model.graph.initializer.append(numpy_helper.from_array(array, name))
    return model, fed, [np.asarray(o) for o in outputs]


def bound_dims(model: ModelProto, fed: dict[str, np.ndarray]) -> dict[str, int]:
    """Return bindings for the symbolic dimensions of the first input."""
    found = {}
    for info in model.graph.input[: len(fed)]:
        for i, d in enumerate(info.type.tensor_type.shape.dim):
            if d.dim_value <= 0:
                found[d.dim_param or f"{info.name}.{i}"] = fed[info.name].shape[i]
    return found


def expressible(case: Any) -> bool:
    """Return whether all inputs are dense non-empty tensors of types that graphs have."""
    inputs, outputs = case.data_sets[0]
    supported = "fiub"
    kinds = {np.asarray(v).dtype.kind for v in (*inputs, *outputs) if not isinstance(v, list)}
    lists = any(isinstance(v, list) for v in (*inputs, *outputs))
    first_empty = bool(inputs) and np.asarray(inputs[0]).size == 0
    return not lists and kinds <= set(supported) and not first_empty


def names() -> list[str]:
    return sorted(n for n, c in cases().items() if expressible(c))


def test_suite_is_there():
    assert len(names()) > 600
    assert {n.removeprefix("test_")[0] for n in names()} == set(LETTERS)


@pytest.mark.parametrize("letter", LETTERS)
def test_node_tests(letter: str):
    failures = []
    for name in names():
        if not name.removeprefix("test_").startswith(letter):
            continue
        problem = run_case(name)
        if problem:
            failures.append(f"{name}: {problem}")
    assert not failures, "\n".join(failures)


def run_case(name: str) -> str | None:
    """Return what is wrong with a case, None when it is right."""
    case = cases()[name]
    model, fed, expected = prepared(case)
    graph = load_onnx(model.SerializeToString(), dims=bound_dims(model, fed))
    by_design = any(part in name for part in HOST_BY_DESIGN)
    if graph.host_models and not by_design:
        return f"left to the host: {graph.notes}"
    if any(part in name for part in NOT_COMPARED):
        return None
    found = evaluate(graph, fed)
    for array, reference in zip(found.values(), expected, strict=False):
        problem = difference(array, reference, case)
        if problem:
            return problem
    return None


def difference(found: np.ndarray, expected: np.ndarray, case: Any) -> str | None:
    """Compare with the tolerances of the case; half precision with ours."""
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return f"{found.dtype}{found.shape} instead of {expected.dtype}{expected.shape}"
    a, b = found.astype(np.float64), expected.astype(np.float64)
    half = found.dtype.itemsize == 2 and found.dtype.kind in "fV"
    atol = HALF_TOLERANCE * np.abs(b[np.isfinite(b)]).max(initial=0) if half else case.atol
    if np.allclose(a, b, rtol=case.rtol, atol=atol, equal_nan=True):
        return None
    return f"differs by {np.nanmax(np.abs(a - b))}"
