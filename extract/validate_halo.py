"""An independent check of halos: what a tile holds and receives covers what its windows touch, in place."""

from __future__ import annotations

from collections.abc import Callable

from tilewright.errors import CompileError
from tilewright.extract.kernel import Kernel
from tilewright.extract.plan import PlannedOp
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.rules.halo import HALO

Interval = tuple[int, int]


def check_halo(
    planned: PlannedOp,
    kernel: Kernel,
    mesh: LogicalMesh,
    tile: tuple[int, ...],
    held: Callable[[tuple[int, ...]], list[Interval]],
    touched: list[Interval],
    fail: Callable[[str], CompileError],
) -> list[Interval]:
    """Return the index intervals of operand 0 that a tile reaches after its halo exchange.

    A neighbour gives only elements of its own piece, next to the border; tiles at the ends of an
    axis receive nothing there.

    Args:
        planned: The op.
        kernel: What each tile runs.
        mesh: The mesh.
        tile: The tile's coordinates.
        held: The intervals of operand 0 that a tile holds before the exchange.
        touched: What this tile's loops touch of operand 0, padding included.
        fail: Makes the error.

    Raises:
        CompileError: A neighbour lacks what it should give, or the kernel looks for an element at
            another place than where the exchange puts it.
    """
    local = kernel.nest.box(
        kernel.nest.operands[0],
        (0,) * len(kernel.nest.dims),
        tuple(d.extent for d in kernel.nest.dims),
    )
    sharding = planned.deliveries[0].after.sharding
    reached = held(tile)
    for dim, (item, own) in enumerate(zip(kernel.halo, held(tile), strict=True)):
        axes = [a for a, m in enumerate(planned.macros) if m == HALO and sharding[a] == dim]
        if any(state == dim and axes != [a] for a, state in enumerate(sharding) if axes):
            raise fail(f"several axes split dimension {dim}, one of them with a halo")
        if item.size != own[1] - own[0] or min(item.low, item.high) < 0:
            raise fail(f"the halo of dimension {dim} is around {item.size} of {own} elements")
        if item.whole != kernel.operand_types[0].shape[dim]:
            raise fail(f"the buffer has not the {item.whole} elements of piece and halo")
        if item.axis != (axes[0] if axes else -1):
            raise fail(f"dimension {dim} exchanges on axis {item.axis}, it is split by {axes}")
        low, high = _received(item.axis, mesh, tile, held, dim, (item.low, item.high), fail)
        reached[dim] = (own[0] - low, own[1] + high)
        first = own[0] - item.low
        if local[dim] != (touched[dim][0] - first, touched[dim][1] - first):
            raise fail(f"tile {tile} reads {local[dim]} of its buffer, which begins at {first}")
        if local[dim][0] < 0 or local[dim][1] > item.whole:
            raise fail(f"tile {tile} reads {local[dim]} of a buffer of {item.whole}")
    return reached


def _received(
    axis: int,
    mesh: LogicalMesh,
    tile: tuple[int, ...],
    held: Callable[[tuple[int, ...]], list[Interval]],
    dim: int,
    wanted: tuple[int, int],
    fail: Callable[[str], CompileError],
) -> tuple[int, int]:
    """Return how many elements arrive before and after a tile's piece."""
    if axis < 0:
        return 0, 0
    own, found = held(tile)[dim], []
    for step, length in zip((-1, 1), wanted, strict=True):
        coordinate = tile[axis] + step
        if not 0 <= coordinate < mesh.sizes[axis]:
            found.append(0)
            continue
        low, high = held((*tile[:axis], coordinate, *tile[axis + 1 :]))[dim]
        meets = high == own[0] if step < 0 else low == own[1]
        if not meets or length > high - low:
            raise fail(f"the neighbour of tile {tile} holds [{low}, {high}), asked for {length}")
        found.append(length)
    return found[0], found[1]
