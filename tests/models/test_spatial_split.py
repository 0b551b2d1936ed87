"""Convolutions split in space, end to end: right numbers, no hazards, and faster than without."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from end_to_end import check_end_to_end
from onnx import TensorProto, helper, numpy_helper

from tilewright import api
from tilewright.errors import ProgramError
from tilewright.lowering.kernels import halo

RULES = ("partition.conv_space_halo", "partition.pool_space_halo")


def network(
    size: int, layers: int = 2, kernel: int = 3, stride: int = 1, channels: int = 4
) -> bytes:
    """Return convolutions with bias and relu, then a max pool, as a model's bytes."""
    rng = np.random.default_rng(0)
    nodes, weights, x, width, pad = [], [], "x", 3, kernel // 2
    for i in range(layers):
        w = rng.standard_normal((channels, width, kernel, kernel)).astype(np.float32)
        weights.append(numpy_helper.from_array(w, f"w{i}"))
        bias = rng.standard_normal(channels).astype(np.float32)
        weights.append(numpy_helper.from_array(bias, f"b{i}"))
        nodes += [
            helper.make_node(
                "Conv", [x, f"w{i}", f"b{i}"], [f"c{i}"], pads=[pad] * 4, strides=[stride] * 2
            ),
            helper.make_node("Relu", [f"c{i}"], [f"r{i}"]),
        ]
        x, width = f"r{i}", channels
    nodes.append(
        helper.make_node("MaxPool", [x], ["y"], kernel_shape=[3, 3], pads=[1] * 4, strides=[2, 2])
    )
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, size, size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        weights,
    )
    opsets = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    return bytes(onnx.shape_inference.infer_shapes(model).SerializeToString())


@pytest.mark.parametrize(
    ("target", "model"),
    [
        ("toy", network(32)),
        ("mesh_2x3", network(36)),
        ("mesh_1x5", network(20)),
        ("toy", network(64, layers=1, kernel=7, stride=2)),
        ("mesh_4x2?sram_kib=64", network(48, kernel=5)),
    ],
    ids=["4x4", "2x3", "1x5", "stem", "little_memory"],
)
def test_split_networks_compute_what_onnxruntime_does(target: str, model: bytes) -> None:
    done = check_end_to_end(model, target).compilation
    assert done.plan is not None
    assert any("halo" in planned.macros for planned in done.plan.ops)


def test_a_large_image_is_faster_split_in_space() -> None:
    model = network(96, layers=3, channels=8)
    split = check_end_to_end(model, "toy")
    whole = api.compile(model, "toy", without_rules=RULES)
    assert split.compilation.plan is not None
    assert whole.plan is not None
    assert whole.program is not None
    assert not any("halo" in planned.macros for planned in whole.plan.ops)
    assert split.compilation.plan.cost < whole.plan.cost / 2
    assert split.timing.run.cycles < api.simulate(whole.program).run.cycles / 2


def test_the_last_post_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it a tile could ask for the next exchange before a far one has made this one."""
    everyone: Callable[[int, int, int], bool] = lambda size, low, high: True  # noqa: E731
    monkeypatch.setattr(halo, "reaches_all_peers", everyone)
    done = api.compile(network(32), "toy")
    assert done.program is not None
    inputs = {"x": np.zeros((1, 3, 32, 32), np.float32)}
    with pytest.raises(ProgramError, match="race"):
        api.run(done.program, inputs)


def test_room_that_moves_need_on_their_way_does_not_end_in_defeat() -> None:
    """The way of a large image into 2-D pieces does not fit at first; other choices are found."""
    model = network(224, layers=1, stride=2, channels=24)
    done = api.compile(model, "mesh_4x4?sram_kib=224", stop_after="extract")
    assert done.plan is not None
    assert done.plan.peak_sram_bytes <= 224 * 1024
