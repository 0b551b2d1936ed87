"""Matrix products against utilisations measured on Tenstorrent's cards (benchmarks/validation)."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.validation.gemm import (
    block_graph,
    block_plan,
    published_blocking,
    scheme_plan,
    simulate_gemm,
    target_of,
)
from benchmarks.validation.gemm_rows import CARDS, GEMM_ROWS, GemmRow, NumberFormat
from benchmarks.validation.tt_matmul import Problem, blocking

from tilewright.extract.validate import validate_plan
from tilewright.hwmodel.load import load_target
from tilewright.lowering.isa import Engine, Opcode
from tilewright.lowering.lower import build_program
from tilewright.simulator.functional import run_program
from tilewright.simulator.timing import simulate


def row(name: str) -> GemmRow:
    (found,) = [row for row in GEMM_ROWS if row.name == name]
    return found


def problem(m: int, k: int, n: int) -> Problem:
    return Problem(
        m=m, k=k, n=n, tile_bytes=2048, grid_rows=8, grid_columns=8, l1_bytes=1464 * 1024
    )


@pytest.mark.parametrize(
    ("shape", "block", "blocks"),
    [
        ((1024, 1024, 1024), (4, 4, 4), 1),
        (
            (2048, 3072, 3072),
            (8, 12, 12),
            1,
        ),  # 983,040 bytes of operands, 393,216 of results and sums
        ((3072, 3072, 3072), (6, 12, 12), 2),  # 12 x 12 results leave too little for the operands
        ((4096, 4096, 4096), (8, 8, 16), 4),
        ((4096, 4064, 4096), (16, 16, 1), 1),  # 127 tiles of k are no multiple of the columns
    ],
)
def test_blocks_of_the_published_rule(
    shape: tuple[int, int, int], block: tuple[int, int, int], blocks: int
) -> None:
    found = blocking(problem(*shape))
    assert (found.block_m, found.block_n, found.block_k) == block
    assert found.blocks == blocks
    assert not found.is_spread


def test_few_rows_are_spread_over_all_cores() -> None:
    found = blocking(problem(512, 1024, 2048))
    assert (found.is_spread, found.block_m, found.block_n, found.block_k) == (True, 16, 1, 2)
    with pytest.raises(ValueError, match="512 x 8192 is narrow"):
        blocking(problem(512, 1024, 8192))


def test_ideal_cycles_are_the_reports() -> None:
    # 2048^3 took 298,922 ns by the host's clock at 43.85 % utilisation.
    assert row("N150 BFLOAT16 HiFi2 2048 x 2048 x 2048").ideal_cycles / 298_922.06 == pytest.approx(
        0.4385, rel=1e-3
    )


@pytest.mark.parametrize("load_engines", [1, 2])
@pytest.mark.parametrize("number_format", NumberFormat)
def test_the_schedules_program_computes_the_product(
    number_format: NumberFormat, load_engines: int
) -> None:
    toy = load_target("toy")
    dma = toy.tile.dma.model_copy(update={"load_engines": load_engines})
    target = toy.model_copy(update={"tile": toy.tile.model_copy(update={"dma": dma})})
    graph = block_graph(number_format, 32, 24, 64)
    plan = scheme_plan(graph, target, (0, 1), (8, 16, 8))
    validate_plan(plan, target)
    choice = np.random.default_rng(0)
    dtype = number_format.dtype.numpy
    a, b = (choice.integers(-2, 3, size).astype(dtype) for size in ((32, 24), (24, 64)))
    program = build_program(plan, target)
    streams = program.groups[0].run
    loads = {e: sum(i.opcode is Opcode.LD for i in streams[e]) for e in (Engine.DI, Engine.DO)}
    assert [n > 0 for n in loads.values()] == [True, load_engines == 2]
    outputs = run_program(program, {"a": a, "b": b}).outputs
    expected = (a.astype(np.int32) @ b.astype(np.int32)).astype(dtype)
    np.testing.assert_array_equal(outputs["c"], expected)


def test_the_second_operand_is_priced_on_the_other_engine() -> None:
    toy = load_target("toy")
    dma = toy.tile.dma.model_copy(update={"load_engines": 2})
    target = toy.model_copy(update={"tile": toy.tile.model_copy(update={"dma": dma})})
    graph = block_graph(NumberFormat.BF16, 128, 256, 128)
    one, two = (scheme_plan(graph, t, (0, 1), (32, 32, 32)).ops[0].cost for t in (toy, target))
    # The memory is as busy as before: both operands share its ports.
    assert two.dma_in_cycles < one.dma_in_cycles
    assert two.dma_out_cycles - one.dma_out_cycles > one.dma_in_cycles - two.dma_in_cycles
    assert two.latency_cycles < one.latency_cycles
    assert (two.dram_bytes, two.energy_pj) == (one.dram_bytes, one.energy_pj)


@pytest.mark.parametrize(
    "name",
    [
        "N150 BFLOAT16 HiFi2 512 x 1024 x 2048",
        "N150 BFLOAT16 HiFi2 1024 x 1024 x 1024",
        "N150 BFLOAT16 HiFi2 1024 x 2048 x 2048",
        "N150 BFLOAT16 HiFi2 2048 x 3072 x 3072",
        "N150 BFLOAT16 HiFi2 4096 x 4096 x 4096",
        "N150 BFLOAT8_B LoFi 1024 x 1024 x 1024",
        "N150 BFLOAT8_B LoFi 2048 x 2048 x 2048",
        "P150 BFLOAT16 HiFi2 2560 x 4992 x 4992",
        "P150 BFLOAT8_B LoFi 5120 x 6656 x 6656",
    ],
)
def test_utilisation_is_near_what_was_measured(name: str) -> None:
    found = simulate_gemm(row(name))
    assert abs(found.error) < 0.15
    assert 0.98 * found.cycles <= found.predicted_cycles <= 1.02 * found.cycles


@pytest.mark.parametrize("sizes", [(256, 8, 256), (256, 4, 256), (128, 16, 64)])
def test_a_tile_that_relays_is_priced_as_one_of_all_that_read(sizes: tuple[int, int, int]) -> None:
    # Each tile has columns of its own; one reads the rows for all of them.
    target = target_of(CARDS["N150"], NumberFormat.BF16)
    plan = scheme_plan(block_graph(NumberFormat.BF16, 512, 1024, 1024), target, (1, 1), sizes)
    assert plan.cost == pytest.approx(simulate(build_program(plan, target)).cycles, rel=0.06)


def test_spread_products_take_the_same_time_for_twice_the_columns() -> None:
    # measured: 91.0 and 98.1 us
    one, two = (simulate_gemm(row(f"N150 BFLOAT16 HiFi2 512 x 1024 x {n}")) for n in (1024, 2048))
    assert two.cycles == pytest.approx(one.cycles, rel=0.01)


def test_blocks_of_every_row_fit() -> None:
    for item in GEMM_ROWS:
        target = target_of(CARDS[item.card], item.number_format)
        plan = block_plan(item, target, published_blocking(item, target))
        assert plan.peak_sram_bytes <= target.tile.sram.size_bytes
