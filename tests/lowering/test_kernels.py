"""Generated kernels against the numpy meaning of operators, on a naive machine.

Values are small integers wherever the operator allows it, so that sums are exact in any order and
results compare equal; only transcendental functions have a tolerance.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from itertools import chain
from math import prod
from typing import Any

import numpy as np
import pytest

from tilewright.dtypes import DType
from tilewright.extract.halo import halo_work
from tilewright.extract.kernel import (
    Family,
    Kernel,
    buffers,
    footprint_bytes,
    loop_order,
    tileable_dims,
    whole_tiling,
)
from tilewright.extract.kernel_work import kernel_work
from tilewright.extract.plan import Memory, Placement, Tiling
from tilewright.graph import Op, TensorType, third_operands
from tilewright.hwmodel.mesh import LogicalMesh, is_partial, local_shape
from tilewright.lowering.collectives import new_storage
from tilewright.lowering.eager import PLANNED, Eagerness, may_be_cut, third_buffers
from tilewright.lowering.emit import Builder
from tilewright.lowering.isa import Engine, Opcode, Space
from tilewright.lowering.kernels import emit_kernel
from tilewright.reference import evaluate_op
from tilewright.rules.annotations import annotate
from tilewright.rules.gathered import GATHERED
from tilewright.rules.halo import halo_dims
from tilewright.rules.loopnest import Role
from tilewright.rules.scattered import SCATTERED
from tilewright.rules.splitting import Strategy, localise, strategies
from tilewright.rules.vocabulary import vocabulary_axes

AnyArray = np.ndarray[Any, np.dtype[Any]]
Case = tuple[str, dict[str, Any], list[tuple[int, ...]], list[str], tuple[int, ...], str]

MESHES = [
    LogicalMesh((), ()),
    LogicalMesh(("x",), (2,)),
    LogicalMesh(("x", "y"), (2, 2)),
    LogicalMesh(("x", "y"), (4, 4)),
]

CONV = {"strides": (1, 1), "pads": (0, 0, 0, 0), "dilations": (1, 1), "groups": 1}

QUANTISED = {"prologue": "dequantise"}

# kind, attributes, operand shapes, operand types, result shape, result type
CASES: dict[str, Case] = {
    "matmul": ("matmul", {}, [(8, 12), (12, 16)], ["f32"] * 2, (8, 16), "f32"),
    "matmul_batch": ("matmul", {}, [(4, 3, 6), (1, 6, 8)], ["f32"] * 2, (4, 3, 8), "f32"),
    "matmul_batch_left": ("matmul", {}, [(1, 3, 6), (4, 6, 8)], ["f32"] * 2, (4, 3, 8), "f32"),
    "matmul_vector": ("matmul", {}, [(1, 16), (16, 8)], ["f32"] * 2, (1, 8), "f32"),
    "matmul_outer": ("matmul", {}, [(8, 1), (1, 4)], ["f32"] * 2, (8, 4), "f32"),
    "matmul_f16": ("matmul", {}, [(8, 12), (12, 16)], ["f16"] * 2, (8, 16), "f16"),
    "matmul_bf16": ("matmul", {}, [(8, 12), (12, 16)], ["bf16"] * 2, (8, 16), "bf16"),
    "matmul_i8": ("matmul", {}, [(8, 12), (12, 16)], ["i8"] * 2, (8, 16), "i32"),
    "matmul_u8_i8": ("matmul", {}, [(8, 12), (12, 16)], ["u8", "i8"], (8, 16), "i32"),
    "matmul_i64": ("matmul", {}, [(4, 6), (6, 8)], ["i64"] * 2, (4, 8), "i64"),
    "matmul_f64": ("matmul", {}, [(4, 6), (6, 8)], ["f64"] * 2, (4, 8), "f64"),
    "matmul_relu": (
        "matmul", {"epilogue": "relu"}, [(8, 12), (12, 16)], ["f32"] * 2, (8, 16), "f32",
    ),
    "matmul_add": (
        "matmul", {"epilogue": "add|relu|cast(f16)"}, [(8, 12), (12, 16), (1, 16)],
        ["f32"] * 3, (8, 16), "f16",
    ),
    "matmul_f16_add": (
        "matmul", {"epilogue": "add|relu"}, [(8, 12), (12, 16), (8, 16)], ["f16"] * 3, (8, 16), "f16",
    ),
    "matmul_gt": (
        "matmul", {"epilogue": "gt"}, [(8, 12), (12, 16), (8, 1)], ["f32"] * 3, (8, 16), "bool",
    ),
    "matmul_norm": (
        "matmul", {"epilogue": "div_rms(0.25,2.0)|relu"}, [(8, 12), (12, 16), (8, 1)],
        ["f32"] * 3, (8, 16), "f32",
    ),
    "matmul_i8_columns": (
        "matmul", QUANTISED, [(8, 12), (12, 16), (1, 16)], ["f32", "i8", "f32"], (8, 16), "f32",
    ),
    "matmul_u8_rows": (
        "matmul", QUANTISED, [(8, 12), (12, 16), (12, 1)], ["f32", "u8", "f32"], (8, 16), "f32",
    ),
    "matmul_i16_scales": (
        "matmul", QUANTISED, [(4, 3, 6), (4, 6, 8), (4, 6, 8)], ["f16", "i16", "f16"], (4, 3, 8), "f16",
    ),
    "matmul_i8_add": (
        "matmul", QUANTISED | {"epilogue": "add|relu"}, [(8, 12), (12, 16), (8, 1), (1, 1)],
        ["f32", "i8", "f32", "f32"], (8, 16), "f32",
    ),
    "matmul_i8_relu": (
        "matmul", QUANTISED | {"epilogue": "relu|cast(f16)", "perm_b": (1, 0)},
        [(8, 12), (16, 12), (16, 1)], ["f32", "i8", "f32"], (8, 16), "f16",
    ),
    "matmul_i8_norm": (
        "matmul", QUANTISED | {"epilogue": "div_rms(0.25,2.0)|relu"},
        [(8, 12), (12, 16), (8, 1), (1, 16)], ["f32", "i8", "f32", "f32"], (8, 16), "f32",
    ),
    "matmul_i8_f64": (
        "matmul", QUANTISED, [(4, 6), (6, 8), (1, 8)], ["f64", "i8", "f64"], (4, 8), "f64",
    ),
    "conv": ("conv", CONV, [(2, 4, 9, 8), (8, 4, 3, 3)], ["f32"] * 2, (2, 8, 7, 6), "f32"),
    "conv_padded": (
        "conv", CONV | {"pads": (1, 2, 1, 0)}, [(1, 4, 8, 8), (8, 4, 3, 3)],
        ["f32"] * 2, (1, 8, 8, 8), "f32",
    ),
    "conv_strided": (
        "conv", CONV | {"strides": (2, 2), "pads": (3, 3, 3, 3)}, [(1, 3, 12, 12), (8, 3, 7, 7)],
        ["f32"] * 2,
        (1, 8, 6, 6), "f32",
    ),
    "conv_dilated": (
        "conv", CONV | {"dilations": (2, 3), "pads": (2, 3, 2, 3)}, [(1, 4, 8, 10), (4, 4, 3, 3)],
        ["f32"] * 2,
        (1, 4, 8, 10), "f32",
    ),
    "conv_grouped": (
        "conv", CONV | {"groups": 4, "pads": (1, 1, 1, 1)}, [(1, 8, 5, 6), (16, 2, 3, 3)], ["f32"] * 2,
        (1, 16, 5, 6), "f32",
    ),
    "conv_depthwise": (
        "conv", CONV | {"groups": 8, "strides": (2, 1), "pads": (1, 1, 1, 1)}, [(1, 8, 6, 6), (8, 1, 3, 3)],
        ["f32"] * 2, (1, 8, 3, 6), "f32",
    ),
    "conv_1d": (
        "conv", CONV | {"pads": (0, 1, 0, 1)}, [(1, 4, 1, 12), (8, 4, 1, 3)],
        ["f32"] * 2, (1, 8, 1, 12), "f32",
    ),
    "conv_1x1": ("conv", CONV, [(2, 8, 4, 4), (4, 8, 1, 1)], ["f32"] * 2, (2, 4, 4, 4), "f32"),
    "conv_bias": (
        "conv", CONV | {"pads": (1, 1, 1, 1), "epilogue": "add|relu"},
        [(1, 4, 6, 6), (8, 4, 3, 3), (1, 8, 1, 1)], ["f32"] * 3, (1, 8, 6, 6), "f32",
    ),
    "conv_i8": (
        "conv", CONV | {"pads": (1, 1, 1, 1)}, [(1, 4, 6, 6), (8, 4, 3, 3)], ["i8"] * 2, (1, 8, 6, 6), "i32",
    ),
    "conv_f16": (
        "conv", CONV | {"pads": (1, 1, 1, 1)}, [(1, 4, 6, 6), (8, 4, 3, 3)],
        ["f16"] * 2, (1, 8, 6, 6), "f16",
    ),
    "map_add": ("map", {"fn": "add"}, [(8, 6), (8, 6)], ["f32"] * 2, (8, 6), "f32"),
    "map_broadcast": (
        "map", {"fn": "mul|relu|neg"}, [(4, 1, 6), (1, 5, 6)], ["f32"] * 2, (4, 5, 6), "f32",
    ),
    "map_compare": ("map", {"fn": "lt|not"}, [(8, 6), (8, 1)], ["f32"] * 2, (8, 6), "bool"),
    "map_where": (
        "map", {"fn": "where"}, [(8, 1), (8, 6), (1, 6)], ["bool", "f32", "f32"], (8, 6), "f32",
    ),
    "map_casts": (
        "map", {"fn": "add|cast(i32)|mul_const(3)|cast(f16)"}, [(8, 6), (8, 6)], ["f32"] * 2, (8, 6), "f16",
    ),
    "map_there_and_back": (
        "map", {"fn": "cast(i32)|mul_const(2)|cast(f32)|square"}, [(8, 6)], ["f32"], (8, 6), "f32",
    ),
    "map_i64": (
        "map", {"fn": "mul|add_const(7)|clip_min(0)"}, [(8, 6), (1, 6)], ["i64"] * 2, (8, 6), "i64",
    ),
    "map_bool": ("map", {"fn": "and|not"}, [(8, 4), (8, 4)], ["bool"] * 2, (8, 4), "bool"),
    "map_f16": ("map", {"fn": "mul|sigmoid"}, [(8, 4), (8, 4)], ["f16"] * 2, (8, 4), "f16"),
    "map_gelu": ("map", {"fn": "gelu"}, [(3, 8)], ["f32"], (3, 8), "f32"),
    "map_hard_sigmoid": ("map", {"fn": "hard_sigmoid(0.2,0.5)"}, [(3, 8)], ["f32"], (3, 8), "f32"),
    "map_norm": ("map", {"fn": "div_rms(0.5,3.0)"}, [(4, 5, 6), (4, 5, 1)], ["f32"] * 2, (4, 5, 6), "f32"),
    "map_identity": ("map", {"fn": "identity"}, [(8, 4)], ["f32"], (8, 4), "f32"),
    "map_one": ("map", {"fn": "add"}, [(1,), (1,)], ["f32"] * 2, (1,), "f32"),
    "reduce_sum": ("reduce", {"fn": "sum", "axes": (1,)}, [(8, 6, 4)], ["f32"], (8, 1, 4), "f32"),
    "reduce_all": ("reduce", {"fn": "sum", "axes": (0, 1)}, [(8, 6)], ["f32"], (1, 1), "f32"),
    "reduce_max": ("reduce", {"fn": "max", "axes": (2,)}, [(4, 5, 8)], ["f32"], (4, 5, 1), "f32"),
    "reduce_min_i64": ("reduce", {"fn": "min", "axes": (0,)}, [(8, 4)], ["i64"], (1, 4), "i64"),
    "reduce_prod": ("reduce", {"fn": "prod", "axes": (1,)}, [(4, 4)], ["f32"], (4, 1), "f32"),
    "reduce_f16": ("reduce", {"fn": "sum", "axes": (1,)}, [(4, 32)], ["f16"], (4, 1), "f16"),
    "pool_max": (
        "pool", {"fn": "max", "kernel": (3, 3), "strides": (2, 2), "pads": (1, 1, 1, 1), "dilations": (1, 1)},
        [(1, 4, 8, 8)], ["f32"], (1, 4, 4, 4), "f32",
    ),
    "pool_sum": (
        "pool", {"fn": "sum", "kernel": (2, 3), "strides": (1, 2), "pads": (0, 1, 0, 1), "dilations": (2, 1)},
        [(2, 4, 6, 9)], ["f32"], (2, 4, 4, 5), "f32",
    ),
    "pool_plain": (
        "pool", {"fn": "max", "kernel": (2, 2), "strides": (2, 2), "pads": (0, 0, 0, 0), "dilations": (1, 1)},
        [(1, 4, 8, 8)], ["f32"], (1, 4, 4, 4), "f32",
    ),
    "pool_i8": (
        "pool", {"fn": "max", "kernel": (3, 3), "strides": (1, 1), "pads": (1, 1, 1, 1), "dilations": (1, 1)},
        [(1, 4, 5, 5)], ["i8"], (1, 4, 5, 5), "i8",
    ),
    "pool_f16": (
        "pool", {"fn": "sum", "kernel": (3, 3), "strides": (1, 1), "pads": (1, 1, 1, 1), "dilations": (1, 1)},
        [(1, 4, 5, 5)], ["f16"], (1, 4, 5, 5), "f16",
    ),
    "softmax": ("softmax", {}, [(4, 6, 8)], ["f32"], (4, 6, 8), "f32"),
    "softmax_f16": ("softmax", {}, [(8, 8)], ["f16"], (8, 8), "f16"),
    "softmax_one": ("softmax", {}, [(8, 1)], ["f32"], (8, 1), "f32"),
    "layernorm": ("layernorm", {"epsilon": 1e-5}, [(4, 6, 8)], ["f32"], (4, 6, 8), "f32"),
    "layernorm_f16": ("layernorm", {"epsilon": 1e-3}, [(8, 8)], ["f16"], (8, 8), "f16"),
    "rmsnorm": ("rmsnorm", {"epsilon": 1e-5}, [(4, 6, 8)], ["f32"], (4, 6, 8), "f32"),
    "rmsnorm_bf16": ("rmsnorm", {"epsilon": 1e-3}, [(8, 8)], ["bf16"], (8, 8), "bf16"),
    "attention": (
        "attention", {"scale": 1.0}, [(2, 4, 6, 8), (2, 4, 8, 12), (2, 4, 12, 4)], ["f32"] * 3,
        (2, 4, 6, 4), "f32",
    ),
    "attention_causal": (
        "attention", {"scale": 0.125}, [(4, 8, 8), (4, 8, 8), (4, 8, 4), (1, 8, 8)], ["f32"] * 4,
        (4, 8, 4), "f32",
    ),
    "attention_padding_mask": (
        "attention", {"scale": -0.5}, [(2, 4, 5, 4), (2, 1, 4, 13), (2, 4, 13, 8), (2, 1, 1, 13)],
        ["f32"] * 4, (2, 4, 5, 8), "f32",
    ),
    "attention_decode": (
        "attention", {"scale": 0.25}, [(4, 1, 8), (4, 8, 17), (4, 17, 8)], ["f32"] * 3, (4, 1, 8), "f32",
    ),
    "attention_one_key": (
        "attention", {"scale": 0.25}, [(4, 4, 8), (4, 8, 1), (4, 1, 4), (4, 4, 1)], ["f32"] * 4,
        (4, 4, 4), "f32",
    ),
    "attention_values_of_heads": (
        "attention", {"scale": 1.0}, [(1, 4, 1), (1, 1, 5), (4, 5, 2), (1, 4, 5)], ["f32"] * 4,
        (4, 4, 2), "f32",
    ),
    "attention_f16": (
        "attention", {"scale": 0.25}, [(4, 4, 8), (4, 8, 12), (4, 12, 8), (1, 4, 12)], ["f16"] * 4,
        (4, 4, 8), "f16",
    ),
    "attention_f64": (
        "attention", {"scale": 0.25}, [(4, 4, 8), (1, 8, 12), (4, 12, 8), (1, 4, 1)], ["f64"] * 4,
        (4, 4, 8), "f64",
    ),
    "chain": (
        "chain", {"between": "identity", "inner_dtype": "f32"}, [(8, 12), (12, 16), (16, 4)],
        ["f32"] * 3, (8, 4), "f32",
    ),
    "chain_add": (
        "chain", {"between": "add|relu", "inner_dtype": "f32"},
        [(4, 8, 6), (1, 6, 16), (4, 16, 8), (1, 1, 16)], ["f32"] * 4, (4, 8, 8), "f32",
    ),
    "chain_rows": (
        "chain", {"between": "mul|identity", "inner_dtype": "f32"},
        [(1, 8, 6), (1, 6, 16), (4, 16, 8), (1, 8, 1)], ["f32"] * 4, (4, 8, 8), "f32",
    ),
    "chain_norm": (
        "chain", {"between": "div_rms(0.25,2.0)|relu", "inner_dtype": "f32"},
        [(8, 6), (6, 16), (16, 8), (8, 1)], ["f32"] * 4, (8, 8), "f32",
    ),
    "chain_f16": (
        "chain", {"between": "add|relu", "inner_dtype": "f16"}, [(8, 4), (4, 16), (16, 8), (8, 16)],
        ["f16"] * 4, (8, 8), "f16",
    ),
    "chain_i8": (
        "chain", {"between": "cast(f32)|mul_const(0.25)|round|cast(i8)", "inner_dtype": "i32"},
        [(8, 12), (12, 16), (16, 4)], ["i8"] * 3, (8, 4), "i32",
    ),
    "chain_i64": (
        "chain", {"between": "add", "inner_dtype": "i64"}, [(4, 6), (6, 8), (8, 4), (4, 8)],
        ["i64"] * 4, (4, 4), "i64",
    ),
    "chain_relu": (
        "chain", {"between": "square", "inner_dtype": "f32", "epilogue": "relu|cast(f16)"},
        [(8, 3), (3, 8), (8, 4)], ["f32"] * 3, (8, 4), "f16",
    ),
    "chain_biases": (
        "chain", {"between": "add|relu", "inner_dtype": "f32", "epilogue": "add"},
        [(4, 8, 6), (1, 6, 16), (4, 16, 8), (1, 1, 16), (4, 8, 1)], ["f32"] * 5, (4, 8, 8), "f32",
    ),
    "chain_norms": (
        "chain",
        {"between": "div_rms(0.25,2.0)", "inner_dtype": "f32", "epilogue": "div_rms(0.5,4.0)|relu"},
        [(8, 6), (6, 8), (8, 8), (8, 1), (8, 1)], ["f32"] * 5, (8, 8), "f32",
    ),
    "chain_i8_scaled": (
        "chain",
        {
            "between": "cast(f32)|mul_const(0.25)|round|clip_min(-128.0)|clip_max(127.0)|cast(i8)",
            "inner_dtype": "i32",
            "epilogue": "add|cast(f32)|mul_const(0.125)|round|cast(i8)",
        },
        [(8, 12), (12, 16), (16, 4), (1, 4)], ["i8", "i8", "i8", "i32"], (8, 4), "i8",
    ),
    "transpose": ("transpose", {"perm": (2, 0, 1)}, [(4, 6, 8)], ["f32"], (8, 4, 6), "f32"),
    "transpose_bool": ("transpose", {"perm": (1, 0)}, [(4, 8)], ["bool"], (8, 4), "bool"),
    "slice": (
        "slice", {"starts": (1, 0), "sizes": (3, 8), "steps": (2, 1)}, [(7, 8)], ["f32"], (3, 8), "f32",
    ),
    "slice_back": (
        "slice", {"starts": (6, 0), "sizes": (7, 8), "steps": (-1, 1)}, [(7, 8)], ["i64"], (7, 8), "i64",
    ),
    "concat": (
        "concat", {"axis": 1}, [(4, 3, 2), (4, 1, 2), (4, 5, 2)], ["f32"] * 3, (4, 9, 2), "f32",
    ),
    "concat_first": ("concat", {"axis": 0}, [(3, 8), (5, 8)], ["i64"] * 2, (8, 8), "i64"),
    "pad": (
        "pad", {"begins": (0, 1, 2), "ends": (0, 0, 3), "value": 7.0}, [(4, 3, 4)],
        ["f32"], (4, 4, 9), "f32",
    ),
    "pad_i32": (
        "pad", {"begins": (2, 0), "ends": (1, 0), "value": -3.0}, [(3, 8)], ["i32"], (6, 8), "i32",
    ),
    "pad_much": (
        "pad", {"begins": (5, 0, 7), "ends": (6, 0, 8), "value": 0.5}, [(2, 4, 3)],
        ["f16"], (13, 4, 18), "f16",
    ),
    "concat_uneven": (
        "concat", {"axis": 1}, [(4, 1), (4, 13), (4, 0), (4, 2)], ["i32"] * 4, (4, 16), "i32",
    ),
    "expand": ("expand", {"shape": (4, 8, 6)}, [(4, 1, 6)], ["f32"], (4, 8, 6), "f32"),
    "gather": ("gather", {"axis": 0}, [(10, 8), (8,)], ["f32", "i64"], (8, 8), "f32"),
    "gather_inner": ("gather", {"axis": 1}, [(4, 10, 6), (5,)], ["f32", "i32"], (4, 5, 6), "f32"),
    "gather_last": ("gather", {"axis": 1}, [(4, 10), (6,)], ["i8", "i32"], (4, 6), "i8"),
    "gather_shared": ("gather", {"axis": 0}, [(16, 3), (7,)], ["f16", "i32"], (7, 3), "f16"),
    "gather_single": ("gather", {"axis": 0}, [(10, 8), (1,)], ["f32", "i64"], (1, 8), "f32"),
}  # fmt: skip

SMOOTH = ("sigmoid", "gelu", "softmax", "norm", "attention")


def make_inputs(case: Case, rng: np.random.Generator) -> list[AnyArray]:
    """Return operand arrays: small integers of the operand types, indices in range."""
    kind, attrs, shapes, dtypes, _, _ = case
    arrays = []
    for number, (shape, name) in enumerate(zip(shapes, dtypes, strict=True)):
        dtype = DType(name).numpy
        if kind == "gather" and number == 1:
            array = rng.integers(0, shapes[0][attrs["axis"]], shape)
        else:
            array = rng.integers(
                0 if name in ("u8", "bool") else -4, 2 if name == "bool" else 5, shape
            )
        arrays.append(array.astype(dtype))
    return arrays


def make_op(case: Case) -> Op:
    kind, attrs, shapes, *_ = case
    inputs = tuple(f"in{i}" for i in range(len(shapes)))
    return Op(name=kind, kind=kind, inputs=inputs, outputs=("out",), attrs=attrs)


def expected(case: Case, op: Op, arrays: list[AnyArray]) -> AnyArray:
    """Return the reference result; an epilogue is the map that it says, on the product."""
    kind, attrs, _, dtypes, shape, dtype = case
    result = TensorType(shape, DType(dtype))
    if "prologue" in attrs:  # the weights as floats, here
        *arrays, scale = arrays
        arrays[1] = arrays[1].astype(scale.dtype) * scale
        attrs = {key: value for key, value in attrs.items() if key != "prologue"}
    count = len(arrays) - len(third_operands(attrs, arrays))
    plain = Op(name="p", kind=kind, inputs=op.inputs[:count], outputs=("product",), attrs=attrs)
    if "epilogue" not in attrs:
        return evaluate_op(replace(plain, outputs=("out",)), arrays, {"out": result})[0]
    middle = TensorType(shape, DType("i32" if dtypes[0] == "i8" and kind == "chain" else dtypes[0]))
    (product,) = evaluate_op(plain, arrays[:count], {"product": middle})
    after = Op(name="e", kind="map", inputs=(), outputs=("out",), attrs={"fn": attrs["epilogue"]})
    return evaluate_op(after, [product, *arrays[count:]], {"out": result})[0]


def pick_strategy(op: Op, case: Case, mesh: LogicalMesh, random_: random.Random) -> Strategy:
    legal = every_strategy(op, case, mesh)
    return random_.choice(legal[1:] or legal) if random_.random() < 0.8 else legal[0]


def every_strategy(op: Op, case: Case, mesh: LogicalMesh) -> list[Strategy]:
    """Return the strategies of an operator whose operands are complete, the replicated one first.

    Those that gather an operand in chunks or scatter sums have other kernels, which test_gathered.py and
    test_scattered.py run.
    """
    _, _, shapes, dtypes, shape, dtype = case
    types = tuple(TensorType(s, DType(d)) for s, d in zip(shapes, dtypes, strict=True))
    nest = annotate(op, types, TensorType(shape, DType(dtype)))
    assert nest is not None
    return [
        s
        for s in strategies(op, nest, mesh)
        if not any(is_partial(o) for o in s.operands) and not {GATHERED, SCATTERED} & set(s.macros)
    ]


def make_kernel(
    op: Op, case: Case, mesh: LogicalMesh, strategy: Strategy, memories: list[Memory]
) -> Kernel:
    _, attrs, shapes, dtypes, shape, dtype = case
    types = tuple(TensorType(s, DType(d)) for s, d in zip(shapes, dtypes, strict=True))
    result = TensorType(shape, DType(dtype))
    nest = annotate(op, types, result)
    assert nest is not None

    own = localise(nest, mesh, strategy.split_dims, strategy.macros)
    halo = halo_dims(nest, mesh, strategy.split_dims, strategy.macros)
    shared = vocabulary_axes(strategy.macros)
    needed = [Memory.SRAM] * (2 if shared else 1 if halo else 0)

    return Kernel(
        kind=op.kind,
        attrs=attrs,
        nest=own,
        operand_types=tuple(
            TensorType(tuple(d.size for d in tensor), t.dtype)
            for t, tensor in zip(types, own.operands, strict=True)
        ),
        result_type=TensorType(local_shape(mesh, strategy.result, shape), result.dtype),
        operand_memory=tuple(needed + memories[len(needed) : -1]),
        result_memory=Memory.SRAM if is_partial(strategy.result) else memories[-1],
        mesh=mesh,
        operand_shardings=strategy.operands,
        result_sharding=strategy.result,
        halo=halo,
        vocabulary=shared,
    )


def random_tiling(kernel: Kernel, random_: random.Random) -> Tiling:
    """Return a tiling with random sizes (dividing or not) and a random legal order."""
    sizes = [d.extent for d in kernel.nest.dims]
    for dim in tileable_dims(kernel):
        if random_.random() < 0.6:
            sizes[dim] = random_.randint(max(1, sizes[dim] // 4), sizes[dim])
    order = list(loop_order(kernel))
    split = sum(d.role is not Role.REDUCTION for d in kernel.nest.dims)
    outer, inner = order[:split], order[split:]
    random_.shuffle(outer)
    random_.shuffle(inner)
    return Tiling(tuple(sizes), (*outer, *inner))


def run_kernel(
    case: Case,
    kernel: Kernel,
    tiling: Tiling,
    arrays: list[AnyArray],
    machine_class: Callable[..., Any],
    eagerness: Eagerness = PLANNED,
) -> tuple[Builder, AnyArray, int]:
    """Emit and execute a kernel; return the builder, the global result and the first kernel buffer."""
    _, _, shapes, dtypes, shape, dtype = case
    builder = Builder(kernel.mesh, read_multicast=True)
    operands = []
    for number, memory in enumerate(kernel.operand_memory):
        type_ = TensorType(shapes[number], DType(dtypes[number]))
        placement = Placement(memory, kernel.operand_shardings[number])
        operands.append(new_storage(builder, placement, type_, f"in{number}"))
    result_type = TensorType(shape, DType(dtype))
    result = new_storage(
        builder, Placement(kernel.result_memory, kernel.result_sharding), result_type, "out"
    )
    first = len(builder.buffers)
    emit_kernel(builder, kernel, tiling, tuple(operands), result, "k", eagerness)
    machine = machine_class(builder)
    for storage, array, sharding in zip(operands, arrays, kernel.operand_shardings, strict=True):
        machine.write(storage.buffer, array, sharding)
    machine.run(builder.micros)
    if result.space is Space.DRAM:
        return builder, machine.read_tile(result.buffer, (), DType(dtype).numpy, shape), first
    return builder, collect(machine, result.buffer, kernel, result_type), first


def collect(machine: Any, buffer: int, kernel: Kernel, type_: TensorType) -> AnyArray:
    """Put a sharded result together: check that replicas agree, add partial sums."""
    sharding, dtype = kernel.result_sharding, type_.dtype.numpy
    local = local_shape(machine.mesh, sharding, type_.shape)
    partials: dict[tuple[int, ...], AnyArray] = {}
    for coords, index in machine.pieces(sharding, type_.shape):
        key = tuple(c for c, s in zip(coords, sharding, strict=True) if s <= -2)
        tile = machine.read_tile(buffer, coords, dtype, local)
        whole = partials.setdefault(key, np.zeros(type_.shape, dtype))
        replica = any(s == -1 and c for c, s in zip(coords, sharding, strict=True))
        if replica:
            assert whole[index].tobytes() == tile.tobytes()
        whole[index] = tile
    stacked = np.stack(list(partials.values()))
    if -3 in sharding:
        return stacked.max(axis=0)
    return stacked[0] if len(stacked) == 1 else stacked.sum(axis=0, dtype=dtype)


def check_equal(name: str, case: Case, found: AnyArray, wanted: AnyArray) -> None:
    text = name + case[0] + str(case[1].get("fn", ""))
    assert found.dtype == wanted.dtype
    if not any(word in text for word in SMOOTH):
        np.testing.assert_array_equal(found, wanted)
        return
    half = found.dtype.itemsize == 2
    relative = {"f16": 2e-3, "bf16": 1.6e-2}.get(case[5], 0.0) if half else 3e-6
    np.testing.assert_allclose(
        found.astype(np.float64), wanted.astype(np.float64), rtol=relative, atol=relative
    )


def check_traffic(
    builder: Builder, kernel: Kernel, tiling: Tiling, *, is_stored_only: bool = False
) -> None:
    """Check the bytes of DRAM that the code moves and what it multiplies against what was predicted."""
    work = kernel_work(kernel, tiling, 1, multicast=True)
    dram = {b.number for b in builder.buffers if b.space is Space.DRAM}

    def moved(opcodes: tuple[Opcode, ...]) -> int:
        return sum(
            prod(m.domain) * m.dst.dtype.itemsize_bytes
            for m in builder.micros
            if m.opcode in opcodes
            and m.dst is not None
            and (m.dst.buffer in dram or m.sources[0].buffer in dram)
        )

    if not is_stored_only:
        loads = sum(t.size_bytes for t in work.traffic if not t.store)
        assert moved((Opcode.LD, Opcode.GTH)) == loads
    assert moved((Opcode.ST,)) == sum(t.size_bytes for t in work.traffic if t.store)
    macs = sum(prod(m.domain) for m in builder.micros if m.opcode is Opcode.MM)
    assert macs == sum(w.times * w.b * w.m * w.n * w.k for w in work.matrix)


def check_counts(builder: Builder, kernel: Kernel, tiling: Tiling, first: int) -> None:
    """Check buffers, instructions and DRAM bytes of the code against what was predicted."""
    made = builder.buffers[first:]
    assert sum(b.size_bytes for b in made) == sum(
        b.size_bytes * b.copies for b in buffers(kernel, tiling)
    )
    assert footprint_bytes(kernel, tiling, 1) == sum(b.size_bytes for b in made)
    used = {o.buffer for m in builder.micros for o in (*m.sources, m.dst) if o is not None}
    assert {b.number for b in made} <= used, "every kernel buffer is used"
    work = kernel_work(kernel, tiling, 1, multicast=True)
    doubled = kernel.family is Family.GATHER and any("twice" in b.name for b in made)
    check_traffic(builder, kernel, tiling, is_stored_only=doubled)
    assert sum(m.engine is Engine.ME for m in builder.micros) == sum(w.times for w in work.matrix)
    products = [m for m in builder.micros if m.opcode is Opcode.MM]
    assert sum(m.accumulate for m in products) == sum(w.adding for w in work.matrix)
    if kernel.family is Family.COPY:
        for opcode, is_store in ((Opcode.LD, False), (Opcode.ST, True)):
            count = sum(m.opcode is opcode for m in builder.micros)
            assert count == sum(t.times for t in work.traffic if t.store is is_store)
    if not doubled:
        instructions = sum(m.engine is Engine.VE for m in builder.micros)
        halo = chain(*halo_work(kernel)) if kernel.halo else ()
        assert instructions == sum(w.times for w in chain(work.vector, halo))


def drawn_kernel(op: Op, case: Case, mesh: LogicalMesh, random_: random.Random) -> Kernel:
    """Draw a way to split an operator, and where its tensors lie."""
    strategy = pick_strategy(op, case, mesh, random_)
    memories = [random_.choice(list(Memory)) for _ in range(len(case[2]) + 1)]
    return make_kernel(op, case, mesh, strategy, memories)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("mesh", MESHES, ids=lambda m: "x".join(map(str, m.sizes)) or "one")
def test_kernel_computes_its_operator(
    name: str, mesh: LogicalMesh, micro_machine: Callable[..., Any], rng: np.random.Generator
) -> None:
    case = CASES[name]
    op = make_op(case)
    random_ = random.Random(f"{name} {mesh.sizes}")
    arrays = make_inputs(case, rng)
    wanted = expected(case, op, arrays)
    for trial in range(4 if mesh.tiles < 16 else 2):
        kernel = drawn_kernel(op, case, mesh, random_)
        tiling = whole_tiling(kernel) if trial == 0 else random_tiling(kernel, random_)
        builder, found, first = run_kernel(case, kernel, tiling, arrays, micro_machine)
        check_equal(name, case, found, wanted)
        check_counts(builder, kernel, tiling, first)


@pytest.mark.parametrize("name", [n for n in CASES if CASES[n][0] == "matmul"])
@pytest.mark.parametrize("mesh", MESHES[:3], ids=lambda m: "x".join(map(str, m.sizes)) or "one")
def test_products_do_more_than_is_planned(
    name: str, mesh: LogicalMesh, micro_machine: Callable[..., Any], rng: np.random.Generator
) -> None:
    """With third buffers and in parts, the same bytes are loaded and stored, and the result is the same."""
    case = CASES[name]
    op = make_op(case)
    random_ = random.Random(f"{name} {mesh.sizes}")
    arrays = make_inputs(case, rng)
    wanted = expected(case, op, arrays)
    for _ in range(4):
        kernel = drawn_kernel(op, case, mesh, random_)
        tiling = random_tiling(kernel, random_)
        if random_.random() < 0.7:  # each result box is one product
            dims = zip(tiling.sizes, kernel.nest.dims, strict=True)
            sizes = tuple(d.extent if d.role is Role.REDUCTION else n for n, d in dims)
            tiling = replace(tiling, sizes=sizes)
        parts = random_.randint(2, 5) if may_be_cut(kernel, tiling) else 1
        eagerness = Eagerness(third_buffers(kernel, tiling, 1 << 20), parts)
        builder, found, first = run_kernel(case, kernel, tiling, arrays, micro_machine, eagerness)
        check_equal(name, case, found, wanted)
        check_traffic(builder, kernel, tiling)
        made = builder.buffers[first:]
        for planned in buffers(kernel, tiling):
            copies = [b for b in made if b.name.startswith(f"k.{planned.name}.")]
            assert len(copies) == planned.copies + (planned.name in eagerness.thrice)


def test_a_product_in_parts_begins_and_ends_with_a_part(
    micro_machine: Callable[..., Any], rng: np.random.Generator
) -> None:
    """By hand: 3 boxes of 4 rows, the first and the last of them in 2 parts (w is loaded once)."""
    case: Case = ("matmul", {}, [(12, 16), (16, 3)], ["bf16"] * 2, (12, 3), "bf16")
    op, arrays = make_op(case), make_inputs(case, rng)
    strategy = pick_strategy(op, case, MESHES[0], random.Random(0))
    kernel = make_kernel(op, case, MESHES[0], strategy, [Memory.DRAM] * 3)
    tiling = Tiling((4, 3, 16), loop_order(kernel))
    builder, found, _ = run_kernel(case, kernel, tiling, arrays, micro_machine, Eagerness(parts=2))
    check_equal("matmul", case, found, expected(case, op, arrays))
    shown = {Opcode.LD: "l", Opcode.MM: "m", Opcode.ST: "s"}
    order = "".join(shown.get(m.opcode, "") for m in builder.micros)
    assert order == "lll" + "msms" + "lms" + "ll" + "msms"
    rows = [m.domain[0] for m in builder.micros if m.opcode is Opcode.MM]
    assert rows == [2, 2, 4, 2, 2]


@pytest.mark.parametrize("name", [n for n in CASES if CASES[n][0] in ("conv", "pool", "gather")])
@pytest.mark.parametrize("mesh", MESHES[1:], ids=lambda m: "x".join(map(str, m.sizes)))
def test_kernels_with_macros_compute_their_operator(
    name: str, mesh: LogicalMesh, micro_machine: Callable[..., Any], rng: np.random.Generator
) -> None:
    case = CASES[name]
    op = make_op(case)
    random_ = random.Random(f"{name} {mesh.sizes}")
    arrays = make_inputs(case, rng)
    wanted = expected(case, op, arrays)
    legal = [s for s in every_strategy(op, case, mesh) if any(s.macros)]
    for strategy in random_.sample(legal, min(len(legal), 3 if mesh.tiles < 16 else 1)):
        memories = [random_.choice(list(Memory)) for _ in range(len(arrays) + 1)]
        kernel = make_kernel(op, case, mesh, strategy, memories)
        tiling = random_tiling(kernel, random_)
        builder, found, first = run_kernel(case, kernel, tiling, arrays, micro_machine)
        check_equal(name, case, found, wanted)
        check_counts(builder, kernel, tiling, first)


@pytest.mark.parametrize("memory", list(Memory))
@pytest.mark.parametrize("keys", [1, 2, 3, 7, 8])
def test_attention_with_boxes_of_masked_keys(
    keys: int, memory: Memory, micro_machine: Callable[..., Any], rng: np.random.Generator
) -> None:
    """A causal mask of -inf, later keys first: boxes without any key, and a query without any."""
    case, mesh = CASES["attention_causal"], MESHES[0]
    op, arrays = make_op(case), make_inputs(case, rng)
    causal = np.where(np.tri(8, 8, -1, dtype=bool), 0.0, -np.inf).astype(np.float32)
    arrays[3] = np.ascontiguousarray(causal[None, :, ::-1])
    strategy = pick_strategy(op, case, mesh, random.Random(0))
    kernel = make_kernel(op, case, mesh, strategy, [*[memory] * 4, memory])
    tiling = Tiling((2, 3, 4, 8, keys), loop_order(kernel))
    builder, found, first = run_kernel(case, kernel, tiling, arrays, micro_machine)
    wanted = expected(case, op, arrays)
    assert np.isnan(wanted[:, 0]).all()
    assert np.isfinite(wanted[:, 1:]).all()
    check_equal("attention_causal", case, found, wanted)
    check_counts(builder, kernel, tiling, first)
    scores = [b.size_bytes for b in builder.buffers if ".scores" in b.name]
    assert scores == [2 * 3 * keys * 4] * 2, "no more than two boxes of scores exist"


@pytest.mark.parametrize("memory", list(Memory))
@pytest.mark.parametrize("source", list(Memory))
@pytest.mark.parametrize("name", ["pad_much", "concat_uneven"])
def test_boxes_may_miss_operands(
    name: str,
    source: Memory,
    memory: Memory,
    micro_machine: Callable[..., Any],
    rng: np.random.Generator,
) -> None:
    """Boxes of two indices: some lie in the padding, some touch several operands."""
    case, mesh = CASES[name], MESHES[0]
    op, arrays = make_op(case), make_inputs(case, rng)
    strategy = pick_strategy(op, case, mesh, random.Random(0))
    kernel = make_kernel(op, case, mesh, strategy, [*[source] * len(arrays), memory])
    assert tileable_dims(kernel) == tuple(range(len(case[4])))
    tiling = Tiling((2,) * len(case[4]), loop_order(kernel))
    builder, found, first = run_kernel(case, kernel, tiling, arrays, micro_machine)
    check_equal(name, case, found, expected(case, op, arrays))
    check_counts(builder, kernel, tiling, first)
    largest = max(prod(m.domain) for m in builder.micros)
    assert largest <= 2 ** len(case[4]), "no instruction touches more than a box"
