"""The kernel cost against published closed forms, hand counts and monotonicity."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.dtypes import DType
from tilewright.errors import TargetError
from tilewright.hwmodel.cost import (
    KernelCost,
    matmul_cost,
    matrix_cycles,
    systolic_cycles,
    vector_cost,
    vector_cycles,
)
from tilewright.hwmodel.dram_cost import dram_cycles, dram_write_cycles
from tilewright.hwmodel.load import load_target
from tilewright.hwmodel.target import Dataflow, Target, Tile

TOY = load_target("toy")
SIZE = st.integers(1, 300)


def changed(model: Any, path: str, value: Any) -> Any:
    """Return a copy with the value at a dotted path replaced."""
    head, _, rest = path.partition(".")
    inner = changed(getattr(model, head), rest, value) if rest else value
    return model.model_copy(update={head: inner})


def array_tile(rows: int, columns: int, *, overlap: bool) -> Tile:
    """Return a bare weight-stationary array: a row or a weight row a cycle, drained per block."""
    matrix = TOY.tile.matrix.model_copy(
        update={
            "rows": rows,
            "columns": {DType.I8: columns},
            "cycles_per_row": {DType.I8: 1.0},
            "weight_load_cycles": {DType.I8: float(rows)},
            "overlap_weight_load": overlap,
            "fill_cycles": rows + columns - 2.0,
        }
    )
    return TOY.tile.model_copy(update={"matrix": matrix})


# rows, columns, m, n, k, dataflow, cycles that SCALE-Sim 3.0.0 reports
SCALE_SIM: list[tuple[int, int, int, int, int, Literal["ws", "os", "is"], int]] = [
    (32, 32, 64, 64, 64, "ws", 631),
    (32, 32, 64, 64, 64, "is", 631),
    (32, 32, 64, 64, 64, "os", 503),
    (32, 32, 100, 70, 50, "ws", 1163),
    (32, 32, 100, 70, 50, "is", 1311),
    (32, 32, 100, 70, 50, "os", 1343),
    (16, 64, 128, 128, 128, "ws", 3551),
    (8, 8, 64, 64, 64, "ws", 5503),
    (64, 64, 256, 512, 512, "ws", 28543),
    (64, 64, 256, 512, 512, "os", 20415),
]


@pytest.mark.parametrize(("rows", "columns", "m", "n", "k", "dataflow", "reported"), SCALE_SIM)
def test_systolic_closed_forms_equal_scale_sim(
    rows: int,
    columns: int,
    m: int,
    n: int,
    k: int,
    dataflow: Literal["ws", "os", "is"],
    reported: int,
) -> None:
    assert systolic_cycles(rows, columns, m, k, n, dataflow) == reported


@given(st.integers(1, 64), st.integers(1, 64), SIZE, SIZE, SIZE)
def test_array_without_overlap_is_scale_sims(
    rows: int, columns: int, m: int, k: int, n: int
) -> None:
    tile = array_tile(rows, columns, overlap=False)
    expected = systolic_cycles(rows, columns, m, k, n, "ws") + 1  # it counts from cycle 0
    assert matrix_cycles(tile, DType.I8, 1, m, k, n) == expected


def test_array_with_overlap_is_between_onnxims_active_and_total_cycles() -> None:
    cycles = matrix_cycles(array_tile(64, 64, overlap=True), DType.I8, 1, 256, 512, 512)
    assert 16384 < cycles < 17377


@given(st.integers(1, 3), SIZE, SIZE, SIZE)
def test_overlap_never_costs_more_and_never_beats_the_array(
    batch: int, m: int, k: int, n: int
) -> None:
    plain = matrix_cycles(array_tile(16, 8, overlap=False), DType.I8, batch, m, k, n)
    overlapped = matrix_cycles(array_tile(16, 8, overlap=True), DType.I8, batch, m, k, n)
    assert overlapped <= plain
    assert overlapped >= batch * m * k * n / (16 * 8)


def test_corsair_hides_weight_loads_from_eight_rows_on() -> None:
    tile = load_target("corsair").tile
    # 64 cycles a load, 8 a row: the array is the limit at eight rows and the load below.
    few = matrix_cycles(tile, DType.I8, 1, 1, 64 * 100, 64)
    assert few == 64 + 99 * 64 + 8 + 16
    assert matrix_cycles(tile, DType.I8, 1, 8, 64 * 100, 64) == 64 + 99 * 64 + 64 + 16
    assert matrix_cycles(tile, DType.I8, 1, 16, 64 * 100, 64) == 64 + 99 * 128 + 128 + 16


def test_empty_product_is_free_and_unknown_type_refused() -> None:
    assert matrix_cycles(TOY.tile, DType.F32, 1, 0, 5, 5) == 0
    assert matrix_cycles(TOY.tile, DType.F32, 0, 5, 5, 5) == 0
    with pytest.raises(TargetError, match="found an operand of type bool, expected one of bf16"):
        matrix_cycles(TOY.tile, DType.BOOL, 1, 1, 1, 1)


def test_vector_cycles_by_hand() -> None:
    # 16 lanes, 8 cycles to start; exp costs 4, add costs 1.
    assert vector_cycles(TOY.tile, "add", DType.F32, 160) == 8 + 10
    assert vector_cycles(TOY.tile, "exp", DType.F32, 161) == 8 + 11 * 4
    assert vector_cycles(TOY.tile, "add", DType.I64, 160) == 8 + 20
    assert vector_cycles(TOY.tile, "exp", DType.F32, 0) == 0


def test_matmul_traffic_by_hand() -> None:
    cost = matmul_cost(TOY, DType.I8, batch=2, m=10, k=20, n=40, out_dtype=DType.I32)
    # The streaming operand is read for each of ceil(40 / 16) = 3 column blocks; ceil(20 / 16) = 2 passes
    # over k write sums, of which the second reads those of the first.
    assert cost.sram_bytes == 2 * (20 * 40 + 10 * 20 * 3) + 3 * 2 * 10 * 40 * 4
    held = changed(TOY, "tile.matrix.accumulator_rows", 16)
    once = matmul_cost(held, DType.I8, batch=2, m=10, k=20, n=40, out_dtype=DType.I32)
    assert cost.sram_bytes - once.sram_bytes == 2 * 2 * 10 * 40 * 4
    assert cost.macs == 2 * 10 * 20 * 40
    assert cost.energy_pj == pytest.approx(cost.macs * 0.25 + cost.sram_bytes * 1.0)
    more = matmul_cost(
        TOY, DType.I8, batch=2, m=10, k=20, n=40, out_dtype=DType.I32, accumulates=True
    )
    assert more.sram_bytes - cost.sram_bytes == 2 * 10 * 40 * 4


@pytest.mark.parametrize(
    ("dataflow", "left_reads", "right_reads", "sums"),
    [
        # weights in blocks of 16 of 40 columns, inputs of 50 rows, results of 8 x 16; 3 passes over k
        (Dataflow.WEIGHT_STATIONARY, 3, 1, 5),
        (Dataflow.INPUT_STATIONARY, 1, 4, 5),
        (Dataflow.OUTPUT_STATIONARY, 3, 7, 1),
    ],
)
def test_traffic_depends_on_what_the_array_holds(
    dataflow: Dataflow, left_reads: int, right_reads: int, sums: int
) -> None:
    target = changed(changed(TOY, "tile.matrix.dataflow", dataflow), "tile.matrix.rows", 8)
    cost = matmul_cost(target, DType.I8, batch=2, m=50, k=20, n=40, out_dtype=DType.I32)
    operands = 50 * 20 * left_reads + 20 * 40 * right_reads
    assert cost.sram_bytes == 2 * operands + 2 * 50 * 40 * 4 * sums


def test_latency_is_the_busiest_engine_and_start_up() -> None:
    cost = KernelCost(matrix_cycles=10.0, vector_cycles=30.0, sram_cycles=20.0, startup_cycles=5.0)
    assert cost.latency_cycles == 35
    both = cost + KernelCost(matrix_cycles=90.0, macs=7)
    assert both.latency_cycles == 105
    assert both.macs == 7
    assert isinstance(both.macs, int)


FASTER = [
    "tile.sram.bytes_per_cycle",
    "tile.vector.lanes",
    "tile.dma.in_bytes_per_cycle",
    "tile.dma.out_bytes_per_cycle",
    "dram.port_bytes_per_cycle",
    "dram.ports",
    "tile.matrix.rows",
]


def total(target: Target, m: int, k: int, n: int) -> tuple[float, ...]:
    return (
        matmul_cost(target, DType.F32, batch=1, m=m, k=k, n=n).latency_cycles,
        vector_cost(
            target, "gelu", DType.F32, elements=m * n, read_bytes=4 * m * n, written_bytes=4 * m * n
        ).latency_cycles,
        dram_cycles(target, 16 * m * k, m * k, k),
        dram_write_cycles(target, m * n, n),
    )


@pytest.mark.parametrize("path", FASTER)
@given(m=SIZE, k=SIZE, n=SIZE)
@settings(max_examples=25, deadline=None)
def test_more_of_a_resource_never_costs_more(path: str, m: int, k: int, n: int) -> None:
    value: Any = TOY
    for part in path.split("."):
        value = getattr(value, part)
    faster = changed(TOY, path, value * 2)
    for before, after in zip(total(TOY, m, k, n), total(faster, m, k, n), strict=True):
        # Ports further along the edge may only lengthen the way by the mesh's diameter.
        slack = 12.0 if path == "dram.ports" else 0.0
        assert after <= before + slack


@given(m=SIZE, k=SIZE, n=SIZE, more=st.integers(0, 50))
def test_more_work_never_costs_less(m: int, k: int, n: int, more: int) -> None:
    small = total(TOY, m, k, n)
    for large in (total(TOY, m + more, k, n), total(TOY, m, k, n + more)):
        assert all(after >= before for before, after in zip(small, large, strict=True))
