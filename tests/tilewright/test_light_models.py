"""Seeded weights make the light models worth verifying."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from tilewright import api
from tilewright.demo import DEMO_SEED, demo_model
from tilewright.errors import ModelError
from tilewright.fetch import onnx_light_models
from tilewright.inputs import example_inputs
from tilewright.light_models import seeded_weights
from tilewright.verification import reference_outputs


def light_model(name: str) -> ModelProto:
    return onnx.load(next(path for path in onnx_light_models() if path.stem == f"light_{name}"))


def outputs(model: ModelProto) -> dict[str, np.ndarray]:
    data = model.SerializeToString()
    return reference_outputs(data, example_inputs(api.load(data)))


def test_weights_follow_the_seed_only() -> None:
    source = light_model("squeezenet")
    before = source.SerializeToString()
    first, again, other = (seeded_weights(source, seed) for seed in (1, 1, 2))
    assert source.SerializeToString() == before
    assert first.SerializeToString() == again.SerializeToString()
    assert first.SerializeToString() != other.SerializeToString()


def test_shapes_and_ops_stay() -> None:
    source = light_model("squeezenet")
    seeded = seeded_weights(source, 0)
    onnx.checker.check_model(seeded, full_check=True)
    ops = [node.op_type for node in source.graph.node if node.op_type != "ConstantOfShape"]
    assert [node.op_type for node in seeded.graph.node] == ops
    made = {n.output[0]: n.input[0] for n in source.graph.node if n.op_type == "ConstantOfShape"}
    stored = {t.name: t for t in source.graph.initializer}
    weights = {t.name: numpy_helper.to_array(t) for t in seeded.graph.initializer}
    for name, shape_name in made.items():
        assert list(weights[name].shape) == numpy_helper.to_array(stored[shape_name]).tolist()
        assert len(np.unique(weights[name])) > 0.9 * weights[name].size


def test_filters_keep_the_size_of_activations() -> None:
    weights = seeded_weights(light_model("squeezenet"), 0).graph.initializer
    tested = 0
    for tensor in weights:
        array = numpy_helper.to_array(tensor)
        if array.ndim == 4 and array.size > 10_000 and array.shape[1] > 3:
            fan_in = array[0].size
            gain = np.var(array) * fan_in
            assert gain == pytest.approx(2, rel=0.1), "all but the first come behind a Relu"
            tested += 1
    assert tested > 10


def test_normalisations_stay_near_one() -> None:
    seeded = seeded_weights(light_model("resnet50"), 0)
    weights = {t.name: numpy_helper.to_array(t) for t in seeded.graph.initializer}
    norms = [node for node in seeded.graph.node if node.op_type == "BatchNormalization"]
    assert len(norms) == 53
    source = light_model("resnet50").graph
    summed = {name for node in source.node if node.op_type == "Sum" for name in node.input}
    seen = []
    for node in norms:
        _, scale, bias, mean, variance = node.input
        assert 0.8 <= weights[variance].min() <= weights[variance].max() <= 1.2
        seen.append(node.output[0] in summed)
        assert abs(weights[scale].mean() - (0.4 if seen[-1] else 1.0)) < 0.1
        assert max(np.abs(weights[bias]).max(), np.abs(weights[mean]).max()) < 1
    assert True in seen
    assert False in seen


@pytest.mark.parametrize("name", ["squeezenet", "shufflenet"])
def test_outputs_are_not_constant(name: str) -> None:
    source = light_model(name)
    (plain,) = outputs(source).values()
    (seeded,) = outputs(seeded_weights(source, 0)).values()
    assert np.ptp(plain) < 1e-6, "the reason for seeded weights"
    assert np.isfinite(seeded).all()
    assert len(np.unique(seeded)) > 500
    assert 1e-3 < seeded.max() < 1, "neither flat nor one class alone"


def test_demo_model_is_fixed_and_depends_on_its_input() -> None:
    data = demo_model()
    assert data == demo_model()
    graph = api.load(data)
    first, second = (
        reference_outputs(data, example_inputs(graph, seed)) for seed in (DEMO_SEED, DEMO_SEED + 1)
    )
    for name, value in first.items():
        assert np.abs(value - second[name]).max() > 1e-3 * np.abs(value).max()


def test_a_computed_shape_is_refused() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("ConstantOfShape", ["s"], ["w"]),
        helper.make_node("Add", ["x", "w"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])
    model = helper.make_model(helper.make_graph(nodes, "g", [x], [y]))
    with pytest.raises(ModelError, match="ConstantOfShape 'w': its shape 's' is computed"):
        seeded_weights(model, 0)


def test_gemm_weights_know_their_fan_in() -> None:
    """Gemm without transB has [in, out], with it [out, in]."""
    for transposed in (0, 1):
        node = helper.make_node("Gemm", ["x", "w"], ["y"], transB=transposed)
        shape = helper.make_tensor("s", TensorProto.INT64, [2], [400, 100])
        maker = helper.make_node("ConstantOfShape", ["s"], ["w"])
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 100 if transposed else 400])
        y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
        model = helper.make_model(helper.make_graph([maker, node], "g", [x], [y], [shape]))
        (weight,) = seeded_weights(model, 0).graph.initializer
        fan_in = 100 if transposed else 400
        assert np.var(numpy_helper.to_array(weight)) == pytest.approx(1 / fan_in, rel=0.1)
        ReferenceEvaluator(seeded_weights(model, 0))
