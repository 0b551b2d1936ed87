"""Whole programs: times computed by hand, errors and outputs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from timing_cases import control, cycles, load, machine, program, send, store, vector

from tilewright.dtypes import DType
from tilewright.errors import ProgramError
from tilewright.graph import HostModel
from tilewright.hwmodel.target import Relay, Target
from tilewright.lowering.isa import Engine, Instruction, Opcode, Post, Wait
from tilewright.lowering.program import DramTensor, HostRegion
from tilewright.simulator.timing import NetworkModel, TimingReport, simulate, write_trace

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


RELAY = Relay(read_bytes_per_cycle=4.0, line_bytes_per_cycle=2.0, grid_bytes_per_cycle=1.0)


def with_memory(
    target: Target, relay: Relay | None = None, asks_ahead: bool = False, load_engines: int = 1
) -> Target:
    """Return a machine whose tiles relay equal reads, or which loads ahead or with two engines."""
    dma = target.tile.dma.model_copy(
        update={"asks_ahead": asks_ahead, "load_engines": load_engines}
    )
    return target.model_copy(
        update={
            "tile": target.tile.model_copy(update={"dma": dma}),
            "dram": target.dram.model_copy(update={"relay": relay}),
        }
    )


def test_a_load_that_is_asked_for_ahead_shows_its_latency_once() -> None:
    plain = machine(2)
    ahead = with_memory(plain, asks_ahead=True)
    streams = {Engine.DI: (load(800),) * 3}
    # Both tiles share the memory; a request waits for nothing while the bytes before come.
    assert cycles(program(plain, streams)) == pytest.approx(3 * (LEAD + 200))
    assert cycles(program(ahead, streams)) == pytest.approx(LEAD + 3 * 200 + 2)
    # A load that is shorter than the latency hides only as much of it.
    short = {Engine.DI: (load(32), load(32))}
    assert cycles(program(ahead, short)) == pytest.approx(LEAD + LEAD + 8)


def test_a_load_that_waited_is_asked_for_when_it_no_longer_waits() -> None:
    target = with_memory(machine(1), asks_ahead=True)
    tick = control(posts=(Post(9, 1),))
    loads = (load(800), load(32, waits=(Wait(0, 1),)))

    def ending(post_at: int) -> float:
        ticks = (*(tick,) * (post_at - 1), control(posts=(Post(0, 1),)))
        return cycles(program(target, {Engine.DI: loads, Engine.CT: ticks}))

    # The first load ends at LEAD + 100; the second is issued then, with its lead behind it or not.
    end = LEAD + 100
    assert ending(90) == pytest.approx(end + 1 + 4)
    assert ending(end - 10) == pytest.approx(end - 10 + LEAD + 4)
    assert ending(300) == pytest.approx(300 + LEAD + 4)


@pytest.mark.parametrize("network", NetworkModel)
def test_a_relay_reads_all_and_then_casts_it(network: NetworkModel) -> None:
    def simulated(target: Target, axes: int) -> TimingReport:
        return simulate(program(target, {Engine.DI: (load(80, axes=axes),)}), network=network)

    target = with_memory(machine(2), relay=RELAY)
    relayed = simulated(target, axes=1)
    assert relayed.cycles == pytest.approx(LEAD + 80 / 4 + 80 / 2)
    # the cast is nothing that others hold up
    assert all(lost == pytest.approx(0) for _, lost in relayed.run.engines[Engine.DI].contention)
    assert simulated(target, axes=0).cycles == simulated(machine(2), axes=0).cycles


def test_a_relay_casts_to_a_grid_at_another_rate() -> None:
    target = with_memory(machine(2, 2), relay=RELAY)

    def relayed(axes: int) -> float:
        return cycles(program(target, {Engine.DI: (load(80, axes=axes),)}))

    assert relayed(0b11) == pytest.approx(relayed(0b01) - 80 / 2 + 80 / 1)


def test_a_relay_asks_for_nothing_before_its_bytes_have_left() -> None:
    target = with_memory(machine(2), relay=RELAY, asks_ahead=True)
    each = LEAD + 80 / 4 + 80 / 2
    assert cycles(program(target, {Engine.DI: (load(80, axes=1),) * 3})) == pytest.approx(3 * each)
    # Nor does a load of its own begin under the cast.
    own = {Engine.DI: (load(80, axes=1), load(80))}
    assert cycles(program(target, own)) == pytest.approx(each + LEAD + 2 * 80 / 8)


def test_two_engines_load_at_the_same_time() -> None:
    target = with_memory(machine(4), relay=RELAY, load_engines=2)
    first, second = load(80, axes=1), replace(load(80, axes=1), engine=Engine.DO)
    # The memory gives each of the two relays the 4 bytes a cycle that it can take.
    both = program(target, {Engine.DI: (first,), Engine.DO: (second,)})
    assert cycles(both) == pytest.approx(LEAD + 80 / 4 + 80 / 2)
    # Groups of one engine do not meet those of the other, however late either comes.
    late = program(
        target, {Engine.DI: (control(engine=Engine.DI), first), Engine.DO: (second, second)}
    )
    assert cycles(late) == pytest.approx(2 * (LEAD + 80 / 4 + 80 / 2))
