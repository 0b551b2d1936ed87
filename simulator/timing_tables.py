"""From a program phase to the tables of the event loop."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tilewright.hwmodel.network import Network
from tilewright.lowering.program import Program
from tilewright.simulator.timing_kinds import Kind
from tilewright.simulator.timing_lowered import Lowered, Way, is_ordered, owners
from tilewright.simulator.timing_orbits import crossbar_orbits
from tilewright.simulator.timing_routes import (
    Resources,
    RouteBuilder,
    Routes,
    all_resources,
)
from tilewright.simulator.timing_state import (
    ENGINES,
    ENTRY,
    KIND,
    PEER,
    RESOURCE,
    ROUTE,
    SLOT,
    SORTS,
    TILE,
    Bools,
    Floats,
    Ints,
    Records,
    Tables,
)
from tilewright.simulator.timing_symmetry import (
    Partition,
    discrete_partition,
    equitable_partition,
    quotient,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """A program phase, ready to simulate, and what reports need to know of it."""

    tables: Tables
    slots: Records
    """SLOT records at the start; `nodes` is the room for resources of the slot's payloads."""
    shared: Records
    """RESOURCE records at the start."""
    kinds: tuple[Kind, ...]
    routes: Routes
    ways: tuple[Way, ...]
    """The ways of the routes."""
    resources: Resources
    representative: tuple[int, ...]
    """Physical tile that each simulated tile stands for."""
    is_ordered: bool
    """Whether each semaphore has one consuming engine, so that no race decides who goes first."""


def prepare(
    program: Program, network: Network, phase: str, symmetry: bool, repeats: int = 1
) -> Phase:
    """Lower one phase ("load" or "run") of a program.

    Args:
        program: The program.
        network: The network of its target.
        phase: Which streams to take.
        symmetry: Whether to simulate one tile for each class of tiles that behave alike.
        repeats: How often each group runs its streams, one time after the other.

    Raises:
        ProgramError: Groups overlap, loops are malformed, or the target lacks figures for an instruction.
    """
    streams = [group.load if phase == "load" else group.run for group in program.groups]
    owner = owners(program)
    lowered = Lowered(program, owner)
    for number, group in enumerate(program.groups):
        lowered.add_group(number, group, streams[number], repeats)
    partition, routes, resources = _routes(network, lowered, owner, symmetry)
    tables, slots, representative = _assemble(lowered, partition, routes, resources, owner)
    return Phase(
        tables=tables,
        slots=slots,
        shared=_resource_records(tables, slots, resources),
        kinds=tuple(lowered.kinds),
        routes=routes,
        ways=tuple(lowered.ways),
        resources=resources,
        representative=representative,
        is_ordered=all(is_ordered(stream) for stream in streams),
    )


def _routes(
    network: Network, lowered: Lowered, owner: Ints, symmetry: bool
) -> tuple[Partition, Routes, Resources]:
    """Return the classes of tiles to simulate as one, and the routes and resources of the classes."""
    resources = all_resources(network)
    everywhere = np.ones(owner.size, dtype=np.bool_)
    if not symmetry:
        routes = _build_routes(network, lowered, resources, everywhere)
        return discrete_partition(routes, resources), routes, resources
    keys = [way.key for way in lowered.ways]
    orbits = None
    if not network.target.tile.sram.has_blocks:  # addresses may tell tiles apart
        orbits = crossbar_orbits(network, lowered.program.groups, keys, lowered.skip_axes)
    if orbits is None:
        routes = _build_routes(network, lowered, resources, everywhere)
        seeds = owner + 1
        for row in lowered.skips:
            seeds = 2 * seeds + row
        partition = equitable_partition(routes, resources, seeds)
        copies = np.ones(routes.way.size, dtype=np.int64)
    else:
        tiles, labels = orbits
        first = np.unique(tiles, return_index=True)[1]
        routes = _build_routes(network, lowered, resources, np.isin(np.arange(tiles.size), first))
        partition = Partition(tiles, np.arange(routes.way.size), labels)
        copies = _copies(routes, tiles, first)
    return partition, *quotient(routes, resources, partition, copies)


def _build_routes(
    network: Network, lowered: Lowered, resources: Resources, wanted: Bools
) -> Routes:
    groups = tuple(group.tiles for group in lowered.program.groups)
    builder = RouteBuilder(network, groups)
    for way in lowered.ways:
        builder.add_way(way.key, way.group.mesh, way.group.tiles, wanted, way.banks)
    return builder.finish(resources)


def _copies(routes: Routes, tiles: Ints, first: Ints) -> Ints:
    """Return how many routes there are like each route of the first tile of a class."""
    copies = np.ones(routes.way.size, dtype=np.int64)
    sizes = np.bincount(tiles)
    for row in routes.route_of:
        for tile in first[row[first] >= 0]:
            sharers = np.count_nonzero((row == row[tile]) & (tiles == tiles[tile]))
            copies[row[tile]] = sizes[tiles[tile]] // sharers
    return copies


