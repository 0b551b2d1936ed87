"""The kernel behind a planned op: rebuilt from the op, its splits and its placements."""

from __future__ import annotations

from collections.abc import Mapping

from tilewright.extract.gathered import gathered_kernel
from tilewright.extract.kernel import Kernel
from tilewright.extract.plan import Memory, Placement, PlannedOp
from tilewright.extract.scattered import scattered_kernel
from tilewright.graph import TensorType
from tilewright.hwmodel.mesh import LogicalMesh, Sharding, local_shape
from tilewright.rules.annotations import annotate
from tilewright.rules.gathered import find_gather
from tilewright.rules.halo import halo_dims
from tilewright.rules.loopnest import LoopNest
from tilewright.rules.scattered import find_scatter, scattered_sharding
from tilewright.rules.splitting import localise, split_sharding
from tilewright.rules.vocabulary import vocabulary_axes


def planned_nest(planned: PlannedOp, types: Mapping[str, TensorType]) -> LoopNest:
    """Return the annotation of a planned op that is not a host region, in the global view."""
    op = planned.op
    nest = annotate(op, tuple(types[name] for name in op.inputs), types[op.output])
    assert nest is not None, f"{op.kind} '{op.name}' has no annotation"
    return nest


def operand_sharding(planned: PlannedOp, nest: LoopNest, operand: int) -> Sharding:
    """Return which part of an operand each tile works on.

    In SRAM that is how the operand was delivered (it may be partial); from DRAM each tile reads
    the part that its share of the loops touches.
    """
    after = planned.deliveries[operand].after
    return _sharding(after, nest, planned.split_dims, operand)


def result_sharding(planned: PlannedOp, nest: LoopNest) -> Sharding:
    """Return which part of the result each tile makes."""
    return _sharding(planned.result, nest, planned.split_dims, None)


def _sharding(
    placement: Placement, nest: LoopNest, split_dims: tuple[int, ...], operand: int | None
) -> Sharding:
    if placement.memory is Memory.SRAM:
        return placement.sharding
    sharding = split_sharding(nest, split_dims, operand)
    assert sharding is not None, "a plan has legal splits only"
    return sharding


def planned_kernel(
    planned: PlannedOp, types: Mapping[str, TensorType], mesh: LogicalMesh
) -> Kernel:
    """Return the kernel that each tile runs for a planned op (not for host regions)."""
    nest = planned_nest(planned, types)
    op = planned.op
    operands = tuple(operand_sharding(planned, nest, i) for i in range(len(op.inputs)))
    scatter = find_scatter(nest, mesh, planned.macros)
    result = scattered_sharding(result_sharding(planned, nest), scatter)
    local_nest = localise(nest, mesh, planned.split_dims, planned.macros)
    output = types[op.output]

    kernel = Kernel(
        kind=op.kind,
        attrs=op.attrs,
        nest=local_nest,
        operand_types=tuple(
            TensorType(tuple(dim.size for dim in tensor), types[name].dtype)
            for name, tensor in zip(op.inputs, local_nest.operands, strict=True)
        ),
        result_type=TensorType(local_shape(mesh, result, output.shape), output.dtype),
        operand_memory=tuple(d.after.memory for d in planned.deliveries),
        result_memory=planned.result.memory,
        mesh=mesh,
        operand_shardings=operands,
        result_sharding=result,
        halo=halo_dims(nest, mesh, planned.split_dims, planned.macros),
        vocabulary=vocabulary_axes(planned.macros),
    )
    gather = find_gather(nest, mesh, planned.split_dims, operands, planned.macros)
    return scattered_kernel(gathered_kernel(kernel, gather), scatter)
