"""The back end: from a linear program over buffers to engine streams with addresses and semaphores.

in place -> hoist loads -> allocate -> dependencies and barriers -> banks -> semaphores -> instructions
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType

from tilewright.errors import InfeasibleError
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.hwmodel.target import Target
from tilewright.lowering.accesses import live_ranges
from tilewright.lowering.allocation import DRAM, Allocation, allocate, rested
from tilewright.lowering.bank_conflicts import BankLoad, Stream, streams_of
from tilewright.lowering.bank_placement import spread_over_banks
from tilewright.lowering.dependencies import OrderedProgram, find_dependencies
from tilewright.lowering.durations import MicroTimes
from tilewright.lowering.hoist import LoadHoister
from tilewright.lowering.in_place import reuse_in_place
from tilewright.lowering.isa import Access, Engine, Instruction, Opcode, Post, Space, Wait
from tilewright.lowering.live_buffer import LiveBuffer
from tilewright.lowering.micro import Buffer, LinearProgram, Micro, Operand
from tilewright.lowering.schedule import Schedule, estimate_schedule
from tilewright.lowering.synchronise import (
    Channel,
    Signal,
    Synchronised,
    number_semaphores,
    synchronise,
)

DRAM_ALIGNMENT_BYTES = 64
_SIGNALS = 2
"""Waits, and posts, that one instruction holds."""
_BUDGETS = (0.95, 0.8, 0.6)
"""Shares of the scratchpad that hoisted loads may fill, tried in this order."""
_REUSE_DISTANCES = (64, 16, 4, 0)
"""Micros for which memory rests before it is reused, tried in this order; more means fewer waits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackEnd:
    """Streams of both phases and where things are in memory."""

    linear: LinearProgram
    """The program in its final order (loads hoisted), results in the place of operands."""
    streams_load: Mapping[Engine, tuple[Instruction, ...]]
    streams_run: Mapping[Engine, tuple[Instruction, ...]]
    addresses: tuple[int, ...]
    """Address of each buffer in its space, by number (0 for buffers that nothing uses)."""
    sram_bytes: int
    dram_bytes: int
    schedule: Schedule
    """Static schedule of the run phase."""


@dataclass(frozen=True, slots=True)
class _Placed:
    linear: LinearProgram
    addresses: tuple[int, ...]
    sram_bytes: int
    dram_bytes: int
    numbers: tuple[int, ...]
    """Buffers of the scratchpad."""
    lasting: tuple[LiveBuffer, ...]
    """They, with the time for which their memory rests."""


@dataclass(frozen=True, slots=True)
class _Ordered:
    """Placed buffers, and for both phases what waits for what."""

    placed: _Placed
    phases: tuple[OrderedProgram, ...]
    schedule: Schedule
    """When everything of the run phase runs."""


def assemble_backend(
    linear: LinearProgram,
    *,
    target: Target,
    mesh: LogicalMesh,
    durations: MicroTimes,
    limit_bytes: int | None = None,
) -> BackEnd:
    """Return engine streams that do what the linear program does.

    Args:
        linear: Micros in an order that is correct when executed one by one.
        target: Gives memory sizes and the number of semaphores.
        mesh: The logical mesh of the group that runs the program.
        durations: What a micro takes, for hoisting and the static schedule. Barriers
            are asked for too: PS and WT on CT with roles "barrier_post" and "barrier_wait".
        limit_bytes: Take no more of the scratchpad, and rather give up than search for long.

    Raises:
        InfeasibleError: The buffers do not fit the scratchpad (or its limit) or DRAM, or semaphores run out.
        ProgramError: A micro leaves its buffer, or a collective is malformed.
    """
    sram = target.tile.sram
    capacity_bytes = sram.size_bytes if limit_bytes is None else min(limit_bytes, sram.size_bytes)
    is_quick = limit_bytes is not None
    placed = _place(
        reuse_in_place(linear, mesh), target, durations, capacity_bytes, is_quick=is_quick
    )
    order = partial(_order, mesh=mesh, durations=durations)
    ordered = order(placed)
    if sram.has_blocks:
        ordered = _spread(ordered, target, mesh, capacity_bytes, order)
    placed = ordered.placed
    linear = placed.linear
    phases = tuple(synchronise(phase, mesh) for phase in ordered.phases)
    numbers = number_semaphores(phases, target.tile.control.semaphores)
    streams = tuple(
        emit_streams(phase, linear.buffers, placed.addresses, mesh.rank, numbers)
        for phase in phases
    )
    return BackEnd(
        linear=linear,
        streams_load=streams[0],
        streams_run=streams[1],
        addresses=placed.addresses,
        sram_bytes=placed.sram_bytes,
        dram_bytes=placed.dram_bytes,
        schedule=ordered.schedule,
    )


