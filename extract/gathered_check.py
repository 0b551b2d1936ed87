"""The independent check of gathered operands: what arrives in which step, in what memory, at what cost.

For `validate`. Nothing here uses the nest in pieces from which kernels are priced and generated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import ceil, prod
from types import MappingProxyType

from tilewright.extract.plan import Memory, Plan, PlannedOp
from tilewright.extract.plan_error import PlanError
from tilewright.hwmodel.collectives import Collective, collective_cost
from tilewright.hwmodel.target import Target
from tilewright.rules.gathered import GATHERED
from tilewright.rules.loopnest import LoopNest

Interval = tuple[int, int]
Coordinates = tuple[int, ...]
Shard = Callable[[Coordinates], Sequence[Interval]]
"""What a tile holds of a tensor, dimension by dimension."""


_GATHERABLE: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {"matmul": (0, 1), "attention": (1, 2)}
)
"""Operands that may arrive in chunks, by kind of operator."""

_KEYS, _VALUES = 1, 2


def gathers(planned: PlannedOp, operand: int, nest: LoopNest) -> bool:
    """Whether an op gathers an operand: an axis that gathers splits it, but along another loop."""
    if GATHERED not in planned.macros:
        return False
    axis = planned.macros.index(GATHERED)
    after = planned.deliveries[operand].after
    used = {term.dim for dim in nest.operands[operand] for term in dim.terms}
    is_cut = after.memory is Memory.SRAM and after.sharding[axis] >= 0
    return is_cut and planned.split_dims[axis] not in used


def arriving(plan: Plan, planned: PlannedOp, operand: int, nest: LoopNest, shard: Shard) -> Shard:
    """Return what has arrived of a gathered operand on each tile when the op is done.

    Raises:
        PlanError: The pieces of an axis do not follow one another, an index comes twice or never, or
            the operand is none that can be gathered.
    """
    op, axis = planned.op, planned.macros.index(GATHERED)
    if operand not in _GATHERABLE.get(op.kind, ()) or planned.resident[operand]:
        raise PlanError(f"'{op.name}' gathers operand {operand}, which is always whole")
    if planned.macros.count(GATHERED) > 1:
        raise PlanError(f"'{op.name}' gathers on several axes")
    dim = planned.deliveries[operand].after.sharding[axis]
    (term,) = nest.operands[operand][dim].terms
    assert planned.tiling is not None, "products are tiled"
    chunk, pieces = planned.tiling.sizes[term.dim], planned.tiling.sizes[-1]

    def reach(tile: Coordinates) -> Sequence[Interval]:
        line = [
            shard((*tile[:axis], number, *tile[axis + 1 :]))
            for number in range(plan.mesh.sizes[axis])
        ]
        if pieces != len(line):
            raise PlanError(f"'{op.name}' multiplies chunks of {pieces} of {len(line)} pieces")
        arrived: list[int] = []
        for first in range(0, line[0][dim][1] - line[0][dim][0], chunk):
            for held in line:
                low, high = held[dim]
                arrived += range(low + first, min(low + first + chunk, high))
        found = list(line[0])
        found[dim] = (line[0][dim][0], line[-1][dim][1])
        if sorted(arrived) != list(range(*found[dim])):
            raise PlanError(f"'{op.name}' on tile {tile}: pieces of the axis do not make a whole")
        return found

    return reach


def check_chunks(plan: Plan, planned: PlannedOp, nest: LoopNest, target: Target) -> None:
    """Check that the op has room for its chunks and charges for sending them.

    Raises:
        PlanError: Two chunks of each operand do not fit the op's buffers, its cost is less than that
            of sending all chunks, or of the first chunk and all products, or keys come without values.
    """
    needed, all_, first = 0, 0.0, 0.0
    gathered = [n for n in range(len(planned.op.inputs)) if gathers(planned, n, nest)]
    if planned.op.kind == "attention" and gathered:
        _check_pairs(planned, gathered, len(nest.result))
    for operand in gathered:
        assert planned.tiling is not None, "products are tiled"
        axis, type_ = planned.macros.index(GATHERED), plan.types[planned.op.inputs[operand]]
        size, steps, sent = plan.mesh.sizes[axis], 1, type_.dtype.itemsize_bytes
        for number, dim in enumerate(nest.operands[operand]):
            states = planned.deliveries[operand].after.sharding
            cuts = prod(n for n, s in zip(plan.mesh.sizes, states, strict=True) if s == number)
            length = dim.size // cuts
            tile = min((planned.tiling.sizes[t.dim] for t in dim.terms), default=1)
            steps *= ceil(length / tile)
            sent *= min(tile, length)
        needed += sent * size * min(steps, 2)
        # the last chunks may be smaller, all others are not
        whole = max(steps - 1, 1) * sent
        one = collective_cost(target, plan.mesh, axis, Collective.ALL_GATHER, sent).cycles
        each = collective_cost(target, plan.mesh, axis, Collective.ALL_GATHER, whole).cycles
        all_ += each
        first = first or min(one, each)
    if planned.buffer_bytes < needed:
        raise PlanError(
            f"'{planned.op.name}' has {planned.buffer_bytes} bytes of buffers, "
            f"its chunks need {needed}"
        )
    least = max(all_, first + planned.cost.matrix_cycles)
    if gathered and planned.cost.latency_cycles < least * (1 - 1e-9):
        raise PlanError(
            f"'{planned.op.name}' takes {planned.cost.latency_cycles} cycles, "
            f"its chunks and products at least {least}"
        )


def _check_pairs(planned: PlannedOp, gathered: Sequence[int], rank: int) -> None:
    """Check that each chunk of keys comes with the values of the same keys.

    Keys are [..., d, n], values [..., n, e]; the chunks of a step are cut by one loop.
    """
    axis = planned.macros.index(GATHERED)
    found = {n: planned.deliveries[n].after.sharding[axis] for n in gathered}
    if found != {_KEYS: rank - 1, _VALUES: rank - 2}:
        raise PlanError(
            f"'{planned.op.name}' gathers dimensions {found} (by operand), expected keys and their "
            f"values: {{{_KEYS}: {rank - 1}, {_VALUES}: {rank - 2}}}"
        )
