"""Banks that are blocks of addresses, against bytes counted one by one and a naive simulator."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from test_timing_naive import Share, naive_cycles
from timing_cases import cycles, load, machine, program, send, store, vector

from tilewright.dtypes import DType
from tilewright.hwmodel.target import BankLayout, Scratchpad, Target
from tilewright.lowering.isa import Access, Engine, Instruction, Space
from tilewright.simulator.timing import NetworkModel, simulate
from tilewright.simulator.timing_banks import bank_parts

BANK_BYTES = 1024


def with_banks(target: Target, **sram: Any) -> Target:
    """Return the target with four banks in blocks of 1 KiB, 16 bytes a cycle each."""
    figures = {
        "size_bytes": 4 * BANK_BYTES,
        "banks": 4,
        "bytes_per_cycle": 64.0,
        "bank_layout": BankLayout.BLOCKS,
        **sram,
    }
    tile = target.tile
    changed = tile.model_copy(update={"sram": tile.sram.model_copy(update=figures)})
    return target.model_copy(update={"tile": changed})


def placed(instruction: Instruction, base: int, coefficients: tuple[int, ...] = ()) -> Instruction:
    """Return an instruction whose operands in the scratchpad begin at an address."""

    def at(access: Access) -> Access:
        if access.space is not Space.L1:
            return access
        return replace(access, base=base, coefficients=coefficients)

    assert instruction.dst is not None
    return replace(
        instruction, dst=at(instruction.dst), sources=tuple(map(at, instruction.sources))
    )


@given(
    st.lists(st.tuples(st.integers(-40, 40), st.integers(1, 5)), max_size=3),
    st.sampled_from([DType.I8, DType.F16, DType.F32]),
    st.integers(0, 200),
)
def test_bytes_of_an_access_in_each_bank(
    dims: list[tuple[int, int]], dtype: DType, base: int
) -> None:
    sram = Scratchpad(size_bytes=2048, banks=32, bytes_per_cycle=64, bank_layout=BankLayout.BLOCKS)
    strides = tuple(stride for stride, _ in dims)
    domain = tuple(size for _, size in dims)
    base += 500  # so that nothing is below 0
    counts = [0] * sram.banks
    moving = [range(size) if stride else range(1) for stride, size in dims]
    for index in product(*moving):
        first = base + sum(i * stride for i, stride in zip(index, strides, strict=True))
        for byte in range(first, first + dtype.itemsize_bytes):
            counts[byte // 64] += 1
    access = Access(Space.L1, dtype, base, (), strides)
    parts = bank_parts(sram, access, domain, base)
    assert parts.tolist() == pytest.approx([count / sum(counts) for count in counts])


def naive_banks(base_of: dict[str, int], tiles: int) -> Any:
    """Return what transfers take of banks, byte by byte; sends write where they read."""

    def touched(tile: int, peer: int, what: str, size: int) -> Share:
        share: Share = {}
        name, _, number = what.partition("@")
        for byte in range(base_of[number], base_of[number] + size):
            for at in {"send": (tile, peer)}.get(name, (tile,)):
                key = f"bank{at}.{byte // BANK_BYTES}"
                share[key] = share.get(key, 0.0) + 1.0 / size
        # one bank serves an operand, at 16 bytes a cycle
        share[f"operand{tile}.{what}.{size}"] = 1.0
        return share

    return touched


transfer = st.tuples(
    st.integers(1, 20).map(lambda n: 32 * n), st.integers(0, 110).map(lambda n: n * 32)
)


@given(
    st.lists(transfer, max_size=4),
    st.lists(st.tuples(st.sampled_from(["store", "send"]), transfer), max_size=4),
)
@hypothesis_settings(max_examples=60)
def test_uniform_traffic_against_a_naive_simulator(
    loads: list[tuple[int, int]], outs: list[tuple[str, tuple[int, int]]]
) -> None:
    target = with_banks(machine(4, dram=100.0, port=100.0))
    base_of: dict[str, int] = {}
    names: dict[Engine, list[tuple[str, int]]] = {Engine.DI: [], Engine.DO: []}
    streams: dict[Engine, list[Instruction]] = {Engine.DI: [], Engine.DO: []}
    for what, (size, base) in [*(("load", pair) for pair in loads), *outs]:
        base = min(base, 4 * BANK_BYTES - size)
        base_of[str(len(base_of))] = base
        engine = Engine.DI if what == "load" else Engine.DO
        names[engine].append((f"{what}@{len(base_of) - 1}", size))
        made = {"load": load, "store": store, "send": send}[what](size)
        streams[engine].append(placed(made, base))
    run = {engine: tuple(stream) for engine, stream in streams.items()}
    made_program = program(target, run, sizes=(4,))
    capacity = {f"bank{tile}.{bank}": 16.0 for tile in range(4) for bank in range(4)}
    capacity |= {
        f"operand{tile}.{what}.{size}": 16.0
        for tile in range(4)
        for queue in names.values()
        for what, size in queue
    }
    queues = {(tile, engine): names[engine] for tile in range(4) for engine in names}
    expected = naive_cycles(target, queues, naive_banks(base_of, 4), capacity)
    assert cycles(made_program) == pytest.approx(expected, rel=1e-9)
    assert simulate(made_program, symmetry=True).cycles == pytest.approx(expected, rel=1e-9)


def test_operands_of_one_vector_instruction_share_a_bank() -> None:
    """64 bytes in and 64 out: 16 a cycle from one bank, or from two at the same time; 2 startup, 1 issue."""
    target = with_banks(machine(1))
    together = placed(vector(64), 0)
    assert together.dst is not None
    apart = replace(together, dst=replace(together.dst, base=BANK_BYTES))
    assert cycles(program(target, {Engine.VE: (together,)})) == pytest.approx(1 + 2 + 128 / 16)
    assert cycles(program(target, {Engine.VE: (apart,)})) == pytest.approx(1 + 2 + 64 / 8)
    quick = with_banks(machine(1), bytes_per_cycle=128.0)
    assert cycles(program(quick, {Engine.VE: (together,)})) == pytest.approx(1 + 2 + 64 / 8)


def test_addresses_of_tiles_decide_where_a_coordinate_does() -> None:
    """A load and a store meet in one bank on the tiles where their addresses do."""
    target = with_banks(machine(4, dram=1000.0, port=1000.0))
    size = 512
    meeting = {
        Engine.DI: (placed(load(size), 0, (BANK_BYTES,)),),
        Engine.DO: (placed(store(size), 0),),
    }
    made = program(target, meeting)
    report = simulate(made)
    held_up = {engine.name: dict(engine.contention) for engine in report.run.engines}
    # only tile 0 shares a bank: both at 8 bytes a cycle there, 16 elsewhere, so a mean of a quarter is lost
    assert held_up["dma_in"]["SRAM banks"] == pytest.approx((size / 8 - size / 16) / 4)
    assert simulate(made, symmetry=True).cycles == pytest.approx(report.cycles)


def test_packets_share_banks_too() -> None:
    target = with_banks(machine(2, dram=1000.0, port=1000.0))
    slow, fast = (
        simulate(
            program(
                target, {Engine.DI: (placed(load(512), 0),), Engine.DO: (placed(store(512), at),)}
            ),
            network=NetworkModel.PACKET,
        ).cycles
        for at in (0, 2 * BANK_BYTES)
    )
    assert fast < slow


def test_one_bank_is_as_good_as_interleaved_ones() -> None:
    target = machine(2)
    run = {
        Engine.DI: (placed(load(640), 64), placed(load(320), 64)),
        Engine.DO: (placed(store(512), 128), placed(send(256), 0)),
        Engine.VE: (placed(vector(512), 0),),
    }
    times = {
        cycles(program(with_banks(target, banks=banks, bank_layout=layout), run))
        for banks, layout in (
            (1, BankLayout.BLOCKS),
            (1, BankLayout.INTERLEAVED),
            (8, BankLayout.INTERLEAVED),
        )
    }
    assert len(times) == 1


def test_energy_counts_what_banks_move_once() -> None:
    run = {Engine.DI: (placed(load(640), 64),), Engine.VE: (placed(vector(512), 0),)}
    blocks, interleaved = (
        dict(simulate(program(with_banks(machine(2), bank_layout=layout), run)).energy_pj)
        for layout in (BankLayout.BLOCKS, BankLayout.INTERLEAVED)
    )
    assert blocks["SRAM"] == interleaved["SRAM"] > 0
