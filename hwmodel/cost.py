"""Cost of a kernel on one tile, engine by engine.

Predictions are additive engine occupancies; `KernelCost.latency_cycles` takes the busiest engine,
because the engines of a tile run beside each other, plus the start-up that nothing can hide.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Literal

from tilewright.dtypes import DType
from tilewright.errors import TargetError
from tilewright.hwmodel.target import Dataflow, MatrixUnit, Target, Tile

_WIDE_BYTES = 8  # element types of this many bytes go at half rate


@dataclass(frozen=True, slots=True, kw_only=True)
class Occupancy:
    """What a kernel or a move occupies of the machine while all tiles do the same."""

    core_cycles: float = 0.0
    """Of a tile: its matrix unit, its vector unit or its scratchpad's port, whichever is busiest."""
    dram_bytes: float = 0.0
    """Through all DRAM ports together."""
    dram_cycles: float = 0.0
    """Time that the ports need for `dram_bytes`."""
    link_cycles: float = 0.0
    """Time that the busiest link of the network needs for the bytes that pass it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelCost:
    """Occupancy of each engine by a kernel on one tile, and what it moves and burns."""

    matrix_cycles: float = 0.0
    vector_cycles: float = 0.0
    dma_in_cycles: float = 0.0
    dma_out_cycles: float = 0.0
    sram_cycles: float = 0.0
    """Time that the scratchpad's port needs for `sram_bytes`."""
    link_cycles: float = 0.0
    """Time of the busiest link of the network; of several transfers one after the other, the sum."""
    startup_cycles: float = 0.0
    """Start-up that no other engine's work hides."""
    macs: int = 0
    vector_ops: int = 0
    sram_bytes: int = 0
    dram_bytes: int = 0
    noc_bytes: int = 0
    energy_pj: float = 0.0

    @property
    def latency_cycles(self) -> float:
        """Cycles of the busiest engine, and the exposed start-up."""
        engines = (
            self.matrix_cycles,
            self.vector_cycles,
            self.dma_in_cycles,
            self.dma_out_cycles,
            self.sram_cycles,
        )
        return max(engines) + self.startup_cycles

    def occupancy(self, target: Target) -> Occupancy:
        """Return what all tiles together occupy."""
        dram_bytes = float(self.dram_bytes * target.tiles)
        return Occupancy(
            core_cycles=max(self.matrix_cycles, self.vector_cycles, self.sram_cycles),
            dram_bytes=dram_bytes,
            dram_cycles=dram_bytes / target.dram_bytes_per_cycle,
            link_cycles=self.link_cycles,
        )

    def __add__(self, other: KernelCost) -> KernelCost:
        """Return the cost of both, with their engines free to overlap."""
        return KernelCost(
            matrix_cycles=self.matrix_cycles + other.matrix_cycles,
            vector_cycles=self.vector_cycles + other.vector_cycles,
            dma_in_cycles=self.dma_in_cycles + other.dma_in_cycles,
            dma_out_cycles=self.dma_out_cycles + other.dma_out_cycles,
            sram_cycles=self.sram_cycles + other.sram_cycles,
            link_cycles=self.link_cycles + other.link_cycles,
            startup_cycles=self.startup_cycles + other.startup_cycles,
            macs=self.macs + other.macs,
            vector_ops=self.vector_ops + other.vector_ops,
            sram_bytes=self.sram_bytes + other.sram_bytes,
            dram_bytes=self.dram_bytes + other.dram_bytes,
            noc_bytes=self.noc_bytes + other.noc_bytes,
            energy_pj=self.energy_pj + other.energy_pj,
        )