def _order(placed: _Placed, *, mesh: LogicalMesh, durations: MicroTimes) -> _Ordered:
    """Find what waits for what with buffers at their addresses, and when the run phase does it."""
    linear = placed.linear
    phases = tuple(
        find_dependencies(micros, linear.buffers, placed.addresses, mesh)
        for micros in (linear.load, linear.run)
    )
    return _Ordered(placed, phases, estimate_schedule(phases[1], durations))


def _spread(
    ordered: _Ordered,
    target: Target,
    mesh: LogicalMesh,
    capacity_bytes: int,
    order: Callable[[_Placed], _Ordered],
) -> _Ordered:
    """Put what the run phase uses at the same time into different banks, if that is faster.

    Elsewhere memory may be reused sooner, so the whole is compared: the makespan and what banks lose.
    """
    placed = ordered.placed
    index = {number: n for n, number in enumerate(placed.numbers)}

    def streams(schedule: Schedule) -> tuple[Stream, ...]:
        found = streams_of(schedule, placed.linear.buffers, target, mesh)
        return tuple(stream._replace(buffer=index[stream.buffer]) for stream in found)

    def cycles(ordered: _Ordered) -> float:
        offsets = [ordered.placed.addresses[number] for number in placed.numbers]
        load = BankLoad(streams(ordered.schedule), target.tile.sram)
        return ordered.schedule.makespan_cycles + load.lost_cycles(offsets)

    offsets = spread_over_banks(
        placed.lasting,
        [placed.addresses[number] for number in placed.numbers],
        streams(ordered.schedule),
        target.tile.sram,
        capacity_bytes=capacity_bytes,
    )
    addresses = list(placed.addresses)
    for number, offset in zip(placed.numbers, offsets, strict=True):
        addresses[number] = offset
    ends = (o + b.size_bytes for o, b in zip(offsets, placed.lasting, strict=True))
    moved = order(replace(placed, addresses=tuple(addresses), sram_bytes=max(ends, default=0)))
    return min(ordered, moved, key=cycles)


@dataclass(frozen=True, slots=True)
class _Memory:
    """Where buffers are, and the number of logical axes."""

    buffers: tuple[Buffer, ...]
    addresses: Sequence[int]
    rank: int

    def access(self, operand: Operand, kept: tuple[int, ...]) -> Access:
        """Return an operand with its address, over the kept dimensions of the domain."""
        strides = operand.strides
        return Access(
            space=self.buffers[operand.buffer].space,
            dtype=operand.dtype,
            base=self.addresses[operand.buffer] + operand.offset_bytes,
            coefficients=operand.coefficients or (0,) * self.rank,
            strides=tuple(strides[d] for d in kept) if strides else (0,) * len(kept),
        )


def live_buffers(
    linear: LinearProgram, space: Space
) -> tuple[tuple[Buffer, ...], tuple[LiveBuffer, ...]]:
    """Return the buffers of a space that need an address, and their live ranges."""
    buffers, found = [], []
    for buffer, (start, end) in zip(linear.buffers, live_ranges(linear), strict=True):
        if buffer.space is space and start < end:
            buffers.append(buffer)
            live = LiveBuffer(name=buffer.name, size_bytes=buffer.size_bytes, start=start, end=end)
            found.append(live)
    return tuple(buffers), tuple(found)


def _place(
    linear: LinearProgram,
    target: Target,
    durations: MicroTimes,
    capacity: int,
    *,
    is_quick: bool,
) -> _Placed:
    """Hoist loads and give addresses, with less hoisting if the result does not fit."""
    sram = target.tile.sram
    hoister = LoadHoister(linear, durations, alignment_bytes=sram.alignment_bytes)
    for share in _BUDGETS:
        hoisted = hoister.hoist(min(int(sram.size_bytes * share), capacity))
        buffers, live = live_buffers(hoisted, Space.L1)
        for distance in _REUSE_DISTANCES:
            try:
                allocation = _allocate_scratchpad(hoisted, live, target, capacity, distance)
            except InfeasibleError:
                continue
            return _with_dram(hoisted, target, buffers, rested(live, distance), allocation)
    buffers, live = live_buffers(linear, Space.L1)
    allocation = _allocate_scratchpad(linear, live, target, capacity, 0, is_quick=is_quick)
    return _with_dram(linear, target, buffers, live, allocation)


def _allocate_scratchpad(
    linear: LinearProgram,
    live: Sequence[LiveBuffer],
    target: Target,
    capacity_bytes: int,
    reuse_distance: int,
    *,
    is_quick: bool = True,
) -> Allocation:
    """Allocate the scratchpad; each buffer's memory rests for `reuse_distance` micros."""
    return allocate(
        live,
        capacity_bytes=capacity_bytes,
        alignment_bytes=target.tile.sram.alignment_bytes,
        rest=reuse_distance,
        describe=lambda position: _describe(linear, position),
        is_quick=is_quick,
    )


