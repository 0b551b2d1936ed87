"""Roofline bounds by hand, and where they must not count anything."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from tilewright.dtypes import DType
from tilewright.frontend.load import load_onnx
from tilewright.graph import Graph, Op, Port, TensorType
from tilewright.hwmodel.load import load_target
from tilewright.hwmodel.roofline import contraction_macs, roofline

TOY = load_target("toy")
TILES = 16


def graph_of(
    inputs: dict[str, tuple[int, ...]],
    constants: dict[str, tuple[int, ...]],
    ops: list[tuple[str, str, list[str], tuple[int, ...], dict[str, object]]],
    outputs: list[str],
) -> Graph:
    """Build an f32 graph from (kind, output, inputs, shape, attributes)."""
    types = {name: TensorType(shape, DType.F32) for name, shape in (inputs | constants).items()}
    types |= {out: TensorType(shape, DType.F32) for _, out, _, shape, _ in ops}
    graph = Graph(
        name="test",
        inputs=tuple(Port(name=n, tensor=n, shape=s, dtype=DType.F32) for n, s in inputs.items()),
        outputs=tuple(
            Port(name=n, tensor=n, shape=types[n].shape, dtype=DType.F32) for n in outputs
        ),
        types=types,
        constants={name: np.zeros(shape, np.float32) for name, shape in constants.items()},
        ops=tuple(
            Op(name=out, kind=kind, inputs=tuple(ins), outputs=(out,), attrs=attrs)  # type: ignore[arg-type]
            for kind, out, ins, _, attrs in ops
        ),
    )
    graph.validate()
    return graph


CONV = {"strides": (1, 1), "pads": (0, 0, 0, 0), "dilations": (1, 1), "groups": 1}


def test_matmul_and_gelu_by_hand() -> None:
    graph = graph_of(
        {"x": (1, 64, 128)},
        {"w": (1, 128, 256)},
        [
            ("matmul", "y", ["x", "w"], (1, 64, 256), {}),
            ("map", "z", ["y"], (1, 64, 256), {"fn": "gelu"}),
        ],
        ["z"],
    )
    line = roofline(graph, TOY)
    assert line.macs == 64 * 128 * 256
    assert line.matrix_cycles == line.macs / (TILES * 16 * 16 / 2)  # two cycles a row in f32
    assert line.vector_cycles == 64 * 256 * 4 / (TILES * 16)  # the cheapest such function costs 4
    assert line.sram_cycles == (64 * 128 + 128 * 256) * 4 / (TILES * 128)
    assert line.io_bytes == (64 * 128 + 64 * 256) * 4
    assert line.dram_bytes == line.io_bytes, "weights fit, so only inputs and outputs cross"
    assert line.dram_cycles == pytest.approx(line.io_bytes / (4 * 16 * 0.9))
    assert line.path_cycles == 1
    assert line.bound_cycles == max(cycles for _, cycles in line.by_resource) == line.dram_cycles
    assert line.limit == "dram"


def test_weights_beyond_all_scratchpads_must_be_streamed() -> None:
    graph = graph_of(
        {"x": (1, 1024)},
        {"w": (1024, 2048)},
        [("matmul", "y", ["x", "w"], (1, 2048), {})],
        ["y"],
    )
    line = roofline(graph, TOY)
    assert line.weight_bytes == 8 * 2**20
    assert line.dram_bytes == line.io_bytes + 8 * 2**20 - TILES * 256 * 1024
    assert roofline(graph, load_target("corsair")).dram_bytes == line.io_bytes


def test_grouped_convolution_counts_macs_but_not_matrix_time() -> None:
    shapes = {"x": (1, 8, 10, 10)}
    dense = graph_of(
        shapes, {"w": (16, 8, 3, 3)}, [("conv", "y", ["x", "w"], (1, 16, 8, 8), CONV)], ["y"]
    )
    assert contraction_macs(dense, dense.ops[0]) == 16 * 64 * 8 * 9
    assert roofline(dense, TOY).matrix_cycles == 16 * 64 * 8 * 9 / (TILES * 128)
    depthwise = graph_of(
        shapes,
        {"w": (8, 1, 3, 3)},
        [("conv", "y", ["x", "w"], (1, 8, 8, 8), CONV | {"groups": 8})],
        ["y"],
    )
    line = roofline(depthwise, TOY)
    assert line.macs == 8 * 64 * 9
    assert line.matrix_cycles == 0


def test_strided_convolution_reads_only_what_it_touches() -> None:
    graph = graph_of(
        {"x": (1, 4, 8, 8)},
        {"w": (4, 4, 1, 1)},
        [("conv", "y", ["x", "w"], (1, 4, 4, 4), CONV | {"strides": (2, 2)})],
        ["y"],
    )
    assert roofline(graph, TOY).sram_cycles == (4 * 4 * 4 + 16) * 4 / (TILES * 128)


def test_constant_and_dead_work_costs_nothing() -> None:
    graph = graph_of(
        {"x": (4, 4)},
        {"a": (4, 4), "b": (4, 4)},
        [
            ("matmul", "ab", ["a", "b"], (4, 4), {}),
            ("map", "e", ["ab"], (4, 4), {"fn": "exp"}),
            ("matmul", "y", ["x", "e"], (4, 4), {}),
            ("matmul", "dead", ["y", "y"], (4, 4), {}),
        ],
        ["y"],
    )
    line = roofline(graph, TOY)
    assert line.macs == 64
    assert line.vector_cycles == 0
    assert line.weight_bytes == 64, "the folded product counts, not its factors"


def test_function_of_a_broadcast_counts_before_it() -> None:
    graph = graph_of(
        {"x": (1, 8)},
        {},
        [
            ("expand", "wide", ["x"], (100, 8), {"shape": (100, 8)}),
            ("map", "y", ["wide"], (100, 8), {"fn": "tanh"}),
        ],
        ["y"],
    )
    assert roofline(graph, TOY).vector_cycles == 8 * 4 / (TILES * 16)


def test_function_that_is_only_sliced_does_not_count() -> None:
    graph = graph_of(
        {"x": (100, 8)},
        {},
        [
            ("map", "e", ["x"], (100, 8), {"fn": "exp"}),
            ("reshape", "flat", ["e"], (800,), {"shape": (800,)}),
            ("slice", "y", ["flat"], (8,), {"starts": (0,), "sizes": (8,), "steps": (1,)}),
        ],
        ["y"],
    )
    line = roofline(graph, TOY)
    assert line.vector_cycles == 0
    assert line.io_bytes == 8 * 4, "of the input only eight elements are wanted"


def test_equal_functions_of_one_tensor_count_once() -> None:
    ops = [
        ("map", "a", ["x"], (64, 8), {"fn": "sigmoid"}),
        ("map", "b", ["x"], (64, 8), {"fn": "mul_const(2.0)|sigmoid"}),
        ("map", "y", ["a", "b"], (64, 8), {"fn": "add"}),
    ]
    assert roofline(graph_of({"x": (64, 8)}, {}, ops, ["y"]), TOY).vector_cycles == 512 * 4 / 256


def test_table_counts_only_the_rows_that_are_gathered() -> None:
    graph = graph_of(
        {"i": (4,), "x": (4, 8)},
        {"table": (1000, 8)},
        [
            ("gather", "rows", ["table", "i"], (4, 8), {"axis": 0}),
            ("map", "y", ["rows", "x"], (4, 8), {"fn": "add"}),
        ],
        ["y"],
    )
    assert roofline(graph, TOY).weight_bytes == 4 * 8 * 4


def test_path_counts_dependent_contractions() -> None:
    def chain(depth: int) -> Graph:
        ops = [
            ("matmul", f"t{n + 1}", [f"t{n}", "w"], (4, 4), {}) for n in range(depth)
        ]  # same weights
        return graph_of({"t0": (4, 4)}, {"w": (4, 4)}, ops, [f"t{depth}"])

    assert roofline(chain(7), TOY).path_cycles == 7
    assert roofline(chain(7), load_target("corsair")).path_cycles == 7 * 8


def test_bounds_shrink_with_more_tiles() -> None:
    graph = graph_of(
        {"x": (64, 64)}, {"w": (64, 64)}, [("matmul", "y", ["x", "w"], (64, 64), {})], ["y"]
    )
    small, large = (roofline(graph, load_target(name)) for name in ("mesh_2x2", "mesh_4x4"))
    assert small.matrix_cycles == 4 * large.matrix_cycles
    assert small.sram_cycles == 4 * large.sram_cycles


def test_resnet50_has_the_published_number_of_multiply_adds() -> None:
    folder = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    line = roofline(load_onnx(folder / "light_resnet50.onnx"), TOY)
    assert line.macs == pytest.approx(4.09e9, rel=0.01)  # as NVDLA's performance table counts it