def matrix_cycles(tile: Tile, dtype: DType, batch: int, m: int, k: int, n: int) -> float:
    """Return the cycles of the matrix unit for `batch` products [m, k] x [k, n].

    A weight-stationary array holds a block of `rows` x `columns` of the [k, n] operand and takes the
    m rows of the other one by one, so that

        passes = batch ceil(k / rows) ceil(n / columns), stream = m row
        without overlap:  passes (load + stream + fill)
        with overlap:     load + (passes - 1) max(load, stream) + stream + fill

    An input-stationary one does so with m and n exchanged. An output-stationary one has
    passes = batch ceil(m / rows) ceil(n / columns), stream = k row, and no load.

    Registers that hold sums (`accumulator_rows`) cut what streams into blocks, each with passes of its own;
    the rate at which operands arrive is a lower bound of everything.

    Args:
        tile: Gives the array and its cycles per row, per load and to fill.
        dtype: Element type of the stationary operand, [k, n].
        batch: Independent products; each has its own stationary operand.
        m: Rows that stream through the array.
        k: Contracting size.
        n: Columns of the result.

    Returns:
        Cycles; 0 for an empty product.

    Raises:
        TargetError: The matrix unit does not take this element type.

    Source:
        SCALE-Sim v3 without overlap, ONNXim with overlap.
    """
    matrix = tile.matrix
    columns = _matrix_columns(tile, dtype)
    load = matrix.weight_load_cycles[dtype]
    down, across, streamed = k, n, m
    if matrix.dataflow is Dataflow.INPUT_STATIONARY:
        across, streamed = m, n
    elif matrix.dataflow is Dataflow.OUTPUT_STATIONARY:
        down, streamed, load = m, k, 0.0
    passes = batch * ceil(down / matrix.rows) * ceil(across / columns)
    if passes == 0 or streamed == 0:
        return 0.0
    row = matrix.cycles_per_row[dtype]
    block = _block_rows(matrix, streamed)
    blocks = ceil(streamed / block)
    rest = (streamed - (blocks - 1) * block) * row
    if not matrix.overlap_weight_load:
        cycles = passes * (blocks * (load + matrix.fill_cycles) + streamed * row)
    else:
        full = (blocks - 1) * max(load, block * row)
        cycles = load + passes * full + (passes - 1) * max(load, rest) + rest + matrix.fill_cycles
    if matrix.operand_bytes_per_cycle is None:
        return cycles
    operands = sum(operand_elements(tile, dtype, m, k, n)) * batch * dtype.itemsize_bytes
    return max(cycles, operands / matrix.operand_bytes_per_cycle + matrix.fill_cycles)


def _block_rows(matrix: MatrixUnit, streamed: int) -> int:
    """Return how many rows stream before what the array holds is exchanged."""
    if matrix.accumulator_rows is None or matrix.dataflow is Dataflow.OUTPUT_STATIONARY:
        return streamed
    return min(streamed, matrix.accumulator_rows)


def sums_moved(matrix: MatrixUnit, k: int) -> int:
    """Return how often a product writes its result to the scratchpad or reads it back."""
    if matrix.accumulator_rows is not None or matrix.dataflow is Dataflow.OUTPUT_STATIONARY:
        return 1
    return 2 * max(1, ceil(k / matrix.rows)) - 1


def operand_elements(tile: Tile, dtype: DType, m: int, k: int, n: int) -> tuple[int, int]:
    """Return the elements of each operand that the array reads for a product [m, k] x [k, n].

    What is held is read once for each block of rows that stream, what streams once for each block of columns;
    an array that holds results streams both.
    """
    matrix, columns = tile.matrix, _matrix_columns(tile, dtype)
    if min(m, k, n) == 0:
        return 0, 0
    match matrix.dataflow:
        case Dataflow.OUTPUT_STATIONARY:
            left, right = ceil(n / columns), ceil(m / matrix.rows)
        case Dataflow.INPUT_STATIONARY:
            left, right = ceil(n / _block_rows(matrix, n)), ceil(m / columns)
        case Dataflow.WEIGHT_STATIONARY:
            left, right = ceil(n / columns), ceil(m / _block_rows(matrix, m))
    return k * m * left, k * n * right


def systolic_cycles(
    rows: int, cols: int, m: int, k: int, n: int, dataflow: Literal["ws", "os", "is"]
) -> int:
    """Return the cycles of a product [m, k] x [k, n] on a bare systolic array without overlap.

        ws: (2 rows + cols + m - 2) ceil(k / rows) ceil(n / cols) - 1
        is: (2 rows + cols + n - 2) ceil(k / rows) ceil(m / cols) - 1
        os: (rows + cols + k - 2) ceil(m / rows) ceil(n / cols) - 1

    Weight, input or output stationary; these closed forms equal SCALE-Sim v3 exactly.
    """
    if dataflow == "ws":
        return (2 * rows + cols + m - 2) * ceil(k / rows) * ceil(n / cols) - 1
    if dataflow == "is":
        return (2 * rows + cols + n - 2) * ceil(k / rows) * ceil(m / cols) - 1
    return (rows + cols + k - 2) * ceil(m / rows) * ceil(n / cols) - 1


