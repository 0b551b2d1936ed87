"""Timing simulator: how many cycles a compiled program takes, and why.

Event-driven: each engine of each tile executes its stream in order. In *fluid* mode an instruction's
payload moves at a rate that max-min fair sharing of SRAM ports, network links and DRAM ports grants. In
*packet* mode the network carries it as packets that cut through routers with finite buffers
(`timing_packet_core`). What an instruction takes follows from the target's units alone
(see `timing_kinds`); the cost model that chose the plan is not consulted.
"""

from __future__ import annotations

from enum import StrEnum

import numpy as np

from tilewright.errors import ProgramError
from tilewright.hwmodel.network import network_of
from tilewright.lowering.isa import Engine, Opcode
from tilewright.lowering.program import Program
from tilewright.simulator.timing_core import DEADLOCK, FULL, TOO_LONG, simulate_events
from tilewright.simulator.timing_measure import energy, measure
from tilewright.simulator.timing_packet_loop import CROWDED, simulate_packets
from tilewright.simulator.timing_packet_routes import ASSUMED_ROUTER, packet_work
from tilewright.simulator.timing_packet_state import with_more_room
from tilewright.simulator.timing_report import PhaseTiming, TimingReport
from tilewright.simulator.timing_state import (
    DONE,
    ENGINES,
    FLOW,
    FLUID,
    FREE,
    WAIT,
    State,
    new_state,
    with_more_messages,
)
from tilewright.simulator.timing_tables import Phase, prepare
from tilewright.simulator.timing_trace import write_trace

__all__ = ["NetworkModel", "TimingReport", "simulate", "write_trace"]

MAX_EVENTS = 500_000_000
FULL_TILES = 64
"""Machines up to this size are simulated tile by tile unless asked otherwise."""
TRACED_TILES = 4
NAMED_ENGINES = 6
"""Engines that the message of a deadlock lists."""


class NetworkModel(StrEnum):
    """How transfers share the network."""

    FLUID = "fluid"
    PACKET = "packet"


def simulate(
    program: Program,
    *,
    network: NetworkModel = NetworkModel.FLUID,
    symmetry: bool | None = None,
    trace: bool = False,
    max_events: int = MAX_EVENTS,
    inferences: int = 1,
) -> TimingReport:
    """Simulate the load and the run phase of a program.

    Args:
        program: What to simulate; semaphores are 0 at the start of each phase.
        network: How transfers share the network: fluid sharing, or packets one by one.
        symmetry: Whether to simulate tiles that provably behave alike as one (the times are the same); None
            does so above 64 tiles in fluid mode. Packets that wait for each other break the symmetry, so
            packet mode simulates every tile.
        trace: Whether to keep the spans of a few tiles for `write_trace`.
        max_events: Give up after this many events in one phase.
        inferences: How many follow each other in the run phase. In a program of one group each begins
            when the one before it is complete, so only programs of several groups are simulated so.

    Raises:
        ProgramError: The program deadlocks, is too long, or does not fit the target.
    """
    packets = network is NetworkModel.PACKET
    if packets and symmetry:
        raise ProgramError(
            f"program '{program.name}': packet mode simulates every tile; leave symmetry out"
        )
    large = program.target.tiles > FULL_TILES and not packets
    merged = large if symmetry is None else symmetry
    load = _simulate_phase(program, "load", merged, packets, trace, max_events)[0]
    if inferences > 1 and len(program.groups) < 2:
        raise ProgramError(
            f"program '{program.name}' has one group of tiles, on which inferences do not overlap; "
            "simulate one"
        )
    run, phase = _simulate_phase(program, "run", merged, packets, trace, max_events, inferences)
    return TimingReport(
        program=program.name,
        target=program.target.name,
        clock_ghz=program.target.clock_ghz,
        tiles=sum(len(group.tiles) for group in program.groups),
        load=load,
        run=run,
        energy_pj=energy(program.target, phase, program.target.seconds(run.cycles)),
        notes=_notes(program, packets),
    )


def interval_cycles(program: Program, *, fill: int | None = None, measured: int = 4) -> float:
    """Return the cycles from one inference to the next in the steady state of a stream of them.

    Args:
        program: A program of one group or several.
        fill: Inferences before the measured ones, twice the groups by default.
        measured: Inferences over which the interval is averaged.

    Raises:
        ProgramError: The program deadlocks, is too long, or does not fit the target.
    """
    if len(program.groups) < 2:
        return simulate(program).cycles
    first = 2 * len(program.groups) if fill is None else fill
    early = simulate(program, inferences=first).cycles
    late = simulate(program, inferences=first + measured).cycles
    return (late - early) / measured


