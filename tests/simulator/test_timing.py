"""Whole programs: times computed by hand, a naive reference simulator, and properties."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tilewright.dtypes import DType
from tilewright.errors import ProgramError
from tilewright.graph import HostModel
from tilewright.hwmodel.load import load_target
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.hwmodel.network import logical_mesh, network_of
from tilewright.hwmodel.target import Interconnect, LogicalAxis, MeshAxis, Target, Topology
from tilewright.lowering.isa import Access, Engine, Instruction, Opcode, Post, Space, Wait
from tilewright.lowering.program import DramTensor, Group, HostRegion, Program
from tilewright.simulator.timing import TimingReport, simulate, write_trace

Streams = Mapping[Engine, tuple[Instruction, ...]]


def machine(
    *sizes: int, read_multicast: bool = True, dram: float = 8.0, port: float = 16.0, ports: int = 1
) -> Target:
    """Return nested crossbars: issue 1, DMA startup 5, DRAM latency 10, hop 3, vector 8 lanes."""
    toy = load_target("toy")
    names = tuple(f"a{i}" for i in range(len(sizes)))
    dma = toy.tile.dma.model_copy(
        update={
            "in_bytes_per_cycle": 32.0,
            "out_bytes_per_cycle": 32.0,
            "startup_cycles": 5.0,
            "burst_bytes": 32,
        }
    )
    vector = toy.tile.vector.model_copy(update={"lanes": 8, "startup_cycles": 2.0})
    memory = {
        "ports": ports,
        "port_bytes_per_cycle": dram,
        "efficiency": 1.0,
        "latency_cycles": 10.0,
        "read_multicast": read_multicast,
        "attach_axis": names[0] if ports > 1 else None,
    }
    levels = tuple(
        Interconnect(
            axes=(name,), topology=Topology.CROSSBAR, port_bytes_per_cycle=port, hop_cycles=3.0
        )
        for name in names
    )
    return toy.model_copy(
        update={
            "name": "test",
            "axes": tuple(
                MeshAxis(name=name, size=size) for name, size in zip(names, sizes, strict=True)
            ),
            "interconnects": levels,
            "logical_axes": tuple(LogicalAxis(name=name, axes=(name,)) for name in names),
            "tile": toy.tile.model_copy(update={"dma": dma, "vector": vector}),
            "dram": toy.dram.model_copy(update=memory),
        }
    )


def program(
    target: Target,
    *groups: Streams,
    load: Streams | None = None,
    sizes: tuple[int, ...] = (),
    **more: Any,
) -> Program:
    """Return a program: one group over all tiles of the target, or several of one tile each."""
    if len(groups) == 1:
        whole = sizes or logical_mesh(target).sizes
        mesh = LogicalMesh(tuple(f"a{i}" for i in range(len(whole))), whole)
        made: tuple[Group, ...] = (
            Group(mesh=mesh, tiles=tuple(range(mesh.tiles)), load=load or {}, run=groups[0]),
        )
    else:
        one = LogicalMesh(("a0",), (1,))
        made = tuple(
            Group(mesh=one, tiles=(i,), load={}, run=streams) for i, streams in enumerate(groups)
        )
    fields: dict[str, Any] = {
        "inputs": (),
        "outputs": (),
        "constants": (),
        "host_regions": (),
        **more,
    }
    return Program(
        name="test", target=target, groups=made, dram_bytes=1 << 20, sram_bytes=1 << 16, **fields
    )


def at(space: Space, *strides: int) -> Access:
    return Access(space, DType.I8, 0, (), strides or (1,))


def load(n: int, **more: Any) -> Instruction:
    return Instruction(
        opcode=Opcode.LD,
        engine=Engine.DI,
        domain=(n,),
        dst=at(Space.L1),
        sources=(at(Space.DRAM),),
        **more,
    )


def store(n: int, **more: Any) -> Instruction:
    return Instruction(
        opcode=Opcode.ST,
        engine=Engine.DO,
        domain=(n,),
        dst=at(Space.DRAM),
        sources=(at(Space.L1),),
        **more,
    )


def send(
    n: int, opcode: Opcode = Opcode.SND, axes: int = 1, shift: int = 1, **more: Any
) -> Instruction:
    shift = shift if opcode is Opcode.SND else 0
    kept = at(Space.L1)
    return Instruction(
        opcode=opcode,
        engine=Engine.DO,
        domain=(n,),
        dst=kept,
        sources=(kept,),
        axes=axes,
        shift=shift,
        **more,
    )


def vector(n: int, **more: Any) -> Instruction:
    kept = at(Space.L1)
    return Instruction(
        opcode=Opcode.VEC,
        engine=Engine.VE,
        fn="abs",
        domain=(n,),
        dst=kept,
        sources=(kept,),
        **more,
    )


def control(
    *waits: Wait, posts: tuple[Post, ...] = (), axes: int = 0, engine: Engine = Engine.CT
) -> Instruction:
    opcode = Opcode.PS if posts else Opcode.WT
    return Instruction(opcode=opcode, engine=engine, waits=waits, posts=posts, axes=axes)


def cycles(made: Program) -> float:
    return simulate(made, symmetry=False).cycles


# ---------------------------------------------------------------- by hand

LEAD = 1 + 5 + 10 + 3  # issue, DMA startup, DRAM latency, one crossbar


def test_a_load_is_latency_plus_bytes_over_the_slowest_resource() -> None:
    assert cycles(program(machine(2), {Engine.DI: (load(64),)}, {})) == pytest.approx(LEAD + 64 / 8)
    assert cycles(program(machine(2, dram=100.0), {Engine.DI: (load(64),)}, {})) == pytest.approx(
        LEAD + 64 / 16
    )
    fast = machine(2, dram=100.0, port=100.0)
    assert cycles(program(fast, {Engine.DI: (load(64),)}, {})) == pytest.approx(LEAD + 64 / 32)
    assert cycles(program(machine(2), {Engine.DO: (store(64),)}, {})) == pytest.approx(
        LEAD + 64 / 8
    )


def test_the_load_phase_is_timed_apart() -> None:
    report = simulate(
        program(machine(2), {Engine.VE: (vector(16),)}, load={Engine.DI: (load(64),)}),
        symmetry=False,
    )
    assert report.load.cycles == pytest.approx(LEAD + 128 / 8)
    assert report.cycles == pytest.approx(1 + 2 + 2)
    assert report.seconds == pytest.approx(5e-9)


def test_two_tiles_share_a_port_half_and_half() -> None:
    report = simulate(program(machine(2), {Engine.DI: (load(64),)}), symmetry=False)
    assert report.cycles == pytest.approx(LEAD + 128 / 8)
    lost = dict(report.run.engines[Engine.DI].contention)
    assert lost == {"DRAM ports": pytest.approx(8.0)}


def test_the_longer_of_two_loads_speeds_up_when_the_shorter_ends() -> None:
    # both at 4 bytes/cycle until the short one ends after 8 cycles, then 32 bytes at 8
    made = program(machine(2), {Engine.DI: (load(64),)}, {Engine.DI: (load(32),)})
    assert cycles(made) == pytest.approx(LEAD + 8 + 4)


def test_a_late_load_slows_the_early_one() -> None:
    # alone for 7 cycles (56 of 96 bytes), then 4 bytes/cycle each until the early one's last 40 are done
    late = {Engine.DI: (control(engine=Engine.DI),) * 7 + (load(96),)}
    report = simulate(program(machine(2), {Engine.DI: (load(96, tag=1),)}, late), symmetry=False)
    assert report.run.tags[1].end_cycle == pytest.approx(LEAD + 7 + 10)
    assert report.cycles == pytest.approx(LEAD + 7 + 10 + (96 - 40) / 8)


def test_remote_post_lands_after_the_payload() -> None:
    streams = {
        Engine.DO: (send(64, posts=(Post(3, 1, True), Post(4, 1))),),
        Engine.CT: (control(Wait(3, 1)),),
    }
    report = simulate(program(machine(4), streams), symmetry=False)
    assert report.cycles == pytest.approx(1 + 5 + 64 / 16 + 3 + 1)
    assert dict(report.run.engines[Engine.CT].waits) == {"remote post": pytest.approx(13.0)}
    assert report.run.engines[Engine.DO].busy_cycles_max == pytest.approx(10.0)


def test_crossing_two_levels_takes_both_ports_and_all_hops() -> None:
    # 4 tiles of each unit send through the unit's port of 16 bytes/cycle; up, across and down is 3 hops
    streams = {Engine.DO: (send(64, posts=(Post(3, 1, True),)),), Engine.CT: (control(Wait(3, 1)),)}
    assert cycles(program(machine(2, 4), streams)) == pytest.approx(1 + 5 + 4 * 64 / 16 + 3 * 3 + 1)


def test_bare_remote_posts_make_a_barrier() -> None:
    streams = {Engine.CT: (control(posts=(Post(7, 1, True),), axes=1), control(Wait(7, 3)))}
    assert cycles(program(machine(4), streams)) == pytest.approx(1 + 3 + 1)


def test_multicast_send_takes_each_link_once() -> None:
    cast = send(64, Opcode.MCS, posts=(Post(3, 1, True),))
    report = simulate(
        program(machine(4), {Engine.DO: (cast,), Engine.CT: (control(Wait(3, 3)),)}), symmetry=False
    )
    # four senders into each of four ingress ports, which take three copies each
    assert report.cycles == pytest.approx(1 + 5 + 3 * 64 / 16 + 3 + 1)
    links = next(use for use in report.run.resources if use.name.startswith("links"))
    assert links.total_bytes == 4 * 64 + 4 * 3 * 64
    assert report.run.payload_bytes == pytest.approx(4 * 64)


def test_multicast_read_leaves_dram_once() -> None:
    streams = {Engine.DI: (load(64, axes=1),)}
    shared = simulate(program(machine(4), streams), symmetry=False)
    apart = simulate(program(machine(4, read_multicast=False), streams), symmetry=False)
    assert shared.cycles == pytest.approx(LEAD + 64 / 8)
    assert apart.cycles == pytest.approx(LEAD + 4 * 64 / 8)
    assert [r.run.resources[-1].total_bytes for r in (shared, apart)] == [64, 256]
    assert [r.run.resources[0].total_bytes for r in (shared, apart)] == [256, 256]


def test_multicast_read_waits_for_the_last_of_its_group() -> None:
    # tile 0 alone stores first; the others have nothing to store and come after two issue cycles
    streams = {
        Engine.DO: (store(64, axes=1, posts=(Post(1, 1),)),),
        Engine.DI: (load(64, axes=1, waits=(Wait(1, 1),)),),
    }
    report = simulate(program(machine(4), streams), symmetry=False)
    stored = LEAD + 64 / 8
    assert report.cycles == pytest.approx(stored + LEAD + 64 / 8)
    waited = dict(report.run.engines[Engine.DI].waits)
    assert waited["group"] == pytest.approx((stored - 1) * 3 / 4)


def test_stores_happen_only_at_coordinate_zero() -> None:
    report = simulate(program(machine(2, 4), {Engine.DO: (store(64, axes=0b10),)}), symmetry=False)
    assert report.run.payload_bytes == pytest.approx(2 * 64)
    assert report.run.resources[-1].total_bytes == 128


def test_double_buffering_reaches_the_slower_of_load_and_compute() -> None:
    n = 50
    for size, lanes_cycles in ((64, 8.0), (64, 40.0)):
        loads = (load(size, waits=(Wait(1, 1),), posts=(Post(2, 1),)),) * n
        work = (vector(int(lanes_cycles * 8), waits=(Wait(2, 1),), posts=(Post(1, 1),)),) * n
        streams = {Engine.DI: loads, Engine.VE: work, Engine.CT: (control(posts=(Post(1, 2),)),)}
        report = simulate(program(machine(2), streams, {}), symmetry=False)
        one_load, one_work = LEAD + size / 8, 1 + 2 + lanes_cycles
        start = 1 + (one_load if one_work > one_load else one_work)
        assert report.cycles == pytest.approx(start + n * max(one_load, one_work))
        assert report.run.gap == pytest.approx(0.0, abs=1e-9)


def test_sram_port_slows_engines_that_ask_for_more() -> None:
    target = machine(2)
    narrow = target.tile.sram.model_copy(update={"bytes_per_cycle": 24.0})
    target = target.model_copy(update={"tile": target.tile.model_copy(update={"sram": narrow})})
    # the vector engine wants 16 bytes/cycle, the load 32: fair shares of 24 are 12 and 12
    fast = target.model_copy(
        update={"dram": target.dram.model_copy(update={"port_bytes_per_cycle": 100.0})}
    )
    wide = tuple(
        level.model_copy(update={"port_bytes_per_cycle": 100.0}) for level in fast.interconnects
    )
    fast = fast.model_copy(update={"interconnects": wide})
    waits = {
        Engine.VE: (control(engine=Engine.VE),) * (LEAD - 3) + (vector(96),),
        Engine.DI: (load(96),),
    }
    # both start at LEAD; the vector's 192 bytes and the load's 96 share until the load ends after 8 cycles
    assert cycles(program(fast, waits, {})) == pytest.approx(LEAD + 8 + (192 - 96) / 16)


def test_host_regions_wait_for_all_and_take_their_transfers() -> None:
    tensor = DramTensor(name="t", dtype=DType.F32, shape=(10, 4), address=0)
    model = HostModel(
        model_bytes=b"",
        input_names=("t",),
        input_shapes=((10, 4),),
        output_names=("t",),
        op_types=("Sort",),
        reason="",
    )
    region = HostRegion(model=model, inputs=(tensor,), outputs=(tensor,))
    call = Instruction(opcode=Opcode.HOST, engine=Engine.CT, count=0)
    late = store(64, axes=1, posts=(Post(1, 1),))
    streams = {Engine.DO: (late,), Engine.CT: (control(Wait(1, 1)), call)}
    report = simulate(program(machine(4), streams, host_regions=(region,)), symmetry=False)
    assert report.cycles == pytest.approx(LEAD + 8 + 1 + 1 + 1000 + 2 * 160 / 16)
    assert any("host" in note for note in report.notes)


def test_energy_is_the_sum_of_counted_work() -> None:
    report = simulate(
        program(machine(4), {Engine.DI: (load(64),), Engine.VE: (vector(100),)}), symmetry=False
    )
    expected = {
        "matrix": 0.0,
        "vector": 400.0,
        "SRAM": 4 * 264.0,
        "network": 4 * 64 * 0.5,
        "DRAM": 256 * 40.0,
        "static": 0.0,
    }
    assert dict(report.energy_pj) == pytest.approx(expected)
    assert report.total_energy_pj == pytest.approx(sum(expected.values()))


# ---------------------------------------------------------------- errors and outputs


def test_deadlock_names_engines_and_semaphores() -> None:
    streams = {
        Engine.VE: (vector(8, waits=(Wait(5, 2),)),),
        Engine.CT: (control(posts=(Post(5, 1),)),),
    }
    with pytest.raises(
        ProgramError,
        match=r"deadlock: tile 0 VE at instruction 0 \(VEC\) waits for semaphore 5 \(has 1, needs 2\)",
    ):
        simulate(program(machine(2), streams))


def test_too_many_events_are_refused() -> None:
    with pytest.raises(ProgramError, match="still running after 10 events; raise max_events"):
        simulate(program(machine(2), {Engine.VE: (vector(8),) * 100}), max_events=10)


def test_overlapping_groups_are_refused() -> None:
    made = program(machine(2), {}, {})
    twice = replace(made, groups=(made.groups[0], made.groups[0]))
    with pytest.raises(ProgramError, match="tile 0 is in groups 0 and 1"):
        simulate(twice)


def test_trace_is_json_with_every_span_once(tmp_path: Path) -> None:
    streams = {
        Engine.DI: (load(64, posts=(Post(1, 1),), tag=1),) * 3,
        Engine.VE: (vector(8, waits=(Wait(1, 1),)),) * 3,
    }
    made = program(machine(2), streams, tags=("read",))
    report = simulate(made, trace=True)
    write_trace(report, tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    spans = [event for event in events if event["ph"] == "X"]
    assert len(spans) == 2 * 6
    assert {span["name"] for span in spans} == {"LD read", "VEC"}
    assert max(span["ts"] + span["dur"] for span in spans) == pytest.approx(report.cycles * 1e-3)
    assert simulate(made).run.spans == ()


def test_report_rows_are_for_people() -> None:
    rows = dict(simulate(program(machine(2), {Engine.DI: (load(64),)})).table_rows())
    assert rows["simulated cycles"] == "35 (0.0 us)"
    assert rows["bound of this program"] == "27 cycles (dma_in engine), gap 29.6%"
    assert "full DRAM ports" in rows["engine dma_in"]


# ---------------------------------------------------------------- random programs


def naive_cycles(target: Target, queues: dict[tuple[int, Engine], list[tuple[str, int]]]) -> float:
    """Simulate loads, stores and ring sends without semaphores, all rates anew at each event."""
    network, tiles = network_of(target), target.tiles
    capacity = {f"link{i}": link.bytes_per_cycle for i, link in enumerate(network.links)}
    capacity |= {f"sram{t}": target.tile.sram.bytes_per_cycle for t in range(tiles)}
    waiting = {slot: list(queue) for slot, queue in queues.items()}
    starts: dict[tuple[int, Engine], float] = {}
    flows: dict[tuple[int, Engine], list[Any]] = {}  # bytes left, {resource: share}
    now = 0.0

    def begin(slot: tuple[int, Engine]) -> None:
        if waiting[slot]:
            starts[slot] = now + (
                1 + 5
                if waiting[slot][0][0] == "send"
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
                what
            ) or network.route(slot[0], peer)
            share = {
                f"link{i}": weight for i, weight in zip(route.links, route.weights, strict=True)
            }
            share[f"sram{slot[0]}"] = share.get(f"sram{slot[0]}", 0.0) + 1.0
            if what == "send":
                share[f"sram{peer}"] = share.get(f"sram{peer}", 0.0) + 1.0
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


@st.composite
def linear_programs(draw: st.DrawFn, targets: tuple[Target, ...]) -> Program:
    """Instructions in a linear order, each waiting for an earlier one of another engine: no deadlock."""
    target = draw(st.sampled_from(targets))
    axes = st.integers(1, (1 << logical_mesh(target).rank) - 1)
    size = st.integers(1, 12).map(lambda n: 32 * n)
    streams: dict[Engine, list[Instruction]] = {engine: [] for engine in Engine}
    waits: dict[int, tuple[Wait, ...]] = {}
    steps: list[Instruction] = []
    for step in range(draw(st.integers(1, 10))):
        n, mask = draw(size), draw(axes)
        members = 1
        for axis, extent in enumerate(logical_mesh(target).sizes):
            members *= extent if mask >> axis & 1 else 1
        match draw(
            st.sampled_from(
                ["load", "shared", "store", "masked", "send", "cast", "vector", "barrier"]
            )
        ):
            case "load":
                steps.append(load(n))
            case "shared":
                steps.append(load(n, axes=mask))
            case "store":
                steps.append(store(n))
            case "masked":
                steps.append(store(n, axes=mask))
            case "send":
                axis = draw(st.integers(0, logical_mesh(target).rank - 1))
                steps.append(
                    send(
                        n,
                        axes=1 << axis,
                        shift=draw(st.sampled_from([1, -1])),
                        posts=(Post(40 + step, 1, True),),
                    )
                )
                steps.append(control(Wait(40 + step, 1)))
            case "cast" if members > 1:
                steps.append(send(n, Opcode.MCS, axes=mask, posts=(Post(40 + step, 1, True),)))
                steps.append(control(Wait(40 + step, members - 1)))
            case "barrier" if members > 1:
                steps.append(control(posts=(Post(40 + step, 1, True),), axes=mask))
                steps.append(control(Wait(40 + step, members - 1)))
            case _:
                steps.append(vector(n))
        if len(steps) > 1 and draw(st.booleans()):
            before = draw(st.integers(0, len(steps) - 2))
            if (
                len(steps[before].posts) < 2
                and not waits.get(len(steps) - 1)
                and not steps[-1].waits
            ):
                semaphore = 100 + len(steps)
                steps[before] = replace(
                    steps[before], posts=(*steps[before].posts, Post(semaphore, 1))
                )
                if steps[before].opcode is Opcode.WT:
                    steps[before] = replace(steps[before], opcode=Opcode.PS)
                steps[-1] = replace(steps[-1], waits=(Wait(semaphore, 1),))
    for instruction in steps:
        streams[instruction.engine].append(instruction)
    return program(target, {engine: tuple(stream) for engine, stream in streams.items()})


TARGETS = (
    machine(4),
    machine(2, 3, ports=2, dram=12.0),
    machine(2, 2, 2, ports=2, dram=30.0),
    machine(2, 4, read_multicast=False, ports=4, dram=5.0),
    machine(2, 3, 2, ports=2, dram=30.0).model_copy(
        update={
            "logical_axes": (
                LogicalAxis(name="b0", axes=("a0", "a1")),
                LogicalAxis(name="b1", axes=("a2",)),
            )
        }
    ),
    machine(2, 2, 3, ports=2, dram=30.0).model_copy(
        update={"logical_axes": (LogicalAxis(name="b", axes=("a0", "a1", "a2")),)}
    ),
    load_target("mesh_2x3"),
    load_target("mesh_3x3"),
)


def same(one: Any, other: Any) -> None:
    """Compare two phases of a report, field by field, but for how they were simulated."""
    assert one.cycles == pytest.approx(other.cycles, rel=1e-6)
    assert one.bound_cycles == pytest.approx(other.bound_cycles, rel=1e-6)
    assert one.payload_bytes == pytest.approx(other.payload_bytes, rel=1e-6)
    assert one.instructions == other.instructions
    for a, b in zip(one.engines, other.engines, strict=True):
        assert a.busy_cycles_mean == pytest.approx(b.busy_cycles_mean, rel=1e-6, abs=1e-6)
        assert a.busy_cycles_max == pytest.approx(b.busy_cycles_max, rel=1e-6, abs=1e-6)
        total = [sum(c for _, c in (*use.waits, *use.contention)) for use in (a, b)]
        assert total[0] == pytest.approx(total[1], rel=1e-6, abs=1e-5)
    for a, b in zip(one.resources, other.resources, strict=True):
        assert (a.name, a.count) == (b.name, b.count)
        assert a.total_bytes == pytest.approx(b.total_bytes, rel=1e-9)
        assert a.utilisation_max == pytest.approx(b.utilisation_max, rel=1e-6)


@given(linear_programs(TARGETS))
@hypothesis_settings(max_examples=120)
def test_symmetric_simulation_equals_the_full_one(made: Program) -> None:
    full, merged = simulate(made, symmetry=False), simulate(made, symmetry=True)
    same(full.run, merged.run)
    assert merged.total_energy_pj == pytest.approx(full.total_energy_pj, rel=1e-9)
    # crossbars take their classes from the machine's symmetries; refinement finds them as well
    with patch("tilewright.simulator.timing_tables.crossbar_orbits", return_value=None):
        refined = simulate(made, symmetry=True)
    same(full.run, refined.run)
    assert refined.run.simulated_tiles <= merged.run.simulated_tiles


def test_rotations_of_merged_axes_turn_the_outermost() -> None:
    """A ring of 2 x 3 units of 2 tiles: 3 places in it differ, in both halves and for both tiles alike."""
    ring = {Engine.DO: (send(64, axes=0b01, shift=1, posts=(Post(1, 1, True),)),)}
    waiting = {Engine.CT: (control(Wait(1, 1)),)}
    made = program(TARGETS[4], ring | waiting)
    full, merged = simulate(made, symmetry=False), simulate(made, symmetry=True)
    assert (full.run.simulated_tiles, merged.run.simulated_tiles) == (12, 3)
    same(full.run, merged.run)


@given(linear_programs(TARGETS))
@hypothesis_settings(max_examples=60)
def test_bounds_bytes_and_determinism(made: Program) -> None:
    report = simulate(made, symmetry=False)
    assert report.cycles >= report.run.bound_cycles * (1 - 1e-9)
    assert simulate(made, symmetry=False) == report
    tiles, sizes = made.target.tiles, logical_mesh(made.target).sizes
    expected = 0.0
    for instruction in (i for stream in made.groups[0].run.values() for i in stream):
        n = instruction.domain[0] if instruction.domain else 0
        members = 1
        for axis, size in enumerate(sizes):
            members *= size if instruction.axes >> axis & 1 else 1
        match instruction.opcode:
            case Opcode.LD:
                expected += n * tiles / (members if made.target.dram.read_multicast else 1)
            case Opcode.ST:
                expected += n * tiles / members
            case Opcode.SND | Opcode.MCS:
                expected += n * tiles
            case Opcode.VEC:
                expected += 2 * n * tiles
            case _:
                pass
    assert report.run.payload_bytes == pytest.approx(expected, rel=1e-9)


@given(linear_programs((machine(4),)), st.sampled_from([1.5, 3.0]))
@hypothesis_settings(max_examples=30)
def test_more_bandwidth_never_hurts_a_chain(made: Program, factor: float) -> None:
    """Only for chains on one tile: with several tiles at different speeds, fair sharing may reorder them."""
    chain = [
        i
        for stream in made.groups[0].run.values()
        for i in stream
        if not any(p.remote for p in i.posts)
    ]
    bare = [replace(i, waits=(), posts=(), axes=0) for i in chain if i.opcode is not Opcode.PS]
    linked: dict[Engine, tuple[Instruction, ...]] = {engine: () for engine in Engine}
    for number, i in enumerate(bare):
        waits = (Wait(number - 1, 1),) if number else ()
        linked[i.engine] += (replace(i, waits=waits, posts=(Post(number, 1),)),)

    def run(target: Target) -> TimingReport:
        return simulate(program(target, linked, {}), symmetry=False)

    slow, fast = run(machine(2)), run(machine(2, dram=8.0 * factor, port=16.0 * factor))
    assert fast.cycles <= slow.cycles * (1 + 1e-12)


def test_large_regular_machine_is_simulated_as_one_tile() -> None:
    streams = {
        Engine.DI: (load(640, axes=0b100, posts=(Post(1, 1),)), load(320, posts=(Post(1, 1),))),
        Engine.VE: (vector(1000, waits=(Wait(1, 2),), posts=(Post(2, 1),)),),
        Engine.DO: (
            send(100, Opcode.MCS, axes=0b10, waits=(Wait(2, 1),), posts=(Post(3, 1, True),)),
            store(100),
        ),
        Engine.CT: (control(Wait(3, 7)),),
    }
    made = program(machine(4, 8, 4, ports=4), streams)
    merged, full = simulate(made), simulate(made, symmetry=False)
    assert (merged.run.simulated_tiles, full.run.simulated_tiles) == (1, 128)
    same(full.run, merged.run)