def vector_cycles(tile: Tile, fn: str, dtype: DType, elements: int) -> float:
    """Return the cycles of the vector unit for one instruction over `elements` elements.

        startup + ceil(elements / lanes) function_cycles

    Args:
        tile: Gives lanes and cycles per function; functions it does not list cost 1.
        fn: An element-wise function or a reduction ("sum", "max", ...).
        dtype: Element type; types of 64 bits go at half rate.
        elements: Elements of the operand that has most.
    """
    if elements == 0:
        return 0.0
    vector = tile.vector
    cycles = _passes(tile, dtype, elements) * vector.function_cycles.get(fn, 1.0)
    return vector.startup_cycles + cycles


def matmul_cost(
    target: Target,
    dtype: DType,
    *,
    batch: int,
    m: int,
    k: int,
    n: int,
    out_dtype: DType | None = None,
    accumulates: bool = False,
) -> KernelCost:
    """Return the cost of `batch` local products [m, k] x [k, n] from SRAM to SRAM.

    The stationary operand is read once (once for each block of `accumulator_rows`) and the streaming one
    once for each block of columns; an array that holds results streams both. Where registers hold sums, the
    result is written once, and read once before when the kernel accumulates; elsewhere each pass over k
    writes its sums, and all but the first read those before. With stationary weights

        sram_bytes = batch (k n blocks + m k ceil(n / columns)) itemsize + sums batch m n out_itemsize
        sums = 1 with registers, 2 ceil(k / rows) - 1 without; one more when the kernel accumulates

    The unit is busy until all of it has passed the scratchpad's port, the fill aside.

    Args:
        target: Gives the tile and the energies.
        dtype: Element type of both operands.
        batch: Independent products.
        m: Rows of the streaming operand.
        k: Contracting size.
        n: Columns of the stationary operand.
        out_dtype: Element type of the result; `dtype` without it.
        accumulates: Whether the result is added to what the output buffer holds.
    """
    result = batch * m * n * (out_dtype or dtype).itemsize_bytes
    operands = batch * sum(operand_elements(target.tile, dtype, m, k, n)) * dtype.itemsize_bytes
    moved = operands + result * (sums_moved(target.tile.matrix, k) + accumulates)
    macs = batch * m * k * n
    energy_pj = macs * target.energy.mac_pj[dtype] + moved * target.energy.sram_pj_per_byte
    array_cycles = matrix_cycles(target.tile, dtype, batch, m, k, n)
    port_cycles = moved / target.tile.sram.bytes_per_cycle
    fill_cycles = target.tile.matrix.fill_cycles if array_cycles else 0.0
    return KernelCost(
        matrix_cycles=max(array_cycles, fill_cycles + port_cycles),
        sram_cycles=port_cycles,
        startup_cycles=target.tile.control.issue_cycles,
        macs=macs,
        sram_bytes=moved,
        energy_pj=energy_pj,
    )


def vector_cost(
    target: Target,
    fn: str,
    dtype: DType,
    *,
    elements: int,
    read_bytes: int,
    written_bytes: int,
) -> KernelCost:
    """Return the cost of one vector instruction from SRAM to SRAM.

    Args:
        target: Gives the tile and the energies.
        fn: As in `vector_cycles`.
        dtype: Element type that the function works on.
        elements: As in `vector_cycles`.
        read_bytes: Bytes read from SRAM, all operands.
        written_bytes: Bytes written to SRAM.
    """
    moved = read_bytes + written_bytes
    energy = target.energy
    return KernelCost(
        vector_cycles=vector_cycles(target.tile, fn, dtype, elements),
        sram_cycles=moved / target.tile.sram.bytes_per_cycle,
        startup_cycles=target.tile.control.issue_cycles,
        vector_ops=elements,
        sram_bytes=moved,
        energy_pj=elements * energy.vector_op_pj + moved * energy.sram_pj_per_byte,
    )


def _matrix_columns(tile: Tile, dtype: DType) -> int:
    columns = tile.matrix.columns.get(dtype)
    if columns is None:
        raise TargetError(
            f"matrix unit: found an operand of type {dtype}, expected one of "
            f"{', '.join(sorted(tile.matrix.columns))}; add figures for {dtype} to tile.matrix"
        )
    return columns


def _passes(tile: Tile, dtype: DType, elements: int) -> int:
    """Return how often the lanes are filled."""
    if dtype.itemsize_bytes >= _WIDE_BYTES:
        return ceil(2 * elements / tile.vector.lanes)
    return ceil(elements / tile.vector.lanes)
