"""A small model, compiled once, and the command line in this process.

Lets these tests import `program_mutations`, which the importlib mode would not find.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tilewright import api
from tilewright.cli import main
from tilewright.compiler import Compilation

sys.path.insert(0, str(Path(__file__).parent))


@dataclass(frozen=True)
class Ran:
    """Exit code and output of a command."""

    code: int
    out: str
    err: str


Command = Callable[..., Ran]


def cnn_model() -> onnx.ModelProto:
    """Return a small CNN with a symbolic batch: conv, relu, pool, gemm, softmax."""
    rng = np.random.default_rng(3)

    def weight(name: str, *shape: int) -> TensorProto:
        return numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32) / 3, name)

    nodes = [
        helper.make_node("Conv", ["image", "w1", "b1"], ["c1"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["a1"]),
        helper.make_node("MaxPool", ["a1"], ["p1"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["p1"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w2", "b2"], ["logits"], transB=1),
        helper.make_node("Softmax", ["logits"], ["[red]probability"], axis=-1),
    ]
    graph = helper.make_graph(
        nodes,
        "cnn",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10]),
            helper.make_tensor_value_info("[red]probability", TensorProto.FLOAT, ["batch", 10]),
        ],
        [weight("w1", 8, 3, 3, 3), weight("b1", 8), weight("w2", 10, 128), weight("b2", 10)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.fixture(scope="session")
def cnn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file of the small CNN."""
    path = tmp_path_factory.mktemp("cnn") / "cnn.onnx"
    onnx.save(cnn_model(), path)
    return path


@pytest.fixture(scope="session")
def compiled(cnn: Path) -> Compilation:
    """Return the small CNN compiled for the toy target."""
    return api.compile(cnn, "toy", dims={"batch": 2})


@pytest.fixture(scope="session")
def program_file(compiled: Compilation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the program file of the small CNN."""
    assert compiled.program is not None
    return api.save(compiled.program, tmp_path_factory.mktemp("program") / "cnn.twp")


@pytest.fixture
def image() -> np.ndarray:
    """Return an input of the small CNN."""
    return np.random.default_rng(1).standard_normal((2, 3, 8, 8)).astype(np.float32)


@pytest.fixture
def tilewright(capfd: pytest.CaptureFixture[str]) -> Command:
    """Return a function that runs the command line with arguments."""

    def run(*arguments: str | Path) -> Ran:
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        assert isinstance(end.value.code, int)
        return Ran(end.value.code, out, err)

    return run
