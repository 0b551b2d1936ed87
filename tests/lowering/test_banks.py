"""Bank conflicts counted byte by byte, and placements against all placements of small problems."""

from __future__ import annotations

import random
from itertools import product

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tilewright.errors import ProgramError
from tilewright.hwmodel.target import BankLayout, Scratchpad
from tilewright.lowering.allocation import allocate
from tilewright.lowering.allocation_check import check_allocation
from tilewright.lowering.bank_conflicts import BankLoad, Stream
from tilewright.lowering.bank_placement import spread_over_banks
from tilewright.lowering.live_buffer import LiveBuffer

SRAM = Scratchpad(
    size_bytes=64,
    banks=4,
    bytes_per_cycle=16.0,
    alignment_bytes=4,
    bank_layout=BankLayout.BLOCKS,
)
TIMES = 8

Problem = tuple[list[LiveBuffer], list[Stream]]


def naive_lost_cycles(streams: list[Stream], addresses: tuple[int, ...]) -> float:
    """Add up what each bank is asked for beyond 4 bytes, cycle by cycle and byte by byte."""
    lost = 0.0
    for time in range(TIMES):
        asked = [0.0] * 4
        for stream in streams:
            if stream.start <= time < stream.end:
                for byte in range(stream.low, stream.high):
                    bank = (addresses[stream.buffer] + byte) // 16
                    asked[bank] += stream.bytes_per_cycle / (stream.high - stream.low)
        lost += sum(max(0.0, rate - 4.0) / 4.0 for rate in asked)
    return lost


def make_problem(generator: random.Random, most_buffers: int, sizes: tuple[int, ...]) -> Problem:
    """Return buffers, each with streams while it is alive."""
    buffers, streams = [], []
    for n in range(generator.randint(1, most_buffers)):
        start = generator.randrange(TIMES)
        end = generator.randint(start + 1, TIMES)
        size = generator.choice(sizes)
        buffers.append(LiveBuffer(name=f"b{n}", size_bytes=size, start=start, end=end))
        for _ in range(generator.randint(0, 3)):
            first = generator.randrange(start, end)
            low = generator.randrange(size)
            streams.append(
                Stream(
                    buffer=n,
                    low=low,
                    high=generator.randint(low + 1, size),
                    bytes_per_cycle=generator.choice([1.0, 2.5, 4.0]),
                    start=float(first),
                    end=float(generator.randint(first + 1, end)),
                )
            )
    return buffers, streams


def fits(buffers: list[LiveBuffer], addresses: tuple[int, ...]) -> bool:
    try:
        check_allocation(buffers, addresses, capacity_bytes=64, alignment_bytes=4)
    except ProgramError:
        return False
    return True


@given(st.integers(0, 10**6), st.data())
def test_lost_cycles_byte_by_byte(seed: int, data: st.DataObject) -> None:
    buffers, streams = make_problem(random.Random(seed), 5, (3, 8, 16, 30))
    addresses = tuple(data.draw(st.integers(0, 64 - b.size_bytes)) for b in buffers)
    load = BankLoad(streams, SRAM)
    assert load.lost_cycles(addresses) == pytest.approx(naive_lost_cycles(streams, addresses))


@given(st.integers(0, 10**6))
@hypothesis_settings(max_examples=60)
def test_placements_are_packings_that_lose_no_more(seed: int) -> None:
    generator = random.Random(seed)
    buffers, streams = make_problem(generator, 6, (3, 8, 12, 16))
    capacity = generator.choice([96, 128])
    before = allocate(buffers, capacity_bytes=capacity, alignment_bytes=4).offsets
    sram = SRAM.model_copy(update={"size_bytes": 128, "banks": 8, "bytes_per_cycle": 32.0})
    after = spread_over_banks(buffers, before, streams, sram, capacity_bytes=capacity)
    check_allocation(buffers, after, capacity_bytes=capacity, alignment_bytes=4)
    load = BankLoad(streams, sram)
    assert load.lost_cycles(after) <= load.lost_cycles(before)
    assert after == spread_over_banks(buffers, before, streams, sram, capacity_bytes=capacity)


def test_placements_are_near_the_best_of_all() -> None:
    """Twenty problems of up to four buffers, against all of their placements."""
    sram = SRAM.model_copy(update={"alignment_bytes": 8})
    found = best = plain = 0.0
    generator = random.Random(3)
    for _ in range(20):
        buffers, brief = make_problem(generator, 4, (8, 16))
        # a cycle that is lost is worth a move
        streams = [s._replace(start=100 * s.start, end=100 * s.end) for s in brief]
        before = allocate(buffers, capacity_bytes=64, alignment_bytes=8).offsets
        after = spread_over_banks(buffers, before, streams, sram, capacity_bytes=64)
        places = [range(0, 64 - b.size_bytes + 1, 8) for b in buffers]
        load = BankLoad(streams, sram)
        least = min(load.lost_cycles(a) for a in product(*places) if fits(buffers, a))
        lost = 100 * naive_lost_cycles(brief, after)
        assert lost >= least - 1e-9
        found, best = found + lost, best + least
        plain += 100 * naive_lost_cycles(brief, before)
    assert found <= 1.05 * best
    assert found < plain


def test_double_buffers_and_results_lie_in_different_banks() -> None:
    """A unit reads one buffer and writes its result while a load fills the other."""
    buffers = [
        LiveBuffer(name=name, size_bytes=8, start=0, end=8) for name in ("even", "odd", "result")
    ]
    streams = [Stream(n, 0, 8, 4.0, 0.0, 8.0) for n in range(3)]
    before = (0, 8, 16)
    assert naive_lost_cycles(streams, before) == 8.0
    after = spread_over_banks(buffers, before, streams, SRAM, capacity_bytes=64)
    assert naive_lost_cycles(streams, after) == 0.0
    assert len({address // 16 for address in after}) == 3
    # two banks are all that a smaller limit leaves
    within = spread_over_banks(buffers, before, streams, SRAM, capacity_bytes=24)
    assert naive_lost_cycles(streams, within) == 8.0