def _assemble(
    lowered: Lowered, partition: Partition, routes: Routes, resources: Resources, owner: Ints
) -> tuple[Tables, Records, tuple[int, ...]]:
    first, members = np.unique(partition.tile, return_index=True, return_counts=True)[1:]
    stream, start, end = _streams(lowered, owner[first])
    gang_of, gang_start, gang_member, gang_weight = _gangs(lowered, partition, first)
    route_records, entries, peers = _route_records(routes)
    tiles = np.zeros(first.size, dtype=TILE)
    tiles["members"] = members
    kinds = lowered.kinds
    posts = [(*k.posts, (0, 0, False), (0, 0, False))[:2] for k in kinds]
    waits = [(*k.waits, (0, 0), (0, 0))[:2] for k in kinds]
    tables = Tables(
        stream=stream,
        kinds=_kind_records(lowered),
        waits=np.array(waits, dtype=np.int64).reshape(-1, 4),
        posts=np.array(posts, dtype=np.int64).reshape(-1, 6),
        factor=np.array([k.factors for k in kinds], dtype=np.float64).reshape(-1, SORTS),
        route_of=routes.route_of,
        routes=route_records,
        route_limit=routes.limit,
        entries=entries,
        peers=peers,
        gang_of=gang_of,
        gang_start=gang_start,
        gang_member=gang_member,
        gang_weight=gang_weight,
        skip=np.array([row[first] for row in lowered.skips], dtype=np.bool_).reshape(
            -1, first.size
        ),
        tiles=tiles,
    )
    slots = np.zeros(start.size, dtype=SLOT)
    slots["position"], slots["end"] = start, end
    _reserve_nodes(slots, tables)
    return tables, slots, tuple(int(tile) for tile in first)


def kinds_in_use(slots: Records, tables: Tables) -> list[Ints]:
    """Return the distinct kinds in each slot's stream."""
    bounds = list(zip(slots["position"].tolist(), slots["end"].tolist(), strict=True))
    memo = {(a, b): np.unique(tables.stream[a:b]) for a, b in dict.fromkeys(bounds)}
    return [memo[pair] for pair in bounds]


def _streams(lowered: Lowered, groups: Ints) -> tuple[Ints, Ints, Ints]:
    """Concatenate the streams of all groups; return them and each slot's half-open range."""
    ranges: dict[tuple[int, int], tuple[int, int]] = {}
    length = 0
    for (group, engine), numbers in lowered.streams.items():
        ranges[group, int(engine)] = (length, length + numbers.size)
        length += numbers.size
    slots = [
        ranges.get((int(group), engine), (0, 0)) for group in groups for engine in range(ENGINES)
    ]
    stream = np.concatenate([np.empty(0, dtype=np.int64), *lowered.streams.values()])
    bounds = np.array(slots, dtype=np.int64).reshape(-1, 2)
    return stream, bounds[:, 0].copy(), bounds[:, 1].copy()


def _gangs(lowered: Lowered, partition: Partition, first: Ints) -> tuple[Ints, Ints, Ints, Floats]:
    """Return the gangs of the simulated tiles; gangs whose tiles have the same classes are one.

    Equal gangs in different places have the same classes, since tiles of one class share routes of
    one class.
    """
    rows, members, starts, weights = [], [], [0], []
    sizes = np.bincount(partition.tile)
    for row in lowered.gangs:
        mine = np.full(first.size, -1, dtype=np.int64)
        for simulated, tile in enumerate(first):
            if row[tile] >= 0 and mine[simulated] < 0:
                classes = np.unique(partition.tile[row == row[tile]])
                mine[classes] = len(starts) - 1
                members.append(classes)
                real = np.unique(row[np.isin(partition.tile, classes) & (row >= 0)]).size
                weights.append(real / sizes[classes[0]])
                starts.append(starts[-1] + classes.size)
        rows.append(mine)
    gang_of = np.array(rows, dtype=np.int64).reshape(len(rows), first.size)
    return (
        gang_of,
        np.array(starts),
        np.concatenate([np.empty(0, dtype=np.int64), *members]),
        np.array(weights),
    )


def _kind_records(lowered: Lowered) -> Records:
    kinds = lowered.kinds
    records = np.zeros(len(kinds), dtype=KIND)
    columns = {
        "issue": [k.issue_cycles for k in kinds],
        "lead": [k.lead_cycles for k in kinds],
        "lead_route": [k.lead_route for k in kinds],
        "work": [k.work_bytes for k in kinds],
        "cast": [k.cast_cycles for k in kinds],
        "rate": [k.rate_bytes_per_cycle for k in kinds],
        "own": [k.own_factor for k in kinds],
        "way": lowered.way,
        "gang": lowered.gang,
        "skip": lowered.skip,
        "ahead": [k.asks_ahead for k in kinds],
        "sharing": _sharing(lowered),
        "tag": [k.tag for k in kinds],
        "posts_here": [any(not remote for _, _, remote in k.posts) for k in kinds],
        "posts_away": [any(remote for _, _, remote in k.posts) for k in kinds],
    }
    for name, values in columns.items():
        records[name] = values
    return records


