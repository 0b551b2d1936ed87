"""The work and the price of a halo exchange in front of a kernel: what `lowering.halo` emits.

The piece is copied to its place between its surroundings, and padding is filled. Then, one dimension after
the other, tiles send to both neighbours, and a masked copy puts neutral elements where the ends of the axis
have no neighbour. All of it is over before the kernel starts.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

from tilewright.dtypes import DType
from tilewright.extract.kernel import Kernel
from tilewright.extract.kernel_work import VectorWork
from tilewright.extract.vector_price import vector_price
from tilewright.hwmodel.collectives import CollectiveCost
from tilewright.hwmodel.cost import KernelCost
from tilewright.hwmodel.halo import halo_cost
from tilewright.hwmodel.target import Target
from tilewright.rules.halo import NO_AXIS


def section_shape(kernel: Kernel, dim: int) -> tuple[int, ...]:
    """Return the shape of one row of the exchange on a dimension: what came on earlier ones included."""
    return tuple(
        1 if d == dim else item.whole if d < dim and item.axis != NO_AXIS else item.size
        for d, item in enumerate(kernel.halo)
    )


def halo_work(kernel: Kernel) -> tuple[tuple[VectorWork, ...], tuple[VectorWork, ...]]:
    """Return the vector instructions before the sends, and those that mask what arrived."""
    dtype = kernel.operand_types[0].dtype
    whole = prod(item.whole for item in kernel.halo)
    before, masks = [VectorWork(1, "fill", 1, dtype, 1)], []
    for dim, item in enumerate(kernel.halo):
        margins = [n for n in (item.low, item.high) if n]
        if item.axis == NO_AXIS:
            before += [VectorWork(1, "fill", whole // item.whole * n, dtype, 1) for n in margins]
            continue
        before.append(VectorWork(1, "fill", kernel.mesh.sizes[item.axis], DType.BOOL, 1))
        before.append(VectorWork(1, "fill", 1, DType.BOOL, 1))
        row = prod(section_shape(kernel, dim))
        masks += [VectorWork(1, "where", row * n, dtype, 2) for n in margins]
    before.append(VectorWork(1, "identity", prod(item.size for item in kernel.halo), dtype, 2))
    return tuple(before), tuple(masks)


def halo_sends(kernel: Kernel, target: Target) -> CollectiveCost:
    """Return the cost of the sends of a kernel's halo exchange."""
    total = CollectiveCost(level_bytes=(0.0,) * len(target.interconnects))
    itemsize = kernel.operand_types[0].dtype.itemsize_bytes
    for dim, item in enumerate(kernel.halo):
        if item.axis != NO_AXIS:
            row = prod(section_shape(kernel, dim)) * itemsize
            total += halo_cost(target, kernel.mesh, item.axis, item.low * row, item.high * row)
    return total


def with_halo_price(kernel: Kernel, cost: KernelCost, target: Target) -> KernelCost:
    """Return a kernel's cost with that of the halo exchange in front of it.

    Engines are charged with what they do; what is not on the busiest engine is start-up. The copy of
    the piece overlaps with the sends.

        latency = max(fills and copy, sends) + masks + latency of the kernel
    """
    if not kernel.halo:
        return cost
    before, masks = (_vector_price(works, target) for works in halo_work(kernel))
    sends = halo_sends(kernel, target)
    payload = round(sends.noc_bytes)
    total = cost + before + masks
    total += KernelCost(
        dma_out_cycles=payload / target.tile.dma.out_bytes_per_cycle,
        sram_cycles=2 * payload / target.tile.sram.bytes_per_cycle,
        link_cycles=sends.link_cycles,
        sram_bytes=2 * payload,
        noc_bytes=payload,
        energy_pj=sends.energy_pj,
    )
    latency = max(before.latency_cycles, sends.cycles) + masks.latency_cycles + cost.latency_cycles
    busy = total.latency_cycles - total.startup_cycles
    return replace(total, startup_cycles=max(0.0, latency - busy))


def _vector_price(works: tuple[VectorWork, ...], target: Target) -> KernelCost:
    """Return the cost of vector instructions one after the other."""
    total = KernelCost()
    for work in works:
        total += vector_price(work, target)
    return total
