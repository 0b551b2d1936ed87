"""From the event loop's counters to a report."""

from __future__ import annotations

import numpy as np

from tilewright.errors import ProgramError
from tilewright.hwmodel.target import Target
from tilewright.simulator.timing_report import (
    EngineUse,
    PhaseTiming,
    ResourceUse,
    Share,
    Span,
    TagUse,
)
from tilewright.simulator.timing_routes import BANKS
from tilewright.simulator.timing_state import (
    CAUSES,
    DRAM,
    ENGINES,
    EVENTS,
    LINK,
    SPANS,
    SRAM,
    Bools,
    Floats,
    Ints,
    State,
)
from tilewright.simulator.timing_tables import Phase

ENGINE_NAMES = CAUSES[:ENGINES]
PACKETS = "packet network"
"""What held a payload up in packet mode, where no single resource does."""


def executions(phase: Phase) -> Ints:
    """Return how often each simulated tile executes each kind, [tiles, kinds]; skips do not count."""
    tables = phase.tables
    tiles, kinds = tables.tiles.size, len(phase.kinds)
    counts = np.zeros((tiles, kinds), dtype=np.int64)
    memo: dict[tuple[int, int], Ints] = {}
    for slot, bounds in enumerate(
        zip(phase.slots["position"].tolist(), phase.slots["end"].tolist(), strict=True)
    ):
        if bounds not in memo:
            memo[bounds] = np.bincount(tables.stream[bounds[0] : bounds[1]], minlength=kinds)
        counts[slot // ENGINES] += memo[bounds]
    for kind in np.flatnonzero(tables.kinds["skip"] >= 0):
        counts[tables.skip[tables.kinds["skip"][kind]], kind] = 0
    return counts


def resource_bytes(phase: Phase, counts: Ints) -> Floats:
    """Return the bytes that the program asks of each resource."""
    tables, routes = phase.tables, phase.routes
    payload = counts * tables.kinds["work"]  # [tiles, kinds]
    asked = np.zeros(phase.resources.capacity.size)
    asked[: tables.tiles.size] += payload @ tables.kinds["own"]
    # A shared read is one payload: that of any of its users.
    user = np.zeros(routes.way.size, dtype=np.int64)
    for row in routes.route_of:
        user[row[row >= 0]] = np.flatnonzero(row >= 0)
    on_route = np.zeros((routes.way.size, tables.factor.shape[1]))
    for way in range(routes.route_of.shape[0]):
        kinds = np.flatnonzero(tables.kinds["way"] == way)
        mine = np.flatnonzero(routes.way == way)
        on_route[mine] = payload[np.ix_(user[mine], kinds)] @ tables.factor[kinds]
    sort = phase.resources.sort[routes.entry_resource]
    entries = routes.entry_share * on_route[routes.entry_route, sort]
    asked += np.bincount(routes.entry_resource, entries, asked.size)
    return asked


def measure(
    phase: Phase, name: str, state: State, critical_cycles: float, tags: tuple[str, ...]
) -> PhaseTiming:
    """Return the report of one simulated phase.

    Args:
        phase: What was simulated.
        name: "load" or "run".
        state: Counters at the end of the simulation.
        critical_cycles: Time of the same program without contention.
        tags: Names of the plan steps.
    """
    counts = executions(phase)
    asked = resource_bytes(phase, counts)
    cycles = float(state.clock[0])
    members = phase.tables.tiles["members"]
    active = np.flatnonzero(_active_tiles(phase))
    engines = tuple(_engine_use(phase, state, engine, active, cycles) for engine in range(ENGINES))
    resources = _resource_uses(phase, asked, cycles)
    bounds = [(0.0, "nothing to do")]
    bounds += [(use.bound_cycles, use.name) for use in resources]
    ideal = state.slots["ideal"].reshape(-1, ENGINES).max(axis=0, initial=0.0)
    bounds += [
        (float(ideal[engine]), f"{ENGINE_NAMES[engine]} engine") for engine in range(ENGINES)
    ]
    if phase.is_ordered:
        bounds.append((critical_cycles, "dependencies"))
    bound, bound_by = max(bounds, key=lambda item: item[0])
    slots = members.repeat(ENGINES)
    return PhaseTiming(
        name=name,
        cycles=cycles,
        engines=engines,
        resources=resources,
        tags=_tag_uses(state, tags, max(int(members[active].sum()), 1)),
        bound_cycles=bound,
        bound_by=bound_by,
        critical_path_cycles=critical_cycles if phase.is_ordered else None,
        payload_bytes=_payload_bytes(phase, state),
        instructions=int(((phase.slots["end"] - phase.slots["position"]) * slots).sum()),
        events=int(state.sizes[EVENTS]),
        simulated_tiles=int(members.size),
        spans=_spans(phase, state, tags),
    )


def _active_tiles(phase: Phase) -> Bools:
    lengths = phase.slots["end"] - phase.slots["position"]
    active: Bools = lengths.reshape(-1, ENGINES).sum(axis=1) > 0
    return active


def _payload_bytes(phase: Phase, state: State) -> float:
    moved = state.slots["moved"].reshape(-1, ENGINES).sum(axis=1)
    return float((moved * phase.tables.tiles["members"]).sum())


def _engine_use(phase: Phase, state: State, engine: int, active: Ints, cycles: float) -> EngineUse:
    weight = phase.tables.tiles["members"][active]
    tiles = max(int(weight.sum()), 1)
    span = cycles or 1.0
    slots = active * ENGINES + engine
    busy = state.slots["busy"][slots]
    mean = float((busy * weight).sum() / tiles)
    most = float(busy.max(initial=0.0))
    stall = (state.stall[slots] * weight[:, None]).sum(axis=0) / tiles
    lost = (state.lost[slots] * weight[:, None]).sum(axis=0) / tiles
    return EngineUse(
        name=ENGINE_NAMES[engine],
        busy_cycles_mean=mean,
        busy_cycles_max=most,
        utilisation_mean=mean / span,
        utilisation_max=most / span,
        waits=_named(CAUSES, stall),
        contention=_named((*phase.resources.names, PACKETS), lost),
    )


def _named(names: tuple[str, ...], values: Floats) -> tuple[Share, ...]:
    return tuple(
        (name, float(value)) for name, value in zip(names, values, strict=True) if value > 0.0
    )


def _resource_uses(phase: Phase, asked: Floats, cycles: float) -> tuple[ResourceUse, ...]:
    resources = phase.resources
    uses = []
    for number, name in enumerate(resources.names):
        mine = np.flatnonzero(resources.report == number)
        count = int(resources.members[mine].sum())
        needed = asked[mine] / resources.capacity[mine]
        bound = float(needed.max(initial=0.0))
        mean = float((needed * resources.members[mine]).sum() / max(count, 1))
        uses.append(
            ResourceUse(
                name=name,
                count=count,
                total_bytes=float((asked[mine] * resources.members[mine]).sum()),
                utilisation_mean=mean / (cycles or 1.0),
                utilisation_max=bound / (cycles or 1.0),
                bound_cycles=bound,
            )
        )
    return tuple(uses)


def _tag_name(tags: tuple[str, ...], tag: int) -> str:
    return tags[tag - 1] if 0 < tag <= len(tags) else "" if tag == 0 else f"step {tag}"


def _tag_uses(state: State, tags: tuple[str, ...], tiles: int) -> tuple[TagUse, ...]:
    return tuple(
        TagUse(
            tag=int(tag),
            name=_tag_name(tags, int(tag)),
            start_cycle=float(state.tags["first"][tag]),
            end_cycle=float(state.tags["last"][tag]),
            busy_cycles=_named(ENGINE_NAMES, state.tag_busy[tag] / tiles),
        )
        for tag in np.flatnonzero(np.isfinite(state.tags["first"]))
    )


def _spans(phase: Phase, state: State, tags: tuple[str, ...]) -> tuple[Span, ...]:
    spans = []
    for slot, number, begin, end in state.spans[: state.sizes[SPANS]].tolist():
        kind = phase.kinds[number]
        spans.append(
            Span(
                tile=phase.representative[slot // ENGINES],
                engine=ENGINE_NAMES[slot % ENGINES],
                name=" ".join(filter(None, (kind.opcode.name, _tag_name(tags, kind.tag)))),
                start_cycle=begin,
                end_cycle=end,
            )
        )
    return tuple(spans)


def energy(target: Target, phase: Phase, seconds: float) -> tuple[Share, ...]:
    """Return the energy of a phase by consumer, [pJ]."""
    table = target.energy
    counts = executions(phase)
    total = (counts * phase.tables.tiles["members"][:, None]).sum(axis=0).tolist()
    macs = vectors = 0.0
    for kind, count in zip(phase.kinds, total, strict=True):
        vectors += count * kind.vector_operations * table.vector_op_pj
        if kind.mac_dtype is not None:
            if kind.mac_dtype not in table.mac_pj:
                known = ", ".join(table.mac_pj) or "none"
                raise ProgramError(
                    f"target '{target.name}': energy.mac_pj has no figure for {kind.mac_dtype}, "
                    f"expected one of {known}"
                )
            macs += count * kind.macs * table.mac_pj[kind.mac_dtype]
    asked = resource_bytes(phase, counts) * phase.resources.members
    is_bank = np.array([name == BANKS for name in phase.resources.names])[phase.resources.report]
    asked[is_bank] = 0.0  # what goes through a port counts once
    by_sort = {
        sort: float(asked[phase.resources.sort == sort].sum()) for sort in (SRAM, LINK, DRAM)
    }
    return (
        ("matrix", macs),
        ("vector", vectors),
        ("SRAM", by_sort[SRAM] * table.sram_pj_per_byte),
        ("network", by_sort[LINK] * table.noc_pj_per_byte_hop),
        ("DRAM", by_sort[DRAM] * table.dram_pj_per_byte),
        ("static", table.static_watt * seconds * 1e12),
    )