def _sharing(lowered: Lowered) -> list[int]:
    """Return a number for each kind; those whose payloads ask the same of the same resources share one."""
    numbers: dict[object, int] = {}
    return [
        numbers.setdefault((k.rate_bytes_per_cycle, k.own_factor, k.factors, way), len(numbers))
        for k, way in zip(lowered.kinds, lowered.way, strict=True)
    ]


def _route_records(routes: Routes) -> tuple[Records, Records, Records]:
    """Return routes, their shares of resources and their receivers, both in order of the routes."""
    records = np.zeros(routes.way.size, dtype=ROUTE)
    records["latency"] = routes.latency
    order = np.argsort(routes.entry_route, kind="stable")
    entries = np.zeros(order.size, dtype=ENTRY)
    entries["resource"], entries["share"] = routes.entry_resource[order], routes.entry_share[order]
    ends = np.cumsum(np.bincount(routes.entry_route, minlength=records.size))
    records["end"], records["start"][1:] = ends, ends[:-1]
    order = np.argsort(routes.peer_route, kind="stable")
    peers = np.zeros(order.size, dtype=PEER)
    peers["tile"], peers["count"] = routes.peer_tile[order], routes.peer_count[order]
    ends = np.cumsum(np.bincount(routes.peer_route, minlength=records.size))
    records["peer_end"], records["peer_start"][1:] = ends, ends[:-1]
    return records, entries, peers


def _reserve_nodes(slots: Records, tables: Tables) -> None:
    """Reserve room for the resources of each slot's largest payload, its own SRAM port included.

    The payload of a gang is its leader's.
    """
    sizes = tables.routes["end"] - tables.routes["start"]
    leader = tables.gang_member[tables.gang_start[:-1]]
    for slot, kinds in enumerate(kinds_in_use(slots, tables)):
        tile, gangs = slot // ENGINES, tables.kinds["gang"][kinds]
        leads = gangs < 0
        leads[~leads] = leader[tables.gang_of[gangs[~leads], tile]] == tile
        ways = np.unique(tables.kinds["way"][kinds[leads]])
        on = tables.route_of[ways[ways >= 0], tile]
        slots["nodes"][slot] = 1 + int(sizes[on].max(initial=0))
    slots["first_node"][1:] = np.cumsum(slots["nodes"])[:-1]


def _resource_records(tables: Tables, slots: Records, resources: Resources) -> Records:
    records = np.zeros(resources.capacity.size, dtype=RESOURCE)
    records["capacity"] = resources.capacity
    records["sort"] = resources.sort
    records["report"] = resources.report
    records["shared"] = _can_contend(tables, slots, resources)
    return records


def _can_contend(tables: Tables, slots: Records, resources: Resources) -> Bools:
    """Return which resources could be asked for more than they have, whatever the timing.

    The others never slow a payload, so the event loop need not watch them.
    """
    demand = np.zeros(resources.capacity.size)
    widest = np.zeros(tables.route_limit.shape)
    peaks: dict[bytes, tuple[float, Floats, Ints]] = {}
    for slot, kinds in enumerate(kinds_in_use(slots, tables)):
        tile, key = slot // ENGINES, kinds.tobytes()
        if key not in peaks:
            peaks[key] = _peak_rates(tables, kinds)
        own, peak, ways = peaks[key]
        demand[tile] += own
        on = tables.route_of[ways, tile]
        np.maximum.at(widest, on, peak)
    route = np.repeat(np.arange(widest.shape[0]), tables.routes["end"] - tables.routes["start"])
    used = tables.entries["resource"]
    demand += np.bincount(
        used, tables.entries["share"] * widest[route, resources.sort[used]], demand.size
    )
    contended: Bools = demand > resources.capacity
    return contended


def _peak_rates(tables: Tables, kinds: Ints) -> tuple[float, Floats, Ints]:
    """Return a stream's peak on the tile's own SRAM port, and by sort on each way that it uses."""
    what = tables.kinds[kinds]
    moving = what["work"] > 0.0
    what, factor = what[moving], tables.factor[kinds[moving]]
    own = float((what["rate"] * what["own"]).max(initial=0.0))
    ways = np.unique(what["way"])
    ways = ways[ways >= 0]
    peak = np.zeros((ways.size, SORTS))
    for row, way in enumerate(ways):
        mine = what["way"] == way
        peak[row] = (what["rate"][mine, None] * factor[mine]).max(axis=0)
    return own, peak, ways
