"""Allocation against the naive validator and brute force."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilewright.errors import InfeasibleError, ProgramError
from tilewright.lowering.allocation import allocate, round_up
from tilewright.lowering.allocation_check import check_allocation
from tilewright.lowering.live_buffer import LiveBuffer


def buffers_strategy(max_size: int, max_buffers: int) -> st.SearchStrategy[list[LiveBuffer]]:
    rows = st.tuples(
        st.integers(0, max_size), st.integers(0, 12), st.integers(0, 12), st.booleans()
    )

    def build(values: list[tuple[int, int, int, bool]]) -> list[LiveBuffer]:
        return [
            LiveBuffer(name=f"b{n}", size_bytes=size, start=start, end=start + length)
            for n, (size, start, length, _) in enumerate(values)
        ]

    return st.lists(rows, max_size=max_buffers).map(build)


def live_peak(buffers: list[LiveBuffer], alignment_bytes: int) -> int:
    """Return the most bytes alive at one time, by looking at every time."""
    times = range(max((b.end for b in buffers), default=0))
    totals = (
        sum(round_up(b.size_bytes, alignment_bytes) for b in buffers if b.start <= t < b.end)
        for t in times
    )
    return max(totals, default=0)


def smallest_peak(buffers: list[LiveBuffer]) -> int:
    """Return the least height of any packing: lowest fit in the best of all orders."""
    alive = [b for b in buffers if b.start < b.end and b.size_bytes]
    best = sum(b.size_bytes for b in alive)
    for order in permutations(alive):
        placed: list[tuple[LiveBuffer, int]] = []
        for b in order:
            near = [(o, a.size_bytes) for a, o in placed if a.start < b.end and b.start < a.end]
            candidates = sorted([0, *(o + size for o, size in near)])
            offset = next(
                c
                for c in candidates
                if all(c + b.size_bytes <= o or o + size <= c for o, size in near)
            )
            placed.append((b, offset))
        best = min(best, max((o + b.size_bytes for b, o in placed), default=0))
    return best


@given(buffers_strategy(200, 40), st.sampled_from([1, 8, 64]))
def test_allocations_are_valid(buffers: list[LiveBuffer], alignment_bytes: int) -> None:
    lower = live_peak(buffers, alignment_bytes)
    found = allocate(buffers, capacity_bytes=2 * lower, alignment_bytes=alignment_bytes)
    assert found.lower_bound_bytes == lower
    assert lower <= found.peak_bytes <= 2 * lower
    check_allocation(
        buffers, found.offsets, capacity_bytes=found.peak_bytes, alignment_bytes=alignment_bytes
    )


@given(buffers_strategy(9, 6))
def test_small_problems_are_packed_as_well_as_brute_force(buffers: list[LiveBuffer]) -> None:
    best = smallest_peak(buffers)
    found = allocate(buffers, capacity_bytes=best, alignment_bytes=1)
    check_allocation(buffers, found.offsets, capacity_bytes=best, alignment_bytes=1)


@given(buffers_strategy(50, 20), st.integers(1, 6))
def test_memory_rests_before_it_is_reused(buffers: list[LiveBuffer], rest: int) -> None:
    found = allocate(buffers, capacity_bytes=1 << 20, alignment_bytes=8, rest=rest)
    last = max((b.end for b in buffers), default=0)
    longer = [
        LiveBuffer(name=b.name, size_bytes=b.size_bytes, start=b.start, end=min(b.end + rest, last))
        if b.start < b.end
        else b
        for b in buffers
    ]
    check_allocation(longer, found.offsets, capacity_bytes=1 << 20, alignment_bytes=8)


def test_a_cut_up_rectangle_is_packed_perfectly() -> None:
    # tiles of a full rectangle: a perfect packing exists
    def cut(low: int, high: int, start: int, end: int, depth: int) -> list[LiveBuffer]:
        if depth == 0:
            name = f"{low}-{high}-{start}-{end}"
            return [LiveBuffer(name=name, size_bytes=high - low, start=start, end=end)]
        if depth % 2:
            middle = low + (high - low) * 2 // 5
            return cut(low, middle, start, end, depth - 1) + cut(
                middle, high, start, end, depth - 1
            )
        middle = start + (end - start) * 3 // 5
        return cut(low, high, start, middle, depth - 1) + cut(low, high, middle, end, depth - 1)

    buffers = cut(0, 1000, 0, 1000, 4)
    assert live_peak(buffers, 1) == 1000
    found = allocate(buffers, capacity_bytes=1000, alignment_bytes=1)
    assert found.peak_bytes == 1000


def test_allocation_of_many_buffers_is_deterministic() -> None:
    buffers = [
        LiveBuffer(
            name=f"b{n}",
            size_bytes=64 + (n * 7919) % 4096,
            start=(n * 104729) % 20000,
            end=(n * 104729) % 20000 + 1 + (n * 31) % 60,
        )
        for n in range(5000)
    ]
    first = allocate(buffers, capacity_bytes=1 << 20, alignment_bytes=64)
    assert first == allocate(buffers, capacity_bytes=1 << 20, alignment_bytes=64)
    assert first.peak_bytes <= 1.3 * first.lower_bound_bytes


def test_error_names_the_point_and_the_largest_buffers() -> None:
    buffers = [
        LiveBuffer(name="small", size_bytes=100, start=0, end=9),
        LiveBuffer(name="large", size_bytes=2000, start=3, end=5),
        LiveBuffer(name="later", size_bytes=500, start=5, end=9),
    ]
    with pytest.raises(InfeasibleError) as caught:
        allocate(
            buffers,
            capacity_bytes=1024,
            alignment_bytes=64,
            describe=lambda position: f"step {position}",
        )
    assert str(caught.value) == (
        "scratchpad: 2_176 bytes alive at step 3, capacity 1_024 bytes, short by 1_152 bytes; "
        "largest of 2 live buffers: 'large' 2_000, 'small' 100; "
        "smallest set found that cannot fit together: 'large'; relief: split 'large' (up to 2_000 bytes), "
        "stream 'small' (up to 100 bytes); "
        "shard over more tiles, use smaller kernel tiles or stream weights"
    )


def test_quick_mode_gives_up_where_the_full_one_fits() -> None:
    rows = [(1, 1, 4), (3, 5, 6), (1, 2, 6), (3, 0, 2), (2, 1, 5), (3, 0, 1)]
    buffers = [
        LiveBuffer(name=f"b{n}", size_bytes=size, start=start, end=end)
        for n, (size, start, end) in enumerate(rows)
    ]
    with pytest.raises(InfeasibleError) as caught:
        allocate(buffers, capacity_bytes=6, alignment_bytes=1, is_quick=True)
    assert "6 bytes alive at micro 0 (best packing found 7 bytes)" in str(caught.value)
    assert "short by 1 bytes" in str(caught.value)
    assert allocate(buffers, capacity_bytes=6, alignment_bytes=1).peak_bytes == 6


@pytest.mark.parametrize(
    ("offsets", "message"),
    [
        ((0, 4), "not a multiple of 8"),
        ((0, 8), "overlap"),
        ((0, 104), "takes"),
        ((0,), "1 addresses for 2 buffers"),
    ],
)
def test_validator_refuses_wrong_allocations(offsets: tuple[int, ...], message: str) -> None:
    buffers = [
        LiveBuffer(name="a", size_bytes=16, start=0, end=2),
        LiveBuffer(name="b", size_bytes=16, start=1, end=3),
    ]
    check_allocation(buffers, (0, 16), capacity_bytes=100, alignment_bytes=8)
    with pytest.raises(ProgramError, match=message):
        check_allocation(buffers, offsets, capacity_bytes=100, alignment_bytes=8)
