"""Random attributes for rule checks."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from tilewright.graph import AttrValue, TensorType
from tilewright.rules.constructors import CONSTRUCTORS, Constructor, encode, encode_value

_CASTS = ("cast(f64)", "cast(f32)", "cast(i32)")
_FUNCTIONS = {
    1: ("relu", "neg", "square", "mul_const(2.0)", "mul_const(-3)", "identity", *_CASTS),
    2: ("add", "mul", "sub", "div", "max", "div_rms(0.01,4.0)", "add|relu", "mul|cast(f32)", "lt"),
    3: ("where",),
}


def random_text(
    random: np.random.Generator, constructor: Constructor, column: str, operands: list[TensorType]
) -> str:
    """Return a random value of an attribute column that may fit the operands.

    Args:
        random: Source of randomness.
        constructor: The operator.
        column: One of its columns.
        operands: Types of its operands.
    """
    shape = operands[0].shape
    rank = len(shape)
    match column:
        case "fn" if constructor.kind == "reduce":
            return str(random.choice(["sum", "max"]))
        case "between":
            return str(random.choice(_FUNCTIONS[2 if "_with" in constructor.name else 1]))
        case "epilogue":
            return str(random.choice(_FUNCTIONS[2 if constructor.name.endswith("_binary") else 1]))
        case "fn":
            count, binary = len(operands), len(operands) == 2
            return str(random.choice(_FUNCTIONS[2 if binary else max(count, 1)]))
        case "inner_dtype" | "product_dtype":
            return str(operands[0].dtype)
        case "perm":
            perm = range(rank) if random.random() < 0.3 else random.permutation(rank)
            return encode_value(tuple(int(i) for i in perm))
        case "axes":
            return encode_value(tuple(i for i in range(rank) if random.random() < 0.5))
        case "axis":
            return encode_value(int(random.integers(rank)))
        case "scale":
            return encode_value(drawn(random, (1.0, 0.5, -2.0)))
        case "epsilon":
            return encode_value(1e-5)
        case "shape":
            return encode_value(_shape(random, shape))
        case _:
            return _rest(random, constructor, operands)


def _shape(random: np.random.Generator, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return a shape of as many elements."""
    options = [shape, shape[::-1], (prod(shape),), (1, *shape), (shape[0], prod(shape[1:]))]
    return drawn(random, options)


def drawn[Option](random: np.random.Generator, options: Sequence[Option]) -> Option:
    """Return one of the options, as `random.choice` would, which first makes an array of them."""
    return options[int(random.integers(len(options)))]


def _rest(random: np.random.Generator, constructor: Constructor, operands: list[TensorType]) -> str:
    """Return attributes of a matmul, or of a conv, which may have groups, strides, dilations and padding."""
    if constructor.kind == "matmul":
        return _permutations(random, len(operands[0].shape))
    assert constructor.kind == "conv", f"no random attributes for {constructor.kind}"
    x, w = operands[0].shape, operands[1].shape
    attrs: dict[str, AttrValue] = {
        "groups": x[1] // w[1] if w[1] and x[1] % w[1] == 0 else 1,
        "strides": (int(random.integers(1, 3)), 1),
        "dilations": (1, int(random.integers(1, 3))),
        "pads": tuple(int(p) for p in random.integers(0, 3, 4)),
    }
    return encode(CONSTRUCTORS["conv"], attrs)[0]


def _permutations(random: np.random.Generator, rank: int) -> str:
    """Return attributes of a matmul, which may walk its tensors in another order."""
    attrs: dict[str, AttrValue] = {
        key: tuple(int(i) for i in random.permutation(rank))
        for key in ("perm_a", "perm_b", "perm_out")
        if random.random() < 0.2
    }
    return encode(CONSTRUCTORS["matmul"], attrs)[0]
