"""The packet network alone: by hand, and against a second statement of its rules, flit by flit."""

from __future__ import annotations

from typing import Any

import packet_reference
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.errors import ProgramError
from tilewright.simulator.timing_traffic import Buffers, Channel, Flow, Hop, run_traffic

DEEP = Buffers(
    virtual_channels=4, guaranteed_flits=1, limit_flits=16, pool_flits=48, credit_cycles=4.0
)


def line(*channels: int, virtual: int = 0) -> Hop:
    """Return a way over channels, one after the other."""
    then: tuple[Hop, ...] = ()
    for channel in reversed(channels):
        then = (Hop(channel=channel, virtual=virtual, then=then),)
    return then[0]


def flow(root: Hop, packets: int, flits: int, **more: Any) -> Flow:
    return Flow(
        root=root, packets=packets, flits=flits, **{"link_bytes": 32, "memory_bytes": 32, **more}
    )


# ---------------------------------------------------------------- by hand


def test_cut_through_takes_the_latencies_and_the_slowest_channel() -> None:
    channels = [
        Channel(bytes_per_cycle=32.0, latency_cycles=9.0),
        Channel(bytes_per_cycle=8.0, latency_cycles=5.0),
        Channel(bytes_per_cycle=32.0, latency_cycles=2.0),
    ]
    done = run_traffic(channels, DEEP, [flow(line(0, 1, 2), 1, 10)])
    # The head: 1 + 9, 4 + 5, 1 + 2; then nine more flits of 4 cycles each at the slow channel.
    assert done.cycles == 10 + 9 + 3 + 9 * 4


def test_a_short_buffer_starves_a_long_round_trip() -> None:
    slow = Channel(bytes_per_cycle=32.0, latency_cycles=9.0)
    one = Buffers(
        virtual_channels=2, guaranteed_flits=1, limit_flits=1, pool_flits=0, credit_cycles=4.0
    )
    done = run_traffic([slow, slow], one, [flow(line(0, 1), 1, 10)])
    # A flit is sent only when the credit of the one before is back: 1 + 9 there, 1 onwards, 4 back.
    assert done.transmissions == ()
    assert done.cycles == 9 * (1 + 9 + 1 + 4) + 2 * (1 + 9)


def test_a_blocked_head_holds_up_what_stands_behind_it() -> None:
    fast = Channel(bytes_per_cycle=32.0)
    slow = Channel(bytes_per_cycle=1.0)
    ways = [flow(line(0, 1), 1, 64), flow(line(0, 2), 1, 64)]
    behind = run_traffic([fast, slow, fast], DEEP, ways).delivered_cycles
    # The second packet leaves when the first has, but for what fits into the buffer.
    assert behind[1] > 0.7 * behind[0]
    beside = [flow(line(0, 1), 1, 64), flow(line(0, 2, virtual=1), 1, 64)]
    assert run_traffic([fast, slow, fast], DEEP, beside).delivered_cycles[1] < 0.1 * behind[0]


def test_two_lanes_share_a_channel_flit_by_flit() -> None:
    link = Channel(bytes_per_cycle=32.0)
    done = run_traffic([link], DEEP, [flow(line(0), 1, 50), flow(line(0, virtual=1), 1, 50)], log=9)
    assert [who for _, _, who, _ in done.transmissions[:4]] in ([0, 1, 0, 1], [1, 0, 1, 0])
    assert sorted(done.delivered_cycles) == [99.0, 100.0]


def test_ways_in_a_circle_without_a_dateline_block_for_ever() -> None:
    ring = [Channel(bytes_per_cycle=32.0, latency_cycles=1.0) for _ in range(4)]
    shallow = Buffers(
        virtual_channels=2, guaranteed_flits=2, limit_flits=2, pool_flits=0, credit_cycles=1.0
    )
    ways = [line(*((start + step) % 4 for step in range(3))) for start in range(4)]
    with pytest.raises(ProgramError, match="block each other"):
        run_traffic(ring, shallow, [flow(way, 2, 20) for way in ways])


# ---------------------------------------------------------------- against the reference


@st.composite
def traffic(draw: st.DrawFn) -> tuple[list[Channel], Buffers, list[Flow]]:
    """Return channels in a row of stages, so that ways only lead onwards, and flows through them."""
    stages, width = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    rates, latencies = st.sampled_from([8.0, 22.08, 32.0]), st.sampled_from([0.0, 1.0, 9.0])
    channels = [
        Channel(
            bytes_per_cycle=draw(rates),
            latency_cycles=draw(latencies),
            is_memory=draw(st.booleans()),
        )
        for _ in range(stages * width)
    ]
    buffers = Buffers(
        virtual_channels=4,
        guaranteed_flits=draw(st.integers(1, 2)),
        limit_flits=draw(st.integers(2, 6)),
        pool_flits=draw(st.integers(0, 8)),
        credit_cycles=draw(st.sampled_from([0.5, 1.0, 6.0])),
    )

    def tree(stage: int, may_fork: bool) -> Hop:
        channel = stage * width + draw(st.integers(0, width - 1))
        then: tuple[Hop, ...] = ()
        if stage + 1 < stages and draw(st.integers(0, 3)):
            then = (tree(stage + 1, may_fork),)
            other = tree(stage + 1, False) if may_fork and draw(st.booleans()) else None
            if other is not None and other.channel != then[0].channel:
                then = (*then, other)
        virtual, choices = draw(st.sampled_from([(0, 1), (1, 1), (2, 1), (2, 2), (0, 2)]))
        return Hop(channel=channel, virtual=virtual, choices=choices, then=then)

    flows = []
    for _ in range(draw(st.integers(1, 6))):
        fits = draw(st.booleans())
        flows.append(
            Flow(
                root=tree(0, fits),
                packets=draw(st.integers(1, 3)),
                # A packet that forks must fit into every buffer, or branches could block each other.
                flits=draw(st.integers(1, buffers.guaranteed_flits if fits else 9)),
                link_bytes=draw(st.sampled_from([32.0, 20.0])),
                memory_bytes=32.0,
                start_cycle=draw(st.sampled_from([0.0, 0.0, 3.0, 10.5])),
            )
        )
    return channels, buffers, flows


@settings(max_examples=150, deadline=None)
@given(traffic())
def test_every_transmission_is_as_in_the_reference(
    case: tuple[list[Channel], Buffers, list[Flow]],
) -> None:
    channels, buffers, flows = case
    log, injected, delivered, events = packet_reference.run_slowly(channels, buffers, flows)
    done = run_traffic(channels, buffers, flows, log=len(log) + 1)
    # Decisions of one instant are independent of each other; their order in the log means nothing.
    assert sorted(done.transmissions) == sorted(log)
    assert done.injected_cycles == tuple(injected)
    assert done.delivered_cycles == tuple(delivered)
    assert done.events == events


@settings(max_examples=50, deadline=None)
@given(traffic())
def test_no_channel_carries_more_than_its_rate(
    case: tuple[list[Channel], Buffers, list[Flow]],
) -> None:
    channels, buffers, flows = case
    done = run_traffic(channels, buffers, flows)
    carried = [0.0] * len(channels)

    def count(hop: Hop, link: float, memory: float) -> None:
        carried[hop.channel] += memory if channels[hop.channel].is_memory else link
        for then in hop.then:
            count(then, link, memory)

    for it in flows:
        number = it.packets * it.flits
        count(it.root, number * it.link_bytes, number * it.memory_bytes)
    for channel, size in zip(channels, carried, strict=True):
        assert done.cycles >= size / channel.bytes_per_cycle * (1 - 1e-12)
