"""The packet network alone: a fabric, trees through it, and flows that are there from given times on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from tilewright.errors import ProgramError
from tilewright.simulator.timing_jit import compiled
from tilewright.simulator.timing_packet_core import decide_all, handle_event, start_flow
from tilewright.simulator.timing_packet_records import has_room
from tilewright.simulator.timing_packet_state import (
    DELIVERED,
    EVENTS_SIZE,
    HANDLED,
    LIVE_WORMS,
    LOG_SIZE,
    NEWS_SIZE,
    NODE,
    Floats,
    Ints,
    Net,
    Records,
    new_net,
    with_more_room,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """A directed link, or the port of a memory."""

    bytes_per_cycle: float
    latency_cycles: float = 0.0
    is_memory: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Buffers:
    """The buffer behind every channel, shared by its virtual channels; in flits."""

    virtual_channels: int
    guaranteed_flits: int
    """For each virtual channel alone."""
    limit_flits: int
    """The most that one virtual channel may hold."""
    pool_flits: int
    """Shared by all, beyond the guaranteed flits."""
    credit_cycles: float
    """From the departure of a flit until its sender knows; positive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hop:
    """A node of a packet's tree: a channel, a virtual channel, and what follows."""

    channel: int
    virtual: int = 0
    choices: int = 1
    """2: the virtual channel, which must be even with the flow's, or the next, whichever is free."""
    then: tuple[Hop, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """Packets along one tree, one after the other."""

    root: Hop
    packets: int
    flits: int
    link_bytes: float
    """Of a flit, on links."""
    memory_bytes: float
    """Of a flit, on memory ports; less than on links if some flits are headers."""
    virtual: int = 0
    """Added to the tree's virtual channels."""
    start_cycle: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """When each flow had left its source, when it had arrived everywhere, and what happened."""

    injected_cycles: tuple[float, ...]
    delivered_cycles: tuple[float, ...]
    events: int
    transmissions: tuple[tuple[float, int, int, int], ...] = field(repr=False)
    """Time, channel, flow and virtual channel of each flit, as far as the log's room goes."""

    @property
    def cycles(self) -> float:
        """When the last flow had arrived."""
        return max(self.delivered_cycles, default=0.0)


def run_traffic(
    channels: Sequence[Channel], buffers: Buffers, flows: Sequence[Flow], *, log: int = 0
) -> Delivery:
    """Simulate flows until all have arrived.

    Raises:
        ProgramError: The flows block each other for ever.
    """
    order = sorted(range(len(flows)), key=lambda number: (flows[number].start_cycle, number))
    nodes, roots, sinks = _trees([flow.root for flow in flows])
    net = new_net(
        rates=np.array([channel.bytes_per_cycle for channel in channels], dtype=np.float64),
        latencies=np.array([channel.latency_cycles for channel in channels], dtype=np.float64),
        is_memory=np.array([channel.is_memory for channel in channels], dtype=np.bool_),
        nodes=nodes,
        lanes=buffers.virtual_channels,
        guaranteed_flits=buffers.guaranteed_flits,
        limit_flits=buffers.limit_flits,
        pool_flits=buffers.pool_flits,
        credit_cycles=buffers.credit_cycles,
        flows=2 * len(flows) + 16,
        starts=len(flows),
        log=log,
    )
    count = len(flows)
    for name in ("packets", "flits", "link_bytes", "memory_bytes", "virtual"):
        net.flows[name][:count] = [getattr(flow, name) for flow in flows]
    net.flows["root"][:count] = roots
    net.flows["payload"][:count] = np.arange(count)
    net.payloads["pending"][:count] = net.flows["packets"][:count] * sinks
    net.payloads["injecting"][:count] = 1
    starts = np.array([flows[number].start_cycle for number in order], dtype=np.float64)
    state = np.zeros(1, dtype=np.int64)
    while not run_flows(net, starts, np.array(order, dtype=np.int64), state):
        net = with_more_room(net)
    if net.sizes[LIVE_WORMS] > 0:
        raise ProgramError(
            f"{net.sizes[LIVE_WORMS]} packets on their way block each other for ever"
        )
    rows = net.log[: net.sizes[LOG_SIZE]].tolist()
    return Delivery(
        injected_cycles=tuple(net.payloads["injected"][:count].tolist()),
        delivered_cycles=tuple(net.payloads["delivered"][:count].tolist()),
        events=int(net.sizes[HANDLED]),
        transmissions=tuple((time, int(c), int(f), int(v)) for time, c, f, v in rows),
    )


def _trees(roots: Sequence[Hop]) -> tuple[Records, list[int], Ints]:
    """Return the nodes of all trees, the number of each root, and how many sinks each tree has."""
    rows: list[tuple[int, int, int, int, int]] = []
    known: dict[int, tuple[int, int]] = {}

    def add(hop: Hop) -> tuple[int, int]:
        number, sinks, previous = len(rows), 0, -1
        rows.append((hop.channel, hop.virtual, hop.choices, -1, -1))
        for then in hop.then:
            child, more = add(then)
            sinks += more
            if previous < 0:
                rows[number] = (*rows[number][:3], child, rows[number][4])
            else:
                rows[previous] = (*rows[previous][:4], child)
            previous = child
        return number, max(sinks, 1)

    for root in roots:
        if id(root) not in known:
            known[id(root)] = add(root)
    found = [known[id(root)] for root in roots]
    return (
        np.array(rows, dtype=NODE),
        [number for number, _ in found],
        np.array([sinks for _, sinks in found], dtype=np.int64),
    )


@compiled
def run_flows(net: Net, starts: Floats, order: Ints, state: Ints) -> bool:
    """Run until nothing moves any more; False: more room is needed, call again.

    `state` holds how many of the flows have started.
    """
    while True:
        if not has_room(net):
            return False
        now = -1.0
        if state[0] < starts.size:
            now = starts[state[0]]
        if net.sizes[EVENTS_SIZE] > 0 and (now < 0.0 or net.heap[0, 0] <= now):
            now = net.heap[0, 0]
        if now < 0.0:
            return True
        while net.sizes[EVENTS_SIZE] > 0 and net.heap[0, 0] == now:
            if not has_room(net):
                return False
            handle_event(net)
            for index in range(net.sizes[NEWS_SIZE]):
                payload = net.payloads[net.news[index, 0]]
                if net.news[index, 1] == DELIVERED:
                    payload.delivered = now
                else:
                    payload.injected = now
            net.sizes[NEWS_SIZE] = 0
        while state[0] < starts.size and starts[state[0]] == now:
            start_flow(net, order[state[0]])
            state[0] += 1
        decide_all(net, now)
