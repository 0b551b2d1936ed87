"""The matrix unit's cycles against SCALE-Sim's closed forms and ONNXim's issue rule."""

from __future__ import annotations

import random
from math import ceil

import pytest

from tilewright.dtypes import DType
from tilewright.hwmodel.cost import matmul_cost, matrix_cycles, systolic_cycles
from tilewright.hwmodel.load import load_target, target_names
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.hwmodel.target import Dataflow, Target
from tilewright.lowering.isa import Access, Engine, Instruction, Opcode, Space
from tilewright.lowering.program import Group, Program
from tilewright.simulator.timing import simulate
from tilewright.simulator.timing_kinds import kind_of

TOY = load_target("toy")
ONE = LogicalMesh(("a0",), (1,))
FORMULAS = {
    Dataflow.WEIGHT_STATIONARY: "ws",
    Dataflow.INPUT_STATIONARY: "is",
    Dataflow.OUTPUT_STATIONARY: "os",
}


def array(rows: int, columns: int, dataflow: Dataflow, overlap: bool, fill: float) -> Target:
    """Return one tile with a bare array: a row a cycle, a row of what it holds a cycle, no cost to issue."""
    toy = TOY
    matrix = toy.tile.matrix.model_copy(
        update={
            "dataflow": dataflow,
            "rows": rows,
            "columns": {DType.I8: columns},
            "cycles_per_row": {DType.I8: 1.0},
            "weight_load_cycles": {DType.I8: float(rows)},
            "weight_slots": 2 if overlap else 1,
            "overlap_weight_load": overlap,
            "fill_cycles": fill,
        }
    )
    control = toy.tile.control.model_copy(update={"issue_cycles": 0.0})
    sram = toy.tile.sram.model_copy(update={"bytes_per_cycle": 1e9})
    tile = toy.tile.model_copy(update={"matrix": matrix, "control": control, "sram": sram})
    return toy.model_copy(update={"tile": tile})


def product_of(
    m: int, n: int, k: int, dtype: DType = DType.I8, accumulate: bool = False
) -> Instruction:
    """Return the instruction of one product [m, k] x [k, n]."""
    item = dtype.itemsize_bytes
    names = [(m, (k * item, 0), 4 * n), (n, (0, item), 4), (k, (item, n * item), 0)]
    kept = [(size, *operands, c) for size, operands, c in names if size > 1]
    domain, a, b, c = zip(*kept, strict=True)
    return Instruction(
        opcode=Opcode.MM,
        engine=Engine.ME,
        domain=domain,
        dst=Access(Space.L1, DType.F32 if dtype.is_float else DType.I32, 0, (), c),
        sources=(
            Access(Space.L1, dtype, 0, (), a),
            Access(Space.L1, dtype, 0, (), b),
        ),
        accumulate=accumulate,
    )


def instruction_cycles(target: Target, m: int, n: int, k: int) -> int:
    """Return what the timing simulator takes for the instruction."""
    kind = kind_of(target, ONE, (), product_of(m, n, k))
    cycles = kind.issue_cycles + kind.lead_cycles + kind.work_bytes / kind.rate_bytes_per_cycle
    assert cycles == pytest.approx(round(cycles), abs=1e-6)
    return round(cycles)


def simulated(target: Target, *products: Instruction) -> float:
    """Return the simulated cycles of a program that is these products."""
    stream = products
    one = Group(mesh=ONE, tiles=(0,), load={}, run={Engine.ME: stream})
    program = Program(
        name="product",
        target=target,
        groups=(one,),
        dram_bytes=0,
        sram_bytes=1 << 30,
        inputs=(),
        outputs=(),
        constants=(),
        host_regions=(),
    )
    return simulate(program, symmetry=False).cycles


@pytest.mark.parametrize("dataflow", list(Dataflow))
def test_without_overlap_cycles_are_scale_sims(dataflow: Dataflow) -> None:
    # SCALE-Sim reports the number of the last cycle, counted from 0: one less than the cycles.
    choice = random.Random(f"scale-sim {dataflow}")
    for number in range(200):
        rows, columns = choice.randint(2, 128), choice.randint(2, 128)
        m, n, k = (choice.randint(2, 600) for _ in range(3))
        target = array(rows, columns, dataflow, False, rows + columns - 2.0)
        reported = systolic_cycles(rows, columns, m, k, n, FORMULAS[dataflow])  # type: ignore[arg-type]
        assert instruction_cycles(target, m, n, k) == reported + 1
        assert matrix_cycles(target.tile, DType.I8, 1, m, k, n) == reported + 1
        if number < 3:
            assert round(simulated(target, product_of(m, n, k)), 6) == reported + 1


def onnxim_cycles(rows: int, columns: int, m: int, n: int, k: int) -> int:
    """Issue instructions of at most `rows` rows as ONNXim does, one after the other, until the last is done.

    Source:
        src/SystolicWS.cc of PSAL-POSTECH/ONNXim 005da771: the first instruction starts after 2 rows - 1
        cycles, one with new weights `rows` cycles after the one before it started, others after that one's
        size, at least 4; each takes rows + columns - 2 cycles and its size, at least 4.
    """
    start, before = 0, 0
    for block in range(ceil(k / rows) * ceil(n / columns)):
        for first in range(0, m, rows):
            if block == 0 and first == 0:
                start = 2 * rows - 1
            elif first == 0:
                start += rows
            else:
                start += max(before, 4)
            before = min(rows, m - first)
    return start + rows + columns - 2 + max(before, 4)


