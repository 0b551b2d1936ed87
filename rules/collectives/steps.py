"""Steps on shardings and, in numpy, on what the tiles of a mesh hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod

import numpy as np

from tilewright.hwmodel.mesh import PARTIAL_MAX, PARTIAL_SUM, REPLICATED, LogicalMesh, Sharding
from tilewright.reference import AnyArray as Array
from tilewright.rules.collectives.ruleset import CollectiveRule, Step, StepKind

Coordinates = tuple[int, ...]


def elementary_steps(
    mesh: LogicalMesh, sharding: Sharding, local: tuple[int, ...], axis: int
) -> Iterator[Step]:
    """Yield the all-gather, all-reduce and slices that a tensor can make on one axis.

    With several axes on one dimension only the least significant of them can be gathered or cut: the
    pieces would not be contiguous otherwise.

    Args:
        mesh: The mesh.
        sharding: Where the tensor is now.
        local: Shape of a tile's piece.
        axis: The axis of the step.
    """
    state = sharding[axis]
    if state in (PARTIAL_SUM, PARTIAL_MAX):
        yield Step(kind=StepKind.ALL_REDUCE, axis=axis)
    elif state == REPLICATED:
        for dim, size in enumerate(local):
            if dim not in sharding[axis + 1 :] and size % mesh.sizes[axis] == 0:
                yield Step(kind=StepKind.SLICE, axis=axis, dim=dim)
    elif state not in sharding[axis + 1 :]:
        yield Step(kind=StepKind.ALL_GATHER, axis=axis, dim=state)


def after_step(sharding: Sharding, step: Step) -> Sharding:
    """Return the sharding after a step."""
    states = {
        StepKind.ALL_GATHER: REPLICATED,
        StepKind.ALL_REDUCE: REPLICATED,
        StepKind.SLICE: step.dim,
        StepKind.REDUCE_SCATTER: step.dim,
        StepKind.ALL_TO_ALL: step.to_dim,
    }
    return (*sharding[: step.axis], states[step.kind], *sharding[step.axis + 1 :])


def local_after(mesh: LogicalMesh, local: tuple[int, ...], step: Step) -> tuple[int, ...]:
    """Return the shape of a tile's piece after a step, given that before."""
    sizes = list(local)
    if step.kind in (StepKind.ALL_GATHER, StepKind.ALL_TO_ALL):
        sizes[step.dim] *= mesh.sizes[step.axis]
    cut = step.to_dim if step.kind is StepKind.ALL_TO_ALL else step.dim
    if step.kind not in (StepKind.ALL_GATHER, StepKind.ALL_REDUCE):
        sizes[cut] //= mesh.sizes[step.axis]
    return tuple(sizes)


def steps(
    mesh: LogicalMesh,
    sharding: Sharding,
    local: tuple[int, ...],
    axis: int,
    rules: tuple[CollectiveRule, ...],
) -> tuple[Step, ...]:
    """Return every single step of a tensor on one axis: elementary ones, then those of rules."""
    found = dict.fromkeys(elementary_steps(mesh, sharding, local, axis))
    for first in tuple(found):
        after, piece = after_step(sharding, first), local_after(mesh, local, first)
        for second in elementary_steps(mesh, after, piece, axis):
            for rule in rules:
                fused = rule.function(first, second)
                if fused is not None and len(fused) == 1:
                    found.setdefault(fused[0])
    return tuple(found)


def run_step(
    mesh: LogicalMesh, pieces: Mapping[Coordinates, Array], step: Step, *, is_max: bool
) -> dict[Coordinates, Array]:
    """Return what each tile holds after a step, computed from what the tiles of its line hold.

    Args:
        mesh: The mesh.
        pieces: What each tile holds.
        step: The step.
        is_max: Whether partial values combine by maximum instead of sum.
    """
    size = mesh.sizes[step.axis]
    after = {}
    for tile in sorted(pieces):
        line = [
            pieces[(*tile[: step.axis], other, *tile[step.axis + 1 :])] for other in range(size)
        ]
        place = tile[step.axis]
        total = np.maximum.reduce(line) if is_max else np.add.reduce(line)
        match step.kind:
            case StepKind.ALL_GATHER:
                after[tile] = np.concatenate(line, step.dim)
            case StepKind.SLICE:
                after[tile] = np.split(pieces[tile], size, step.dim)[place]
            case StepKind.ALL_REDUCE:
                after[tile] = total
            case StepKind.REDUCE_SCATTER:
                after[tile] = np.split(total, size, step.dim)[place]
            case StepKind.ALL_TO_ALL:
                parts = [np.split(other, size, step.to_dim)[place] for other in line]
                after[tile] = np.concatenate(parts, step.dim)
    return after


def moved_elements(mesh: LogicalMesh, local: tuple[int, ...], step: Step) -> float:
    """Return how many elements each tile must send at least, for a step on its axis."""
    size, elements = mesh.sizes[step.axis], prod(local)
    match step.kind:
        case StepKind.SLICE:
            return 0.0
        case StepKind.ALL_GATHER:
            return float(elements * (size - 1))
        case StepKind.ALL_REDUCE:
            return 2.0 * elements * (size - 1) / size
        case _:
            return elements * (size - 1) / size
