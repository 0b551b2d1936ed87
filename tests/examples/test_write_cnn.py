"""The written CNNs are valid, as large as published, and compute numbers of a sensible size."""

from __future__ import annotations

from math import prod
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import write_cnn

SMALL = {"mobilenetv2": 32, "resnet50": 32, "unet": 16}


@pytest.mark.parametrize(("network", "size"), SMALL.items())
def test_models_run(network: str, size: int, rng: np.random.Generator) -> None:
    model = write_cnn.build_cnn(network, size)
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    (port,) = session.get_inputs()
    image = rng.standard_normal(port.shape).astype(np.float32)
    (logits,) = session.run(None, {"image": image})
    assert logits.shape == ((1, 2, size, size) if network == "unet" else (1, 1000))
    assert 1e-3 < logits.std() < 1e3


def test_images_of_a_batch_are_independent(rng: np.random.Generator) -> None:
    image = rng.standard_normal((2, 3, 32, 32)).astype(np.float32)
    pair, single = (
        onnxruntime.InferenceSession(
            write_cnn.build_cnn("mobilenetv2", 32, batch=batch).SerializeToString(),
            providers=["CPUExecutionProvider"],
        )
        for batch in (2, 1)
    )
    (both,), (second,) = pair.run(None, {"image": image}), single.run(None, {"image": image[1:]})
    assert both.shape == (2, 1000)
    np.testing.assert_allclose(both[1:], second, atol=1e-4)


@pytest.mark.parametrize(
    ("network", "parameters"),
    # torchvision's figures; its batch norms have a scale and a shift where ours has the bias
    [("mobilenetv2", 3_504_872), ("resnet50", 25_557_032)],
)
def test_networks_have_the_published_size(network: str, parameters: int) -> None:
    graph, size = write_cnn.NETWORKS[network]
    shapes = {weight.name: weight.shape for weight in graph(size, 1).weights}
    normalised = [
        name for name in shapes if name.endswith(".bias") and not name.startswith("classifier")
    ]
    total = sum(map(prod, shapes.values())) + sum(prod(shapes[name]) for name in normalised)
    assert total == parameters


def test_unet_has_the_figures_channels() -> None:
    graph, size = write_cnn.NETWORKS["unet"]
    shapes = {weight.name: weight.shape for weight in graph(size, 1).weights}
    assert shapes["down4.1.weight"] == (1024, 1024, 3, 3)
    assert shapes["up0.0.weight"] == (64, 128, 3, 3)
    assert sum(name.endswith(".weight") for name in shapes) == 23  # convolutions, says the paper


def test_same_seed_same_bytes_and_no_weights(tmp_path: Path) -> None:
    first, again = (write_cnn.build_cnn("unet", 16) for _ in range(2))
    assert first.SerializeToString() == again.SerializeToString()
    path = tmp_path / "unet.onnx"
    write_cnn.main([str(path), "--network", "unet", "--no-weights"])
    assert [item.name for item in tmp_path.iterdir()] == ["unet.onnx"]
    assert path.stat().st_size < 1 << 16


@pytest.mark.parametrize(("size", "message"), [("20", "multiple of 16"), ("0", "at least 1")])
def test_impossible_images_are_errors(size: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "unet.onnx"
    with pytest.raises(SystemExit, match=f"^error: .*{message}"):
        write_cnn.main([str(path), "--network", "unet", "--image", size])
    assert not path.exists()
