"""The packet network's events: flits cross channels, worms take lanes, buffers fill and credits return.

The rules, which `tests/simulator/packet_reference.py` states again flit by flit:

* A channel transmits one flit at a time, for its bytes over the rate; it arrives `latency` later.
* A packet crosses a channel on one lane, which it holds from its head's turn to the end of its
  tail's transmission. Lanes are granted first come first served. Lanes that have something to send
  take turns, flit by flit.
* A flit is sent only if the buffer behind the channel has room for it: always for the lane's guaranteed
  flits, beyond these up to the lane's limit while the shared pool has room. The sender knows of a
  departure after the credit's time. Sinks have room for everything.
* A lane's buffer is a queue: only its first packet asks for the next channel (head-of-line blocking). At a
  fork every branch proceeds alone; a flit leaves when the last branch has sent it.
* Events of one time are all applied, in the order of their sort and number, before any channel decides.
"""

from __future__ import annotations

from tilewright.simulator.timing_jit import compiled_part
from tilewright.simulator.timing_packet_heap import pop_event, push_event
from tilewright.simulator.timing_packet_state import (
    ARRIVAL,
    COMPLETION,
    CREDIT,
    DELIVERED,
    DIRTY_SIZE,
    EVENTS_SIZE,
    GUARANTEED,
    HANDLED,
    INJECTED,
    LANES,
    LIMIT,
    LIVE_WORMS,
    LOG_SIZE,
    NEWS_SIZE,
    POOL,
    WORMS_FREE,
    Net,
)


@compiled_part
def _schedule(net: Net, time: float, sort: int, number: int, worm: int) -> None:
    push_event(net.heap, net.sizes[EVENTS_SIZE], time, sort, number, worm)
    net.sizes[EVENTS_SIZE] += 1


@compiled_part
def _mark(net: Net, channel: int) -> None:
    """Let a channel decide when the events of this time are over."""
    if net.channels[channel].dirty == 0:
        net.channels[channel].dirty = 1
        net.dirty[net.sizes[DIRTY_SIZE]] = channel
        net.sizes[DIRTY_SIZE] += 1


@compiled_part
def _tell(net: Net, payload: int, what: int) -> None:
    net.news[net.sizes[NEWS_SIZE], 0], net.news[net.sizes[NEWS_SIZE], 1] = payload, what
    net.sizes[NEWS_SIZE] += 1


@compiled_part
def _new_worm(net: Net, flow: int, node: int, parent: int) -> int:
    number = net.sizes[WORMS_FREE]
    worm = net.worms[number]
    net.sizes[WORMS_FREE] = worm.next
    net.sizes[LIVE_WORMS] += 1
    worm.flow, worm.node, worm.parent, worm.lane = flow, node, parent, -1
    worm.child = worm.sibling = worm.next = -1
    worm.flits = net.flows[flow].flits
    worm.sent = worm.gone = worm.arrived = worm.left = worm.done = 0
    return int(number)


@compiled_part
def _free_worm(net: Net, number: int) -> None:
    """Give a worm back, unless its parent still counts what it sent."""
    if net.worms[number].parent >= 0:
        net.worms[number].done = 1
        return
    net.worms[number].next = net.sizes[WORMS_FREE]
    net.sizes[WORMS_FREE] = number
    net.sizes[LIVE_WORMS] -= 1


@compiled_part
def _is_sink(net: Net, worm: int) -> bool:
    return bool(net.nodes[net.worms[worm].node].child < 0)