def _with_dram(
    linear: LinearProgram,
    target: Target,
    buffers: Sequence[Buffer],
    lasting: Sequence[LiveBuffer],
    scratchpad: Allocation,
) -> _Placed:
    """Allocate DRAM too."""
    dram_buffers, live = live_buffers(linear, Space.DRAM)
    dram = allocate(
        live,
        capacity_bytes=target.dram.size_bytes,
        alignment_bytes=DRAM_ALIGNMENT_BYTES,
        memory=DRAM,
        describe=lambda position: _describe(linear, position),
        lever="use a target with more DRAM or a smaller model",
    )
    addresses = [0] * len(linear.buffers)
    for chosen, allocation in ((buffers, scratchpad), (dram_buffers, dram)):
        for buffer, offset in zip(chosen, allocation.offsets, strict=True):
            addresses[buffer.number] = offset
    return _Placed(
        linear=linear,
        addresses=tuple(addresses),
        sram_bytes=scratchpad.peak_bytes,
        dram_bytes=dram.peak_bytes,
        numbers=tuple(buffer.number for buffer in buffers),
        lasting=tuple(lasting),
    )


def _describe(linear: LinearProgram, position: int) -> str:
    """Name a point of the program for an error."""
    phase, micros = ("load", linear.load)
    if position >= len(micros):
        phase, micros, position = "run", linear.run, position - len(micros)
    if position >= len(micros):
        return f"{phase} micro {position}"
    micro = micros[position]
    return f"{phase} micro {position} ({micro.opcode.name} of plan step {micro.tag})"


def emit_streams(
    phase: Synchronised,
    buffers: tuple[Buffer, ...],
    addresses: Sequence[int],
    rank: int,
    numbers: Mapping[Channel, int],
) -> Mapping[Engine, tuple[Instruction, ...]]:
    """Return the instruction stream of each engine, each ending with HALT.

    Args:
        phase: Micros with their waits and posts.
        buffers: Table of all buffers.
        addresses: Address of each buffer.
        rank: Number of logical axes.
        numbers: Semaphore of each channel.
    """
    memory = _Memory(buffers, addresses, rank)
    streams: dict[Engine, list[Instruction]] = {engine: [] for engine in Engine}
    for micro, waits, posts in zip(phase.micros, phase.waits, phase.posts, strict=True):
        streams[micro.engine].extend(_instructions(micro, waits, posts, memory, numbers))
    for engine, stream in streams.items():
        stream.append(Instruction(opcode=Opcode.HALT, engine=engine))
    return MappingProxyType({engine: tuple(stream) for engine, stream in streams.items()})


def _instructions(
    micro: Micro,
    waits: Sequence[Signal],
    posts: Sequence[Signal],
    memory: _Memory,
    numbers: Mapping[Channel, int],
) -> Iterator[Instruction]:
    """Yield a micro's instruction, with WT before and PS after it for signals that do not fit."""
    taken = [Wait(numbers[s.channel], s.amount) for s in waits]
    # remote posts must go out with the payload, so they come first
    ordered = sorted(posts, key=lambda s: not s.is_remote)
    given = [Post(numbers[s.channel], s.amount, s.is_remote) for s in ordered]
    while len(taken) > _SIGNALS:
        yield Instruction(
            opcode=Opcode.WT, engine=micro.engine, waits=tuple(taken[:_SIGNALS]), tag=micro.tag
        )
        taken = taken[_SIGNALS:]
    yield _instruction(micro, memory, tuple(taken), tuple(given[:_SIGNALS]))
    for first in range(_SIGNALS, len(given), _SIGNALS):
        extra = tuple(given[first : first + _SIGNALS])
        yield Instruction(opcode=Opcode.PS, engine=micro.engine, posts=extra, tag=micro.tag)


def _instruction(
    micro: Micro,
    memory: _Memory,
    waits: tuple[Wait, ...],
    posts: tuple[Post, ...],
) -> Instruction:
    """Return the instruction of a micro; WT, PS and HOST lose the operands that order them."""
    is_bare = micro.opcode in (Opcode.WT, Opcode.PS, Opcode.HOST)
    # the first dimension of a gather counts indices and stays, even if there is only one
    kept = (
        ()
        if is_bare
        else tuple(
            d
            for d, size in enumerate(micro.domain)
            if size > 1 or (d == 0 and micro.opcode is Opcode.GTH)
        )
    )
    dst = None if is_bare or micro.dst is None else memory.access(micro.dst, kept)
    sources = () if is_bare else micro.sources
    return Instruction(
        opcode=micro.opcode,
        engine=micro.engine,
        domain=tuple(micro.domain[d] for d in kept),
        dst=dst,
        sources=tuple(memory.access(source, kept) for source in sources),
        fn=micro.fn,
        immediates=micro.immediates,
        accumulate=micro.accumulate,
        axes=0 if micro.opcode is Opcode.WT else micro.axes,
        shift=micro.shift if micro.opcode is Opcode.SND else 0,
        count=micro.count,
        waits=waits,
        posts=posts,
        tag=micro.tag,
    )
