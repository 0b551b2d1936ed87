"""Arrays of the event loop: the machine and program as tables, the moving state, and what is measured.

A *slot* is one engine of one tile: tile * 5 + engine. A *kind* is what the timing of instructions
depends on; a stream is a sequence of kinds. A *route* is what a payload touches on its way: shares
of resources, a latency and the tiles where it arrives. "Tile" may stand for a class of tiles that
behave alike, with `members` of them and resources that add up their use.

Records (structured arrays) keep the number of arrays small: the compiled functions pass both tuples by value.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tilewright.simulator.timing_fair import Filling, filling
from tilewright.simulator.timing_heap import MESSAGE_COLUMNS
from tilewright.simulator.timing_memo import Memo, new_memo

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Records = npt.NDArray[Any]

ENGINES = 5
CAUSES = ("matrix", "vector", "dma_in", "dma_out", "control", "remote post", "group")
"""What an engine can wait for: a post of an engine, a remote post, or the other tiles of its group."""
REMOTE = 5
GROUP = 6

SRAM, LINK, DRAM = 0, 1, 2
SORTS = 3
"""Number of sorts of resources; a kind has a factor for each sort of its route's resources."""

ISSUE, WAIT, GATHER, LEAD, FLOW, MEMBER, DONE, CAST = 0, 1, 2, 3, 4, 5, 6, 7
"""States of a slot: issuing; waiting for semaphores; waiting for its group; in the latency after the
group met; payload moving; payload moving in the leader's name; at the end of the stream; casting what it
has read for its group."""

FREE, FLUID, PACKET = 0, 1, 2
"""What payloads share: nothing; all resources fairly; SRAM ports fairly and the network packet by packet."""

NEVER = 1 << 62
"""Count of a semaphore that nobody waits for."""

KIND = np.dtype(
    [
        ("issue", "f8"),  # cycles before the group gathers
        ("lead", "f8"),  # cycles after that and before the payload
        ("lead_route", "i8"),  # whether the route's latency adds to the lead
        ("work", "f8"),  # payload bytes
        ("cast", "f8"),  # cycles after the payload before the instruction ends
        ("rate", "f8"),  # the engine's own limit, bytes/cycle
        ("own", "f8"),  # bytes of the tile's own SRAM port per payload byte
        ("way", "i8"),  # row of `route_of`, -1 for none
        ("gang", "i8"),  # row of `gang_of`, -1 for none
        ("skip", "i8"),  # row of `skip`, -1 for none
        ("ahead", "i8"),  # whether the lead may pass while the payload before still moves
        ("sharing", "i8"),  # equal for kinds whose payloads share resources alike
        ("tag", "i8"),
        ("posts_here", "i8"),  # whether it posts on its own tile
        ("posts_away", "i8"),  # whether it posts on other tiles
    ]
)
ROUTE = np.dtype(
    [("latency", "f8"), ("start", "i8"), ("end", "i8"), ("peer_start", "i8"), ("peer_end", "i8")]
)
ENTRY = np.dtype([("resource", "i8"), ("share", "f8")])
PEER = np.dtype([("tile", "i8"), ("count", "i8")])
TILE = np.dtype([("members", "i8"), ("traced", "i8")])
SLOT = np.dtype(
    [
        ("position", "i8"),  # in the concatenated streams
        ("end", "i8"),
        ("status", "i8"),
        ("began", "f8"),  # when the instruction began to issue, or to wait
        ("resumed", "f8"),  # from when its busy time is still to be counted
        ("flowing", "f8"),  # when the payload began to move, its own or that of its group
        ("asked", "f8"),  # when the lead of its instruction began, issue included
        ("touched", "f8"),  # when `left` was true
        ("left", "f8"),  # payload bytes still to move
        ("speed", "f8"),  # bytes/cycle
        ("taken", "f8"),  # the speed that `used` counts
        ("is_late", "i8"),  # whether `late` lists it, because `taken` may not be the speed
        ("is_fresh", "i8"),  # whether `fresh` lists it
        ("limit", "f8"),  # bytes/cycle without contention
        ("cause", "i8"),  # resource that holds the payload back, or -1
        ("first_node", "i8"),
        ("nodes", "i8"),  # in use
        ("sharing", "i8"),  # that of the kind whose payload moves
        ("busy", "f8"),
        ("ideal", "f8"),  # busy cycles without contention
        ("moved", "f8"),  # payload bytes
        (
            "weight",
            "f8",
        ),  # how many payloads the current one stands for, by tile of the slot's class
    ]
)
NODE = np.dtype(
    [("share", "f8"), ("resource", "i4"), ("slot", "i4"), ("next", "i4"), ("previous", "i4")]
)
RESOURCE = np.dtype(
    [
        ("capacity", "f8"),  # bytes/cycle; resource i < tiles is the SRAM port of tile i
        ("sort", "i8"),
        ("report", "i8"),  # class in reports
        ("shared", "i8"),  # whether it can ever be a bottleneck
        ("head", "i8"),  # first node of its users
        ("load", "f8"),  # bytes/cycle if all its flows ran at their limits
        ("flows", "i8"),
        ("is_freed", "i8"),  # whether flows left it since rates were shared
        ("freed", "f8"),  # bytes/cycle that they took
        ("is_active", "i8"),  # whether it may hold payloads back that share anew
        ("was_full", "i8"),  # whether it was full before that
    ]
)
TAG = np.dtype([("first", "f8"), ("last", "f8")])
SPAN = np.dtype([("slot", "i8"), ("kind", "i8"), ("begin", "f8"), ("end", "f8")])


