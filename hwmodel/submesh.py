"""Parts of a machine: the sub-rectangles of its axes on which stages of a pipeline run.

A sub-rectangle is a run of neighbouring units of one physical axis, inside one unit of every axis outside it,
with everything below: some rows of a mesh, some columns of one row, two chiplets of a package. Its
tiles are consecutive in the machine's numbering, so a run of tiles is all that a stage needs.
"""

from __future__ import annotations

from itertools import product
from math import prod

from tilewright.hwmodel.check import units_down_to
from tilewright.hwmodel.network import network_of
from tilewright.hwmodel.target import Interconnect, LogicalAxis, MeshAxis, Target, Topology

Submesh = tuple[int, ...]
"""Units taken of each physical axis: 1 on outer axes, some of one axis, all of the inner ones."""


_MOST_NEAR = 64
"""Tiles of a part around a DRAM port."""


def whole_machine(target: Target) -> Submesh:
    """Return the sub-rectangle that is everything."""
    return target.shape


def submeshes(target: Target, least_share: float = 0.0) -> tuple[Submesh, ...]:
    """Return every kind of sub-rectangle with at least a share of the tiles, largest first.

    Any number of units may be taken, whether or not it is a power of two.
    """
    sizes = whole_machine(target)
    found: dict[Submesh, None] = {}
    for axis, size in enumerate(sizes):
        for units in range(size, 0, -1):
            shape = (1,) * axis + (units,) + sizes[axis + 1 :]
            if prod(shape) >= least_share * target.tiles:
                found.setdefault(shape)
    return tuple(found)


def boxes_near_port(target: Target) -> tuple[Submesh, ...]:
    """Return the parts around a lone DRAM port that read faster than the whole machine, fastest first.

    A port that is faster than the links around it serves the tile beside it best, so that fewer tiles, alone,
    may finish earlier. These parts may take units of several axes; the more tiles, the less they read faster,
    so that parts of more than `_MOST_NEAR` are left out.

    Where there are several ports, addresses are interleaved over all of them, and a part would read across
    the tiles that it leaves idle, which its description does not say: there are none.
    """
    sizes, slowest = whole_machine(target), _read_rate(target) * (1 + 1e-9)
    if slowest >= target.dram_bytes_per_cycle:
        return ()
    boxes = product(*(range(1, size + 1) for size in sizes))
    near = [shape for shape in boxes if shape != sizes and prod(shape) <= _MOST_NEAR]
    rates = [_read_rate(submesh_target(target, shape, is_alone=True)) for shape in near]
    fast = [(-rate, shape) for rate, shape in zip(rates, near, strict=True) if rate > slowest]
    return tuple(shape for _, shape in sorted(fast))


def _read_rate(target: Target) -> float:
    """Return the bytes per cycle that all tiles together read from DRAM at most, each its own."""
    network = network_of(target)
    own, _, rates = network.read_kinds
    links = float((own / rates).max(initial=0.0)) / target.tiles
    return 1 / max(links, 1 / target.dram_bytes_per_cycle)


def tiles_of(target: Target, shape: Submesh, first_tile: int = 0) -> tuple[int, ...]:
    """Return the ids of a sub-rectangle's tiles in the whole machine, in its own order."""
    network = network_of(target)
    corner = network.coordinates(first_tile)
    places = product(*(range(at, at + units) for at, units in zip(corner, shape, strict=True)))
    return tuple(map(network.tile_at, places))


def fits_at(target: Target, shape: Submesh, first_tile: int) -> bool:
    """Whether the run of tiles from a first one is a sub-rectangle of this kind."""
    sizes = whole_machine(target)
    axis = next((a for a, units in enumerate(shape) if units > 1), len(shape) - 1)
    inner = prod(sizes[axis + 1 :])
    start = first_tile // inner % sizes[axis]
    return (
        first_tile % inner == 0
        and start + shape[axis] <= sizes[axis]
        and first_tile + prod(shape) <= target.tiles
    )


def submesh_target(
    target: Target, shape: Submesh, *, reserved_semaphores: int = 0, is_alone: bool = False
) -> Target:
    """Return the machine that a stage on a sub-rectangle sees.

    Stages run at the same time, so each has its share of the DRAM bandwidth, unless it is alone, and loads
    with one engine, whose order says what it has read of the others. A torus cut open is a mesh.

    Args:
        target: The whole machine.
        shape: The sub-rectangle.
        reserved_semaphores: Semaphores of each tile that the stage must leave alone.
        is_alone: Whether the other tiles do nothing.
    """
    semaphores = target.tile.control.semaphores - reserved_semaphores
    control = target.tile.control.model_copy(update={"semaphores": semaphores})
    dma = target.tile.dma
    if not is_alone:
        dma = dma.model_copy(update={"load_engines": 1})
    tile = target.tile.model_copy(update={"control": control, "dma": dma})
    if shape == whole_machine(target):
        return target.model_copy(update={"tile": tile})
    axes = tuple(
        MeshAxis(name=axis.name, size=size) for axis, size in zip(target.axes, shape, strict=True)
    )
    small = target.model_copy(
        update={
            "name": f"{target.name}[{'x'.join(str(size) for size in shape)}]",
            "axes": axes,
            "disabled_tiles": (),
            "tile": tile,
            "interconnects": tuple(_level(target, shape, level) for level in target.interconnects),
            "logical_axes": _logical_axes(target, shape),
        }
    )
    return small.model_copy(
        update={"dram": target.dram.model_copy(update=_ports(target, small, is_alone=is_alone))}
    )


def _level(target: Target, shape: Submesh, level: Interconnect) -> Interconnect:
    taken = dict(zip((axis.name for axis in target.axes), shape, strict=True))
    whole = dict(zip(taken, whole_machine(target), strict=True))
    is_cut = any(taken[name] != whole[name] for name in level.axes)
    if level.topology is Topology.TORUS and is_cut:
        return level.model_copy(update={"topology": Topology.MESH})
    return level


def _logical_axes(target: Target, shape: Submesh) -> tuple[LogicalAxis, ...]:
    """Return the logical axes along which there is more than one tile."""
    taken = dict(zip((axis.name for axis in target.axes), shape, strict=True))
    return tuple(
        axis for axis in target.logical_axes if prod(taken[name] for name in axis.axes) > 1
    )


def _ports(target: Target, small: Target, *, is_alone: bool) -> dict[str, object]:
    """Return the DRAM ports of a part: as near to its share as its units allow, with its bandwidth.

    A port of a part that is alone has all of its own.
    """
    dram = target.dram
    share = small.tiles / target.tiles
    units = 1 if dram.attach_axis is None else units_down_to(small, dram.attach_axis)
    ports = units * max(1, int(dram.ports * share) // units)
    rate = dram.port_bytes_per_cycle
    if not is_alone:
        rate *= dram.ports * share / ports
    return {"ports": ports, "port_bytes_per_cycle": rate}
