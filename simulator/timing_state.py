"""Arrays of the event loop: the machine and program as tables, the moving state, and what is measured.

A *slot* is one engine of one tile: tile * 5 + engine. A *kind* is what the timing of instructions
depends on; a stream is a sequence of kinds. A *route* is what a payload touches on its way: shares
of resources, a latency and the tiles where it arrives. "Tile" may stand for a class of tiles that
behave alike, with `members` of them and resources that add up their use.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

ENGINES = 5
CAUSES = ("matrix", "vector", "dma_in", "dma_out", "control", "remote post", "group")
"""What an engine can wait for: a post of an engine, a remote post, or the other tiles of its group."""
REMOTE = 5
GROUP = 6

SRAM, LINK, DRAM = 0, 1, 2
SORTS = 3
"""Sorts of resources; a kind has a factor for each sort of its route's resources."""

ISSUE, WAIT, GATHER, LEAD, FLOW, MEMBER, DONE = 0, 1, 2, 3, 4, 5, 6
"""States of a slot: issuing; waiting for semaphores; for its group; latency; payload moves; payload moves in the
leader's name; end of stream."""


class Tables(NamedTuple):
    """What does not change during a simulation; sizes: k kinds, t tiles, p routes, r resources."""

    stream_start: Ints  # [slots]
    stream_end: Ints  # [slots]
    stream: Ints
    issue: Floats  # [k] cycles before the group gathers
    lead: Floats  # [k] cycles after that and before the payload
    lead_route: Bools  # [k] whether the route's latency adds to the lead
    work: Floats  # [k] payload bytes
    rate: Floats  # [k] the engine's own limit, bytes/cycle
    own: Floats  # [k] bytes of the tile's own SRAM port per payload byte
    factor: Floats  # [k, sorts] bytes per payload byte on the route's resources
    wait_semaphore: Ints  # [k, 2]
    wait_count: Ints  # [k, 2] 0 for none
    post_semaphore: Ints  # [k, 2]
    post_count: Ints  # [k, 2] 0 for none
    post_remote: Bools  # [k, 2]
    route_class: Ints  # [k] -1 for none
    gang_class: Ints  # [k] -1 for none
    skip_class: Ints  # [k] -1 for none
    tag: Ints  # [k]
    route_of: Ints  # [route classes, t] -1 for none
    route_latency: Floats  # [p]
    route_limit: Floats  # [p, sorts] least capacity / share, infinite for none
    route_start: Ints  # [p + 1]
    route_resource: Ints
    route_share: Floats
    peer_start: Ints  # [p + 1]
    peer_tile: Ints
    peer_count: Ints
    gang_of: Ints  # [gang classes, t]
    gang_start: Ints
    gang_member: Ints
    skip: Bools  # [skip classes, t]
    capacity: Floats  # [r] bytes/cycle; resource i < t is the SRAM port of tile i
    sort: Ints  # [r]
    report: Ints  # [r] class in reports
    reports: Ints  # [1] number of those classes
    shared: Bools  # [r] whether it can ever be a bottleneck
    node_start: Ints  # [slots + 1] room for the resources that a slot's payload touches
    members: Ints  # [t]
    traced: Bools  # [t]


class State(NamedTuple):
    """What moves, and what is measured."""

    position: Ints  # [slots] in the concatenated streams
    status: Ints  # [slots]
    began: Floats  # [slots] when the instruction began to issue, or to wait
    resumed: Floats  # [slots] from when its busy time is still to be counted
    flowing: Floats  # [slots] when the payload began to move
    touched: Floats  # [slots] when `left` was true
    left: Floats  # [slots] payload bytes still to move
    speed: Floats  # [slots] bytes/cycle
    limit: Floats  # [slots] bytes/cycle without contention
    cause: Ints  # [slots] resource that holds the payload back, or -1
    flow_lost: Floats  # [slots, reports] cycles lost by the current payload
    semaphore: Ints  # [t, semaphores]
    gang_arrived: Ints
    heap: Ints  # [slots]
    place: Ints  # [slots]
    times: Floats  # [slots]
    heap_size: Ints  # [1]
    node_resource: Ints
    node_share: Floats
    node_next: Ints
    node_previous: Ints
    node_slot: Ints
    nodes: Ints  # [slots] in use
    head: Ints  # [r]
    load: Floats  # [r] bytes/cycle if all its flows ran at their limits
    flows: Ints  # [r]
    dirty: Ints  # [r] stack
    dirty_size: Ints  # [1]
    is_dirty: Bools  # [r]
    seen_resource: Ints  # [r] local number in the current component, or -1
    seen_slot: Bools  # [slots]
    busy: Floats  # [slots]
    ideal: Floats  # [slots] busy cycles without contention
    lost: Floats  # [slots, reports]
    stall: Floats  # [slots, causes]
    moved: Floats  # [slots] payload bytes
    tag_first: Floats
    tag_last: Floats
    tag_busy: Floats  # [tags, engines] cycles, summed over members
    trace_slot: Ints
    trace_kind: Ints
    trace_begin: Floats
    trace_end: Floats
    trace_size: Ints  # [1]
    clock: Floats  # [1]
    events: Ints  # [1]


def new_state(tables: Tables, semaphores: int, tags: int, trace_room: int) -> State:
    """Return the state before the first instruction."""
    slots, tiles, resources = tables.stream_start.size, tables.members.size, tables.capacity.size
    nodes, reports = int(tables.node_start[-1]), int(tables.reports[0])

    def ints(*shape: int, fill: int = 0) -> Ints:
        return np.full(shape, fill, dtype=np.int64)

    def floats(*shape: int, fill: float = 0.0) -> Floats:
        return np.full(shape, fill, dtype=np.float64)

    return State(
        position=tables.stream_start.copy(), status=ints(slots), began=floats(slots), resumed=floats(slots), flowing=floats(slots),
        touched=floats(slots), left=floats(slots), speed=floats(slots), limit=floats(slots), cause=ints(slots, fill=-1),
        flow_lost=floats(slots, reports), semaphore=ints(tiles, semaphores),
        gang_arrived=ints(max(tables.gang_start.size - 1, 0)), heap=ints(slots), place=ints(slots, fill=-1),
        times=floats(slots), heap_size=ints(1), node_resource=ints(nodes), node_share=floats(nodes),
        node_next=ints(nodes, fill=-1), node_previous=ints(nodes, fill=-1), node_slot=ints(nodes), nodes=ints(slots),
        head=ints(resources, fill=-1), load=floats(resources), flows=ints(resources), dirty=ints(resources),
        dirty_size=ints(1), is_dirty=np.zeros(resources, dtype=np.bool_), seen_resource=ints(resources, fill=-1),
        seen_slot=np.zeros(slots, dtype=np.bool_), busy=floats(slots), ideal=floats(slots),
        lost=floats(slots, reports), stall=floats(slots, len(CAUSES)), moved=floats(slots),
        tag_first=floats(tags, fill=np.inf), tag_last=floats(tags), tag_busy=floats(tags, ENGINES),
        trace_slot=ints(trace_room), trace_kind=ints(trace_room), trace_begin=floats(trace_room),
        trace_end=floats(trace_room), trace_size=ints(1), clock=floats(1), events=ints(1),
    )  # fmt: skip
