"""Recognised normalisations and activations, and the clean-up passes."""

from __future__ import annotations

from collections.abc import Callable
from math import pi, sqrt

import numpy as np
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper

from tilewright.graph import Graph

Build = Callable[..., ModelProto]
Compare = Callable[..., Graph]
X = np.random.default_rng(1).normal(size=(2, 3, 8)).astype(np.float32)


def nodes_of(text: str) -> list[NodeProto]:
    """Parse lines "y = Op a b key=ints"."""
    nodes = []
    for line in text.strip().splitlines():
        output, _, call = line.strip().partition(" = ")
        op_type, *words = call.split()
        attributes = {}
        for word in (w for w in words if "=" in w):
            key, _, value = word.partition("=")
            numbers = [int(v) for v in value.split(",")]
            attributes[key] = numbers if key in ("axes", "perm") else numbers[0]
        inputs = [w for w in words if "=" not in w]
        nodes.append(helper.make_node(op_type, inputs, [output], **attributes))
    return nodes


CONSTANTS = {
    "half": np.float32(0.5),
    "one": np.float32(1),
    "two": np.float32(2),
    "three": np.float32(3),
    "eps": np.float32(1e-5),
    "root2": np.float32(sqrt(2)),
    "inv_root2": np.float32(1 / sqrt(2)),
    "c": np.float32(sqrt(2 / pi)),
    "d": np.float32(0.044715),
    "wrong": np.float32(0.6),
}


def imported(build_model: Build, compare: Compare, text: str, x: np.ndarray = X) -> Graph:
    used = {w for line in text.split("\n") for w in line.split()}
    constants = {k: v for k, v in CONSTANTS.items() if k in used}
    return compare(build_model(nodes_of(text), {"x": x}, ["y"], constants), {"x": x})


def summary(graph: Graph) -> list[str]:
    return [str(op.attrs["fn"]) if op.kind == "map" else op.kind for op in graph.ops]


RMS = "s = Mul x x\n m = ReduceMean s axes=2\n e = Add eps m\n r = Sqrt e\n "
LAYER = "v = ReduceMean s axes=-1\n e = Add v eps\n r = Sqrt e\n y = Div d0 r"
CUBE = "q = Pow x three\n k = Mul d q\n s = Add x k\n t = Mul s c\n u = Tanh t\n v = Add u one\n "

RECOGNISED = {
    "rmsnorm by division": (
        "rmsnorm",
        "s = Pow x two\n m = ReduceMean s axes=-1\n e = Add m eps\n r = Sqrt e\n y = Div x r",
    ),
    "rmsnorm by reciprocal": ("rmsnorm", RMS + "i = Reciprocal r\n y = Mul i x"),
    "rmsnorm by one over": ("rmsnorm", RMS + "i = Div one r\n y = Mul x i"),
    "layernorm": (
        "layernorm",
        "u = ReduceMean x axes=-1\n d0 = Sub x u\n s = Pow d0 two\n " + LAYER,
    ),
    "layernorm computed twice": (
        "layernorm",
        "u = ReduceMean x axes=-1\n d0 = Sub x u\n d1 = Sub x u\n s = Mul d1 d1\n " + LAYER,
    ),
    "gelu": (
        "gelu",
        "a = Div x root2\n b = Erf a\n c1 = Add b one\n m = Mul x c1\n y = Mul m half",
    ),
    "gelu, half first": (
        "gelu",
        "h = Mul half x\n a = Mul x inv_root2\n b = Erf a\n c1 = Add one b\n y = Mul h c1",
    ),
    "gelu, half inside": (
        "gelu",
        "a = Mul x inv_root2\n b = Erf a\n c1 = Add b one\n h = Mul c1 half\n y = Mul x h",
    ),
    "tanh gelu": ("gelu_tanh", CUBE + "h = Mul x half\n y = Mul h v"),
    "tanh gelu by products": (
        "gelu_tanh",
        CUBE.replace("q = Pow x three", "p = Mul x x\n q = Mul p x")
        + "h = Mul v x\n y = Mul half h",
    ),
    "silu": ("silu", "s = Sigmoid x\n y = Mul x s"),
}


