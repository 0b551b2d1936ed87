"""Which physical tile holds which coordinate of the logical mesh.

The identity keeps each logical axis on its own physical axes. Where logical axes have equal sizes, exchanging
them may put the axis with more traffic on the shorter wires; all such exchanges are tried.
"""

from __future__ import annotations

from itertools import permutations
from math import prod

import numpy as np

from tilewright.extract.gathered import gather_work
from tilewright.extract.plan import Delivery, Memory, MoveKind, Plan
from tilewright.extract.planned import planned_kernel
from tilewright.extract.scattered import exchanged_bytes
from tilewright.hwmodel.mesh import LogicalMesh, local_shape
from tilewright.hwmodel.network import axis_group, logical_tile_ids, network_of
from tilewright.hwmodel.target import Target

_SAMPLED_GROUPS = 8


def axis_traffic_bytes(plan: Plan) -> tuple[float, ...]:
    """Return the bytes that one tile sends along each logical axis in one inference."""
    totals = [0.0] * plan.mesh.rank
    deliveries: list[Delivery] = [d for op in plan.ops for d in op.deliveries]
    for delivery in (*deliveries, *plan.output_deliveries):
        type_ = plan.types[delivery.tensor]
        for move in delivery.moves:
            if move.axis < 0 or move.kind is MoveKind.SLICE or move.before.memory is Memory.DRAM:
                continue
            shard = local_shape(plan.mesh, move.before.sharding, type_.shape)
            size = plan.mesh.sizes[move.axis]
            shares = {
                MoveKind.ALL_GATHER: float(size - 1),
                MoveKind.ALL_REDUCE: 2 * (size - 1) / size,
            }
            share = shares.get(move.kind, (size - 1) / size)
            totals[move.axis] += prod(shard) * type_.dtype.itemsize_bytes * share
    for planned in plan.ops:
        if planned.op.kind != "host" and any(planned.macros):
            kernel = planned_kernel(planned, plan.types, plan.mesh)
            if kernel.gather is not None and planned.tiling is not None:
                for operand in kernel.gather.operands:
                    sent = gather_work(kernel, planned.tiling, operand).sent_bytes
                    totals[kernel.gather.axis] += sent * (kernel.gather.size - 1)
            if kernel.scatter is not None:
                scatter = kernel.scatter
                for axis, size, held in zip(
                    scatter.axes, scatter.sizes, exchanged_bytes(kernel), strict=True
                ):
                    totals[axis] += held * (size - 1) / size
    return tuple(totals)


def axis_hops(target: Target, mesh: LogicalMesh, axis: int) -> float:
    """Return the mean number of links between two tiles of a group of an axis."""
    if mesh.sizes[axis] == 1:
        return 0.0
    network = network_of(target)
    step = max(1, mesh.tiles // _SAMPLED_GROUPS)
    lengths = [
        len(network.route(tile, peer).links)
        for tile in range(0, mesh.tiles, step)
        for peer in axis_group(mesh, axis, tile)
        if peer != tile
    ]
    return sum(lengths) / len(lengths)


def place_mesh(
    target: Target, mesh: LogicalMesh, traffic_bytes: tuple[float, ...]
) -> tuple[int, ...]:
    """Return the physical tile of each logical linear coordinate.

    Args:
        target: The machine.
        mesh: The logical mesh; it covers all tiles.
        traffic_bytes: Bytes along each axis, see `axis_traffic_bytes`.

    Returns:
        The tile ids with the least traffic times distance over all exchanges of axes of equal size;
        the identity wins ties.
    """
    ids = np.array(logical_tile_ids(target, mesh)).reshape(mesh.sizes)
    hops = tuple(axis_hops(target, mesh, axis) for axis in range(mesh.rank))
    best, best_cost = tuple(range(mesh.rank)), float("inf")
    for order in permutations(range(mesh.rank)):
        if any(mesh.sizes[a] != mesh.sizes[b] for a, b in enumerate(order)):
            continue
        cost = sum(bytes_ * hops[b] for bytes_, b in zip(traffic_bytes, order, strict=True))
        if cost < best_cost:
            best, best_cost = order, cost
    # logical axis a lies where axis best[a] does in the identity
    return tuple(int(i) for i in ids.transpose(best).ravel())