class Tables(NamedTuple):
    """What does not change during a simulation; sizes: k kinds, t tiles, p routes, r resources."""

    stream: Ints
    kinds: Records  # KIND [k]
    waits: Ints  # [k, 4] semaphore, count, semaphore, count; count 0 for none
    posts: Ints  # [k, 6] semaphore, count, remote, semaphore, count, remote
    factor: Floats  # [k, sorts] bytes per payload byte on the route's resources
    route_of: Ints  # [ways, t] -1 for none
    routes: Records  # ROUTE [p]
    route_limit: Floats  # [p, sorts] least capacity / share, infinite for none
    entries: Records  # ENTRY
    peers: Records  # PEER
    gang_of: Ints  # [gang classes, t]
    gang_start: Ints
    gang_member: Ints
    gang_weight: Floats  # [gangs] how many real gangs there are for each tile of the leader's class
    skip: Bools  # [skip classes, t]
    tiles: Records  # TILE [t]


class Scratch(NamedTuple):
    """Room to work out rates; machine code without numba's runtime cannot allocate."""

    slots: Ints  # [slots] of the payloads that share
    number: Ints  # [slots] place of a slot in that list, -1 for none
    limits: Floats  # [slots]
    starts: Ints  # [slots + 1] first entry of each payload
    filled: Ints  # [slots] one beyond its last entry so far
    users: Ints  # [nodes]
    shares: Floats  # [nodes]
    active: Ints  # [r] resources that may hold payloads back
    capacities: Floats  # [r]
    rates: Floats  # [slots]
    causes: Ints  # [slots] resource that holds each payload back, -1 for none
    filling: Filling


class State(NamedTuple):
    """What moves, and what is measured."""

    slots: Records  # SLOT
    resources: Records  # RESOURCE
    nodes: Records  # NODE
    semaphore: Ints  # [semaphores, t]
    needed: Ints  # [semaphores, t] the least count that a waiting engine looks for
    posted: Floats  # [semaphores, t] when it was last posted
    gang_arrived: Ints
    heap: Ints  # [slots]
    place: Ints  # [slots] -1 for not in the heap
    times: Floats  # [slots]
    used: Floats  # [r] bytes/cycle that the flows take, but for those of `late`
    brim: Floats  # [r] bytes/cycle beyond which a resource may be full
    late: Ints  # [slots] stack of slots of which `used` may be wrong
    fresh: Ints  # [slots] stack of those whose payloads came to contended resources since rates were shared
    freed: Ints  # [r] stack
    asking: Ints  # [slots, 2] slots that may issue after the event at hand, and who caused it (-1: itself)
    messages: Floats  # [room, columns] heap of remote posts on their way
    sizes: Ints  # how much of the arrays is in use, and counters
    clock: Floats  # NOW; UNTIL: events up to then are of one batch
    flow_lost: Floats  # [slots, reports] cycles lost by the current payload
    lost: Floats  # [slots, reports]
    stall: Floats  # [slots, causes]
    tags: Records  # TAG
    tag_busy: Floats  # [tags, engines] cycles, summed over members
    spans: Records  # SPAN
    scratch: Scratch
    memo: Memo


