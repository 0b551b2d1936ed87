"""From a program phase to the tables of the event loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tilewright.errors import ProgramError
from tilewright.hwmodel.network import Network
from tilewright.lowering.isa import Engine, Instruction, Opcode
from tilewright.lowering.loops import matching_ends
from tilewright.lowering.program import Group, Program, Streams
from tilewright.simulator.timing_kinds import ALL_AXES, Kind, KindTable, RouteKey
from tilewright.simulator.timing_routes import Resources, RouteBuilder, Routes, all_resources, sub_mesh
from tilewright.simulator.timing_symmetry import Partition, discrete_partition, equitable_partition, quotient
from tilewright.simulator.timing_state import ENGINES, SORTS, Bools, Floats, Ints, Tables

MAX_STREAM = 50_000_000
"""Instructions of one stream, loops unrolled, that a simulation is willing to hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """A program phase, ready to simulate, and what reports need to know of it."""

    tables: Tables
    kinds: tuple[Kind, ...]
    routes: Routes
    resources: Resources
    representative: tuple[int, ...]
    """Physical tile that each simulated tile stands for."""
    is_ordered: bool
    """Whether each semaphore has one consuming engine, so that no race decides who goes first."""


def prepare(program: Program, network: Network, phase: str, symmetry: bool) -> Phase:
    """Lower one phase ("load" or "run") of a program.

    Args:
        program: The program.
        network: The network of its target.
        phase: Which streams to take.
        symmetry: Whether to simulate one tile for each class of tiles that behave alike.

    Raises:
        ProgramError: Groups overlap, loops are malformed, or the target lacks figures for an instruction.
    """
    streams = [group.load if phase == "load" else group.run for group in program.groups]
    owner = _owners(program)
    lowered = _Lowered(program, network, owner)
    for number, group in enumerate(program.groups):
        lowered.add_group(number, group, streams[number])
    resources = all_resources(network)
    routes = lowered.builder.finish(resources)
    seeds = owner + 1
    for row in lowered.skips:
        seeds = 2 * seeds + row
    partition = discrete_partition(routes, resources)
    if symmetry:
        partition = equitable_partition(routes, resources, seeds)
        routes, resources = quotient(routes, resources, partition)
    tables, representative = _assemble(lowered, partition, routes, resources, owner)
    return Phase(
        tables=tables,
        kinds=tuple(lowered.kinds),
        routes=routes,
        resources=resources,
        representative=representative,
        is_ordered=all(_is_ordered(stream) for stream in streams),
    )


def _owners(program: Program) -> Ints:
    """Return the group of each tile, -1 for none."""
    owner = np.full(program.target.tiles, -1, dtype=np.int64)
    for number, group in enumerate(program.groups):
        if len(group.tiles) != group.mesh.tiles:
            raise ProgramError(f"group {number}: {len(group.tiles)} tiles, expected {group.mesh.tiles}, the size of its mesh")
        for tile in group.tiles:
            if not 0 <= tile < owner.size:
                raise ProgramError(f"group {number}: tile {tile} is not one of the target's {owner.size}")
            if owner[tile] >= 0:
                raise ProgramError(f"tile {tile} is in groups {owner[tile]} and {number}, expected in one at most")
            owner[tile] = number
    return owner


def _is_ordered(streams: Streams) -> bool:
    consumers: dict[int, Engine] = {}
    return all(
        consumers.setdefault(wait.semaphore, engine) == engine
        for engine, stream in streams.items()
        for instruction in stream
        for wait in instruction.waits
    )


class _Lowered:
    """Kinds, streams and ways of all groups, tile by tile."""

    def __init__(self, program: Program, network: Network, owner: Ints) -> None:
        self.program = program
        self.builder = RouteBuilder(network)
        self.kinds: list[Kind] = []
        self.way: list[int] = []  # of each kind, -1 for none
        self.gang: list[int] = []
        self.skip: list[int] = []
        self.gangs: list[Ints] = []  # for each gang class, the gang of each tile
        self.skips: list[Bools] = []
        self.streams: dict[tuple[int, Engine], Ints] = {}
        self._owner = owner

    def add_group(self, number: int, group: Group, streams: Streams) -> None:
        table = KindTable(self.program.target, group.mesh, self.program.host_regions)
        base = len(self.kinds)
        for engine in Engine:
            numbers = expand(table, streams.get(engine, ()))
            self.streams[number, engine] = numbers + base
        ways: dict[RouteKey, int] = {}
        gangs: dict[int, int] = {}
        skips: dict[int, int] = {}
        for kind in table.kinds:
            if kind.route is not None and kind.route not in ways:
                ways[kind.route] = self.builder.add_way(kind.route, group.mesh, group.tiles)
            if kind.gang and kind.gang not in gangs:
                gangs[kind.gang] = len(self.gangs)
                self.gangs.append(self._gang_row(group, kind.gang))
            if kind.skip and kind.skip not in skips:
                skips[kind.skip] = len(self.skips)
                self.skips.append(self._skip_row(group, kind.skip))
            self.kinds.append(kind)
            self.way.append(-1 if kind.route is None else ways[kind.route])
            self.gang.append(gangs.get(kind.gang, -1))
            self.skip.append(skips.get(kind.skip, -1))

    def _gang_row(self, group: Group, axes: int) -> Ints:
        row = np.full(self._owner.size, -1, dtype=np.int64)
        if axes == ALL_AXES:
            row[list(group.tiles)] = 0
            return row
        count = 0
        for index, tile in enumerate(group.tiles):
            if row[tile] < 0:
                row[[group.tiles[i] for i in sub_mesh(group.mesh, index, axes)]] = count
                count += 1
        return row

    def _skip_row(self, group: Group, axes: int) -> Bools:
        row = np.zeros(self._owner.size, dtype=np.bool_)
        for index, tile in enumerate(group.tiles):
            row[tile] = sub_mesh(group.mesh, index, axes)[0] != index
        return row