def test_with_overlap_cycles_are_onnxims() -> None:
    choice = random.Random("onnxim")
    for number in range(200):
        rows, columns = choice.randint(4, 128), choice.randint(4, 128)
        # Whole instructions, or one that weights for the next outlast: elsewhere ONNXim rounds rows up.
        m = choice.choice([choice.randint(4, rows), rows * choice.randint(1, 6)])
        n, k = choice.randint(2, 600), choice.randint(2, 600)
        # The first load takes 2 rows - 1 cycles there: rows - 1 more than a load, once.
        target = array(rows, columns, Dataflow.WEIGHT_STATIONARY, True, 2 * rows + columns - 3.0)
        expected = onnxim_cycles(rows, columns, m, n, k)
        assert instruction_cycles(target, m, n, k) == expected
        if number < 3:
            assert round(simulated(target, product_of(m, n, k)), 6) == expected


def cycles_pass_by_pass(
    rows: int, columns: int, m: int, n: int, k: int, held_rows: int, operand_rate: float
) -> float:
    """Walk through the passes of an array whose registers hold the sums of some rows, one i8 a byte."""
    total, taken = float(rows), 0
    widths = [min(held_rows, m - first) for first in range(0, m, held_rows)]
    passes = [
        (size, min(rows, k - low), min(columns, n - left))
        for size in widths
        for left in range(0, n, columns)
        for low in range(0, k, rows)
    ]
    for number, (size, depth, width) in enumerate(passes):
        last = number == len(passes) - 1
        total += size if last else max(size, rows)  # the next load, beside what streams
        taken += depth * width + size * depth
    return max(total, taken / operand_rate)


def test_registers_for_sums_make_blocks_of_rows() -> None:
    choice = random.Random("registers")
    for _ in range(200):
        rows, columns = choice.randint(4, 64), choice.randint(4, 64)
        m, n, k = (choice.randint(2, 400) for _ in range(3))
        plain = array(rows, columns, Dataflow.WEIGHT_STATIONARY, True, 7.0)
        held = choice.choice([choice.randint(1, 200), m])
        rate = choice.choice([0.5, 4.0, 1e9])
        matrix = plain.tile.matrix.model_copy(
            update={"accumulator_rows": held, "operand_bytes_per_cycle": rate}
        )
        target = plain.model_copy(update={"tile": plain.tile.model_copy(update={"matrix": matrix})})
        expected = cycles_pass_by_pass(rows, columns, m, n, k, held, rate) + 7.0
        kind = kind_of(target, ONE, (), product_of(m, n, k))
        simulated_cycles = kind.lead_cycles + kind.work_bytes / kind.rate_bytes_per_cycle
        assert simulated_cycles == pytest.approx(expected)
        assert matrix_cycles(target.tile, DType.I8, 1, m, k, n) == pytest.approx(expected)


@pytest.mark.parametrize("dataflow", list(Dataflow))
def test_registers_keep_sums_out_of_the_scratchpad(dataflow: Dataflow) -> None:
    plain = array(8, 8, dataflow, True, 0.0)
    matrix = plain.tile.matrix.model_copy(update={"accumulator_rows": 16})
    target = plain.model_copy(update={"tile": plain.tile.model_copy(update={"matrix": matrix})})
    m, n, k = 40, 24, 64
    work = kind_of(target, ONE, (), product_of(m, n, k)).work_bytes
    reads = {
        Dataflow.WEIGHT_STATIONARY: m * k * 3 + k * n * 3,  # 3 columns of arrays, 3 blocks of rows
        Dataflow.INPUT_STATIONARY: k * n * 5
        + m * k * 2,  # 5 columns of arrays, 2 blocks of columns
        Dataflow.OUTPUT_STATIONARY: m * k * 3 + k * n * 5,
    }
    assert work == reads[dataflow] + m * n * 4


SHAPES = (
    (1, 1000, 1000),
    (1, 64, 4096),
    (8, 48, 200),
    (37, 100, 300),
    (64, 64, 64),
    (512, 128, 640),
)
"""m, n, k of single rows, of squares, of sizes that fill no array, of more rows than registers hold."""


@pytest.mark.parametrize("held_rows", [None, 16, 100, 1024])
@pytest.mark.parametrize("name", target_names())
def test_cost_model_and_simulator_agree_on_products(name: str, held_rows: int | None) -> None:
    preset = load_target(name)
    matrix = preset.tile.matrix.model_copy(update={"accumulator_rows": held_rows})
    tile = preset.tile.model_copy(update={"matrix": matrix})
    target = TOY.model_copy(update={"tile": tile, "energy": preset.energy})  # few tiles
    port = target.tile.sram.bytes_per_cycle
    for dtype in (DType.I8, DType.BF16, DType.F32):
        cases = [(shape, accumulates) for shape in SHAPES for accumulates in (False, True)]
        products = [product_of(*shape, dtype, accumulates) for shape, accumulates in cases]
        total_cycles = 0.0
        for (shape, accumulates), product in zip(cases, products, strict=True):
            (m, n, k), out = shape, product.dst
            assert out is not None
            cost = matmul_cost(
                *(target, dtype),
                **dict(batch=1, m=m, k=k, n=n),
                out_dtype=out.dtype,
                accumulates=accumulates,
            )
            kind = kind_of(target, ONE, (), product)
            rate = min(kind.rate_bytes_per_cycle, port)
            assert cost.sram_bytes == kind.work_bytes, (dtype, shape, accumulates)
            assert cost.matrix_cycles == pytest.approx(kind.lead_cycles + kind.work_bytes / rate)
            total_cycles += cost.latency_cycles
        assert simulated(target, *products) == pytest.approx(total_cycles)
