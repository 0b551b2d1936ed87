"""Reference semantics against straightforward loops, scipy and numpy."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from tilewright.dtypes import DType
from tilewright.errors import ProgramError, ShapeError
from tilewright.graph import (
    BINARY_FUNCTIONS,
    PARAMETRIC_FUNCTIONS,
    STATISTIC_FUNCTIONS,
    TERNARY_FUNCTIONS,
    UNARY_FUNCTIONS,
    Graph,
    Op,
    Port,
    TensorType,
)
from tilewright.reference import evaluate, evaluate_op, map_function, run_pipeline

RNG = np.random.default_rng(5)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def run(
    kind: str, *inputs: np.ndarray, out: tuple[int, ...], dtype: DType | None = None, **attrs: Any
) -> np.ndarray:
    names = tuple(f"in{i}" for i in range(len(inputs)))
    op = Op(name="op", kind=kind, inputs=names, outputs=("out",), attrs=MappingProxyType(attrs))
    kept = dtype or DType.from_numpy(inputs[0].dtype)
    (result,) = evaluate_op(op, inputs, {"out": TensorType(out, kept)})
    return result


ARGUMENTS = {
    "cast": ("f32",),
    "leaky_relu": ("0.1",),
    "elu": ("1.5",),
    "hard_sigmoid": ("0.2", "0.5"),
    "clip_min": ("-0.5",),
    "clip_max": ("0.5",),
    "pow_const": ("3.0",),
    "add_const": ("2.0",),
    "mul_const": ("-3.0",),
}
INTEGER_ONLY = {"bitand", "bitor", "bitxor", "shl", "shr"}
PREDICATES = {"isnan", "isinf", "eq", "ne", "lt", "le", "gt", "ge"}


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("name", [*UNARY_FUNCTIONS, *PARAMETRIC_FUNCTIONS, *BINARY_FUNCTIONS])
def test_every_function_keeps_types(name: str, dtype: type):
    if name in INTEGER_ONLY or name == "not":
        dtype = np.int32 if name != "not" else np.bool_
    count = 2 if name in BINARY_FUNCTIONS else 1
    operands = [np.array([0.25, 0.5, 0.75]).astype(dtype) for _ in range(count)]
    result = map_function(name, ARGUMENTS.get(name, ()))(*operands)
    expected = np.bool_ if name in PREDICATES else np.float32 if name == "cast" else dtype
    assert result.dtype == np.dtype(expected)
    assert result.shape == (3,)


def test_div_rms_divides_by_the_root_of_a_scaled_statistic():
    assert STATISTIC_FUNCTIONS == ["div_rms"]
    x, squares = np.float32([[3, -4], [1, 2]]), np.float32([[25], [0]])
    found = run_pipeline("div_rms(0.5,4.0)|neg", (x, squares))
    np.testing.assert_allclose(found, -x / np.sqrt([[16.5], [4.0]]), rtol=1e-6)
    assert found.dtype == np.float32


def test_where_is_the_only_ternary():
    assert TERNARY_FUNCTIONS == ["where"]
    found = map_function("where")(np.array([True, False]), np.int8([1, 2]), np.int8([3, 4]))
    np.testing.assert_array_equal(found, np.int8([1, 4]))
    assert found.dtype == np.int8


@pytest.mark.parametrize(
    ("name", "args", "expected"),
    [
        ("gelu", (), lambda x: x * special.ndtr(x)),
        ("silu", (), lambda x: x / (1 + np.exp(-x))),
        ("softplus", (), lambda x: np.log(1 + np.exp(x))),
        ("rsqrt", (), lambda x: abs(x) ** -0.5),
        ("erf", (), special.erf),
        ("elu", ("0.5",), lambda x: np.where(x > 0, x, 0.5 * (np.exp(x) - 1))),
        ("leaky_relu", ("0.1",), lambda x: np.where(x > 0, x, 0.1 * x)),
        ("hard_sigmoid", ("0.3", "0.4"), lambda x: np.clip(0.3 * x + 0.4, 0, 1)),
    ],
)
def test_activations(name: str, args: tuple[str, ...], expected: Any):
    x = np.linspace(-4, 4, 41).astype(np.float32)
    x = np.abs(x) + np.float32(0.1) if name == "rsqrt" else x
    found = map_function(name, args)(x)
    np.testing.assert_allclose(found, expected(x.astype(np.float64)), rtol=2e-6, atol=2e-7)


def test_tanh_gelu_is_near_gelu():
    x = np.linspace(-4, 4, 41).astype(np.float32)
    assert np.abs(map_function("gelu_tanh")(x) - map_function("gelu")(x)).max() < 5e-4


def test_pipelines_round_after_each_step():
    x = np.array([0.1, 2.5, -1.0], np.float32)
    found = run_pipeline("add|clip_min(0.0)|cast(f16)", [x, x])
    np.testing.assert_array_equal(found, np.maximum(x + x, 0).astype(np.float16))
    half = np.array([1.0], np.float16)
    assert run_pipeline("add_const(0.0001)|mul_const(2.0)", [half]) == 2.0


def test_integers():
    a, b = np.array([-7, 7, -7, 7]), np.array([2, -2, -2, 2])
    np.testing.assert_array_equal(map_function("div")(a, b), [-3, -3, 3, 3])
    np.testing.assert_array_equal(map_function("mod")(a, b), [1, -1, -1, 1])
    np.testing.assert_array_equal(map_function("fmod")(a, b), [-1, 1, -1, 1])
    np.testing.assert_array_equal(map_function("round")(np.float32([0.5, 1.5, 2.5])), [0, 2, 2])
    big = np.array([2**60 + 1])
    assert map_function("add_const", ("1",))(big) == 2**60 + 2


def test_unknown_function():
    with pytest.raises(ProgramError, match="'nonsense' is unknown"):
        map_function("nonsense")


def naive_conv(
    x: np.ndarray, w: np.ndarray, strides: Any, pads: Any, dilations: Any, groups: int
) -> np.ndarray:
    top, left, bottom, right = pads
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (top, bottom), (left, right)))
    n, _, h, width = padded.shape
    o, per_group, r, s = w.shape
    oh = (h - dilations[0] * (r - 1) - 1) // strides[0] + 1
    ow = (width - dilations[1] * (s - 1) - 1) // strides[1] + 1
    out = np.zeros((n, o, oh, ow))
    for k in range(o):
        first = k // (o // groups) * per_group
        for i in range(oh):
            for j in range(ow):
                rows = i * strides[0] + dilations[0] * np.arange(r)
                columns = j * strides[1] + dilations[1] * np.arange(s)
                window = padded[:, first : first + per_group][:, :, rows][:, :, :, columns]
                out[:, k, i, j] = (window * w[k]).sum(axis=(1, 2, 3))
    return out


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_conv(data: st.DataObject):
    groups = data.draw(st.sampled_from([1, 2, 4]))
    r, s = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    strides = (data.draw(st.integers(1, 2)), data.draw(st.integers(1, 3)))
    dilations = (data.draw(st.integers(1, 2)), data.draw(st.integers(1, 2)))
    pads = tuple(data.draw(st.integers(0, 2)) for _ in range(4))
    x, w = normal(2, 4, 7, 6), normal(4, 4 // groups, r, s)
    expected = naive_conv(x, w, strides, pads, dilations, groups)
    attrs = {"strides": strides, "pads": pads, "dilations": dilations, "groups": groups}
    np.testing.assert_allclose(run("conv", x, w, out=expected.shape, **attrs), expected, atol=1e-5)


def test_integer_products_accumulate_in_the_output_type():
    a = RNG.integers(-128, 127, (3, 500)).astype(np.int8)
    b = RNG.integers(-128, 127, (500, 4)).astype(np.int8)
    found = run("matmul", a, b, out=(3, 4), dtype=DType.I32)
    np.testing.assert_array_equal(found, a.astype(np.int64) @ b.astype(np.int64))


def test_batched_matmul_broadcasts():
    a, b = normal(2, 1, 3, 4), normal(1, 5, 4, 6)
    expected = np.einsum("aimk,jbkn->abmn", a, b)
    np.testing.assert_allclose(run("matmul", a, b, out=(2, 5, 3, 6)), expected, atol=1e-5)


@pytest.mark.parametrize("fn", ["max", "sum"])
def test_pool_padding(fn: str):
    x = -np.ones((1, 1, 3, 3), np.float32)
    attrs = {"kernel": (2, 2), "strides": (2, 2), "pads": (1, 1, 0, 0), "dilations": (1, 1)}
    found = run("pool", x, out=(1, 1, 2, 2), fn=fn, **attrs)
    np.testing.assert_array_equal(
        found[0, 0], [[-1, -1], [-1, -1]] if fn == "max" else [[-1, -2], [-2, -4]]
    )


def test_normalisations():
    x = normal(3, 16)
    soft = run("softmax", x, out=x.shape)
    np.testing.assert_allclose(soft, special.softmax(x, axis=-1), rtol=1e-6)
    layer = run("layernorm", x, out=x.shape, epsilon=1e-5)
    expected = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(layer, expected, atol=1e-6)
    rms = run("rmsnorm", x, out=x.shape, epsilon=0.1)
    np.testing.assert_allclose(rms, x / np.sqrt((x**2).mean(-1, keepdims=True) + 0.1), atol=1e-6)


def test_softmax_does_not_overflow():
    x = np.float32([[1e4, 0.0, 1e4]])
    np.testing.assert_allclose(run("softmax", x, out=(1, 3)), [[0.5, 0.0, 0.5]])


def test_attention_is_softmax_between_products():
    q, k, v, mask = normal(2, 3, 4), normal(2, 4, 5), normal(1, 5, 2), normal(1, 3, 5)
    scores = np.einsum("bmd,bdn->bmn", q, k) * -0.25
    weights = special.softmax(scores, axis=-1)
    plain = run("attention", q, k, v, out=(2, 3, 2), scale=-0.25)
    np.testing.assert_allclose(plain, np.einsum("bmn,ne->bme", weights, v[0]), rtol=1e-5)
    weights = special.softmax(scores + mask, axis=-1)
    masked = run("attention", q, k, v, mask, out=(2, 3, 2), scale=-0.25)
    np.testing.assert_allclose(masked, np.einsum("bmn,ne->bme", weights, v[0]), rtol=1e-5)


def test_attention_without_a_key_in_sight_is_nan():
    q, k, v = normal(2, 4), normal(4, 3), normal(3, 2)
    mask = np.float32([[0.0, -np.inf, -np.inf], [-np.inf] * 3])
    found = run("attention", q, k, v, mask, out=(2, 2), scale=1.0)
    np.testing.assert_allclose(found[0], v[0], rtol=1e-6)
    assert np.isnan(found[1]).all()


def test_layout_operators():
    x = normal(2, 3, 4)
    np.testing.assert_array_equal(run("reshape", x, out=(6, 4), shape=(6, 4)), x.reshape(6, 4))
    np.testing.assert_array_equal(
        run("transpose", x, out=(4, 2, 3), perm=(2, 0, 1)), x.transpose(2, 0, 1)
    )
    taken = run("slice", x, out=(2, 2, 4), starts=(1, 0, 3), sizes=(2, 2, 4), steps=(-1, 2, -1))
    np.testing.assert_array_equal(taken, x[::-1, 0:3:2, ::-1])
    joined = run("concat", x, x, out=(2, 6, 4), axis=1)
    np.testing.assert_array_equal(joined, np.concatenate([x, x], 1))
    padded = run("pad", x, out=(3, 3, 6), begins=(1, 0, 0), ends=(0, 0, 2), value=-np.inf)
    np.testing.assert_array_equal(
        padded, np.pad(x, ((1, 0), (0, 0), (0, 2)), constant_values=-np.inf)
    )
    grown = run("expand", x[:, :1], out=(2, 5, 4), shape=(2, 5, 4))
    np.testing.assert_array_equal(grown, np.repeat(x[:, :1], 5, 1))
    rows = run("gather", x, np.array([2, 0, 2]), out=(2, 3, 4), axis=1)
    np.testing.assert_array_equal(rows, x[:, [2, 0, 2]])


@pytest.mark.parametrize("fn", ["sum", "max", "min", "prod"])
def test_reduce(fn: str):
    x = normal(2, 3, 4)
    expected = getattr(np, fn)(x, axis=(0, 2), keepdims=True)
    np.testing.assert_allclose(
        run("reduce", x, out=(1, 3, 1), fn=fn, axes=(0, 2)), expected, rtol=1e-5
    )


def test_small_integers_wrap_in_reductions():
    x = np.full((4, 1), 100, np.int8)
    assert run("reduce", x, out=(1, 1), fn="sum", axes=(0,)).item() == np.int8(400 - 512)


def test_promised_types_are_checked():
    with pytest.raises(ShapeError, match="the graph says"):
        run("reshape", normal(2, 3), out=(3, 3), shape=(3, 2))
    with pytest.raises(ProgramError, match="no reference meaning"):
        run("dance", normal(2), out=(2,))


def test_graphs_free_what_is_dead_and_return_ports():
    types = {n: TensorType((1,), DType.F32) for n in "abcd"}
    ops = tuple(
        Op(name=f"op{o}", kind="map", inputs=(i,), outputs=(o,), attrs={"fn": f})
        for i, o, f in (("a", "b", "square"), ("b", "c", "neg"), ("b", "d", "sqrt"))
    )
    graph = Graph(
        name="g",
        inputs=(Port(name="in", tensor="a", shape=(), dtype=DType.F32),),
        outputs=tuple(Port(name=n, tensor=n, shape=(), dtype=DType.F32) for n in "dcb"),
        types=types,
        constants={},
        ops=ops,
    )
    graph.validate()
    found = evaluate(graph, {"in": np.float32(3)})
    assert {n: v.item() for n, v in found.items()} == {"d": 3.0, "c": -9.0, "b": 9.0}
    assert list(found) == ["d", "c", "b"]
    assert found["d"].shape == ()
