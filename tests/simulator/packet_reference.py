"""A second, slow statement of the packet network's rules: flit by flit, with objects and queues.

Independent of `tilewright.simulator.timing_packet_core`: flits are objects that stand in queues, nothing is
counted that can be looked at, and each instant is three plain passes over everything.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from tilewright.simulator.timing_traffic import Buffers, Channel, Flow, Hop

Transmission = tuple[float, int, int, int]


@dataclass(eq=False)
class _Packet:
    flow: int
    number: int
    flits: int
    offset: int


@dataclass(eq=False)
class _Flit:
    """A flit in a buffer, with the branches that have still to send it on."""

    packet: _Packet
    number: int
    awaited: list[Hop]


@dataclass(eq=False)
class _Request:
    """A packet's wish to cross a channel, and what it has crossed so far."""

    packet: _Packet
    hop: Hop
    source: _Lane | None
    """Whose buffer the flits come from; None: the flow's own memory."""
    started: int = 0


@dataclass(eq=False)
class _Lane:
    channel: int
    virtual: int
    holder: _Request | None = None
    waiting: deque[_Request] = field(default_factory=deque)
    buffer: deque[_Flit] = field(default_factory=deque)
    announced: int = 0
    """Flits that take room from the sender's point of view."""
    order: deque[tuple[_Packet, Hop]] = field(default_factory=deque)
    """Packets whose flits arrive here, in order; the first may go on."""
    has_asked: bool = False
    """Whether the first packet has asked for what follows."""


