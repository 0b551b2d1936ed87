"""Readers that share the DRAM's ports, against flows that are followed one by one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilewright.hwmodel.port_sharing import Readers, fair_read_cycles

READERS = st.builds(
    Readers,
    tiles=st.integers(1, 12),
    size_bytes=st.floats(1.0, 1e4),
    padding=st.sampled_from([1.0, 2.0, 64 / 24]),
    bytes_per_cycle=st.floats(0.5, 100.0),
)


def followed(ports: float, own: Readers, others: Readers) -> float:
    """Return when the first of the own flows ends; the rate of all rises until the ports are full."""
    flows = [own] * int(own.tiles) + [others] * int(others.tiles)
    left, now = [flow.size_bytes for flow in flows], 0.0
    while True:
        moving = [i for i, size in enumerate(left) if size > 1e-9 * flows[i].size_bytes]
        if 0 not in moving:
            return now
        rates, free, rising = {}, ports, sorted(moving, key=lambda i: flows[i].bytes_per_cycle)
        while rising:
            level = free / sum(flows[i].padding for i in rising)
            first = rising.pop(0)
            rates[first] = min(level, flows[first].bytes_per_cycle)
            free -= rates[first] * flows[first].padding
        step = min(left[i] / rates[i] for i in moving)
        left = [size - rates.get(i, 0.0) * step for i, size in enumerate(left)]
        now += step


@given(st.floats(1.0, 500.0), READERS, READERS)
def test_time_is_that_of_flows_followed_one_by_one(
    ports: float, own: Readers, others: Readers
) -> None:
    assert fair_read_cycles(ports, own, others) == pytest.approx(followed(ports, own, others))


def test_a_tile_that_relays_is_one_of_many() -> None:
    relay = Readers(tiles=1, size_bytes=4_000.0, padding=1.0, bytes_per_cycle=32.0)
    many = Readers(tiles=63, size_bytes=100.0, padding=1.0, bytes_per_cycle=64.0)
    # A byte a cycle each; the many are done after 100 cycles, the rest comes at the relay's own rate.
    assert fair_read_cycles(64.0, relay, many) == pytest.approx(100 + 3_900 / 32)
    assert fair_read_cycles(64.0, many, relay) == pytest.approx(100)
