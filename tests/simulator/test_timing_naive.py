"""Random loads, stores and ring sends against a naive simulator that works all rates out anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from timing_cases import cycles, load, machine, program, send, store

from tilewright.hwmodel.network import network_of
from tilewright.hwmodel.target import Target
from tilewright.lowering.isa import Engine
from tilewright.simulator.timing import simulate

Share = dict[str, float]
Touched = Callable[[int, int, str, int], Share]
"""What a transfer takes besides for each byte: of its tile, the next one, its name (`send@3`) and size."""


def naive_cycles(
    target: Target,
    queues: dict[tuple[int, Engine], list[tuple[str, int]]],
    touched: Touched = lambda tile, peer, what, size: {},
    more: Share | None = None,
) -> float:
    """Simulate loads, stores and ring sends without semaphores, all rates anew at each event.

    `more` gives the capacities of what `touched` names.
    """
    network, tiles = network_of(target), target.tiles
    capacity = {f"link{i}": link.bytes_per_cycle for i, link in enumerate(network.links)}
    capacity |= {f"sram{t}": target.tile.sram.bytes_per_cycle for t in range(tiles)}
    capacity |= more or {}
    waiting = {slot: list(queue) for slot, queue in queues.items()}
    starts: dict[tuple[int, Engine], float] = {}
    flows: dict[tuple[int, Engine], list[Any]] = {}  # bytes left, {resource: share}
    now = 0.0

    def begin(slot: tuple[int, Engine]) -> None:
        if waiting[slot]:
            starts[slot] = now + (
                1 + 5
                if waiting[slot][0][0].startswith("send")
                else 1 + 5 + 10 + network.dram_read(slot[0]).latency_cycles
            )

    for slot in queues:
        begin(slot)
    while starts or flows:
        rates = naive_rates(flows, capacity)
        ends = {slot: now + flow[0] / rates[slot] for slot, flow in flows.items()}
        then = min([*starts.values(), *ends.values()])
        for slot, flow in flows.items():
            flow[0] -= rates[slot] * (then - now)
        now = then
        for slot in [s for s, end in ends.items() if end <= then + 1e-9]:
            del flows[slot]
            begin(slot)
        for slot in [s for s, start in starts.items() if start <= then + 1e-9]:
            del starts[slot]
            what, size = waiting[slot].pop(0)
            peer = (slot[0] + 1) % tiles
            route = {"load": network.dram_read(slot[0]), "store": network.dram_write(slot[0])}.get(
                what.partition("@")[0]
            ) or network.route(slot[0], peer)
            share = {
                f"link{i}": weight for i, weight in zip(route.links, route.weights, strict=True)
            }
            share[f"sram{slot[0]}"] = share.get(f"sram{slot[0]}", 0.0) + 1.0
            if what.startswith("send"):
                share[f"sram{peer}"] = share.get(f"sram{peer}", 0.0) + 1.0
            for resource, part in touched(slot[0], peer, what, size).items():
                share[resource] = share.get(resource, 0.0) + part
            flows[slot] = [float(size), share]
    return now


def naive_rates(flows: dict[Any, list[Any]], capacity: dict[str, float]) -> dict[Any, float]:
    """Fill all flows at one level until each is stopped, by its DMA engine (32) or a full resource."""
    rates: dict[Any, float] = {}
    while len(rates) < len(flows):
        levels = {}
        for slot in flows:
            if slot in rates:
                continue
            levels[slot] = 32.0
            for resource in flows[slot][1]:
                taken = sum(
                    rates[s] * f[1].get(resource, 0.0) for s, f in flows.items() if s in rates
                )
                growth = sum(f[1].get(resource, 0.0) for s, f in flows.items() if s not in rates)
                levels[slot] = min(levels[slot], (capacity[resource] - taken) / growth)
        least = min(levels.values())
        rates |= {slot: least for slot, level in levels.items() if level <= least * (1 + 1e-12)}
    return rates


queue = st.lists(st.integers(1, 40).map(lambda n: 32 * n), max_size=4)


@st.composite
def traffic(draw: st.DrawFn) -> tuple[Target, list[list[int]], list[list[tuple[str, int]]]]:
    shape = draw(st.sampled_from([(4,), (2, 3), (2, 2)]))
    target = machine(
        *shape, dram=draw(st.sampled_from([4.0, 24.0, 100.0])), ports=2 if len(shape) > 1 else 1
    )
    outs = st.lists(
        st.tuples(st.sampled_from(["store", "send"]), st.integers(1, 40).map(lambda n: 32 * n)),
        max_size=4,
    )
    tiles = target.tiles
    return target, [draw(queue) for _ in range(tiles)], [draw(outs) for _ in range(tiles)]


@given(traffic())
@hypothesis_settings(max_examples=60)
def test_contention_against_a_naive_simulator(
    case: tuple[Target, list[list[int]], list[list[tuple[str, int]]]],
) -> None:
    target, loads, outs = case
    network = network_of(target)
    groups = []
    # a send goes to the next tile: groups of one tile cannot say so, hence stores only
    for tile in range(target.tiles):
        outgoing = tuple(store(size) for what, size in outs[tile] if what == "store")
        groups.append({Engine.DI: tuple(load(size) for size in loads[tile]), Engine.DO: outgoing})
    queues = {(t, Engine.DI): [("load", size) for size in loads[t]] for t in range(target.tiles)}
    queues |= {
        (t, Engine.DO): [pair for pair in outs[t] if pair[0] == "store"]
        for t in range(target.tiles)
    }
    assert network.dram_read(0).latency_cycles == network.dram_write(0).latency_cycles
    assert cycles(program(target, *groups)) == pytest.approx(naive_cycles(target, queues), rel=1e-9)


@given(traffic())
@hypothesis_settings(max_examples=40)
def test_uniform_traffic_against_a_naive_simulator(
    case: tuple[Target, list[list[int]], list[list[tuple[str, int]]]],
) -> None:
    target, loads, outs = case
    outgoing = tuple(
        store(size) if what == "store" else send(size, axes=1) for what, size in outs[0]
    )
    made = program(
        target, {Engine.DI: tuple(map(load, loads[0])), Engine.DO: outgoing}, sizes=(target.tiles,)
    )
    queues: dict[tuple[int, Engine], list[tuple[str, int]]] = {}
    for tile in range(target.tiles):
        queues[tile, Engine.DI] = [("load", size) for size in loads[0]]
        queues[tile, Engine.DO] = list(outs[0])
    expected = naive_cycles(target, queues)
    assert cycles(made) == pytest.approx(expected, rel=1e-9)
    assert simulate(made, symmetry=True).cycles == pytest.approx(expected, rel=1e-9)
