"""Cost of moving whole tensors between DRAM and the scratchpads."""

from __future__ import annotations

from dataclasses import replace
from math import ceil, prod

from tilewright.graph import TensorType
from tilewright.hwmodel.cost import KernelCost
from tilewright.hwmodel.dram_cost import dram_read_cost, dram_write_cost
from tilewright.hwmodel.mesh import LogicalMesh, Sharding, local_shape
from tilewright.hwmodel.target import Target


def contiguous_run_bytes(tensor: TensorType, local: tuple[int, ...]) -> int:
    """Return the bytes of a contiguous run of a shard [local] within the dense tensor."""
    run = tensor.dtype.itemsize_bytes
    for size, cut in zip(reversed(tensor.shape), reversed(local), strict=True):
        run *= cut
        if cut != size:
            break
    return run


def dram_transfer_cost(
    target: Target, mesh: LogicalMesh, tensor: TensorType, sharding: Sharding, *, write: bool
) -> KernelCost:
    """Return one tile's cost when all tiles read their shard of a tensor from DRAM, or write it there.

    Equal shards are read once where the target multicasts; each different shard is written once.
    """
    local = local_shape(mesh, sharding, tensor.shape)
    local_bytes = prod(local) * tensor.dtype.itemsize_bytes
    run = contiguous_run_bytes(tensor, local)
    if not write:
        return dram_read_cost(target, tensor.size_bytes, local_bytes, run)
    shared = dram_write_cost(target, ceil(tensor.size_bytes / mesh.tiles), run)
    own = target.dram.latency_cycles + local_bytes / target.tile.dma.out_bytes_per_cycle
    return replace(shared, dma_out_cycles=max(shared.dma_out_cycles, own))
