"""Matrix products on Tenstorrent's cards: the published schedule, lowered and simulated, as measured.

What is measured is a program of Tenstorrent's library, so that program is what must be simulated: its blocks
(`tt_matmul`) become the plan of one op, which our code generation lowers as any other. The library
finishes a block of results before it begins the next, because the data mover that reads the second operand
also writes the result (reader_bmm_tile_layout_in1_sender_writer_padding.cpp of tenstorrent/tt-metal
06bd3735). So one block on all cores is simulated, and its time counts once for each block.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType

import tilewright
from benchmarks.validation.gemm_rows import CARDS, Card, GemmRow, NumberFormat
from benchmarks.validation.tt_matmul import EDGE, Blocking, Problem, blocking
from tilewright.extract.kernel import footprint_bytes
from tilewright.extract.kernel_price import price
from tilewright.extract.objective import Objective
from tilewright.extract.plan import Delivery, Memory, Placement, Plan, PlannedOp, Proof, Tiling
from tilewright.extract.planned import planned_kernel
from tilewright.extract.validate import validate_plan
from tilewright.graph import AttrValue, Graph, Op, Port, TensorType
from tilewright.hwmodel.change import changed_target
from tilewright.hwmodel.cost import KernelCost
from tilewright.hwmodel.load import load_target
from tilewright.hwmodel.mesh import replicated
from tilewright.hwmodel.network import logical_mesh
from tilewright.hwmodel.target import Target
from tilewright.lowering.lower import build_program
from tilewright.simulator.timing import simulate


@dataclass(frozen=True, slots=True, kw_only=True)
class GemmOutcome:
    """What the simulation says of a row."""

    row: GemmRow
    blocks: int
    cycles: float
    """Of all blocks."""
    predicted_cycles: float
    """The cost model's, which the simulator knows nothing of."""

    @property
    def utilisation(self) -> float:
        """Cycles of the products at the peak rate over all cycles, as the report defines it."""
        return self.row.ideal_cycles / self.cycles

    @property
    def error(self) -> float:
        """Relative to the measured utilisation."""
        return self.utilisation / self.row.measured_utilisation - 1.0


BYTE_RATES = (
    *("dram.port_bytes_per_cycle", "dram.relay.read_bytes_per_cycle", "tile.sram.bytes_per_cycle"),
    *("dram.relay.line_bytes_per_cycle", "dram.relay.grid_bytes_per_cycle"),
    *("tile.dma.in_bytes_per_cycle", "tile.dma.out_bytes_per_cycle"),
    "interconnects.row-column.port_bytes_per_cycle",
    "interconnects.row-column.link_bytes_per_cycle",
)
"""What elements of a block format cross with their exponents.

Not the matrix unit's operands, whose exponents come by a read of their own: WormholeB0/TensixTile/L1.md of
tenstorrent/tt-isa-documentation 29e53cf.
"""


def target_of(card: Card, number_format: NumberFormat) -> Target:
    """Return the cores of a card that are measured, with the format's rate.

    A block format takes more bytes than the integers that stand for it; rates in bytes are lower by as much.
    """
    changes = [
        f"mesh={card.grid_rows}x{card.grid_columns}",
        f"tile.matrix.cycles_per_row.{number_format.dtype}={number_format.product_cycles / EDGE}",
    ]
    bytes_here = EDGE**2 * number_format.dtype.itemsize_bytes
    if bytes_here != number_format.tile_bytes:
        changes += [f"{rate}=x{bytes_here / number_format.tile_bytes:.6f}" for rate in BYTE_RATES]
    target = load_target(card.preset)
    for change in changes:
        target = changed_target(target, change)
    return target.model_copy(update={"name": f"{card.preset}, {number_format}"})


def block_graph(number_format: NumberFormat, m: int, k: int, n: int) -> Graph:
    """Return the model of one product [m, k] x [k, n], the result of the operands' type."""
    dtype = number_format.dtype
    types = {
        "a": TensorType((m, k), dtype),
        "b": TensorType((k, n), dtype),
        "c": TensorType((m, n), dtype),
    }
    attrs: dict[str, AttrValue] = {} if dtype.is_float else {"epilogue": f"cast({dtype})"}
    product = Op(
        name="product",
        kind="matmul",
        inputs=("a", "b"),
        outputs=("c",),
        attrs=MappingProxyType(attrs),
    )
    ports = {
        name: Port(name=name, tensor=name, shape=t.shape, dtype=t.dtype)
        for name, t in types.items()
    }
    return Graph(
        name="gemm",
        inputs=(ports["a"], ports["b"]),
        outputs=(ports["c"],),
        types=MappingProxyType(types),
        constants=MappingProxyType({}),
        ops=(product,),
    )


