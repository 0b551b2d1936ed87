"""The independent check of scattered sums: who adds up what, in what memory, at what cost.

For `validate`. Nothing here uses the nest in pieces from which kernels are priced and generated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from math import ceil, prod

from tilewright.extract.plan import Plan, PlannedOp
from tilewright.extract.plan_error import PlanError
from tilewright.hwmodel.collectives import Collective, collective_cost
from tilewright.hwmodel.target import Target
from tilewright.rules.loopnest import LoopNest, Role
from tilewright.rules.scattered import ROWS, SCATTERED

Interval = tuple[int, int]
Coordinates = tuple[int, ...]
Made = Callable[[Coordinates], Sequence[Interval]]
"""Of which part of the result the loops of a tile make parts of sums, dimension by dimension."""


def scattering_axes(planned: PlannedOp) -> tuple[int, ...]:
    """Return the mesh axes over which an op scatters its sums."""
    return tuple(a for a, macro in enumerate(planned.macros) if macro == SCATTERED)


def added_up(
    plan: Plan, planned: PlannedOp, nest: LoopNest, made: Made, tile: Coordinates
) -> list[Interval]:
    """Return the part of the result whose sums a tile adds up.

    Raises:
        PlanError: The tiles of the axes make parts of different sums, do not split the contracting loop, or
            their pieces are unequal.
    """
    axes, op = scattering_axes(planned), planned.op
    split = [planned.split_dims[axis] for axis in axes]
    if any(loop < 0 or nest.dims[loop].role is not Role.REDUCTION for loop in split):
        raise PlanError(f"'{op.name}' scatters sums along an axis that does not split them")
    sizes = [plan.mesh.sizes[axis] for axis in axes]
    whole = list(made(tile))
    for coordinates in product(*map(range, sizes)):
        peer = list(tile)
        for axis, coordinate in zip(axes, coordinates, strict=True):
            peer[axis] = coordinate
        if list(made(tuple(peer))) != whole:
            raise PlanError(f"'{op.name}': tiles {tile} and {tuple(peer)} make different sums")
    dim = _scattered_dim(nest)
    low, high = whole[dim]
    length, rest = divmod(high - low, prod(sizes))
    if rest or planned.tiling is None or planned.tiling.sizes[-1] != prod(sizes):
        raise PlanError(f"'{op.name}' does not scatter [{low}, {high}) in {prod(sizes)} pieces")
    number = 0
    for axis, size in zip(axes, sizes, strict=True):
        number = number * size + tile[axis]
    whole[dim] = (low + number * length, low + (number + 1) * length)
    return whole


def check_exchanges(
    plan: Plan, planned: PlannedOp, nest: LoopNest, target: Target, whole: Sequence[Interval]
) -> None:
    """Check that the op has room for the boxes that it exchanges and charges for sending them.

    Args:
        plan: The plan.
        planned: The op.
        nest: Its annotation, in the global view.
        target: The machine.
        whole: The part of the result of which a tile makes parts of sums.

    Raises:
        PlanError: What is sent and what arrives does not fit the op's buffers, or its cost is less than that
            of all exchanges, or of the products and the last exchange.
    """
    assert planned.tiling is not None, "products are tiled"
    axes, type_ = scattering_axes(planned), plan.types[planned.op.output]
    dim, left = _scattered_dim(nest), prod(plan.mesh.sizes[axis] for axis in axes)
    box_bytes, boxes = type_.dtype.itemsize_bytes, 1
    for number, (low, high) in enumerate(whole):
        (term,) = nest.result[number].terms or (None,)
        pieces = left if number == dim else 1
        length = (high - low) // pieces
        tile = min(planned.tiling.sizes[term.dim], length) if term else length
        box_bytes *= tile * pieces
        boxes *= ceil(length / tile)
    all_bytes = prod(high - low for low, high in whole) * type_.dtype.itemsize_bytes
    needed, cycles, last = box_bytes, 0.0, 0.0
    for axis in axes:
        needed += box_bytes
        each = ceil(all_bytes / boxes)
        one = collective_cost(target, plan.mesh, axis, Collective.ALL_TO_ALL, each).cycles
        cycles, last = max(cycles, one * boxes), last + one
        size = plan.mesh.sizes[axis]
        box_bytes, all_bytes = box_bytes // size, all_bytes // size
    if planned.buffer_bytes < needed:
        raise PlanError(
            f"'{planned.op.name}' has {planned.buffer_bytes} bytes of buffers, "
            f"what it scatters needs {needed}"
        )
    least = max(cycles, last + planned.cost.matrix_cycles)
    if planned.cost.latency_cycles < least * (1 - 1e-9):
        raise PlanError(
            f"'{planned.op.name}' takes {planned.cost.latency_cycles} cycles, "
            f"its products and exchanges at least {least}"
        )


def _scattered_dim(nest: LoopNest) -> int:
    """Return the dimension of the result that is scattered."""
    return next(
        number
        for number, dim in enumerate(nest.result)
        if any(nest.dims[term.dim].name == ROWS for term in dim.terms)
    )
