"""Tiles that behave alike, simulated as one: the coarsest equitable partition of tiles and resources.

Colour refinement (1-dimensional Weisfeiler-Leman) splits tiles, routes and resources until each tile
of a class uses the same classes of routes, each route of a class takes the same shares of the same
classes of resources, and each resource of a class is used alike. Then the timelines of a class are
equal: if all its tiles have been in step so far, the max-min fair rates give them the same next
events. One tile of each class, with resources that add up the class's use, thus has exactly the
timeline of the whole machine.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tilewright.simulator.timing_routes import Resources, Routes
from tilewright.simulator.timing_state import Floats, Ints

QUIET_ROUNDS = 2
"""Refinement stops after this many rounds without a split (each with fresh random weights)."""


class Partition(NamedTuple):
    """The class of each tile, route and resource; SRAM port i has the class of tile i."""

    tile: Ints
    route: Ints
    resource: Ints


def discrete_partition(routes: Routes, resources: Resources) -> Partition:
    """Return the partition that keeps everything apart."""
    return Partition(
        np.arange(routes.route_of.shape[1]),
        np.arange(routes.way.size),
        np.arange(resources.capacity.size),
    )


def _relabel(*columns: Ints) -> Ints:
    """Return a number for each row; equal rows share one, in order of first occurrence."""
    _, first, inverse = np.unique(
        np.stack(columns, axis=1), axis=0, return_index=True, return_inverse=True
    )
    order = np.empty(first.size, dtype=np.int64)
    order[np.argsort(first)] = np.arange(first.size)
    labels: Ints = order[inverse.reshape(-1)]
    return labels


def _clusters(values: Floats) -> Ints:
    """Return a number for each value; values equal up to rounding share one."""
    order = np.argsort(values, kind="stable")
    ranked = values[order]
    gaps = np.diff(ranked) > 1e-10 * (1.0 + np.abs(ranked[1:]))
    labels = np.zeros(values.size, dtype=np.int64)
    labels[order[1:]] = np.cumsum(gaps)
    return labels


def equitable_partition(routes: Routes, resources: Resources, seeds: Ints) -> Partition:
    """Return the coarsest partition that keeps timelines exact.

    Args:
        routes: All routes.
        resources: All resources.
        seeds: What else tells tiles apart (group, which instructions they skip), one number per tile.
    """
    tiles = routes.route_of.shape[1]
    tile = _relabel(seeds)
    route = routes.way
    if route.size:
        narrowness = (1.0 / routes.limit).T  # 0 for no limit
        route = _relabel(
            route, _clusters(routes.latency), *(_clusters(values) for values in narrowness)
        )
    resource = _relabel(resources.report, _clusters(resources.capacity), resources.sort)
    generator = np.random.default_rng(20)
    quiet = 0
    while quiet < QUIET_ROUNDS:
        before = _count(tile) + _count(route) + _count(resource)
        of_tile, of_route, of_resource = (
            generator.random(labels.size + 1) + 0.5 for labels in (tile, route, resource)
        )
        weight = np.append(of_route[route], 0.0)  # the last is that of "no route", -1
        use = _sums(
            routes.entry_resource, routes.entry_share * weight[routes.entry_route], resource.size
        )
        use[:tiles] += of_tile[tile]
        reach = _sums(
            routes.entry_route,
            routes.entry_share * of_resource[resource[routes.entry_resource]],
            route.size,
        )
        # Squares tell receivers from users: a route from a to b is not one from b to a.
        reach += _sums(routes.peer_route, of_tile[tile[routes.peer_tile]] ** 2, route.size)
        for row in routes.route_of:
            used = row >= 0
            reach += _sums(row[used], of_tile[tile[used]], route.size)
        seen = weight[routes.route_of].sum(axis=0) + of_resource[resource[:tiles]]
        seen += _sums(routes.peer_tile, weight[routes.peer_route] ** 2, tiles)
        tile, resource = _relabel(tile, _clusters(seen)), _relabel(resource, _clusters(use))
        if route.size:
            route = _relabel(route, _clusters(reach))
        quiet = quiet + 1 if _count(tile) + _count(route) + _count(resource) == before else 0
    ports = np.concatenate([tile, _relabel(resource[tiles:]) + _count(tile)])
    return Partition(tile, route, ports)


def _sums(index: Ints, values: Floats, size: int) -> Floats:
    """Add up values by index; unlike a bare `bincount`, floats even if there are none."""
    return np.bincount(index, values, size).astype(np.float64)


def _count(labels: Ints) -> int:
    return int(labels.max()) + 1 if labels.size else 0


def quotient(
    routes: Routes, resources: Resources, partition: Partition, copies: Ints
) -> tuple[Routes, Resources]:
    """Return the routes and resources of one tile of each class.

    A resource of the quotient has the capacity of one real resource; a route's share is what all
    routes of its class together put on each resource of the other class. A route of `routes` may
    stand for several (`copies`) whose shares fall on other resources and tiles of the same classes.
    """
    tile, route, resource = partition
    first_tile = np.unique(tile, return_index=True)[1]
    first_route = np.unique(route, return_index=True)[1]
    first_resource, members = np.unique(resource, return_index=True, return_counts=True)[1:]
    entry_route, entry_resource, share = _sum_pairs(
        route[routes.entry_route],
        resource[routes.entry_resource],
        routes.entry_share * copies[routes.entry_route],
    )
    peer_route, peer_tile, count = _sum_pairs(
        route[routes.peer_route],
        tile[routes.peer_tile],
        (routes.peer_count * copies[routes.peer_route]).astype(np.float64),
    )
    # Columns that are taken out come column-major.
    folded = np.ascontiguousarray(routes.route_of[:, first_tile])
    small = Routes(
        route_of=np.where(folded >= 0, np.append(route, -1)[folded], -1),
        way=routes.way[first_route],
        latency=routes.latency[first_route],
        limit=routes.limit[first_route],
        entry_route=entry_route,
        entry_resource=entry_resource,
        entry_share=share / members[entry_resource],
        peer_route=peer_route,
        peer_tile=peer_tile,
        peer_count=np.rint(count / np.bincount(tile)[peer_tile]).astype(np.int64),
    )
    merged = Resources(
        resources.capacity[first_resource],
        resources.sort[first_resource],
        resources.report[first_resource],
        resources.names,
        members.astype(np.int64),
    )
    return small, merged


def _sum_pairs(rows: Ints, columns: Ints, values: Floats) -> tuple[Ints, Ints, Floats]:
    """Add up the values of equal (row, column) pairs; the result is sorted by them."""
    width = _count(columns)
    keys, inverse = np.unique(rows * max(width, 1) + columns, return_inverse=True)
    sums = _sums(inverse.reshape(-1), values, keys.size)
    return keys // max(width, 1), keys % max(width, 1), sums