class _Network:
    def __init__(
        self, channels: Sequence[Channel], buffers: Buffers, flows: Sequence[Flow]
    ) -> None:
        self.channels, self.buffers, self.flows = channels, buffers, flows
        self.lanes = [
            [_Lane(channel, virtual) for virtual in range(buffers.virtual_channels)]
            for channel in range(len(channels))
        ]
        self.busy: list[_Request | None] = [None] * len(channels)
        self.flit_on_wire: list[int] = [0] * len(channels)
        self.turn = [0] * len(channels)
        self.agenda: list[tuple[float, int, int, object]] = []
        self.log: list[Transmission] = []
        self.injected = [0.0] * len(flows)
        self.delivered = [0.0] * len(flows)
        self.events = 0

    # Events of an instant, in order of (sort, number).

    def run(self) -> None:
        starts = sorted((flow.start_cycle, number) for number, flow in enumerate(self.flows))
        while self.agenda or starts:
            now = min([entry[0] for entry in self.agenda] + [time for time, _ in starts[:1]])
            while entries := sorted((e for e in self.agenda if e[0] == now), key=lambda e: e[1:3]):
                self.agenda.remove(entries[0])
                self.events += 1
                _, sort, number, what = entries[0]
                (self._completed, self._arrived, self._credited)[sort](now, number, what)
            while starts and starts[0][0] == now:
                self._inject(starts.pop(0)[1], 0)
            for channel in range(len(self.channels)):
                self._transmit(now, channel)

    def _inject(self, flow: int, number: int) -> None:
        it = self.flows[flow]
        packet = _Packet(flow, number, it.flits, it.virtual)
        self._request(_Request(packet, it.root, None))

    def _request(self, request: _Request) -> None:
        virtual = request.hop.virtual + request.packet.offset
        self.lanes[request.hop.channel][virtual].waiting.append(request)
        self._give_lanes(request.hop.channel, virtual)

    def _give_lanes(self, channel: int, virtual: int) -> None:
        waiting = self.lanes[channel][virtual].waiting
        while waiting:
            request = waiting[0]
            choices = self.lanes[channel][virtual : virtual + request.hop.choices]
            free = [lane for lane in choices if lane.holder is None]
            if not free:
                return
            waiting.popleft()
            free[0].holder = request
            if request.hop.then:
                free[0].order.append((request.packet, request.hop))

    def _completed(self, now: float, channel: int, what: object) -> None:
        request = self.busy[channel]
        assert request is not None
        flit = self.flit_on_wire[channel]
        self.busy[channel] = None
        is_tail = flit == request.packet.flits - 1
        if is_tail:
            held = next(lane for lane in self.lanes[channel] if lane.holder is request)
            held.holder = None
            self._give_lanes(channel, held.virtual - held.virtual % 2)
            self._give_lanes(channel, held.virtual)
        if request.source is not None:
            self._leave(now, request, flit)
        elif is_tail:
            packet = request.packet
            if packet.number + 1 < self.flows[packet.flow].packets:
                self._inject(packet.flow, packet.number + 1)
            else:
                self.injected[packet.flow] = now

    def _leave(self, now: float, request: _Request, number: int) -> None:
        """A branch has sent a flit; the last branch takes it out of the buffer."""
        lane = request.source
        assert lane is not None
        flit = next(f for f in lane.buffer if f.packet is request.packet and f.number == number)
        flit.awaited.remove(request.hop)
        while lane.buffer and not lane.buffer[0].awaited:
            gone = lane.buffer.popleft()
            self.agenda.append(
                (
                    now + self.buffers.credit_cycles,
                    2,
                    lane.channel * self.buffers.virtual_channels + lane.virtual,
                    None,
                )
            )
            if gone.number == gone.packet.flits - 1:
                lane.order.popleft()
                lane.has_asked = False
                self._ask(lane)

    def _ask(self, lane: _Lane) -> None:
        """Let the first packet of a buffer ask for what follows, once its head is there."""
        if lane.has_asked or not lane.order or not lane.buffer:
            return
        packet, hop = lane.order[0]
        assert lane.buffer[0].packet is packet
        lane.has_asked = True
        for then in hop.then:
            self._request(_Request(packet, then, lane))

    def _arrived(self, now: float, number: int, what: object) -> None:
        assert isinstance(what, tuple)
        packet, flit, hop, lane = what
        if not hop.then:
            if flit == packet.flits - 1:
                self.delivered[packet.flow] = now
            return
        lane.buffer.append(_Flit(packet, flit, list(hop.then)))
        self._ask(lane)

    def _credited(self, now: float, number: int, what: object) -> None:
        channel, virtual = divmod(number, self.buffers.virtual_channels)
        self.lanes[channel][virtual].announced -= 1

    # Decisions.

    def _transmit(self, now: float, channel: int) -> None:
        if self.busy[channel] is not None:
            return
        count = self.buffers.virtual_channels
        for step in range(1, count + 1):
            lane = self.lanes[channel][(self.turn[channel] + step) % count]
            request = lane.holder
            if (
                request is None
                or not self._is_at_hand(request)
                or not self._has_room(lane, request)
            ):
                continue
            it, packet = self.channels[channel], request.packet
            flow = self.flows[packet.flow]
            end = (
                now + (flow.memory_bytes if it.is_memory else flow.link_bytes) / it.bytes_per_cycle
            )
            is_sink = not request.hop.then
            self.agenda.append((end, 0, channel, None))
            arrival = end if is_sink and it.is_memory else end + it.latency_cycles
            number = 2 * (channel * count + lane.virtual) + is_sink
            self.agenda.append((arrival, 1, number, (packet, request.started, request.hop, lane)))
            if not is_sink:
                lane.announced += 1
            self.busy[channel], self.flit_on_wire[channel] = request, request.started
            request.started += 1
            self.turn[channel] = lane.virtual
            self.log.append((now, channel, packet.flow, lane.virtual))
            return

    def _is_at_hand(self, request: _Request) -> bool:
        if request.started == request.packet.flits:
            return False
        if request.source is None:
            return True
        return any(
            flit.packet is request.packet and flit.number == request.started
            for flit in request.source.buffer
        )

    def _has_room(self, lane: _Lane, request: _Request) -> bool:
        figures = self.buffers
        if not request.hop.then or lane.announced < figures.guaranteed_flits:
            return True
        shared = sum(
            max(other.announced - figures.guaranteed_flits, 0) for other in self.lanes[lane.channel]
        )
        return lane.announced < figures.limit_flits and shared < figures.pool_flits


def run_slowly(
    channels: Sequence[Channel], buffers: Buffers, flows: Sequence[Flow]
) -> tuple[list[Transmission], list[float], list[float], int]:
    """Return all transmissions in order, when each flow was injected and delivered, and the events."""
    network = _Network(channels, buffers, flows)
    network.run()
    return network.log, network.injected, network.delivered, network.events
