"""What single instructions are predicted to take, by hand and against the timing simulator's rules."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tilewright.dtypes import DType
from tilewright.hwmodel.load import load_target
from tilewright.hwmodel.network import logical_mesh, network_of
from tilewright.hwmodel.target import Relay
from tilewright.lowering.durations import micro_times
from tilewright.lowering.isa import Engine, Opcode, Space
from tilewright.lowering.micro import Buffer, Micro, Operand

TOY = load_target("toy")
MESH = logical_mesh(TOY)
BUFFERS = (
    Buffer(number=0, name="memory", space=Space.DRAM, size_bytes=1 << 20),
    Buffer(number=1, name="a", space=Space.L1, size_bytes=1 << 16),
    Buffer(number=2, name="b", space=Space.L1, size_bytes=1 << 16),
)
EVERYWHERE = 0b11
LEAD = 16 + 100 + network_of(TOY).dram_latency_cycles
"""Start-up of the DMA engine, latencies of memory and network."""
PORTS = 4 * 16 * 0.9
"""Bytes per cycle of the DRAM ports."""
time = micro_times(TOY, MESH, BUFFERS)


def operand(buffer: int, *strides: int) -> Operand:
    return Operand(buffer=buffer, dtype=DType.F32, strides=strides)


LOAD = Micro(
    opcode=Opcode.LD,
    engine=Engine.DI,
    domain=(64, 16),
    dst=operand(1, 64, 4),
    sources=(operand(0, 64, 4),),
)


def test_loads_of_all_tiles_share_the_ports_and_a_multicast_takes_them_once() -> None:
    own, shared = time(LOAD), time(replace(LOAD, axes=EVERYWHERE))
    assert own.port_cycles == pytest.approx(16 * 4096 / PORTS)
    assert own.cycles == pytest.approx(1 + LEAD + 16 * 4096 / PORTS)
    assert shared.port_cycles == pytest.approx(4096 / PORTS)
    assert shared.cycles == pytest.approx(1 + LEAD + 4096 / 32)  # the tile's own DMA engine


def test_an_engine_that_asks_ahead_lets_latencies_pass() -> None:
    dma = TOY.tile.dma.model_copy(update={"asks_ahead": True})
    target = TOY.model_copy(update={"tile": TOY.tile.model_copy(update={"dma": dma})})
    ahead = micro_times(target, MESH, BUFFERS)
    assert ahead(LOAD) == replace(time(LOAD), ahead_cycles=LEAD)
    for other in (
        replace(LOAD, opcode=Opcode.ST, dst=operand(0, 64, 4), sources=(operand(1, 64, 4),)),
        replace(LOAD, opcode=Opcode.VEC, engine=Engine.VE, fn="relu", sources=(operand(2, 64, 4),)),
    ):
        assert ahead(other) == time(other)


def test_a_relay_reads_at_its_rate_casts_and_asks_for_nothing_ahead() -> None:
    relay = Relay(read_bytes_per_cycle=8.0, line_bytes_per_cycle=4.0, grid_bytes_per_cycle=2.0)
    dma = TOY.tile.dma.model_copy(update={"asks_ahead": True})
    target = TOY.model_copy(
        update={
            "tile": TOY.tile.model_copy(update={"dma": dma}),
            "dram": TOY.dram.model_copy(update={"relay": relay}),
        }
    )
    relayed = micro_times(target, MESH, BUFFERS)
    for axes, groups, rate in ((EVERYWHERE, 1, 2.0), (0b01, 4, 4.0)):
        found = relayed(replace(LOAD, axes=axes))
        read = max(4096 / 8, groups * 4096 / PORTS)
        assert found.cycles == pytest.approx(1 + LEAD + read + 4096 / rate)
        assert (found.ahead_cycles, found.cast_cycles) == (0.0, 4096 / rate)
        assert found.port_cycles == pytest.approx(groups * 4096 / PORTS)
    assert relayed(LOAD) == replace(time(LOAD), ahead_cycles=LEAD)


def test_short_runs_take_bursts() -> None:
    apart = replace(LOAD, sources=(operand(0, 1024, 4),))
    assert time(apart) == time(LOAD)  # runs of 64 bytes are whole bursts
    columns = replace(LOAD, sources=(operand(0, 1024, 64),))
    assert time(columns).port_cycles == pytest.approx(16 * time(LOAD).port_cycles)


def test_one_tile_of_each_group_stores() -> None:
    store = replace(LOAD, opcode=Opcode.ST, engine=Engine.DO, dst=operand(0, 64, 4))
    store = replace(store, sources=(operand(1, 64, 4),))
    assert time(replace(store, axes=0b01)).port_cycles == pytest.approx(4 * 4096 / PORTS)
    assert time(replace(store, axes=EVERYWHERE)).port_cycles == pytest.approx(4096 / PORTS)


def test_gathers_within_the_scratchpad_do_not_wait_for_memory() -> None:
    index = Operand(buffer=2, dtype=DType.I32, strides=(4, 0))
    gather = replace(LOAD, opcode=Opcode.GTH, sources=(operand(1, 64, 4), index))
    assert time(gather).cycles == pytest.approx(1 + 16 + 4096 / 32)
    assert time(gather).port_cycles == 0.0
    far = replace(gather, sources=(operand(0, 64, 4), index))
    assert time(far).port_cycles == pytest.approx(16 * 4096 / PORTS)


def test_multicasts_share_links() -> None:
    """In a line of four, each end's link carries the shards of the three others."""
    cast = Micro(
        opcode=Opcode.MCS,
        engine=Engine.DO,
        domain=(1024,),
        dst=operand(2, 4),
        sources=(operand(1, 4),),
        axes=0b10,
        role="first_send",
    )
    assert time(cast).cycles == pytest.approx(1 + 16 + 3 * 4096 / 32)


def test_vector_work_takes_the_port_if_that_is_slower() -> None:
    add = Micro(
        opcode=Opcode.VEC,
        engine=Engine.VE,
        domain=(1024,),
        dst=operand(1, 4),
        sources=(operand(1, 4), operand(2, 4)),
        fn="add",
    )
    assert time(add).cycles == pytest.approx(1 + 3 * 4096 / 128)
    assert time(replace(add, fn="exp", sources=add.sources[:1])).cycles == 1 + 8 + 1024 / 16 * 4
