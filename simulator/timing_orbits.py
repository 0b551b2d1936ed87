"""Classes of tiles that behave alike on nested crossbars, straight from the machine's symmetries.

In nested crossbars, permuting the units inside any unit maps links to links and routes to routes. What a
program does may keep only some of these symmetries:

* a sub-mesh is mapped to a sub-mesh by those that treat each logical axis alone: they permute the units of
  its physical axes as a tree, whatever the coordinates on other logical axes;
* "coordinate 0 stores" keeps those that leave coordinate 0 of the logical axis in place. Two coordinates are
  then alike if they leave the units that hold coordinate 0 on the same physical axis: all chiplets of the
  other packages, and the other chiplets of its own;
* "send to the tile `shift` further" keeps rotations of the logical axis. Of one that is several physical
  axes these are rotations of the outermost, by whole units of what is nested in it.

The orbits under what is left are exact classes. They need the routes of one tile of each class only,
which matters for thousands of tiles: a multicast to all of them has as many routes as tiles.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from enum import Enum
from itertools import permutations
from math import prod

import numpy as np

from tilewright.hwmodel.network import Network
from tilewright.hwmodel.target import LogicalAxis, Target
from tilewright.lowering.program import Group
from tilewright.simulator.timing_crossbar import is_crossbars
from tilewright.simulator.timing_kinds import RouteKey
from tilewright.simulator.timing_state import Ints


class _Mode(Enum):
    """How the positions on a physical axis may be exchanged."""

    WHOLE = "all alike"
    FIRST_APART = "the first differs from the rest, in the first units of the axes around it"
    APART = "all different"


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
        crossbars, and one group over all tiles whose mesh has the target's logical axes in some order.
    """
    target = network.target
    axes = _placed(target, groups)
    if axes is None:
        return None
    names = [axis.name for axis in target.axes]
    sizes = [axis.size for axis in target.axes]
    places = _places(target, _modes(target, axes, ways, skips))
    numbers: dict[object, int] = {}
    tiles = [numbers.setdefault(tuple(row), len(numbers)) for row in places.tolist()]
    depth = {
        "-".join(level.axes): 1 + names.index(level.axes[-1]) for level in target.interconnects
    }
    resources = list(tiles)
    for link in network.links:
        key: object = "DRAM port"  # reads and writes load all ports alike
        if port := _PORT.fullmatch(link.name):
            inner = depth[port[1]]
            below = prod(sizes[inner:])
            place = places[int(port[2]) * below, :inner]
            key = (port[1], port[3], *place.tolist())
        resources.append(numbers.setdefault(key, len(numbers)))
    return np.array(tiles, dtype=np.int64), np.array(resources, dtype=np.int64)


def _places(target: Target, modes: Mapping[str, _Mode]) -> Ints:
    """Return a row for each tile; units are alike if all their axes' columns are, [tiles, axes]."""
    names = [axis.name for axis in target.axes]
    sizes = [axis.size for axis in target.axes]
    positions = dict(zip(names, np.unravel_index(np.arange(target.tiles), sizes), strict=True))
    columns = []
    for axis in target.logical_axes:
        is_first = np.ones(target.tiles, dtype=np.bool_)
        for name in axis.axes:
            position = positions[name]
            match modes[name]:
                case _Mode.WHOLE:
                    columns.append(np.zeros_like(position))
                case _Mode.FIRST_APART:
                    columns.append(np.where(is_first, np.minimum(position, 1), 0))
                case _Mode.APART:
                    columns.append(position)
            is_first &= position == 0
    return np.stack(columns, axis=1)


def _placed(target: Target, groups: Sequence[Group]) -> tuple[LogicalAxis, ...] | None:
    """Return the target's logical axis on which each one of the program's mesh lies.

    Returns:
        None unless the machine has nothing but crossbars, all its tiles are used, and one group covers it
        axis by axis.
    """
    if not is_crossbars(target) or len(groups) != 1 or target.disabled_tiles:
        return None
    sizes = {axis.name: axis.size for axis in target.axes}
    merged = [prod(sizes[name] for name in axis.axes) for axis in target.logical_axes]
    named = [name for axis in target.logical_axes for name in axis.axes]
    if named != [axis.name for axis in target.axes] or len(groups[0].tiles) != target.tiles:
        return None
    tiles, grid = np.array(groups[0].tiles), np.arange(target.tiles).reshape(merged)
    for order in permutations(range(len(merged))):
        placed = grid.transpose(order)
        if placed.shape == groups[0].mesh.sizes and np.array_equal(placed.reshape(-1), tiles):
            return tuple(target.logical_axes[axis] for axis in order)
    return None


def _modes(
    target: Target, placed: Sequence[LogicalAxis], ways: Sequence[RouteKey], skips: Sequence[int]
) -> dict[str, _Mode]:
    """Return what is left of the symmetry of each physical axis."""
    physical = {axis.name: axis.size for axis in target.axes}
    modes = dict.fromkeys(physical, _Mode.WHOLE)
    for logical, axis in enumerate(placed):
        if any(mask >> logical & 1 for mask in skips):
            modes |= dict.fromkeys(axis.axes, _Mode.FIRST_APART)
    for logical, axis in enumerate(placed):
        if not any(name == "send" and axes >> logical & 1 for name, axes, _ in ways):
            continue
        wide = [name for name in axis.axes if physical[name] > 1]
        # A rotation leaves no coordinate in place.
        is_rotated = all(modes[name] == _Mode.WHOLE for name in wide)
        modes |= dict.fromkeys(wide[1:] if is_rotated else wide, _Mode.APART)
    return modes