@pytest.mark.parametrize("name", RECOGNISED)
def test_recognised(build_model: Build, compare: Compare, name: str):
    kind, text = RECOGNISED[name]
    assert summary(imported(build_model, compare, text)) == [kind]


NOT_RECOGNISED = {
    "other scale": "a = Mul x wrong\n b = Erf a\n c1 = Add b one\n m = Mul x c1\n y = Mul m half",
    "other axis": "s = Mul x x\n m = ReduceMean s axes=1\n e = Add m eps\n r = Sqrt e\n y = Div x r",
    "other operand": "n = Neg x\n s = Sigmoid n\n y = Mul x s",
    "sum, not mean": "s = Mul x x\n m = ReduceL1 s axes=-1\n e = Add m eps\n r = Sqrt e\n y = Div x r",
}


@pytest.mark.parametrize("name", NOT_RECOGNISED)
def test_not_recognised(build_model: Build, compare: Compare, name: str):
    found = summary(imported(build_model, compare, NOT_RECOGNISED[name]))
    assert not {"rmsnorm", "layernorm", "gelu", "silu"} & set(found)


def test_equal_subexpressions_are_computed_once(build_model: Build, compare: Compare):
    text = "a = Exp x\n b = Exp x\n c1 = Neg a\n c2 = Neg b\n y = Add c1 c2"
    assert summary(imported(build_model, compare, text)) == ["exp", "neg", "add"]


def test_dead_code_is_removed(build_model: Build, compare: Compare):
    assert summary(imported(build_model, compare, "a = Exp x\n b = Sin a\n y = Neg x")) == ["neg"]


def test_layout_changes_compose(build_model: Build, compare: Compare):
    text = "a = Transpose x perm=2,0,1\n b = Transpose a perm=1,2,0\n y = Relu b"
    assert summary(imported(build_model, compare, text)) == ["relu"]
    text = "a = Transpose x perm=2,0,1\n b = Flatten a\n c1 = Flatten b\n y = Relu c1"
    assert summary(imported(build_model, compare, text)) == ["transpose", "reshape", "relu"]


def test_transposes_meet_through_elementwise_operators(build_model: Build, compare: Compare):
    text = (
        "a = Transpose x perm=0,2,1\n b = Relu a\n c1 = Mul b half\n d1 = Concat c1 a axis=1\n"
        " e = ReduceMax d1 axes=2\n y = Transpose e perm=0,2,1"
    )
    assert "transpose" not in summary(imported(build_model, compare, text))


def test_channels_last_convolutions_need_two_transposes(build_model: Build, compare: Compare):
    rng = np.random.default_rng(2)
    image = rng.normal(size=(1, 6, 6, 4)).astype(np.float32)
    constants = {
        "w": rng.normal(size=(4, 4, 3, 3)).astype(np.float32),
        "bias": rng.normal(size=4).astype(np.float32),
    }
    text = (
        "\n".join(
            f"a{i} = Transpose h{i} perm=0,3,1,2\n b{i} = Conv a{i} w\n c{i} = Transpose b{i} perm=0,2,3,1\n"
            f" d{i} = Add c{i} bias\n h{i + 1} = Relu d{i}"
            for i in range(2)
        )
        .replace("h0", "x")
        .replace("h2", "y")
    )
    model = build_model(nodes_of(text), {"x": image}, ["y"], constants)
    assert summary(compare(model, {"x": image})).count("transpose") == 2


def test_casts_there_and_back_vanish(build_model: Build, compare: Compare):
    nodes = [
        helper.make_node("Cast", ["x"], ["a"], to=TensorProto.DOUBLE),
        helper.make_node("Cast", ["a"], ["b"], to=TensorProto.FLOAT),
        helper.make_node("Relu", ["b"], ["y"]),
    ]
    graph = compare(build_model(nodes, {"x": X}, ["y"]), {"x": X})
    assert summary(graph) == ["relu"]
    for cast in nodes[:1]:
        cast.attribute[0].i = TensorProto.FLOAT16
    graph = compare(build_model(nodes, {"x": X}, ["y"]), {"x": X})
    assert summary(graph) == ["cast(f16)", "cast(f32)", "relu"]
