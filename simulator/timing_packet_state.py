"""Arrays of the packet network: channels, lanes, trees, flows, and the worms that creep through them.

A *channel* is a directed link with a buffer at its far end. A *lane* is one of its virtual channels:
channel * lanes per channel + virtual channel. A *tree* is where a packet goes: nodes, each a channel, with
the nodes that follow it; a node without successor is a sink, which takes everything at once. A *flow*
is a sequence of packets along one tree, one after the other. A *worm* is a packet at one node of
its tree: waiting for a lane, crossing the channel, or standing in the buffer behind it. A *payload*
is what a number of flows carry together.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Records = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

COMPLETION, ARRIVAL, CREDIT = 0, 1, 2
"""Events at one time happen in this order, and among themselves by number of channel or lane."""

CHANNEL = np.dtype(
    [
        ("rate", "f8"),  # bytes/cycle
        ("latency", "f8"),  # cycles from the end of a flit's transmission to the buffer
        ("is_memory", "i8"),  # whether a flow's memory bytes count, not its link bytes
        ("pool", "i8"),  # flits in the shared part of the buffer
        ("sending", "i8"),  # worm whose flit is on the channel, or -1
        ("turn", "i8"),  # virtual channel served last
        ("dirty", "i8"),
    ]
)
LANE = np.dtype(
    [
        ("holder", "i8"),  # worm that crosses the channel on this lane, or -1
        (
            "used",
            "i8",
        ),  # flits in the buffer, on their way there, or whose credit is on its way back
        ("front", "i8"),  # worms in the buffer, first in first out
        ("back", "i8"),
        ("wait_front", "i8"),  # worms that want this lane (or its buddy), first come first served
        ("wait_back", "i8"),
    ]
)
NODE = np.dtype(
    [
        ("channel", "i8"),
        ("virtual", "i8"),  # virtual channel, to which the flow adds its own
        ("choices", "i8"),  # 1, or 2: the virtual channel or its odd buddy, whichever is free
        ("child", "i8"),  # first successor, -1: a sink
        ("sibling", "i8"),  # next successor of the same node, or -1
    ]
)
FLOW = np.dtype(
    [
        ("root", "i8"),  # node
        ("payload", "i8"),
        ("packets", "i8"),  # still to be injected, the current one included
        ("flits", "i8"),  # of a packet
        ("link_bytes", "f8"),  # of a flit on links
        ("memory_bytes", "f8"),  # of a flit on memory channels
        ("virtual", "i8"),
        ("mate", "i8"),  # the next flow of the same payload, or -1
        ("next", "i8"),  # in the list of free flows
    ]
)
WORM = np.dtype(
    [
        ("flow", "i8"),
        ("node", "i8"),
        ("parent", "i8"),  # the same packet at the node before, -1 at the root
        ("lane", "i8"),  # -1 while waiting
        ("child", "i8"),
        ("sibling", "i8"),
        ("next", "i8"),  # in its lane's buffer, among the waiting, or among the free
        ("flits", "i8"),
        ("sent", "i8"),  # flits whose transmission over the channel has begun
        ("gone", "i8"),  # has ended
        ("arrived", "i8"),
        ("left", "i8"),  # flits that have left the buffer
        ("done", "i8"),  # whether it only waits for its parent to forget it
    ]
)
PAYLOAD = np.dtype(
    [
        ("pending", "i8"),  # packets still to reach a sink, once for each sink
        ("injecting", "i8"),  # flows still to be injected
        ("flow", "i8"),  # its first
        ("slot", "i8"),  # that started it, -1 once that has gone on
        ("kind", "i8"),
        ("route", "i8"),
        ("injected", "f8"),  # time
        ("delivered", "f8"),  # time
        ("next", "i8"),  # in the list of free payloads
    ]
)

WORMS_FREE, FLOWS_FREE, PAYLOADS_FREE, EVENTS_SIZE, DIRTY_SIZE = 0, 1, 2, 3, 4
LOG_SIZE, NEWS_SIZE, HANDLED, LIVE_WORMS, LIVE_FLOWS, LIVE_PAYLOADS = 5, 6, 7, 8, 9, 10
SIZES = 11
LANES, GUARANTEED, LIMIT, POOL, SPARE = 0, 1, 2, 3, 4
EVENT_COLUMNS = 4
"""Time, sort, number of channel or lane, worm."""
INJECTED, DELIVERED = 0, 1


class Net(NamedTuple):
    """The whole packet network; sizes: c channels, l lanes, n nodes."""

    channels: Records  # CHANNEL [c]
    lanes: Records  # LANE [l]
    nodes: Records  # NODE [n]
    flows: Records  # FLOW
    worms: Records  # WORM
    payloads: Records  # PAYLOAD
    heap: Floats  # [room, EVENT_COLUMNS]
    dirty: Ints  # [c] stack of channels that may have something to send
    news: Ints  # [room, 2] payload, INJECTED or DELIVERED
    log: Floats  # [room, 4] transmissions: time, channel, flow, virtual channel; room 0: none is kept
    sizes: Ints
    figures: Ints  # LANES per channel; flits: GUARANTEED, LIMIT and POOL; SPARE flows, worms to have at hand
    credit: Floats  # [1] cycles until the sender knows of a flit's leaving


def new_net(
    *,
    rates: Floats,
    latencies: Floats,
    is_memory: npt.NDArray[np.bool_],
    nodes: Records,
    lanes: int,
    guaranteed_flits: int,
    limit_flits: int,
    pool_flits: int,
    credit_cycles: float,
    flows: int,
    starts: int = 1,
    log: int = 0,
) -> Net:
    """Return an empty network.

    Args:
        rates: Of each channel, [bytes/cycle].
        latencies: Of each channel, [cycles].
        is_memory: Whether each channel is a memory port.
        nodes: NODE records of all trees.
        lanes: Virtual channels of a channel, even.
        guaranteed_flits: Of the buffer, for each virtual channel alone.
        limit_flits: The most flits of one virtual channel.
        pool_flits: What virtual channels share beyond their guaranteed flits.
        credit_cycles: From the departure of a flit to the sender's knowledge of it; positive.
        flows: Room for flows and payloads at first.
        starts: The most flows that begin between two calls of `has_room`.
        log: Room for transmissions to be noted.
    """
    assert credit_cycles > 0.0, "credits take time"
    assert lanes % 2 == 0, "virtual channels come in pairs"
    channels = np.zeros(rates.size, dtype=CHANNEL)
    channels["rate"], channels["latency"], channels["is_memory"] = rates, latencies, is_memory
    channels["sending"] = -1
    lane = np.zeros(rates.size * lanes, dtype=LANE)
    for name in ("holder", "front", "back", "wait_front", "wait_back"):
        lane[name] = -1
    sizes = np.zeros(SIZES, dtype=np.int64)
    return Net(
        channels=channels,
        lanes=lane,
        nodes=nodes,
        flows=_linked(FLOW, flows, 0),
        worms=_linked(WORM, flows + 4 * rates.size + 64, 0),
        payloads=_linked(PAYLOAD, flows, 0),
        heap=np.zeros((8 * rates.size + 1024, EVENT_COLUMNS)),
        dirty=np.zeros(rates.size, dtype=np.int64),
        news=np.zeros((64 + 2 * rates.size, 2), dtype=np.int64),
        log=np.zeros((log, 4)),
        sizes=sizes,
        figures=np.array(
            [lanes, guaranteed_flits, limit_flits, pool_flits, 2 * _fan_out(nodes) + starts + 2],
            dtype=np.int64,
        ),
        credit=np.array([credit_cycles]),
    )


def _fan_out(nodes: Records) -> int:
    """Return the most branches of a fork."""
    most = 1
    for first in nodes["child"][nodes["child"] >= 0].tolist():
        count, node = 0, first
        while node >= 0:
            count, node = count + 1, int(nodes["sibling"][node])
        most = max(most, count)
    return most


def _linked(dtype: np.dtype[Any], count: int, first: int) -> Records:
    """Return records of which each names the next as the next free one; the last names none."""
    records = np.zeros(count, dtype=dtype)
    records["next"] = np.arange(first + 1, first + count + 1)
    records["next"][-1:] = -1
    return records


def with_more_room(net: Net) -> Net:
    """Return the network with twice the room for events, worms, flows and payloads."""
    grown = {}
    for name, head in (("flows", FLOWS_FREE), ("worms", WORMS_FREE), ("payloads", PAYLOADS_FREE)):
        old: Records = getattr(net, name)
        more = _linked(old.dtype, old.size, old.size)
        more["next"][-1:] = net.sizes[head]
        net.sizes[head] = old.size
        grown[name] = np.concatenate([old, more])
    return net._replace(**grown, heap=np.concatenate([net.heap, np.zeros_like(net.heap)]))
