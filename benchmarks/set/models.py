"""SET's networks as ONNX models of 8-bit integers, layer by layer as its sources define them.

SET gives convolutions and products of 8-bit integers a result of 8 bits, rescaling for nothing; ours are
`QLinearConv` and `QLinearMatMul`, which rescale and round. What SET's networks leave out (activations,
norms, a softmax's sum) is left out here, too: where it has a layer of one operation an element, there is
one. Weights refer to a file that is nowhere, for plans need their shapes alone.

Source: https://github.com/SET-Scheduling-Project/SET-ISCA2023 (a7bd739), src/nns/googlenet.cpp and llm.cpp.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_OPSET, _IR_VERSION = 17, 9
_INT8 = TensorProto.INT8

INCEPTIONS = (
    ("3a", (64, 96, 128, 16, 32, 32)), ("3b", (128, 128, 192, 32, 96, 64)), ("pool3", ()),
    ("4a", (192, 96, 208, 16, 48, 64)), ("4b", (160, 112, 224, 24, 64, 64)),
    ("4c", (128, 128, 256, 24, 64, 64)), ("4d", (112, 144, 288, 32, 64, 64)),
    ("4e", (256, 160, 320, 32, 128, 128)), ("pool4", ()),
    ("5a", (256, 160, 320, 32, 128, 128)), ("5b", (384, 192, 384, 48, 128, 128)),
)  # fmt: skip
"""Channels of 1x1, 3x3 reduced, 3x3, 5x5 reduced, 5x5 and behind the pool; none for a pool of stride 2."""
CLASSES = 1000
HEADS, HEAD, TOKENS = 25, 64, 512
"""GPT-2 XL: heads, their width, tokens of the prompt or in the cache."""
FEED_FORWARD = 4 * TOKENS
"""As SET has it, which takes four times the tokens, not four times the width."""


@dataclass(slots=True, kw_only=True)
class _Writer:
    """Collects nodes of 8-bit integers; knows the shape of each value."""

    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    tables: list[onnx.TensorProto] = field(default_factory=list)

    def input(self, name: str, *shape: int) -> str:
        """Declare a model input."""
        self.inputs.append(name)
        return self._known(name, shape)

    def conv(self, x: str, name: str, out: int, kernel: int = 1, stride: int = 1) -> str:
        """Convolve [b, c, h, w]; padding keeps the size, up to the stride."""
        b, c, h, w = self.shapes[x]
        weight = self._weight(name, out, c, kernel, kernel)
        self._quantised(
            "QLinearConv",
            (x, weight),
            name,
            kernel_shape=[kernel] * 2,
            strides=[stride] * 2,
            pads=_pads(kernel, h, stride),
        )
        return self._known(name, (b, out, -(-h // stride), -(-w // stride)))

    def pool(self, x: str, name: str, kernel: int, stride: int) -> str:
        """Take the maximum of windows of [b, c, h, w]; all of a window that covers the image."""
        b, c, h, w = self.shapes[x]
        size = 1 if kernel == h else -(-h // stride)
        pads = [0] * 4 if size == 1 else _pads(kernel, h, stride)
        attributes = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": pads}
        return self._op("MaxPool", (x,), name, (b, c, size, size * w // h or 1), **attributes)

    def product(self, x: str, y: str, name: str) -> str:
        """x y, of which y may have fewer dimensions."""
        self._quantised("QLinearMatMul", (x, y), name)
        return self._known(name, (*self.shapes[x][:-1], self.shapes[y][-1]))

    def linear(self, x: str, name: str, out: int) -> str:
        """Multiply by a weight [in, out]."""
        return self.product(x, self._weight(name, self.shapes[x][-1], out), name)

    def each(self, x: str, name: str) -> str:
        """Do one operation an element."""
        return self._op("Relu", (x,), name, self.shapes[x])

    def add(self, x: str, y: str, name: str) -> str:
        """x + y."""
        return self._op("Add", (x, y), name, self.shapes[x])

    def concat(self, xs: Sequence[str], name: str, axis: int) -> str:
        """Put values behind one another on an axis."""
        shape = list(self.shapes[xs[0]])
        shape[axis] = sum(self.shapes[x][axis] for x in xs)
        return self._op("Concat", xs, name, shape, axis=axis)

    def reshape(self, x: str, name: str, *shape: int) -> str:
        """Give a value another shape."""
        sizes = numpy_helper.from_array(np.array(shape, np.int64), f"{name}.shape")
        self.tables.append(sizes)
        return self._op("Reshape", (x, sizes.name), name, shape)

    def transpose(self, x: str, name: str, *perm: int) -> str:
        """Exchange dimensions."""
        shape = [self.shapes[x][p] for p in perm]
        return self._op("Transpose", (x,), name, shape, perm=perm)

    def model(self, name: str, output: str) -> bytes:
        """Return the model."""
        tables = [
            numpy_helper.from_array(np.array(2.0**-7, np.float32), "scale"),
            numpy_helper.from_array(np.array(0, np.int8), "zero"),
        ]
        graph = helper.make_graph(
            self.nodes,
            name,
            [self._info(n) for n in self.inputs],
            [self._info(output)],
            [*tables, *self.tables],
        )
        opsets = [helper.make_opsetid("", _OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)
        return bytes(model.SerializeToString())

    def _quantised(self, kind: str, operands: Sequence[str], name: str, **attributes: Any) -> None:
        parts = [part for n in operands for part in (n, "scale", "zero")]
        self.nodes.append(
            helper.make_node(kind, [*parts, "scale", "zero"], [name], name=name, **attributes)
        )

    def _op(
        self, kind: str, xs: Sequence[str], name: str, shape: Sequence[int], **attributes: Any
    ) -> str:
        self.nodes.append(helper.make_node(kind, xs, [name], name=name, **attributes))
        return self._known(name, shape)

    def _weight(self, name: str, *shape: int) -> str:
        tensor = TensorProto(name=f"{name}.weight", dims=shape, data_type=_INT8)
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", "weights.data"), ("length", prod(shape))):
            tensor.external_data.add(key=key, value=str(value))
        self.tables.append(tensor)
        self.shapes[tensor.name] = shape
        return str(tensor.name)

    def _known(self, name: str, shape: Sequence[int]) -> str:
        self.shapes[name] = tuple(shape)
        return name

    def _info(self, name: str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, _INT8, self.shapes[name])


def _pads(kernel: int, size: int, stride: int) -> list[int]:
    """Return the padding that makes ceil(size / stride) windows."""
    total = max(0, (-(-size // stride) - 1) * stride + kernel - size)
    return [total // 2, total // 2, total - total // 2, total - total // 2]


def googlenet(batch: int) -> bytes:
    """Return GoogLeNet for so many images of 224 x 224 pixels."""
    w = _Writer()
    x = w.pool(w.conv(w.input("image", batch, 3, 224, 224), "conv1", 64, 7, 2), "pool1", 3, 2)
    x = w.conv(w.conv(x, "conv2_3x3_reduce", 64), "conv2_3x3", 192, 3)
    x = w.pool(x, "pool2", 3, 2)
    for name, channels in INCEPTIONS:
        x = _inception(w, x, name, *channels) if channels else w.pool(x, name, 3, 2)
    x = w.pool(x, "pool5", 7, 7)
    width = w.shapes[x][1]
    return w.model("googlenet", w.linear(w.reshape(x, "flat", batch, width), "fc", CLASSES))


def _inception(
    w: _Writer, x: str, name: str, one: int, three: int, out3: int, five: int, out5: int, pool: int
) -> str:
    branches = (
        w.conv(x, f"{name}.1x1", one),
        w.conv(w.conv(x, f"{name}.3x3_reduce", three), f"{name}.3x3", out3, 3),
        w.conv(w.conv(x, f"{name}.5x5_reduce", five), f"{name}.5x5", out5, 5),
        w.conv(w.pool(x, f"{name}.pool", 3, 1), f"{name}.pool_proj", pool),
    )
    return w.concat(branches, name, axis=1)


def gpt2_cell(mode: str) -> bytes:
    """Return SET's cell of GPT-2 XL: what embeds, one block, and the last product.

    Args:
        mode: "prefill" of a prompt, or "decode" of one token with what came before in a cache.
    """
    w = _Writer()
    is_decode, width = mode == "decode", HEADS * HEAD
    tokens = 1 if is_decode else TOKENS
    x = w.each(w.input("tokens", tokens, width), "word_embed")
    q = _heads(w, w.linear(x, "q", width), "q")
    k = w.transpose(_heads(w, w.linear(x, "k", width), "k"), "k.turned", 0, 2, 1)
    v = _heads(w, w.linear(x, "v", width), "v")
    if is_decode:
        k = w.concat((w.input("k.cache", HEADS, HEAD, TOKENS), k), "k.all", axis=2)
        v = w.concat((w.input("v.cache", HEADS, TOKENS, HEAD), v), "v.all", axis=1)
    weighed = w.product(w.each(w.product(q, k, "qk"), "qk_elt"), v, "qkv")
    joined = w.reshape(w.transpose(weighed, "qkv.turned", 1, 0, 2), "qkv.joined", tokens, width)
    y = w.add(x, w.linear(joined, "fc", width), "elt1")
    inner = w.linear(y, "feedfwd1", FEED_FORWARD)
    y = w.add(y, w.linear(inner, "feedfwd2", width), "elt2")
    return w.model(f"gpt2-xl_{mode}", w.linear(y, "proj", CLASSES))


def _heads(w: _Writer, x: str, name: str) -> str:
    """Return [tokens, heads head] as [heads, tokens, head]."""
    tokens = w.shapes[x][0]
    return w.transpose(w.reshape(x, f"{name}.cut", tokens, HEADS, HEAD), f"{name}.heads", 1, 0, 2)
