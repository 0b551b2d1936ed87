"""Kernels whose partial sums are scattered box by box over the tiles of axes: their form and their price.

A box of parts of sums is rounded into a buffer of its own and sent from there, while the matrix unit is at
the next one. Each axis has slots for what the tiles of a line send; what a tile adds up goes to the next
axis, or is a box of its piece of the result. So an exchange of each axis may be under way at a time, of
boxes that follow one another (`tilewright.lowering.kernels.scattered`).
"""

from __future__ import annotations

from dataclasses import replace

from tilewright.extract.kernel import Kernel, result_boxes
from tilewright.extract.pieces import in_pieces
from tilewright.extract.plan import Tiling
from tilewright.hwmodel.collectives import Collective, collective_cost
from tilewright.hwmodel.cost import KernelCost
from tilewright.hwmodel.target import Target
from tilewright.rules.scattered import Scatter


def scattered_kernel(kernel: Kernel, scatter: Scatter | None) -> Kernel:
    """Return the kernel that scatters its sums box by box.

    Args:
        kernel: The kernel as if it made parts of all sums; its result is the tile's piece of them.
        scatter: What is scattered; None leaves the kernel as it is.
    """
    if scatter is None:
        return kernel
    return replace(in_pieces(kernel, scatter.loop, scatter.size), scatter=scatter)


def exchanged_bytes(kernel: Kernel) -> tuple[int, ...]:
    """Return the bytes of parts of sums that each axis exchanges on a tile, its own part included."""
    scatter = kernel.scatter
    assert scatter is not None, "the kernel scatters its sums"
    own = kernel.result_type.size_bytes
    return tuple(own * scatter.pieces(stage) for stage in range(len(scatter.axes)))


def scatter_price(kernel: Kernel, tiling: Tiling, target: Target) -> tuple[KernelCost, float]:
    """Return the cost of exchanging boxes, and the cycles of the last one, sums included.

    An exchange has a handshake. The next one on the axis may begin when this one's parts are added up: on
    the sending engine, exchanges take the sum of their cycles. Copies of the own parts and additions are work
    of the vector unit like any other (`kernel_work`).

    Args:
        kernel: The kernel.
        tiling: How it is cut; boxes of the result hold rows of all pieces.
        target: The machine.
    """
    scatter = kernel.scatter
    assert scatter is not None, "the kernel scatters its sums"
    steps, sram = max(1, result_boxes(kernel, tiling)), target.tile.sram
    total, last_cycles = KernelCost(), 0.0
    for axis, size, all_bytes in zip(
        scatter.axes, scatter.sizes, exchanged_bytes(kernel), strict=True
    ):
        box_bytes = -(-all_bytes // steps)  # the mean: the last ones may be smaller
        last, one = (
            collective_cost(target, kernel.mesh, axis, kind, box_bytes, kernel.result_type.dtype)
            for kind in (Collective.REDUCE_SCATTER, Collective.ALL_TO_ALL)
        )
        last_cycles += last.cycles
        copied_bytes = 2 * all_bytes // size
        sram_bytes = 2 * all_bytes - copied_bytes
        total = total + KernelCost(
            dma_out_cycles=one.cycles * steps,
            sram_cycles=sram_bytes / sram.bytes_per_cycle,
            link_cycles=one.link_cycles * steps,
            sram_bytes=sram_bytes,
            noc_bytes=round(one.noc_bytes * steps),
            energy_pj=one.energy_pj * steps - copied_bytes * target.energy.sram_pj_per_byte,
        )
    return total, last_cycles


def step_cycles(target: Target, kernel: Kernel) -> tuple[float, float]:
    """Return the cycles of exchanging a box on all axes: a fixed part, and for each of its bytes."""
    scatter = kernel.scatter
    assert scatter is not None, "the kernel scatters its sums"
    large, dtype = 1 << 20, kernel.result_type.dtype
    few, many = (
        sum(
            collective_cost(
                target,
                kernel.mesh,
                axis,
                Collective.REDUCE_SCATTER,
                -(-box * scatter.pieces(stage) // scatter.size),
                dtype,
            ).cycles
            for stage, axis in enumerate(scatter.axes)
        )
        for box in (1, large)
    )
    return few, (many - few) / large