def scheme_plan(
    graph: Graph, target: Target, split_dims: tuple[int, ...], sizes: tuple[int, int, int]
) -> Plan:
    """Return the plan of a product whose operands and result stay in DRAM: boxes [m, n, k], k innermost."""
    mesh, (op,) = logical_mesh(target), graph.ops
    dram = Placement(memory=Memory.DRAM, sharding=replicated(mesh))
    a, b, c = (
        Delivery(tensor=name, before=dram, moves=(), after=dram)
        for name in (*op.inputs, *op.outputs)
    )
    planned = PlannedOp(
        op=op,
        split_dims=split_dims,
        deliveries=(a, b),
        resident=(False, False),
        result=dram,
        tiling=Tiling(sizes, (0, 1, 2)),
        buffer_bytes=0,
        cost=KernelCost(),
        cost_units=0.0,
        split_rules=("",) * mesh.rank,
        macros=("",) * mesh.rank,
    )
    kernel = planned_kernel(planned, graph.types, mesh)
    assert planned.tiling is not None
    cost = price(kernel, planned.tiling, target)
    held = footprint_bytes(kernel, planned.tiling, target.tile.sram.alignment_bytes)
    units = cost.latency_cycles
    return Plan(
        graph=graph,
        target_name=target.name,
        mesh=mesh,
        objective=Objective.LATENCY,
        types=graph.types,
        ops=(replace(planned, cost=cost, buffer_bytes=held, cost_units=units),),
        folded=(),
        output_deliveries=(c,),
        cost=units,
        bound=0.0,
        proof=Proof(method="a published schedule"),
        peak_sram_bytes=held,
        resident_sram_bytes=0,
    )


def published_blocking(row: GemmRow, target: Target) -> Blocking:
    """Return the blocks of the maker's library for a row."""
    card = CARDS[row.card]
    return blocking(
        Problem(
            m=row.m,
            k=row.k,
            n=row.n,
            tile_bytes=row.number_format.tile_bytes,
            grid_rows=card.grid_rows,
            grid_columns=card.grid_columns,
            l1_bytes=target.tile.sram.size_bytes,
        )
    )


def block_plan(row: GemmRow, target: Target, blocks: Blocking) -> Plan:
    """Return the plan of one block on all cores.

    Sums are 32 bits wide here and a cast makes the result, both in buffers that the library does without:
    of the divisors of its k, the largest with which all buffers fit.
    """
    card = CARDS[row.card]
    sizes = blocks.block_m * EDGE, blocks.block_n * EDGE
    if blocks.is_spread:
        shape, split = (row.m, row.n), (1, 1)
        sizes = row.m, row.n // (card.grid_rows * card.grid_columns)
    else:
        shape, split = (sizes[0] * card.grid_rows, sizes[1] * card.grid_columns), (0, 1)
    graph = block_graph(row.number_format, shape[0], row.k, shape[1])
    for size_k in range(blocks.block_k, 0, -1):
        if blocks.block_k % size_k == 0:
            plan = scheme_plan(graph, target, split, (*sizes, size_k * EDGE))
            if plan.peak_sram_bytes <= target.tile.sram.size_bytes:
                return plan
    raise AssertionError(f"{row.name}: blocks of {sizes} fit with no k")


def simulate_gemm(row: GemmRow) -> GemmOutcome:
    """Simulate a row in the published schedule."""
    target = target_of(CARDS[row.card], row.number_format)
    blocks = published_blocking(row, target)
    plan = block_plan(row, target, blocks)
    validate_plan(plan, target)
    report = simulate(build_program(plan, target))
    return GemmOutcome(
        row=row,
        blocks=blocks.blocks,
        cycles=report.cycles * blocks.blocks,
        predicted_cycles=plan.cost * blocks.blocks,
    )


def simulate_own(row: GemmRow) -> float:
    """Return the utilisation of the plan that the compiler makes of the whole product."""
    target = target_of(CARDS[row.card], row.number_format)
    done = tilewright.compile(block_graph(row.number_format, row.m, row.k, row.n), target)
    assert done.program is not None
    return row.ideal_cycles / simulate(done.program).cycles