def expand(table: KindTable, stream: Sequence[Instruction]) -> Ints:
    """Return the kinds of a stream in the order of execution, loops unrolled, up to HALT.

    Raises:
        ProgramError: Loops are malformed or the stream is too long.
    """
    ends = matching_ends(stream)

    def between(start: int, stop: int) -> list[Ints]:
        parts: list[Ints] = []
        plain: list[int] = []
        position = start
        while position < stop:
            instruction = stream[position]
            if instruction.opcode is Opcode.LOOP:
                body = np.concatenate([np.empty(0, dtype=np.int64), *between(position + 1, ends[position])])
                if body.size * instruction.count > MAX_STREAM:
                    raise ProgramError(f"the stream unrolls to more than {MAX_STREAM} instructions")
                parts += [np.array(plain, dtype=np.int64), np.tile(body, instruction.count)]
                plain = []
                position = ends[position]
            elif instruction.opcode is Opcode.HALT:
                break
            else:
                plain.append(table.number(instruction))
            position += 1
        return [*parts, np.array(plain, dtype=np.int64)]

    return np.concatenate(between(0, len(stream)))


def _assemble(
    lowered: _Lowered, partition: Partition, routes: Routes, resources: Resources, owner: Ints
) -> tuple[Tables, tuple[int, ...]]:
    kinds = lowered.kinds
    first, members = np.unique(partition.tile, return_index=True, return_counts=True)[1:]
    tiles = first.size
    stream, start, end = _streams(lowered, owner[first])
    gang_of, gang_start, gang_member = _gangs(lowered, partition, first)
    skip = np.array([row[first] for row in lowered.skips], dtype=np.bool_).reshape(-1, tiles)
    order = np.argsort(routes.entry_route, kind="stable")
    peer_order = np.argsort(routes.peer_route, kind="stable")
    arrays = _kind_arrays(kinds)
    way = np.array(lowered.way, dtype=np.int64)
    in_range = {(a, b): np.unique(stream[a:b]) for a, b in zip(start.tolist(), end.tolist(), strict=True)}
    used = [in_range[bounds] for bounds in zip(start.tolist(), end.tolist(), strict=True)]
    tables = Tables(
        stream_start=start,
        stream_end=end,
        stream=stream,
        **arrays,
        route_class=way,
        gang_class=np.array(lowered.gang, dtype=np.int64),
        skip_class=np.array(lowered.skip, dtype=np.int64),
        route_of=routes.route_of,
        route_latency=routes.latency,
        route_limit=routes.limit,
        route_start=_starts(routes.entry_route, routes.way.size),
        route_resource=routes.entry_resource[order],
        route_share=routes.entry_share[order],
        peer_start=_starts(routes.peer_route, routes.way.size),
        peer_tile=routes.peer_tile[peer_order],
        peer_count=routes.peer_count[peer_order],
        gang_of=gang_of,
        gang_start=gang_start,
        gang_member=gang_member,
        skip=skip,
        capacity=resources.capacity,
        sort=resources.sort,
        report=resources.report,
        reports=np.array([len(resources.names)]),
        shared=np.zeros(resources.capacity.size, dtype=np.bool_),
        node_start=_node_starts(used, way, routes),
        members=members.astype(np.int64),
        traced=np.zeros(tiles, dtype=np.bool_),
    )
    tables = tables._replace(shared=_can_contend(tables, used))
    return tables, tuple(int(tile) for tile in first)


def _streams(lowered: _Lowered, groups: Ints) -> tuple[Ints, Ints, Ints]:
    """Concatenate the streams of all groups; return them and each slot's half-open range."""
    ranges: dict[tuple[int, int], tuple[int, int]] = {}
    length = 0
    for (group, engine), numbers in lowered.streams.items():
        ranges[group, int(engine)] = (length, length + numbers.size)
        length += numbers.size
    slots = [ranges.get((int(group), engine), (0, 0)) for group in groups for engine in range(ENGINES)]
    stream = np.concatenate([np.empty(0, dtype=np.int64), *lowered.streams.values()])
    bounds = np.array(slots, dtype=np.int64).reshape(-1, 2)
    return stream, bounds[:, 0].copy(), bounds[:, 1].copy()


