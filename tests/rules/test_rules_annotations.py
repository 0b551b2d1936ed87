"""Annotations and splits against the reference semantics, by interpreting nests naively."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.dtypes import DType
from tilewright.errors import ShapeError, UnsupportedOpError
from tilewright.graph import Op, TensorType
from tilewright.hwmodel.mesh import (
    PARTIAL_MAX,
    PARTIAL_SUM,
    LogicalMesh,
    local_shape,
)
from tilewright.reference import AnyArray as Array
from tilewright.reference import evaluate_op
from tilewright.rules.annotations import annotate, annotated_kinds
from tilewright.rules.inference import infer_type
from tilewright.rules.loopnest import LoopNest
from tilewright.rules.partition.checking import check_strategy as check_macro
from tilewright.rules.partition.samples import Sample
from tilewright.rules.partition.spmd import (
    assemble,
    distribute,
    interpret,
    is_interpretable,
    piece,
    reference_value,
    run_tile,
)
from tilewright.rules.splitting import Strategy, localise, split_sharding, strategies

MESHES = (
    LogicalMesh(("x",), (2,)),
    LogicalMesh(("x",), (3,)),
    LogicalMesh(("x", "y"), (2, 3)),
    LogicalMesh(("x", "y"), (2, 2)),
    LogicalMesh(("x", "y", "z"), (1, 2, 2)),
)


def case(kind: str, *shapes: tuple[int, ...], **attrs: object) -> tuple[Op, tuple[TensorType, ...]]:
    op = Op(name=kind, kind=kind, inputs=(), outputs=("y",), attrs=attrs)  # type: ignore[arg-type]
    return op, tuple(TensorType(shape, DType.F64) for shape in shapes)


CONV = {"strides": (1, 1), "pads": (0, 0, 0, 0), "dilations": (1, 1), "groups": 1}
CASES = {
    "matmul": case("matmul", (4, 6), (6, 12)),
    "matmul_batch": case("matmul", (2, 6, 4, 6), (1, 6, 6, 4)),
    "matmul_one_row": case("matmul", (1, 6), (6, 6)),
    "matmul_bias": case(
        "matmul", (4, 6), (6, 12), (1, 12), epilogue="add|relu", product_dtype="f64"
    ),
    "matmul_epilogue": case("matmul", (4, 6), (6, 4), epilogue="relu", product_dtype="f64"),
    "matmul_permuted": case(
        "matmul",
        (4, 2, 6, 3),
        (2, 3, 12, 6),
        perm_a=(1, 3, 0, 2),
        perm_b=(0, 1, 3, 2),
        perm_out=(2, 0, 1, 3),
    ),
    "matmul_permuted_third": case(
        "matmul",
        (6, 4),
        (6, 12),
        (12, 1),
        perm_a=(1, 0),
        perm_out=(1, 0),
        epilogue="add|relu",
        product_dtype="f64",
    ),
    "matmul_quantised": case("matmul", (4, 6), (6, 12), (1, 12), prologue="dequantise"),
    "matmul_quantised_rows": case(
        "matmul", (2, 4, 6), (2, 12, 6), (1, 1, 6), prologue="dequantise", perm_b=(0, 2, 1)
    ),
    "matmul_quantised_bias": case(
        "matmul",
        (4, 6),
        (6, 12),
        (1, 12),
        (6, 12),
        prologue="dequantise",
        epilogue="add|relu",
        product_dtype="f64",
    ),
    "conv_1x1": case("conv", (2, 6, 4, 6), (12, 6, 1, 1), **CONV),
    "conv_3x3": case("conv", (2, 4, 6, 6), (6, 4, 3, 3), **(CONV | {"pads": (1, 1, 1, 1)})),
    "conv_uneven": case(
        "conv",
        (2, 4, 7, 8),
        (6, 4, 3, 2),
        **(CONV | {"pads": (2, 0, 1, 1), "strides": (2, 1), "dilations": (1, 2)}),
    ),
    "conv_groups": case("conv", (1, 12, 4, 4), (18, 2, 1, 1), **(CONV | {"groups": 6})),
    "conv_depthwise": case("conv", (2, 6, 5, 5), (6, 1, 3, 3), **(CONV | {"groups": 6})),
    "conv_quantised": case(
        *("conv", (2, 4, 6, 6), (6, 4, 3, 3), (6, 1, 1, 1)),
        **(CONV | {"pads": (1, 1, 1, 1), "prologue": "dequantise"}),
    ),
    "conv_quantised_groups": case(
        *("conv", (1, 12, 4, 4), (18, 2, 1, 1), (18, 1, 1, 1)),
        **(CONV | {"groups": 6, "prologue": "dequantise"}),
    ),
    "conv_quantised_residual": case(
        *("conv", (2, 6, 4, 4), (4, 6, 1, 1), (2, 4, 4, 4), (1, 6, 1, 1)),
        **CONV,
        prologue="dequantise",
        epilogue="add|relu",
        product_dtype="f64",
    ),
    "conv_residual": case(
        "conv",
        (2, 6, 4, 4),
        (4, 6, 1, 1),
        (2, 4, 4, 4),
        epilogue="add|relu",
        product_dtype="f64",
        **CONV,
    ),
    "conv_stem": case(
        "conv",
        (1, 2, 12, 24),
        (2, 2, 7, 5),
        **(CONV | {"strides": (2, 2), "pads": (3, 2, 2, 1)}),
    ),
    "conv_dilated": case(
        "conv",
        (1, 2, 12, 12),
        (2, 2, 3, 3),
        **(CONV | {"dilations": (2, 1), "pads": (2, 0, 2, 2)}),
    ),
    "conv_halo_residual": case(
        "conv",
        (1, 2, 6, 6),
        (2, 2, 3, 3),
        (1, 2, 6, 6),
        epilogue="add|relu",
        product_dtype="f64",
        **(CONV | {"pads": (1, 1, 1, 1)}),
    ),
    "pool_max_same": case(
        "pool",
        (1, 2, 6, 12),
        fn="max",
        kernel=(3, 3),
        strides=(1, 2),
        pads=(1, 0, 1, 1),
        dilations=(1, 1),
    ),
    "pool_max": case(
        "pool",
        (2, 6, 6, 6),
        fn="max",
        kernel=(3, 3),
        strides=(2, 2),
        pads=(1, 1, 1, 1),
        dilations=(1, 1),
    ),
    "pool_sum": case(
        "pool",
        (2, 6, 6, 6),
        fn="sum",
        kernel=(2, 2),
        strides=(2, 2),
        pads=(0, 0, 0, 0),
        dilations=(1, 1),
    ),
    "map": case("map", (4, 1, 6), (1, 12, 6), fn="mul"),
    "map_add": case("map", (4, 6), (4, 6), fn="add"),
    "map_add_broadcast": case("map", (4, 6), (1, 6), fn="add"),
    "map_neg": case("map", (12,), fn="neg"),
    "map_exp": case("map", (12,), fn="exp"),
    "reduce_sum": case("reduce", (4, 6, 2), fn="sum", axes=(1,)),
    "reduce_max": case("reduce", (4, 6, 2), fn="max", axes=(0, 1)),
    "reduce_prod": case("reduce", (4, 6), fn="prod", axes=(1,)),
    "softmax": case("softmax", (4, 6)),
    "layernorm": case("layernorm", (6, 4, 6), epsilon=1e-5),
    "rmsnorm": case("rmsnorm", (6, 4), epsilon=1e-5),
    "layernorm_of_sum": case("layernorm", (6, 4, 6), (6, 4, 6), epsilon=1e-5),
    "rmsnorm_of_sum": case("rmsnorm", (6, 4), (6, 4), epsilon=1e-5),
    "attention": case("attention", (2, 6, 4, 3), (2, 6, 3, 8), (2, 6, 8, 6), scale=0.5),
    "attention_masked": case("attention", (4, 6, 3), (1, 3, 4), (4, 4, 6), (1, 6, 4), scale=1.0),
    "attention_decode": case(
        "attention", (12, 1, 2), (12, 2, 6), (12, 6, 4), (12, 1, 6), scale=-0.25
    ),
    "attention_row_mask": case("attention", (1, 4, 2), (1, 2, 6), (6, 6, 4), (1, 1, 6), scale=0.25),
    "chain": case("chain", (6, 3), (3, 8), (8, 6), between="square", inner_dtype="f64"),
    "chain_third": case(
        "chain",
        *((2, 6, 4, 3), (2, 1, 3, 8), (2, 6, 8, 6), (2, 6, 1, 8)),
        between="add|relu",
        inner_dtype="f64",
    ),
    "chain_epilogue": case(
        "chain",
        *((4, 3), (3, 8), (8, 6), (4, 1)),
        between="identity",
        inner_dtype="f64",
        epilogue="add|relu",
        product_dtype="f64",
    ),
    "reshape_split": case("reshape", (4, 24), shape=(1, 4, 6, 4)),
    "reshape_merge": case("reshape", (2, 6, 4, 3), shape=(12, 12)),
    "reshape_refine": case("reshape", (4, 6), shape=(2, 12)),
    "reshape_whole": case("reshape", (4, 6, 5), shape=(6, 4, 5)),
    "transpose": case("transpose", (4, 6, 2), perm=(2, 0, 1)),
    "slice": case("slice", (4, 6, 4), starts=(0, 1, 3), sizes=(4, 2, 4), steps=(1, 2, -1)),
    "concat": case("concat", (4, 2, 6), (4, 5, 6), axis=1),
    "pad": case("pad", (4, 6), begins=(0, 2), ends=(0, 1), value=1.5),
    "pad_both": case("pad", (4, 6, 3, 2), begins=(0, 2, 1, 0), ends=(2, 4, 0, 0), value=0.0),
    "concat_empty": case("concat", (4, 0, 6), (4, 5, 6), (4, 1, 6), axis=1),
    "expand": case("expand", (4, 1, 6), shape=(4, 6, 6)),
}


def random_arrays(types: tuple[TensorType, ...], seed: int) -> list[Array]:
    random = np.random.default_rng(seed)
    return [random.integers(-3, 4, t.shape).astype(t.dtype.numpy) for t in types]


def result_type(op: Op, types: tuple[TensorType, ...]) -> TensorType:
    return infer_type(op.kind, op.attrs, types, DType.F64)


def annotated(op: Op, types: tuple[TensorType, ...]) -> LoopNest:
    nest = annotate(op, types, result_type(op, types))
    assert nest is not None
    return nest


@pytest.mark.parametrize("name", CASES)
def test_nest_means_what_the_reference_computes(name: str) -> None:
    op, types = CASES[name]
    nest = annotated(op, types)
    assert [tuple(d.size for d in o) for o in nest.operands] == [t.shape for t in types]
    assert tuple(d.size for d in nest.result) == result_type(op, types).shape
    if is_interpretable(op, nest):
        arrays = random_arrays(types, seed=1)
        np.testing.assert_array_equal(
            interpret(nest, op, arrays), reference_value(op, arrays, result_type(op, types))
        )


def test_every_kind_but_host_has_an_annotation() -> None:
    kinds = {op.kind for op, _ in CASES.values()} | {"gather"}
    assert set(annotated_kinds()) == kinds
    op = Op(name="h", kind="host", inputs=(), outputs=("y",))
    assert annotate(op, (), TensorType((1,), DType.F32)) is None


def check_strategy(
    op: Op, types: tuple[TensorType, ...], mesh: LogicalMesh, strategy: Strategy
) -> None:
    nest, result = annotated(op, types), result_type(op, types)
    if any(strategy.macros):
        check_macro(Sample(op=op, types=types, result=result, nest=nest), mesh, strategy)
        return
    local = localise(nest, mesh, strategy.split_dims)
    arrays = random_arrays(types, seed=2)
    tiles = [
        distribute(mesh, sharding, array, seed=i)
        for i, (sharding, array) in enumerate(zip(strategy.operands, arrays, strict=True))
    ]
    pieces = {}
    for coords in product(*map(range, mesh.sizes)):
        operands = [tile[coords] for tile in tiles]
        assert [o.shape for o in operands] == [tuple(d.size for d in o) for o in local.operands]
        pieces[coords] = run_tile(op, local, operands)
        assert pieces[coords].shape == local_shape(mesh, strategy.result, result.shape)
    found = assemble(mesh, strategy.result, pieces, result.shape)
    np.testing.assert_allclose(found, reference_value(op, arrays, result), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("mesh", MESHES, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_every_strategy_computes_the_global_value(name: str, mesh: LogicalMesh) -> None:
    op, types = CASES[name]
    found = strategies(op, annotated(op, types), mesh)
    assert found[0].split_dims == (-1,) * mesh.rank
    assert len({(s.split_dims, s.operands, s.result) for s in found}) == len(found)
    for strategy in found:
        check_strategy(op, types, mesh, strategy)


def test_gather_splits_all_but_the_gathered_dimension() -> None:
    op = Op(name="g", kind="gather", inputs=(), outputs=("y",), attrs={"axis": 0})
    types = (TensorType((6, 4), DType.F64), TensorType((8,), DType.I64))
    nest = annotate(op, types, TensorType((8, 4), DType.F64))
    assert nest is not None
    mesh = LogicalMesh(("x", "y"), (2, 2))
    found = {s.split_dims: (s.operands, s.result) for s in strategies(op, nest, mesh)}
    assert found[0, 1] == (((-1, 1), (0, -1)), (0, 1))
    table, indices = np.arange(24.0).reshape(6, 4), np.array([5, 0, 3, 3, 1, 2, 4, 5])
    pieces: dict[tuple[int, ...], Array] = {}
    for coords in product(range(2), range(2)):
        local = [piece(mesh, (-1, 1), table, coords), piece(mesh, (0, -1), indices, coords)]
        pieces[coords] = evaluate_op(op, local, {"y": TensorType((4, 2), DType.F64)})[0]
    np.testing.assert_array_equal(assemble(mesh, (0, 1), pieces, (8, 4)), table[indices])


@pytest.mark.parametrize(
    ("name", "loop", "reason"),
    [
        ("matmul_bias", "k", "the bias would be added once for each tile"),
        ("matmul_epilogue", "k", "relu is not linear"),
        ("conv_3x3", "h", "windows overlap"),
        ("concat", "d1", "no operand has a piece of every tile's range"),
        ("pad_both", "d2", "pieces with padding are not equal"),
        ("reduce_prod", "d1", "partial products have no sharding state"),
        ("softmax", "d1", "the row is whole"),
        ("attention", "n", "running softmaxes of different tiles have no sharding state"),
        ("attention", "d", "a piece of a score has no exponential"),
        ("chain", "d", "a piece of a sum has no square"),
        ("chain", "e", "tiles would compute the same of what is between"),
        ("attention", "e", "all tiles would compute the same scores"),
        ("reshape_refine", "d1", "a minor digit is not contiguous"),
    ],
)
def test_splits_that_would_be_wrong_do_not_exist(name: str, loop: str, reason: str) -> None:
    op, types = CASES[name]
    nest = annotated(op, types)
    number = [d.name for d in nest.dims].index(loop)
    found = strategies(op, nest, LogicalMesh(("x",), (2,)))
    assert all(s.split_dims != (number,) or s.macros != ("",) for s in found), reason
    assert len(found) > 1, "other loops can be split"


def test_splits_must_divide() -> None:
    op, types = CASES["matmul"]
    nest = annotated(op, types)
    assert {s.split_dims for s in strategies(op, nest, LogicalMesh(("x",), (4,)))} == {
        (-1,),
        (0,),
        (1,),
    }
    both = {s.split_dims for s in strategies(op, nest, LogicalMesh(("x", "y"), (2, 4)))}
    assert (0, 0) not in both
    assert (1, 0) in both


def test_reduction_split_is_partial() -> None:
    op, types = CASES["matmul"]
    assert split_sharding(annotated(op, types), (2,), None) == (PARTIAL_SUM,)
    op, types = CASES["reduce_max"]
    assert split_sharding(annotated(op, types), (0,), None) == (PARTIAL_MAX,)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_reshape_nests_of_random_shapes(before: list[int], random: object) -> None:
    factors = [
        f for size in before for f in ([2, size // 2] if size % 2 == 0 and size > 2 else [size])
    ]
    random.shuffle(factors)  # type: ignore[attr-defined]
    op, types = case("reshape", tuple(before), shape=tuple(factors))
    nest = annotated(op, types)
    if is_interpretable(op, nest):
        arrays = [np.arange(types[0].elements, dtype=np.float64).reshape(before)]
        np.testing.assert_array_equal(interpret(nest, op, arrays), arrays[0].reshape(factors))
    for strategy in strategies(op, nest, MESHES[3]):
        check_strategy(op, types, MESHES[3], strategy)


def test_errors_name_the_operator_and_the_sizes() -> None:
    op, types = case("matmul", (4, 6), (5, 3))
    with pytest.raises(ShapeError, match=r"matmul 'matmul': K is 6 on the left, 5 on the right"):
        annotate(op, types, TensorType((4, 3), DType.F64))
    with pytest.raises(UnsupportedOpError, match="sort 's' has no annotation"):
        annotate(Op(name="s", kind="sort", inputs=(), outputs=()), (), TensorType((1,), DType.F32))
