"""Kernels with operands that arrive in chunks from the tiles of an axis: their form and their price.

An operand's pieces stay in the scratchpad; its boxes are staged, twice buffered, by multicasts of all tiles
of the axis at once, as those of an operand in DRAM are staged by loads. So buffers, tilings and code
generation are those of streamed operands, on the nest with the gathered loop in two
(`tilewright.rules.gathered`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

from tilewright.extract.kernel import Kernel, box_loads, staging_shape
from tilewright.extract.pieces import in_pieces, one_piece
from tilewright.extract.plan import Tiling
from tilewright.hwmodel.collectives import Collective, CollectiveCost, collective_cost
from tilewright.hwmodel.cost import KernelCost
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.hwmodel.target import Target
from tilewright.rules.gathered import Gather


def gathered_kernel(kernel: Kernel, gather: Gather | None) -> Kernel:
    """Return the kernel that multiplies chunk by chunk.

    Args:
        kernel: The kernel as if what is gathered were whole.
        gather: What is gathered; None leaves the kernel as it is.
    """
    if gather is None:
        return kernel
    cut = in_pieces(kernel, gather.loop, gather.size)
    types = list(cut.operand_types)
    for operand, dim in gather.dims:
        types[operand] = one_piece(types[operand], dim)
    return replace(cut, operand_types=tuple(types), gather=gather)


@dataclass(frozen=True, slots=True, kw_only=True)
class GatherWork:
    """What a tile sends to the axis of one operand in the course of a kernel."""

    steps: int
    """Multicasts."""
    sent_bytes: int
    """Bytes of all of them, each counted once whatever the number of receivers."""


def gather_work(kernel: Kernel, tiling: Tiling, operand: int) -> GatherWork:
    """Count the multicasts of a tile; a chunk that is needed again is sent again."""
    tensor = kernel.nest.operands[operand]
    steps = box_loads(kernel, tiling, operand)
    chunks = 1
    for dim in tensor:
        for term in dim.terms:
            chunks *= -(-kernel.nest.dims[term.dim].extent // tiling.sizes[term.dim])
    piece_bytes = kernel.operand_types[operand].size_bytes
    return GatherWork(steps=steps, sent_bytes=piece_bytes * max(1, steps // chunks))


def gather_price(kernel: Kernel, tiling: Tiling, target: Target) -> tuple[KernelCost, float]:
    """Return the cost of gathering operands in chunks, and the cycles of the first chunk.

    A step is an all-gather of a chunk with its handshake. The next may begin before the product of this
    one is done, but not before it has arrived: steps take the sum of their cycles on the sending engine.
    Products begin when the first operand's first chunk is there; that of another follows meanwhile.

    Args:
        kernel: The kernel.
        tiling: How it is cut; boxes of gathered operands are chunks.
        target: The machine.
    """
    assert kernel.gather is not None, "the kernel gathers an operand"
    found = [_operand_price(kernel, tiling, target, n) for n in kernel.gather.operands]
    total = KernelCost()
    for cost, _ in found:
        total = total + cost
    return total, found[0][1]


def _operand_price(
    kernel: Kernel, tiling: Tiling, target: Target, operand: int
) -> tuple[KernelCost, float]:
    """Return the cost of one operand's chunks, and the cycles of the first."""
    gather, work = kernel.gather, gather_work(kernel, tiling, operand)
    assert gather is not None, "the kernel gathers an operand"
    if work.sent_bytes == 0:
        return KernelCost(), 0.0

    def chunk(size_bytes: int) -> CollectiveCost:
        return collective_cost(target, kernel.mesh, gather.axis, Collective.ALL_GATHER, size_bytes)

    one = chunk(-(-work.sent_bytes // work.steps))  # the mean: the last ones may be smaller
    box = prod(staging_shape(kernel, tiling, operand)) // gather.size
    first = chunk(box * kernel.operand_types[operand].dtype.itemsize_bytes)
    sram_bytes = (gather.size + 1) * work.sent_bytes
    cost = KernelCost(
        dma_out_cycles=one.cycles * work.steps,
        sram_cycles=sram_bytes / target.tile.sram.bytes_per_cycle,
        link_cycles=one.link_cycles * work.steps,
        sram_bytes=sram_bytes,
        noc_bytes=round(one.noc_bytes * work.steps),
        energy_pj=one.energy_pj * work.steps,
    )
    return cost, first.cycles


LEAST_SAVING = 0.05
"""Chunks that save a smaller share of gathering and product than this are not considered."""

_NUMBERS_OF_CHUNKS = (2, 4, 8, 16, 32)


def most_in_chunks(
    target: Target, mesh: LogicalMesh, gather: Gather, piece_bytes: int, whole_cycles: float
) -> float | None:
    """Return the cycles below which a product in chunks is an option beside the one that gathers first.

    Nearly equal options cost time and blur the bound.

    Args:
        target: The machine.
        mesh: The logical mesh.
        gather: What is gathered.
        piece_bytes: What each tile holds of it, of all operands together.
        whole_cycles: What the same product takes with its operands whole.

    Returns:
        The cycles; None if no number of chunks can save enough, because each has its handshake.
    """
    each, per_byte = chunk_cycles(target, mesh, gather)
    fixed, payload = each * len(gather.dims), piece_bytes * per_byte
    most = (1 - LEAST_SAVING) * (whole_cycles + fixed + payload)
    best = min(
        max(fixed + payload / n + whole_cycles, n * fixed + payload + whole_cycles / n)
        for n in _NUMBERS_OF_CHUNKS
    )
    return most if best < most else None


def chunk_cycles(target: Target, mesh: LogicalMesh, gather: Gather) -> tuple[float, float]:
    """Return the cycles of a gathered chunk as a fixed part and cycles for each byte of a tile's own."""
    large = 1 << 20
    few, many = (
        collective_cost(target, mesh, gather.axis, Collective.ALL_GATHER, size).cycles
        for size in (1, large)
    )
    return few, (many - few) / large
