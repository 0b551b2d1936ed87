"""What kernels touch, and what they cost; code generation is checked against it in tests/lowering."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise, product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilewright.dtypes import DType
from tilewright.extract.kernel import (
    Family,
    Kernel,
    box_loads,
    buffers,
    footprint_bytes,
    loop_order,
    result_boxes,
    tileable_dims,
    value_types,
    whole_tiling,
)
from tilewright.extract.kernel_price import price
from tilewright.extract.kernel_work import kernel_work, matrix_roles
from tilewright.extract.plan import Memory, Tiling
from tilewright.graph import Op, TensorType
from tilewright.hwmodel.load import load_target
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.rules.annotations import annotate

MESH = LogicalMesh(("y", "x"), (4, 4))
REPLICATED = (-1, -1)
CONV = {"strides": (1, 1), "pads": (1, 1, 1, 1), "dilations": (1, 1), "groups": 1}


def kernel(
    kind: str,
    shapes: list[tuple[int, ...]],
    result: tuple[int, ...],
    attrs: dict[str, Any] | None = None,
    dtype: DType = DType.F32,
    memory: Memory = Memory.DRAM,
    result_type: DType | None = None,
) -> Kernel:
    """Return a kernel with everything in one memory, replicated."""
    types = tuple(TensorType(s, dtype) for s in shapes)
    out = TensorType(result, result_type or dtype)
    inputs = tuple(f"in{i}" for i in range(len(shapes)))
    op = Op(name="k", kind=kind, inputs=inputs, outputs=("out",), attrs=attrs or {})
    nest = annotate(op, types, out)
    assert nest is not None
    return Kernel(
        kind=kind,
        attrs=attrs or {},
        nest=nest,
        operand_types=types,
        result_type=out,
        operand_memory=(memory,) * len(shapes),
        result_memory=memory,
        mesh=MESH,
        operand_shardings=(REPLICATED,) * len(shapes),
        result_sharding=REPLICATED,
    )


MATMUL = kernel("matmul", [(64, 96), (96, 32)], (64, 32))


@given(
    sizes=st.tuples(st.integers(1, 64), st.integers(1, 32), st.integers(1, 96)),
    outer=st.permutations([0, 1]),
)
def test_boxes_are_loaded_when_they_change(sizes: tuple[int, int, int], outer: list[int]) -> None:
    tiling = Tiling(sizes, (*outer, 2))
    extents = (64, 32, 96)
    trips = [range(-(-n // s)) for n, s in zip(extents, sizes, strict=True)]
    walk = [
        dict(zip((*outer, 2), position, strict=True))
        for position in product(trips[outer[0]], trips[outer[1]], trips[2])
    ]
    for operand, dims in ((0, (0, 2)), (1, (2, 1))):
        visits = [tuple(step[d] for d in dims) for step in walk]
        changes = 1 + sum(a != b for a, b in pairwise(visits))
        assert box_loads(MATMUL, tiling, operand) == changes
    assert result_boxes(MATMUL, tiling) == len(trips[0]) * len(trips[1])


def test_streamed_operands_are_double_buffered() -> None:
    found = {b.name: b for b in buffers(MATMUL, Tiling((16, 32, 48), (0, 1, 2)))}
    assert found["operand0"].size_bytes == 16 * 48 * 4
    assert found["operand0"].copies == 2
    assert found["operand1"].size_bytes == 48 * 32 * 4
    assert found["operand1"].copies == 2
    assert found["result"].copies == 2
    whole = buffers(MATMUL, whole_tiling(MATMUL))
    assert all(b.copies == 1 for b in whole)


def test_resident_operands_need_no_buffers() -> None:
    resident = kernel("matmul", [(64, 96), (96, 32)], (64, 32), memory=Memory.SRAM)
    assert buffers(resident, whole_tiling(resident)) == ()


def test_quantised_weights_are_loaded_as_integers() -> None:
    shapes = [(64, 96), (96, 32), (1, 32)]
    floats = kernel("matmul", shapes, (64, 32), {"prologue": "dequantise"})
    types = (floats.operand_types[0], TensorType((96, 32), DType.I8), floats.operand_types[2])
    quantised = replace(floats, operand_types=types)
    tiling = Tiling((16, 32, 48), (0, 1, 2))
    found = {b.name: b for b in buffers(quantised, tiling)}
    assert (found["operand1"].size_bytes, found["operand1"].copies) == (48 * 32, 2)
    assert (found["weights"].size_bytes, found["weights"].copies) == (48 * 32 * 4, 2)
    work = kernel_work(quantised, tiling, 64, multicast=True)
    _, weights, scale, _ = work.traffic
    assert weights.size_bytes == 4 * 96 * 32, "each of four row boxes loads them"
    assert scale.size_bytes == 32 * 4
    (scaled,) = work.vector
    assert (scaled.fn, scaled.times, scaled.elements) == ("mul", 8, 48 * 32)
    assert {product.dtype for product in work.matrix} == {DType.F32}


def test_padded_operands_are_staged_with_their_padding() -> None:
    padded = kernel("conv", [(1, 4, 8, 8), (8, 4, 3, 3)], (1, 8, 8, 8), CONV, memory=Memory.SRAM)
    (staging,) = buffers(padded, whole_tiling(padded))
    assert staging.size_bytes == 4 * 10 * 10 * 4
    plain = CONV | {"pads": (0, 0, 0, 0)}
    bare = kernel("conv", [(1, 4, 8, 8), (8, 4, 3, 3)], (1, 8, 6, 6), plain, memory=Memory.SRAM)
    assert buffers(bare, whole_tiling(bare)) == ()


def test_footprint_is_aligned() -> None:
    small = kernel("map", [(3, 3)], (3, 3), {"fn": "relu"})
    assert footprint_bytes(small, whole_tiling(small), 64) == 128
    assert footprint_bytes(small, whole_tiling(small), 1) == 72


def test_values_change_type_on_their_way() -> None:
    half = kernel(
        "matmul",
        [(4, 4), (4, 4)],
        (4, 4),
        {"epilogue": "relu|cast(f32)"},
        DType.F16,
        result_type=DType.F32,
    )
    assert value_types(half) == (DType.F32, DType.F16, DType.F16, DType.F32)
    whole = kernel("matmul", [(4, 4), (4, 4)], (4, 4), None, DType.I8, result_type=DType.I32)
    assert value_types(whole) == (DType.I32, DType.I32)


def test_whole_dimensions_are_not_tiled() -> None:
    assert tileable_dims(kernel("softmax", [(4, 6)], (4, 6))) == (0,)
    assert tileable_dims(kernel("concat", [(4, 2), (4, 4)], (4, 6), {"axis": 1})) == (0, 1)
    assert tileable_dims(kernel("reshape", [(4, 6)], (24,), {"shape": (24,)})) == ()
    assert tileable_dims(kernel("matmul", [(1, 4), (4, 4)], (1, 4))) == (1, 2)


def test_roles_of_a_convolution() -> None:
    grouped = kernel("conv", [(2, 8, 8, 8), (16, 2, 3, 3)], (2, 16, 8, 8), CONV | {"groups": 4})
    assert matrix_roles(grouped.nest) == ("m", "b", "n", "m", "m", "k", "k", "k")


def test_work_does_not_depend_on_dividing() -> None:
    exact = kernel_work(MATMUL, Tiling((16, 32, 48), (0, 1, 2)), 64, multicast=True)
    ragged = kernel_work(MATMUL, Tiling((15, 32, 40), (0, 1, 2)), 64, multicast=True)
    for work in (exact, ragged):
        assert sum(w.times * w.m * w.n * w.k for w in work.matrix) == 64 * 96 * 32
        assert sum(t.size_bytes for t in work.traffic if t.store) == 64 * 32 * 4


def test_replicas_are_read_once_if_the_memory_can() -> None:
    tiling = whole_tiling(MATMUL)
    assert {t.groups for t in kernel_work(MATMUL, tiling, 64, multicast=True).traffic} == {1}
    assert [t.groups for t in kernel_work(MATMUL, tiling, 64, multicast=False).traffic] == [
        16,
        16,
        1,
    ]
    split = replace(MATMUL, operand_shardings=((0, -1), REPLICATED))
    assert kernel_work(split, tiling, 64, multicast=True).traffic[0].groups == 4


def test_short_runs_are_padded_to_bursts() -> None:
    transposed = kernel("map", [(64, 64)], (64, 64), {"fn": "relu"})
    work = kernel_work(transposed, Tiling((64, 4), (0, 1)), 64, multicast=True)
    assert all(t.run_bytes == 16 for t in work.traffic)
    assert all(t.dram_bytes == 4 * t.size_bytes for t in work.traffic)
    rows = kernel_work(transposed, Tiling((4, 64), (0, 1)), 64, multicast=True)
    assert all(t.dram_bytes == t.size_bytes for t in rows.traffic)


@pytest.mark.parametrize("kind", ["matmul", "map", "softmax", "transpose", "reduce"])
def test_price_is_monotone_in_the_machine(kind: str) -> None:
    target = load_target("toy")
    some = {
        "matmul": MATMUL,
        "map": kernel("map", [(64, 64)], (64, 64), {"fn": "gelu"}),
        "softmax": kernel("softmax", [(64, 64)], (64, 64)),
        "transpose": kernel("transpose", [(64, 64)], (64, 64), {"perm": (1, 0)}),
        "reduce": kernel("reduce", [(64, 64)], (64, 1), {"fn": "sum", "axes": (1,)}),
    }[kind]
    vector = target.tile.vector.model_copy(update={"lanes": target.tile.vector.lanes * 2})
    dma = target.tile.dma.model_copy(
        update={
            "in_bytes_per_cycle": target.tile.dma.in_bytes_per_cycle * 2,
            "out_bytes_per_cycle": target.tile.dma.out_bytes_per_cycle * 2,
        }
    )
    tile = target.tile.model_copy(update={"vector": vector, "dma": dma})
    faster = target.model_copy(update={"tile": tile})
    for sizes in ((16, 16), (64, 16), (64, 64)):
        full = (*sizes, *(d.extent for d in some.nest.dims))[: len(some.nest.dims)]
        whole = some.family is Family.ROWS
        tiling = Tiling((sizes[0], some.nest.dims[1].extent) if whole else full, loop_order(some))
        before, after = price(some, tiling, target), price(some, tiling, faster)
        assert after.latency_cycles <= before.latency_cycles
        engines = (
            before.matrix_cycles,
            before.vector_cycles,
            before.dma_in_cycles,
            before.dma_out_cycles,
        )
        assert before.latency_cycles >= max(engines)


def test_loads_and_stores_share_the_ports_of_the_memory() -> None:
    target = load_target("toy")
    copy = kernel("map", [(256, 256)], (256, 256), {"fn": "relu"})
    split = replace(copy, operand_shardings=((0, -1),), result_sharding=(0, -1))
    # every port moves each byte once in and once out, whatever engines and tiling
    moved = 2 * 4 * 256 * 256 * 4
    for rows in (2, 8, 64):
        cost = price(split, Tiling((rows, 256), (0, 1)), target)
        assert cost.latency_cycles >= moved / target.dram_bytes_per_cycle


def test_reshapes_are_free() -> None:
    alias = kernel("reshape", [(4, 6)], (24,), {"shape": (24,)})
    assert price(alias, whole_tiling(alias), load_target("toy")).latency_cycles == 0
    assert buffers(alias, whole_tiling(alias)) == ()


def test_a_key_tells_shapes_apart_and_nothing_else() -> None:
    elsewhere = replace(MATMUL, result_memory=Memory.SRAM)
    other = kernel("matmul", [(64, 96), (96, 16)], (64, 16))
    assert elsewhere.shape_key == MATMUL.shape_key != other.shape_key
