"""A small zoo: graphs of the model families that the project compiles, built in code.

Rules are measured on it: how often they fire, what they add, whether they come to an end.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache

import numpy as np

from tilewright.dtypes import DType
from tilewright.graph import Array, AttrValue, Graph, Op, Port, TensorType
from tilewright.rules.inference import infer_type


class GraphBuilder:
    """Builds small graphs with random constants."""

    def __init__(self, name: str = "g", seed: int = 0, dtype: DType = DType.F64) -> None:
        self.name = name
        self.dtype = dtype
        self.types: dict[str, TensorType] = {}
        self.constants: dict[str, Array] = {}
        self.inputs: list[str] = []
        self.ops: list[Op] = []
        self._random = np.random.default_rng(seed)

    def input(self, name: str, *shape: int, dtype: DType | None = None) -> str:
        """Declare an input and return its name."""
        self.types[name] = TensorType(shape, dtype or self.dtype)
        self.inputs.append(name)
        return name

    def constant(self, name: str, *shape: int, dtype: DType | None = None) -> str:
        """Declare a weight of random values and return its name."""
        self.types[name] = TensorType(shape, dtype or self.dtype)
        self.constants[name] = self._random.normal(size=shape).astype((dtype or self.dtype).numpy)
        return name

    def op(self, kind: str, *inputs: str, dtype: DType | None = None, **attrs: AttrValue) -> str:
        """Add an operator and return the name of its result.

        Raises:
            ShapeError: The operands do not fit it.
        """
        types = [self.types[name] for name in inputs]
        name = f"t{len(self.ops)}"
        self.types[name] = infer_type(
            kind, attrs, types, dtype or types[-1 if kind == "map" else 0].dtype
        )
        self.ops.append(
            Op(name=f"{kind}.{name}", kind=kind, inputs=inputs, outputs=(name,), attrs=attrs)
        )
        return name

    def linear(self, x: str, name: str, into: int) -> str:
        """Add a product with a weight and a bias."""
        shape = self.types[x].shape
        w = self.constant(f"{name}.w", *(1,) * (len(shape) - 2), shape[-1], into)
        b = self.constant(f"{name}.b", *(1,) * (len(shape) - 1), into)
        return self.op("map", self.op("matmul", x, w), b, fn="add")

    def conv(self, x: str, name: str, out: int, kernel: int) -> str:
        """Add a convolution that keeps the spatial size, and its bias."""
        w = self.constant(f"{name}.w", out, self.types[x].shape[1], kernel, kernel)
        pads = (kernel // 2,) * 4
        y = self.op("conv", x, w, strides=(1, 1), pads=pads, dilations=(1, 1), groups=1)
        return self.op("map", y, self.constant(f"{name}.b", 1, out, 1, 1), fn="add")

    def graph(self, *outputs: str) -> Graph:
        """Return the graph with these outputs."""

        def port(name: str) -> Port:
            return Port(
                name=name, tensor=name, shape=self.types[name].shape, dtype=self.types[name].dtype
            )

        graph = Graph(
            name=self.name,
            inputs=tuple(map(port, self.inputs)),
            outputs=tuple(map(port, outputs)),
            types=self.types,
            constants=self.constants,
            ops=tuple(self.ops),
        )
        graph.validate()
        return graph


def transformer(layers: int, tokens: int = 8, width: int = 16, heads: int = 4) -> Graph:
    """Return a Llama-like decoder: RMSNorm, grouped-query attention with rope and mask, gated MLP."""
    b = GraphBuilder("transformer")
    size, kv_heads = width // heads, heads // 2
    x = b.input("x", 1, tokens, width)
    cos, sin = b.input("cos", 1, 1, tokens, size), b.input("sin", 1, 1, tokens, size)
    mask = b.input("mask", 1, 1, tokens, tokens)

    def split(t: str, count: int) -> str:
        return b.op(
            "transpose", b.op("reshape", t, shape=(1, tokens, count, size)), perm=(0, 2, 1, 3)
        )

    def half(t: str, count: int, start: int) -> str:
        sizes = (1, count, tokens, size // 2)
        return b.op("slice", t, starts=(0, 0, 0, start), sizes=sizes, steps=(1, 1, 1, 1))

    def rope(t: str, count: int) -> str:
        turned = b.op("map", half(t, count, size // 2), fn="neg")
        turned = b.op("concat", turned, half(t, count, 0), axis=3)
        left = b.op("map", t, cos, fn="mul")
        return b.op("map", left, b.op("map", turned, sin, fn="mul"), fn="add")

    def repeat(t: str) -> str:
        t = b.op("reshape", t, shape=(1, kv_heads, 1, tokens, size))
        t = b.op("expand", t, shape=(1, kv_heads, 2, tokens, size))
        return b.op("reshape", t, shape=(1, heads, tokens, size))

    def norm(t: str, name: str) -> str:
        return b.op(
            "map", b.op("rmsnorm", t, epsilon=1e-5), b.constant(name, 1, 1, width), fn="mul"
        )

    def product(t: str, name: str, into: int) -> str:
        return b.op("matmul", t, b.constant(name, 1, b.types[t].shape[-1], into))

    for i in range(layers):
        h = norm(x, f"{i}.norm1")
        q = rope(split(product(h, f"{i}.q", width), heads), heads)
        k = repeat(rope(split(product(h, f"{i}.k", kv_heads * size), kv_heads), kv_heads))
        v = repeat(split(product(h, f"{i}.v", kv_heads * size), kv_heads))
        s = b.op("matmul", q, b.op("transpose", k, perm=(0, 1, 3, 2)))
        s = b.op("map", b.op("map", s, fn="mul_const(0.5)"), mask, fn="add")
        o = b.op("transpose", b.op("matmul", b.op("softmax", s), v), perm=(0, 2, 1, 3))
        o = product(b.op("reshape", o, shape=(1, tokens, width)), f"{i}.o", width)
        x = b.op("map", x, o, fn="add")
        h = norm(x, f"{i}.norm2")
        gate = b.op("map", product(h, f"{i}.gate", 2 * width), fn="silu")
        h = b.op("map", gate, product(h, f"{i}.up", 2 * width), fn="mul")
        x = b.op("map", x, product(h, f"{i}.down", width), fn="add")
    return b.graph(x)


def encoder(
    layers: int, tokens: int = 8, width: int = 16, heads: int = 4, dtype: DType = DType.F64
) -> Graph:
    """Return a BERT-like encoder: biases, LayerNorm with scale and shift, GELU."""
    b = GraphBuilder("encoder", dtype=dtype)
    size = width // heads
    x, mask = b.input("x", 1, tokens, width), b.input("mask", 1, 1, 1, tokens)

    def split(t: str) -> str:
        return b.op(
            "transpose", b.op("reshape", t, shape=(1, tokens, heads, size)), perm=(0, 2, 1, 3)
        )

    def norm(t: str, name: str) -> str:
        t = b.op("layernorm", t, epsilon=1e-5)
        t = b.op("map", t, b.constant(f"{name}.scale", 1, 1, width), fn="mul")
        return b.op("map", t, b.constant(f"{name}.shift", 1, 1, width), fn="add")

    for i in range(layers):
        q, k, v = (split(b.linear(x, f"{i}.{name}", width)) for name in "qkv")
        s = b.op("matmul", q, b.op("transpose", k, perm=(0, 1, 3, 2)))
        s = b.op("map", s, b.constant(f"{i}.scale", 1, 1, 1, 1), fn="div")
        s = b.op("softmax", b.op("map", s, mask, fn="add"))
        o = b.op("transpose", b.op("matmul", s, v), perm=(0, 2, 1, 3))
        o = b.linear(b.op("reshape", o, shape=(1, tokens, width)), f"{i}.o", width)
        x = norm(b.op("map", o, x, fn="add"), f"{i}.norm1")
        h = b.op("map", b.linear(x, f"{i}.up", 4 * width), fn="gelu")
        x = norm(b.op("map", b.linear(h, f"{i}.down", width), x, fn="add"), f"{i}.norm2")
    return b.graph(x)


def resnet(blocks: int, channels: int = 4, size: int = 6, dtype: DType = DType.F64) -> Graph:
    """Return a residual CNN of bottleneck blocks with a classifier."""
    b = GraphBuilder("resnet", dtype=dtype)
    x = b.op("map", b.conv(b.input("x", 2, 3, size, size), "stem", 4 * channels, 3), fn="relu")
    for i in range(blocks):
        y = b.op("map", b.conv(x, f"{i}.a", channels, 1), fn="relu")
        y = b.op("map", b.conv(y, f"{i}.b", channels, 3), fn="relu")
        y = b.op("map", b.conv(y, f"{i}.c", 4 * channels, 1), x, fn="add")
        x = b.op("map", y, fn="relu")
    pooled = b.op("map", b.op("reduce", x, fn="sum", axes=(2, 3)), fn=f"mul_const({1 / size**2!r})")
    return b.graph(b.linear(b.op("reshape", pooled, shape=(2, 4 * channels)), "head", 8))


def united(name: str, graphs: Iterable[Graph]) -> Graph:
    """Return several graphs as one; tensors and operators get the graph's number in front."""
    ports: dict[str, list[Port]] = {"inputs": [], "outputs": []}
    types: dict[str, TensorType] = {}
    constants: dict[str, Array] = {}
    ops: list[Op] = []
    for number, graph in enumerate(graphs):

        def named(tensor: str, prefix: str = f"{number}.") -> str:
            return prefix + tensor

        for side, found in (("inputs", graph.inputs), ("outputs", graph.outputs)):
            ports[side] += [
                replace(port, name=named(port.name), tensor=named(port.tensor)) for port in found
            ]
        types |= {named(tensor): kind for tensor, kind in graph.types.items()}
        constants |= {named(tensor): array for tensor, array in graph.constants.items()}
        ops += [
            replace(
                op,
                name=named(op.name),
                inputs=tuple(map(named, op.inputs)),
                outputs=tuple(map(named, op.outputs)),
            )
            for op in graph.ops
        ]
    result = Graph(
        name=name,
        inputs=tuple(ports["inputs"]),
        outputs=tuple(ports["outputs"]),
        types=types,
        constants=constants,
        ops=tuple(ops),
    )
    result.validate()
    return result


@lru_cache(maxsize=1)
def zoo() -> Graph:
    """Return one block of each family, as one graph."""
    return united("zoo", (transformer(1), encoder(1), resnet(1)))
