"""A program phase before symmetry: kinds, streams and ways of every group, tile by tile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tilewright.errors import ProgramError
from tilewright.lowering.isa import Engine, Instruction, Opcode
from tilewright.lowering.loops import matching_ends, unroll, unrolled_length
from tilewright.lowering.program import Group, Program, Streams
from tilewright.simulator.timing_banks import BankUse
from tilewright.simulator.timing_kinds import ALL_AXES, Kind, KindTable, RouteKey
from tilewright.simulator.timing_state import Bools, Ints

MAX_STREAM = 50_000_000
"""Instructions of a phase, loops unrolled, that a simulation is willing to hold."""


HERE: RouteKey = ("here", 0, 0)
"""Way of a payload that does not leave its tile."""


class Way(NamedTuple):
    """Where payloads of a group go, and what they take of single banks at both ends."""

    key: RouteKey
    group: Group
    banks: BankUse | None = None


def owners(program: Program) -> Ints:
    """Return the group of each tile, -1 for none."""
    owner = np.full(program.target.tiles, -1, dtype=np.int64)
    for number, group in enumerate(program.groups):
        if len(group.tiles) != group.mesh.tiles:
            raise ProgramError(
                f"group {number}: {len(group.tiles)} tiles, expected {group.mesh.tiles}, the size of its mesh"
            )
        for tile in group.tiles:
            if not 0 <= tile < owner.size:
                raise ProgramError(
                    f"group {number}: tile {tile} is not one of the target's {owner.size}"
                )
            if owner[tile] >= 0:
                raise ProgramError(
                    f"tile {tile} is in groups {owner[tile]} and {number}, expected in one at most"
                )
            owner[tile] = number
    return owner


def is_ordered(streams: Streams) -> bool:
    """Whether each semaphore has one consuming engine, so that no race decides who goes first."""
    consumers: dict[int, Engine] = {}
    return all(
        consumers.setdefault(wait.semaphore, engine) == engine
        for engine, stream in streams.items()
        for instruction in stream
        for wait in instruction.waits
    )


class Lowered:
    """Kinds, streams and ways of all groups, tile by tile."""

    def __init__(self, program: Program, owner: Ints) -> None:
        self.program = program
        self.ways: list[Way] = []
        self.kinds: list[Kind] = []
        self.way: list[int] = []  # of each kind, -1 for none
        self.gang: list[int] = []
        self.skip: list[int] = []
        self.gangs: list[Ints] = []  # for each gang class, the gang of each tile
        self.skips: list[Bools] = []
        self.skip_axes: list[int] = []
        self.streams: dict[tuple[int, Engine], Ints] = {}
        self._owner = owner
        self._length = 0

    def add_group(self, number: int, group: Group, streams: Streams, repeats: int = 1) -> None:
        """Lower one group's streams, which run so often one after the other."""
        table = KindTable(self.program.target, group.mesh, self.program.host_regions)
        base = len(self.kinds)
        self._length += repeats * sum(map(unrolled_length, streams.values()))
        if self._length > MAX_STREAM:
            raise ProgramError(
                f"the streams unroll to {self._length} instructions, expected at most {MAX_STREAM}; "
                "simulate fewer inferences, or a part of the model"
            )
        for engine in Engine:
            numbers = expand(table, streams.get(engine, ()))
            self.streams[number, engine] = np.tile(numbers + base, repeats)
        ways: dict[tuple[RouteKey, BankUse | None], int] = {}
        gangs: dict[tuple[int, Engine], int] = {}  # engines meet apart from each other
        skips: dict[int, int] = {}
        for kind in table.kinds:
            way = -1
            if kind.route is not None or kind.banks is not None:
                key = kind.route or HERE
                way = ways.setdefault((key, kind.banks), len(self.ways))
                if way == len(self.ways):
                    self.ways.append(Way(key, group, kind.banks))
            meeting = (kind.gang, kind.engine)
            if kind.gang and meeting not in gangs:
                gangs[meeting] = len(self.gangs)
                self.gangs.append(self._gang_row(group, kind.gang))
            if kind.skip and kind.skip not in skips:
                skips[kind.skip] = len(self.skips)
                self.skips.append(self._skip_row(group, kind.skip))
                self.skip_axes.append(kind.skip)
            self.kinds.append(kind)
            self.way.append(way)
            self.gang.append(gangs.get(meeting, -1))
            self.skip.append(skips.get(kind.skip, -1))

    def _gang_row(self, group: Group, axes: int) -> Ints:
        """Return the number of each tile's sub-mesh, -1 outside the group."""
        row = np.full(self._owner.size, -1, dtype=np.int64)
        gang = np.zeros(len(group.tiles), dtype=np.int64)
        for axis, coords in enumerate(_coordinates(group)):
            if axes != ALL_AXES and not axes >> axis & 1:
                gang = gang * group.mesh.sizes[axis] + coords
        row[list(group.tiles)] = gang
        return row

    def _skip_row(self, group: Group, axes: int) -> Bools:
        """Return which tiles have a coordinate other than 0 on one of the axes."""
        row = np.zeros(self._owner.size, dtype=np.bool_)
        for axis, coords in enumerate(_coordinates(group)):
            if axes >> axis & 1:
                row[list(group.tiles)] |= coords > 0
        return row


def _coordinates(group: Group) -> tuple[Ints, ...]:
    """Return, for each logical axis, the coordinate of each of the group's tiles."""
    if not group.mesh.sizes:
        return ()
    grid = np.unravel_index(np.arange(len(group.tiles)), group.mesh.sizes)
    return tuple(coords.astype(np.int64) for coords in grid)


def expand(table: KindTable, stream: Sequence[Instruction]) -> Ints:
    """Return the kinds of a stream in the order of execution, loops unrolled, up to HALT.

    Raises:
        ProgramError: Loops are malformed.
    """
    if table.minds_addresses:
        stream = unroll(stream, MAX_STREAM)
    ends = matching_ends(stream)

    def between(start: int, stop: int) -> list[Ints]:
        parts: list[Ints] = []
        plain: list[int] = []
        position = start
        while position < stop:
            instruction = stream[position]
            if instruction.opcode is Opcode.LOOP:
                body = np.concatenate(
                    [np.empty(0, dtype=np.int64), *between(position + 1, ends[position])]
                )
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