@compiled_part
def _grant(net: Net, base: int) -> None:
    """Give lanes to the worms that wait at a lane, as long as one is free."""
    queue = net.lanes[base]
    while queue.wait_front >= 0:
        number = queue.wait_front
        worm = net.worms[number]
        found = -1
        for choice in range(net.nodes[worm.node].choices):
            if net.lanes[base + choice].holder < 0:
                found = base + choice
                break
        if found < 0:
            break
        queue.wait_front = worm.next
        if worm.next < 0:
            queue.wait_back = -1
        worm.next, worm.lane = -1, found
        lane = net.lanes[found]
        lane.holder = number
        if net.nodes[worm.node].child >= 0:
            if lane.back >= 0:
                net.worms[lane.back].next = number
            else:
                lane.front = number
            lane.back = number
        _mark(net, found // net.figures[LANES])


@compiled_part
def _ask(net: Net, number: int) -> None:
    """Let a worm queue for the lane that it needs."""
    worm = net.worms[number]
    node = net.nodes[worm.node]
    base = node.channel * net.figures[LANES] + node.virtual + net.flows[worm.flow].virtual
    queue = net.lanes[base]
    if queue.wait_back >= 0:
        net.worms[queue.wait_back].next = number
    else:
        queue.wait_front = number
    queue.wait_back = number
    _grant(net, base)


@compiled_part
def _branch(net: Net, number: int) -> None:
    """Let a packet at the front of its buffer ask for the channels that follow."""
    node = net.nodes[net.worms[number].node].child
    last = -1
    while node >= 0:
        child = _new_worm(net, net.worms[number].flow, node, number)
        if last < 0:
            net.worms[number].child = child
        else:
            net.worms[last].sibling = child
        last = child
        _ask(net, child)
        node = net.nodes[node].sibling


@compiled_part
def start_flow(net: Net, flow: int) -> None:
    """Inject the first packet of a flow."""
    _ask(net, _new_worm(net, flow, net.flows[flow].root, -1))


@compiled_part
def _injected(net: Net, flow: int) -> None:
    """Go on with the next packet of a flow, whose current one has left its source."""
    me = net.flows[flow]
    me.packets -= 1
    if me.packets > 0:
        _ask(net, _new_worm(net, flow, me.root, -1))
        return
    payload = net.payloads[me.payload]
    payload.injecting -= 1
    if payload.injecting == 0:
        _tell(net, me.payload, INJECTED)


@compiled_part
def _departed(net: Net, number: int, now: float) -> None:
    """Free the place of a flit that all branches have sent on; after the last, the next packet is first."""
    worm = net.worms[number]
    least = worm.flits
    child = worm.child
    while child >= 0:
        least = min(least, net.worms[child].gone)
        child = net.worms[child].sibling
    if least == worm.left:
        return
    worm.left = least
    lane = net.lanes[worm.lane]
    _schedule(net, now + net.credit[0], CREDIT, worm.lane, -1)
    if least < worm.flits:
        return
    lane.front = worm.next
    if lane.front < 0:
        lane.back = -1
    child = worm.child
    while child >= 0:  # none of them looks back any more, having sent all
        sibling = net.worms[child].sibling
        net.worms[child].parent = -1
        if net.worms[child].done:
            _free_worm(net, child)
        child = sibling
    _free_worm(net, number)
    if lane.front >= 0 and net.worms[lane.front].arrived > 0:
        _branch(net, lane.front)


@compiled_part
def _complete(net: Net, channel: int, now: float) -> None:
    """End the transmission of a flit."""
    number = net.channels[channel].sending
    net.channels[channel].sending = -1
    _mark(net, channel)
    worm = net.worms[number]
    worm.gone += 1
    is_tail = worm.gone == worm.flits
    flow, parent = worm.flow, worm.parent
    if is_tail:
        held = worm.lane
        net.lanes[held].holder = -1
        pair = held - held % 2
        _grant(net, pair)
        if held != pair:
            _grant(net, held)
    if parent >= 0:
        _departed(net, parent, now)
    elif is_tail:
        _injected(net, flow)


@compiled_part
def _arrive(net: Net, number: int) -> None:
    """Let a flit arrive in the buffer behind its channel, or at its sink."""
    worm = net.worms[number]
    worm.arrived += 1
    if _is_sink(net, number):
        if worm.arrived == worm.flits:
            payload = net.flows[worm.flow].payload
            _free_worm(net, number)
            net.payloads[payload].pending -= 1
            if net.payloads[payload].pending == 0:
                _tell(net, payload, DELIVERED)
        return
    if worm.arrived == 1:
        if net.lanes[worm.lane].front == number:
            _branch(net, number)
        return
    child = worm.child
    while child >= 0:
        _mark(net, net.nodes[net.worms[child].node].channel)
        child = net.worms[child].sibling


@compiled_part
def _credit(net: Net, lane: int) -> None:
    it = net.lanes[lane]
    channel = lane // net.figures[LANES]
    if it.used > net.figures[GUARANTEED]:
        net.channels[channel].pool -= 1
    it.used -= 1
    _mark(net, channel)


@compiled_part
def _can_send(net: Net, lane: int) -> bool:
    """Whether the worm that holds a lane has a flit at hand and room for it."""
    it = net.lanes[lane]
    if it.holder < 0:
        return False
    worm = net.worms[it.holder]
    if worm.sent == worm.flits:
        return False
    if worm.parent >= 0 and net.worms[worm.parent].arrived <= worm.sent:
        return False
    if net.nodes[worm.node].child < 0 or it.used < net.figures[GUARANTEED]:
        return True
    channel = net.channels[lane // net.figures[LANES]]
    return bool(it.used < net.figures[LIMIT] and channel.pool < net.figures[POOL])


@compiled_part
def _decide(net: Net, channel: int, now: float) -> None:
    """Transmit a flit of the next lane in turn that can."""
    it = net.channels[channel]
    if it.sending >= 0:
        return
    lanes = net.figures[LANES]
    for step in range(1, lanes + 1):
        virtual = (it.turn + step) % lanes
        lane = channel * lanes + virtual
        if not _can_send(net, lane):
            continue
        number = net.lanes[lane].holder
        worm = net.worms[number]
        flow = net.flows[worm.flow]
        worm.sent += 1
        if net.nodes[worm.node].child >= 0:
            if net.lanes[lane].used >= net.figures[GUARANTEED]:
                it.pool += 1
            net.lanes[lane].used += 1
        it.turn, it.sending = virtual, number
        size = flow.memory_bytes if it.is_memory else flow.link_bytes
        end = now + size / it.rate
        _schedule(net, end, COMPLETION, channel, number)
        sink = net.nodes[worm.node].child < 0
        arrival = end if sink and it.is_memory else end + it.latency
        _schedule(net, arrival, ARRIVAL, 2 * lane + sink, number)
        if net.sizes[LOG_SIZE] < net.log.shape[0]:
            row = net.sizes[LOG_SIZE]
            net.log[row, 0], net.log[row, 1] = now, channel
            net.log[row, 2], net.log[row, 3] = worm.flow, virtual
            net.sizes[LOG_SIZE] += 1
        return


@compiled_part
def handle_event(net: Net) -> None:
    """Apply the next event; afterwards `news` holds the payloads that it completed."""
    now, sort = net.heap[0, 0], int(net.heap[0, 1])
    number, worm = int(net.heap[0, 2]), int(net.heap[0, 3])
    pop_event(net.heap, net.sizes[EVENTS_SIZE])
    net.sizes[EVENTS_SIZE] -= 1
    net.sizes[HANDLED] += 1
    if sort == COMPLETION:
        _complete(net, number, now)
    elif sort == ARRIVAL:
        _arrive(net, worm)
    else:
        _credit(net, number)


@compiled_part
def decide_all(net: Net, now: float) -> None:
    """Let all channels decide that something has happened to; each decision stands alone."""
    for index in range(net.sizes[DIRTY_SIZE]):
        channel = net.dirty[index]
        net.channels[channel].dirty = 0
        _decide(net, channel, now)
    net.sizes[DIRTY_SIZE] = 0
