"""Classes of tiles that behave alike on nested crossbars, straight from the machine's symmetries.

In nested crossbars, permuting the positions on any physical axis maps links to links and routes to
routes. What a program does may keep only some of these symmetries:

* a sub-mesh is mapped to a sub-mesh by all of them;
* "coordinate 0 stores" keeps those that leave position 0 of the axis in place;
* "send to the tile `shift` further" keeps rotations of the logical axis. Of one that is several physical
  axes these are rotations of the outermost, by whole units of what is nested in it.

The orbits under what is left are exact classes. They need the routes of one tile of each class only,
which matters for thousands of tiles: a multicast to all of them has as many routes as tiles.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from tilewright.hwmodel.network import Network
from tilewright.hwmodel.target import Target
from tilewright.lowering.program import Group
from tilewright.simulator.timing_crossbar import is_crossbars
from tilewright.simulator.timing_kinds import RouteKey
from tilewright.simulator.timing_state import Ints

WHOLE, FIRST_APART, APART = 0, 1, 2
"""Positions on a physical axis: all alike; the first one differs from the rest; all different."""

_PORT = re.compile(r"(.*)\[(\d+)\]\.(in|out)")


def crossbar_orbits(
    network: Network, groups: Sequence[Group], ways: Sequence[RouteKey], skips: Sequence[int]
) -> tuple[Ints, Ints] | None:
    """Return the class of each tile and of each resource, numbered by first occurrence.

    Args:
        network: The machine's network.
        groups: The program's groups of tiles.
        ways: All ways that payloads take.
        skips: Masks of logical axes where only coordinate 0 does something.

    Returns:
        None if the machine or the program is not of the kind that this works for: nothing but
        crossbars, and one group over all tiles in order.
    """
    target = network.target
    if not _is_regular(target, groups):
        return None
    names = [axis.name for axis in target.axes]
    sizes = [axis.size for axis in target.axes]
    modes = _modes(target, ways, skips)
    columns = []
    for position, mode in zip(np.unravel_index(np.arange(target.tiles), sizes), modes, strict=True):
        limit = {WHOLE: 0, FIRST_APART: 1, APART: target.tiles}[mode]
        columns.append(np.minimum(position, limit))
    places = np.stack(columns, axis=1)
    numbers: dict[object, int] = {}
    tiles = [numbers.setdefault(tuple(row), len(numbers)) for row in places.tolist()]
    depth = {
        "-".join(level.axes): 1 + names.index(level.axes[-1]) for level in target.interconnects
    }
    resources = list(tiles)
    for link in network.links:
        key: object = "DRAM port"  # reads and writes load all ports alike
        if port := _PORT.fullmatch(link.name):
            axes = depth[port[1]]
            below = int(np.prod(sizes[axes:]))
            place = places[int(port[2]) * below, :axes]
            key = (port[1], port[3], *place.tolist())
        resources.append(numbers.setdefault(key, len(numbers)))
    return np.array(tiles, dtype=np.int64), np.array(resources, dtype=np.int64)


def _is_regular(target: Target, groups: Sequence[Group]) -> bool:
    if not is_crossbars(target):
        return False
    sizes = {axis.name: axis.size for axis in target.axes}
    if len(groups) != 1 or groups[0].tiles != tuple(range(target.tiles)):
        return False
    merged = [int(np.prod([sizes[name] for name in axis.axes])) for axis in target.logical_axes]
    order = [name for axis in target.logical_axes for name in axis.axes]
    return groups[0].mesh.sizes == tuple(merged) and order == [axis.name for axis in target.axes]


def _modes(target: Target, ways: Sequence[RouteKey], skips: Sequence[int]) -> list[int]:
    """Return what is left of the symmetry of each physical axis."""
    physical = {axis.name: axis.size for axis in target.axes}
    modes = dict.fromkeys(physical, WHOLE)
    for logical, axis in enumerate(target.logical_axes):
        if any(mask >> logical & 1 for mask in skips):
            modes |= dict.fromkeys(axis.axes, FIRST_APART)
    for logical, axis in enumerate(target.logical_axes):
        if not any(name == "send" and axes >> logical & 1 for name, axes, _ in ways):
            continue
        wide = [name for name in axis.axes if physical[name] > 1]
        # A rotation leaves no coordinate in place.
        is_rotated = all(modes[name] == WHOLE for name in wide)
        modes |= dict.fromkeys(wide[1:] if is_rotated else wide, APART)
    return list(modes.values())
