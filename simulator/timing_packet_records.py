"""Payloads and flows of the packet network: taken from the free ones, given back, and room for more."""

from __future__ import annotations

from tilewright.simulator.timing_jit import compiled_part
from tilewright.simulator.timing_packet_state import (
    EVENTS_SIZE,
    FLOWS_FREE,
    LIVE_FLOWS,
    LIVE_PAYLOADS,
    LIVE_WORMS,
    PAYLOADS_FREE,
    SPARE,
    Net,
)


@compiled_part
def new_payload(net: Net) -> int:
    """Take a payload from the free ones."""
    number = net.sizes[PAYLOADS_FREE]
    net.sizes[PAYLOADS_FREE] = net.payloads[number].next
    net.sizes[LIVE_PAYLOADS] += 1
    net.payloads[number].flow = -1
    net.payloads[number].pending = net.payloads[number].injecting = 0
    return int(number)


@compiled_part
def new_flow(net: Net, payload: int) -> int:
    """Take a flow from the free ones for a payload."""
    number = net.sizes[FLOWS_FREE]
    net.sizes[FLOWS_FREE] = net.flows[number].next
    net.sizes[LIVE_FLOWS] += 1
    net.flows[number].payload = payload
    net.flows[number].mate = net.payloads[payload].flow
    net.payloads[payload].flow = number
    return int(number)


@compiled_part
def free_payload(net: Net, payload: int) -> None:
    """Give a delivered payload and its flows back."""
    flow = net.payloads[payload].flow
    while flow >= 0:
        net.flows[flow].next = net.sizes[FLOWS_FREE]
        net.sizes[FLOWS_FREE] = flow
        net.sizes[LIVE_FLOWS] -= 1
        flow = net.flows[flow].mate
    net.payloads[payload].next = net.sizes[PAYLOADS_FREE]
    net.sizes[PAYLOADS_FREE] = payload
    net.sizes[LIVE_PAYLOADS] -= 1


@compiled_part
def has_room(net: Net) -> bool:
    """Whether one more event and all decisions after it find room for what they make."""
    spare = net.figures[SPARE]
    return bool(
        net.sizes[EVENTS_SIZE] + 2 * net.channels.size + 8 < net.heap.shape[0]
        and net.sizes[LIVE_WORMS] + spare < net.worms.size
        and net.sizes[LIVE_FLOWS] + spare < net.flows.size
        and net.sizes[LIVE_PAYLOADS] + 2 < net.payloads.size
    )