def _gangs(lowered: _Lowered, partition: Partition, first: Ints) -> tuple[Ints, Ints, Ints]:
    """Number the gangs of the simulated tiles; gangs whose tiles have the same classes are one.

    Equal gangs in different places have the same classes, since tiles of one class share routes of one class.
    """
    rows, members, starts = [], [], [0]
    for row in lowered.gangs:
        mine = np.full(first.size, -1, dtype=np.int64)
        for simulated, tile in enumerate(first):
            if row[tile] >= 0 and mine[simulated] < 0:
                classes = np.unique(partition.tile[row == row[tile]])
                mine[classes] = len(starts) - 1
                members.append(classes)
                starts.append(starts[-1] + classes.size)
        rows.append(mine)
    gang_of = np.array(rows, dtype=np.int64).reshape(len(rows), first.size)
    return gang_of, np.array(starts), np.concatenate([np.empty(0, dtype=np.int64), *members])


def _kind_arrays(kinds: Sequence[Kind]) -> dict[str, Ints | Floats | Bools]:
    waits = [(*k.waits, (0, 0), (0, 0))[:2] for k in kinds]
    posts = [(*k.posts, (0, 0, False), (0, 0, False))[:2] for k in kinds]
    pairs = np.array(waits, dtype=np.int64).reshape(-1, 2, 2)
    triples = np.array(posts, dtype=np.int64).reshape(-1, 2, 3)
    return {
        "issue": np.array([k.issue_cycles for k in kinds], dtype=np.float64),
        "lead": np.array([k.lead_cycles for k in kinds], dtype=np.float64),
        "lead_route": np.array([k.lead_route for k in kinds], dtype=np.bool_),
        "work": np.array([k.work_bytes for k in kinds], dtype=np.float64),
        "rate": np.array([k.rate_bytes_per_cycle for k in kinds], dtype=np.float64),
        "own": np.array([k.own_factor for k in kinds], dtype=np.float64),
        "factor": np.array([k.factors for k in kinds], dtype=np.float64).reshape(-1, SORTS),
        "wait_semaphore": pairs[:, :, 0].copy(),
        "wait_count": pairs[:, :, 1].copy(),
        "post_semaphore": triples[:, :, 0].copy(),
        "post_count": triples[:, :, 1].copy(),
        "post_remote": triples[:, :, 2] != 0,
        "tag": np.array([k.tag for k in kinds], dtype=np.int64),
    }


def _starts(rows: Ints, count: int) -> Ints:
    return np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=count))]).astype(np.int64)


def _node_starts(used: list[Ints], way: Ints, routes: Routes) -> Ints:
    """Reserve room for the resources of each slot's largest payload."""
    sizes = np.append(np.bincount(routes.entry_route, minlength=routes.way.size), 0)
    room = np.empty(len(used), dtype=np.int64)
    for slot, kinds in enumerate(used):
        ways = np.unique(way[kinds])
        on = routes.route_of[ways[ways >= 0], slot // ENGINES]
        room[slot] = 1 + int(sizes[on].max(initial=0))
    return np.concatenate([[0], np.cumsum(room)])


def _can_contend(tables: Tables, used: list[Ints]) -> Bools:
    """Return which resources could be asked for more than they have, whatever the timing.

    The others never slow a payload, so the event loop need not watch them.
    """
    demand = np.zeros(tables.capacity.size)
    cache: dict[tuple[int, int, int], tuple[float, Floats, Ints]] = {}
    widest = np.zeros((tables.route_limit.shape[0], SORTS))
    for slot, kinds in enumerate(used):
        tile = slot // ENGINES
        key = (slot % ENGINES, int(tables.stream_start[slot]), int(tables.stream_end[slot]))
        if key not in cache:
            cache[key] = _peak_rates(tables, kinds)
        own, peak, ways = cache[key]
        demand[tile] += own
        on = tables.route_of[ways, tile]
        np.maximum.at(widest, on[on >= 0], peak[on >= 0])
    route = np.repeat(np.arange(widest.shape[0]), np.diff(tables.route_start))
    asked = tables.route_share * widest[route, tables.sort[tables.route_resource]]
    demand += np.bincount(tables.route_resource, asked, demand.size)
    return demand > tables.capacity


def _peak_rates(tables: Tables, kinds: Ints) -> tuple[float, Floats, Ints]:
    """Return a stream's peak on the tile's own SRAM port, and by sort on each way that it uses."""
    kinds = kinds[tables.work[kinds] > 0]
    own = float((tables.rate[kinds] * tables.own[kinds]).max(initial=0.0))
    ways = np.unique(tables.route_class[kinds])
    ways = ways[ways >= 0]
    peak = np.zeros((ways.size, SORTS))
    for row, way in enumerate(ways):
        mine = kinds[tables.route_class[kinds] == way]
        peak[row] = (tables.rate[mine, None] * tables.factor[mine]).max(axis=0)
    return own, peak, ways