def _simulate_phase(
    program: Program,
    name: str,
    symmetry: bool,
    packets: bool,
    trace: bool,
    max_events: int,
    repeats: int = 1,
) -> tuple[PhaseTiming, Phase]:
    phase = prepare(program, network_of(program.target), name, symmetry, repeats)
    free = _run(program, phase, name, FREE, max_events)
    if trace:
        lengths = (phase.slots["end"] - phase.slots["position"]).reshape(-1, ENGINES).sum(axis=1)
        chosen = np.flatnonzero(lengths)[:TRACED_TILES]
        phase.tables.tiles["traced"][chosen] = 1
    state = (
        _run_packets(program, phase, name, max_events)
        if packets
        else _run(program, phase, name, FLUID, max_events)
    )
    return measure(phase, name, state, float(free.clock[0]), program.tags), phase


def _run(program: Program, phase: Phase, name: str, contended: int, max_events: int) -> State:
    state = _state(phase)
    while (end := simulate_events(phase.tables, state, contended, max_events)) == FULL:
        state = with_more_messages(state)
    _check_end(program, phase, name, end, state, max_events)
    return state


def _run_packets(program: Program, phase: Phase, name: str, max_events: int) -> State:
    state = _state(phase)
    kinds = phase.tables.kinds.copy()
    late = kinds["lead_route"].copy()
    kinds["lead_route"] = 0  # packets take their way's latency themselves
    tables = phase.tables._replace(kinds=kinds)
    work, net = packet_work(
        network_of(program.target), phase.ways, phase.routes, late, phase.slots.size
    )
    while (end := simulate_packets(tables, state, work, net, max_events)) in (FULL, CROWDED):
        if end == FULL:
            state = with_more_messages(state)
        else:
            net = with_more_room(net)
    _check_end(program, phase, name, end, state, max_events)
    return state


def _state(phase: Phase) -> State:
    """Return the state before the first instruction of a phase."""
    tables = phase.tables
    semaphores = [semaphore for kind in phase.kinds for semaphore, _ in kind.waits]
    semaphores += [semaphore for kind in phase.kinds for semaphore, _, _ in kind.posts]
    tags = max((kind.tag for kind in phase.kinds), default=0) + 1
    traced = np.repeat(tables.tiles["traced"] != 0, ENGINES)
    room = int((phase.slots["end"] - phase.slots["position"])[traced].sum())
    reports = len(phase.resources.names) + 1  # the packet network
    return new_state(
        tables, phase.slots, phase.shared, reports, max(semaphores, default=0) + 1, tags, room
    )


def _check_end(
    program: Program, phase: Phase, name: str, end: int, state: State, max_events: int
) -> None:
    """Raise unless a simulation has come to its end."""
    if end == TOO_LONG:
        raise ProgramError(
            f"program '{program.name}', {name} phase: still running after {max_events} events; "
            "raise max_events"
        )
    if end == DEADLOCK:
        raise ProgramError(
            f"program '{program.name}', {name} phase: deadlock: {_blocked(phase, state)}"
        )


def _blocked(phase: Phase, state: State) -> str:
    """Name the engines that wait, and for what."""
    texts = []
    slots = np.flatnonzero(state.slots["status"] != DONE).tolist()
    for slot in slots[:NAMED_ENGINES]:
        tile, engine = phase.representative[slot // ENGINES], Engine(slot % ENGINES)
        position = int(state.slots["position"][slot])
        kind = phase.kinds[int(phase.tables.stream[position])]
        number = position - phase.slots["position"][slot]
        where = f"tile {tile} {engine.name} at instruction {number} ({kind.opcode.name})"
        if state.slots["status"][slot] == FLOW:
            texts.append(f"{where} waits for its packets")
            continue
        if state.slots["status"][slot] != WAIT:
            texts.append(f"{where} waits for the other tiles of its group")
            continue
        missing = [
            f"semaphore {semaphore} (has {state.semaphore[semaphore, slot // ENGINES]}, needs {count})"
            for semaphore, count in kind.waits
            if state.semaphore[semaphore, slot // ENGINES] < count
        ]
        texts.append(f"{where} waits for {' and '.join(missing)}")
    if len(slots) > NAMED_ENGINES:
        texts.append(f"{len(slots) - NAMED_ENGINES} more engines wait")
    return "; ".join(texts)


def _notes(program: Program, packets: bool) -> tuple[str, ...]:
    notes = []
    if packets and program.target.router is None:
        router = ASSUMED_ROUTER
        notes.append(
            f"the target says nothing of its routers; assumed are flits of {router.flit_bytes} bytes, "
            f"packets of {router.packet_bytes}, buffers of {router.lane_bytes} a virtual channel"
        )
    opcodes = {instruction.opcode for stream in program.streams for instruction in stream}
    if Opcode.HOST in opcodes:
        notes.append(
            "host regions take the time of their transfers only; what the host computes is not modelled"
        )
    if Opcode.GTH in opcodes:
        notes.append("gathers are spread evenly over the DRAM ports, whatever the indices")
    return tuple(notes)