HEAP, FREED, FRESH, LATE, SPANS, EVENTS, ASKING, FLYING, SENT = range(9)
NOW, UNTIL = 0, 1
NEARLY = 1.0 - 1e-9
"""A resource of which more than this part is taken may be full; rounding does not decide."""
MESSAGE_ROOM = 1024


def new_state(
    tables: Tables,
    slots: Records,
    resources: Records,
    reports: int,
    semaphores: int,
    tags: int,
    spans: int,
) -> State:
    """Return the state before the first instruction.

    Args:
        tables: Of the phase.
        slots: SLOT records with position, end and first_node set; copied.
        resources: RESOURCE records with everything before `head` set; copied.
        reports: Number of resource classes in reports, packets included.
        semaphores: Number of semaphores of a tile.
        tags: Number of tags.
        spans: Room for traced instructions.
    """
    count = slots.size
    fresh = resources.copy()
    fresh["head"] = -1
    times = np.zeros(tags, dtype=TAG)
    times["first"] = np.inf
    room = int((slots["first_node"] + slots["nodes"]).max(initial=0))
    mine = slots.copy()
    mine["nodes"] = 0
    asking = np.full((count, 2), -1, dtype=np.int64)
    asking[:, 0] = np.arange(count)
    sizes = np.zeros(9, dtype=np.int64)
    sizes[ASKING] = count
    return State(
        slots=mine,
        resources=fresh,
        nodes=np.zeros(room, dtype=NODE),
        semaphore=np.zeros((semaphores, tables.tiles.size), dtype=np.int64),
        needed=np.full((semaphores, tables.tiles.size), NEVER, dtype=np.int64),
        posted=np.zeros((semaphores, tables.tiles.size)),
        gang_arrived=np.zeros(tables.gang_start.size, dtype=np.int64),
        heap=np.zeros(count, dtype=np.int64),
        place=np.full(count, -1, dtype=np.int64),
        times=np.zeros(count),
        used=np.zeros(resources.size),
        brim=resources["capacity"] * NEARLY,
        late=np.zeros(count, dtype=np.int64),
        fresh=np.zeros(count, dtype=np.int64),
        freed=np.zeros(resources.size, dtype=np.int64),
        asking=asking,
        messages=np.zeros((MESSAGE_ROOM, MESSAGE_COLUMNS)),
        sizes=sizes,
        clock=np.array([0.0, -1.0]),
        flow_lost=np.zeros((count, reports)),
        lost=np.zeros((count, reports)),
        stall=np.zeros((count, len(CAUSES))),
        tags=times,
        tag_busy=np.zeros((tags, ENGINES)),
        spans=np.zeros(spans, dtype=SPAN),
        scratch=_scratch(count, room, resources.size),
        memo=new_memo(count),
    )


def _scratch(slots: int, nodes: int, resources: int) -> Scratch:
    return Scratch(
        slots=np.zeros(slots, dtype=np.int64),
        number=np.full(slots, -1, dtype=np.int64),
        limits=np.zeros(slots),
        starts=np.zeros(slots + 1, dtype=np.int64),
        filled=np.zeros(slots, dtype=np.int64),
        users=np.zeros(nodes, dtype=np.int64),
        shares=np.zeros(nodes),
        active=np.zeros(resources, dtype=np.int64),
        capacities=np.zeros(resources),
        rates=np.zeros(slots),
        causes=np.zeros(slots, dtype=np.int64),
        filling=filling(slots, resources, nodes),
    )


def with_more_messages(state: State) -> State:
    """Return the state with twice the room for messages."""
    return state._replace(messages=np.concatenate([state.messages, np.zeros_like(state.messages)]))
