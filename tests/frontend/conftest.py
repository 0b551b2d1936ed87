"""Small ONNX models and their comparison with onnxruntime."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import ModelProto, NodeProto, ValueInfoProto, helper, numpy_helper

from tilewright.frontend import load_onnx
from tilewright.graph import Graph
from tilewright.reference import evaluate

Arrays = Mapping[str, np.ndarray]


def build_model(
    nodes: Sequence[NodeProto],
    inputs: Arrays,
    outputs: Sequence[str],
    constants: Arrays | None = None,
    opset: int = 17,
    domains: Sequence[str] = (),
    value_infos: Sequence[ValueInfoProto] = (),
) -> ModelProto:
    """Return a model whose inputs have the shapes and types of arrays."""
    graph = helper.make_graph(
        list(nodes),
        "test",
        [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
            for n, a in inputs.items()
        ],
        [helper.make_empty_tensor_value_info(n) for n in outputs],
        [numpy_helper.from_array(np.asarray(a), n) for n, a in (constants or {}).items()],
        value_info=list(value_infos),
    )
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def run_onnxruntime(model: bytes, inputs: Arrays) -> dict[str, np.ndarray]:
    """Return the outputs of onnxruntime without optimisations."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    return dict(
        zip(names, session.run(names, {n: np.asarray(a) for n, a in inputs.items()}), strict=True)
    )


def assert_close(found: np.ndarray, expected: np.ndarray, tolerance: float = 1e-4) -> None:
    """Assert equal shapes, types, special values, and max |error| <= tolerance * max |expected|."""
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    if not expected.size:
        return
    if expected.dtype.kind in "iub":
        np.testing.assert_array_equal(found, expected)
        return
    wide_found, wide_expected = found.astype(np.float64), expected.astype(np.float64)
    finite = np.isfinite(wide_expected)
    np.testing.assert_array_equal(wide_found[~finite], wide_expected[~finite])
    if finite.any():
        error = np.abs(wide_found[finite] - wide_expected[finite]).max()
        assert error <= tolerance * max(np.abs(wide_expected[finite]).max(), 1e-30)


def compare(model: ModelProto, inputs: Arrays, tolerance: float = 1e-4, **kwargs: Any) -> Graph:
    """Import a model, evaluate it, compare all outputs with onnxruntime, return the graph."""
    data = model.SerializeToString()
    graph = load_onnx(data, **kwargs)
    found = evaluate(graph, inputs)
    expected = run_onnxruntime(data, inputs)
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert_close(found[name], array, tolerance)
    return graph


def compare_node(
    op_type: str,
    inputs: Sequence[np.ndarray | None],
    *,
    known: Sequence[np.ndarray | None] = (),
    outputs: int = 1,
    opset: int = 17,
    tolerance: float = 1e-4,
    native: bool = True,
    domain: str = "",
    **attributes: Any,
) -> Graph:
    """Compare one node; `known` are constant inputs after the others."""
    values = [*inputs, *known]
    names = ["" if v is None else f"in{i}" for i, v in enumerate(values)]
    node = helper.make_node(
        op_type,
        names,
        [f"out{i}" for i in range(outputs)],
        name="node",
        domain=domain,
        **attributes,
    )
    fed = {names[i]: v for i, v in enumerate(inputs) if v is not None}
    constants = {
        names[i + len(inputs)]: np.asarray(v) for i, v in enumerate(known) if v is not None
    }
    model = build_model(
        [node],
        fed,
        [f"out{i}" for i in range(outputs)],
        constants,
        opset,
        [domain] if domain else [],
    )
    graph = compare(model, fed, tolerance)
    if native:
        assert not graph.host_models, graph.notes
    return graph


@pytest.fixture(scope="session", name="build_model")
def build_model_fixture() -> Callable[..., ModelProto]:
    return build_model


@pytest.fixture(scope="session", name="compare")
def compare_fixture() -> Callable[..., Graph]:
    return compare


@pytest.fixture(scope="session", name="compare_node")
def compare_node_fixture() -> Callable[..., Graph]:
    return compare_node


@pytest.fixture(scope="session", name="assert_close")
def assert_close_fixture() -> Callable[..., None]:
    return assert_close


@pytest.fixture(scope="session", name="run_onnxruntime")
def run_onnxruntime_fixture() -> Callable[..., dict[str, np.ndarray]]:
    return run_onnxruntime
