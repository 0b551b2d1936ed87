"""The programs that a calibration compiles and simulates unless a user gives models.

They are small, so that many plans of them are simulated in little time, and differ in what planning is wrong
about: how much runs beside loads of inputs and stores of outputs.
"""

from __future__ import annotations

from tilewright.dtypes import DType
from tilewright.graph import Graph
from tilewright.rules.checks.zoo import GraphBuilder, encoder, resnet

_TYPE = DType.F32


def built_in_programs() -> dict[str, Graph]:
    """Return graphs by name, always the same ones."""
    return {
        "encoder": encoder(2, tokens=16, width=64, dtype=_TYPE),
        "prompt": decoder("prompt", tokens=16, past=0),
        "token": decoder("token", tokens=1, past=15),
        "residual": resnet(2, channels=8, size=8, dtype=_TYPE),
        "layers": layers(),
        "states": states(),
    }


def decoder(
    name: str, tokens: int, past: int, *, count: int = 2, width: int = 64, heads: int = 4
) -> Graph:
    """Return layers of a decoder whose keys and values are outputs, and inputs if there is a past.

    Loads of the past and stores have much beside them that does not wait for them.
    """
    b = GraphBuilder(name, dtype=_TYPE)
    size, x = width // heads, b.input("x", 1, tokens, width)
    outputs = []

    def split(t: str) -> str:
        t = b.op("reshape", t, shape=(1, tokens, heads, size))
        return b.op("transpose", t, perm=(0, 2, 1, 3))

    def normed(t: str, name: str) -> str:
        scale = b.constant(name, 1, 1, width)
        return b.op("map", b.op("rmsnorm", t, epsilon=1e-5), scale, fn="mul")

    for i in range(count):
        h = normed(x, f"{i}.norm1")
        q, *kept = (split(b.linear(h, f"{i}.{part}", width)) for part in "qkv")
        if past:
            given = [b.input(f"{i}.{part}.past", 1, heads, past, size) for part in "kv"]
            kept = [b.op("concat", *pair, axis=2) for pair in zip(given, kept, strict=True)]
        outputs += kept
        k, v = kept
        s = b.op("matmul", q, b.op("transpose", k, perm=(0, 1, 3, 2)))
        s = b.op("softmax", b.op("map", s, fn=f"mul_const({size**-0.5!r})"))
        o = b.op("transpose", b.op("matmul", s, v), perm=(0, 2, 1, 3))
        o = b.linear(b.op("reshape", o, shape=(1, tokens, width)), f"{i}.o", width)
        x = b.op("map", x, o, fn="add")
        h = b.op("map", b.linear(normed(x, f"{i}.norm2"), f"{i}.up", 2 * width), fn="silu")
        x = b.op("map", x, b.linear(h, f"{i}.down", width), fn="add")
    return b.graph(x, *outputs)


def layers(tokens: int = 32, width: int = 64, count: int = 6) -> Graph:
    """Return linear layers with relu, one after the other."""
    b = GraphBuilder("layers", dtype=_TYPE)
    x = b.input("x", tokens, width)
    for number in range(count):
        x = b.op("map", b.linear(x, str(number), width), fn="relu")
    return b.graph(x)


def states(count: int = 4, width: int = 128) -> Graph:
    """Return gated updates of states that are inputs and outputs: loads and stores, little to compute."""
    b = GraphBuilder("states", dtype=_TYPE)
    x = b.input("x", 1, width)
    outputs = []
    for number in range(count):
        state = b.input(f"state{number}", 1, width)
        gate = b.op("map", b.linear(x, f"{number}.gate", width), fn="sigmoid")
        new = b.op("map", b.linear(state, f"{number}.new", width), fn="tanh")
        outputs.append(b.op("map", b.op("map", gate, state, fn="mul"), new, fn="add"))
        x = outputs[-1]
    return b.graph(*outputs)
