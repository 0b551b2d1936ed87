"""The packing search against exhaustive enumeration of addresses."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilewright.errors import CompileError, InfeasibleError, ProgramError
from tilewright.lowering.allocation import Allocation, AllocationError, allocate
from tilewright.lowering.allocation_check import check_allocation
from tilewright.lowering.live_buffer import Gap, LiveBuffer
from tilewright.lowering.packing_conflict import Conflict, Lever
from tilewright.lowering.packing_search import Effort, search_packing
from tilewright.lowering.packing_tables import make_problem

HORIZON = 6


def uses(buffer: LiveBuffer, offset: int) -> set[tuple[int, int]]:
    """Return every (time, address) that a buffer uses."""
    used = set()
    for time in range(buffer.start, buffer.end):
        low, high = 0, buffer.size_bytes
        for gap in buffer.gaps:
            if gap.start <= time < gap.end:
                low, high = gap.window or (0, 0)
        used |= {(time, offset + byte) for byte in range(low, high)}
    return used


def fits(buffers: list[LiveBuffer], capacity: int) -> bool:
    """Whether some choice of addresses keeps all buffers apart, by trying all of them."""

    def place(number: int, taken: set[tuple[int, int]]) -> bool:
        if number == len(buffers):
            return True
        buffer = buffers[number]
        for offset in range(0, capacity - buffer.size_bytes + 1, buffer.alignment_bytes):
            if buffer.offset in (None, offset):
                mine = uses(buffer, offset)
                if not mine & taken and place(number + 1, mine | taken):
                    return True
        return False

    return place(0, set())


@st.composite
def live_buffers(draw: st.DrawFn, *, has_windows: bool) -> list[LiveBuffer]:
    buffers = []
    for number in range(draw(st.integers(1, 7))):
        start = draw(st.integers(0, HORIZON - 1))
        end = draw(st.integers(start + 1, HORIZON))
        size = draw(st.integers(1, 5))
        gaps: tuple[Gap, ...] = ()
        if draw(st.booleans()) and end - start > 2:
            low = draw(st.integers(0, size))
            window = (low, draw(st.integers(low, size))) if has_windows else None
            gaps = (Gap(start=start + 1, end=end - 1, window=window),)
        align = draw(st.sampled_from([1, 1, 2, 3]))
        offset = draw(st.sampled_from([None] * 6 + [0, 6]))
        buffers.append(
            LiveBuffer(
                name=f"b{number}",
                size_bytes=size,
                start=start,
                end=end,
                alignment_bytes=align,
                gaps=gaps,
                offset=offset,
            )
        )
    return buffers


def test_parts_with_coarser_alignment_than_the_whole_are_put_together() -> None:
    coarse = [
        LiveBuffer(name=f"b{n}", size_bytes=1, start=1, end=2, alignment_bytes=2) for n in range(2)
    ]
    problem = make_problem(
        [*coarse, LiveBuffer(name="fine", size_bytes=1, start=0, end=1)], capacity_bytes=4
    )
    found = search_packing(problem, Effort())
    assert found.offsets is not None
    assert problem.grain_bytes == 1
    assert sorted(found.offsets[:2].tolist()) == [0, 2]


def attempt(buffers: list[LiveBuffer], capacity: int) -> Allocation | Conflict:
    try:
        return allocate(buffers, capacity_bytes=capacity, alignment_bytes=1)
    except AllocationError as error:
        return error.conflict


@given(live_buffers(has_windows=False), st.integers(4, 9))
def test_search_finds_a_packing_exactly_when_there_is_one(
    buffers: list[LiveBuffer], capacity: int
) -> None:
    # no greedy packing in front of it: the search alone
    problem = make_problem(buffers, capacity_bytes=capacity)
    found = search_packing(problem, Effort(nodes=100_000))
    if found.offsets is None:
        assert found.is_exhausted
        assert not fits(buffers, capacity)
    else:
        offsets = [int(o) * problem.grain_bytes for o in found.offsets]
        check_allocation(buffers, offsets, capacity_bytes=capacity, alignment_bytes=1)


@given(live_buffers(has_windows=False), st.integers(4, 9))
def test_every_buffer_of_a_proven_conflict_is_needed(
    buffers: list[LiveBuffer], capacity: int
) -> None:
    found = attempt(buffers, capacity)
    if isinstance(found, Allocation):
        check_allocation(buffers, found.offsets, capacity_bytes=capacity, alignment_bytes=1)
        return
    assert found.is_proven
    core = [b for b in buffers if b.name in found.buffers]
    assert len(core) == len(found.buffers)
    assert not fits(core, capacity)
    for buffer in core:
        assert fits([b for b in core if b is not buffer], capacity)


@given(live_buffers(has_windows=True), st.integers(4, 9))
def test_packings_of_buffers_in_part_unused_are_valid(
    buffers: list[LiveBuffer], capacity: int
) -> None:
    found = attempt(buffers, capacity)
    if isinstance(found, Conflict):
        # a search that goes through everything may miss two buffers that are each above the other
        assert not found.is_proven or not fits(buffers, capacity)
        return
    check_allocation(buffers, found.offsets, capacity_bytes=capacity, alignment_bytes=1)
    taken: set[tuple[int, int]] = set()
    for buffer, offset in zip(buffers, found.offsets, strict=True):
        mine = uses(buffer, offset)
        assert not mine & taken
        taken |= mine


def cut(seed: int, count: int, scale: int) -> list[LiveBuffer]:
    """Cut a rectangle of 1024 times by 256 * scale bytes into buffers: they fill it without a hole."""
    parts, state = [(0, 256, 0, 1024)], seed
    while len(parts) < count:
        low, high, start, end = parts.pop(0)
        state = (state * 1_103_515_245 + 12_345) % (1 << 31)
        share = 30 + state // 65536 % 41
        if (high - low) * 4 > end - start:
            at = low + max(1, (high - low) * share // 100)
            parts += [(low, at, start, end), (at, high, start, end)]
        else:
            at = start + max(1, (end - start) * share // 100)
            parts += [(low, high, start, at), (low, high, at, end)]
    return [
        LiveBuffer(name=f"v{seed}.{n}", size_bytes=(high - low) * scale, start=start, end=end)
        for n, (low, high, start, end) in enumerate(sorted(parts, key=lambda p: p[1] * 7 % 31))
    ]


@pytest.mark.parametrize(("seed", "scale"), [(1, 1), (2, 1024), (3, 1000), (4, 7)])
def test_a_rectangle_cut_up_is_put_together_again(seed: int, scale: int) -> None:
    buffers = cut(seed, 60, scale)
    found = allocate(buffers, capacity_bytes=256 * scale, alignment_bytes=1)
    assert found.peak_bytes == found.lower_bound_bytes == 256 * scale
    check_allocation(buffers, found.offsets, capacity_bytes=256 * scale, alignment_bytes=1)


def test_names_and_scale_do_not_change_a_packing() -> None:
    first = allocate(cut(5, 50, 1), capacity_bytes=256, alignment_bytes=1)
    renamed = [replace(b, name=f"other {b.name}") for b in cut(5, 50, 4096)]
    second = allocate(renamed, capacity_bytes=256 * 4096, alignment_bytes=1)
    assert second.offsets == tuple(4096 * offset for offset in first.offsets)


def test_what_fits_only_in_a_gap_is_put_there() -> None:
    host = LiveBuffer(
        name="host", size_bytes=8, start=0, end=9, gaps=(Gap(start=3, end=6, window=(0, 2)),)
    )
    guest = LiveBuffer(name="guest", size_bytes=6, start=3, end=6)
    found = allocate([host, guest], capacity_bytes=8, alignment_bytes=1)
    assert found.offsets == (0, 2)
    late = replace(guest, end=7)
    with pytest.raises(AllocationError, match="14 bytes alive at micro 6"):
        allocate([host, late], capacity_bytes=8, alignment_bytes=1)


def test_a_conflict_says_when_how_much_and_what_helps() -> None:
    buffers = [
        LiveBuffer(name="weights", size_bytes=500, start=0, end=10),
        LiveBuffer(name="skip", size_bytes=300, start=1, end=9),
        LiveBuffer(name="made", size_bytes=250, start=5, end=7),
        LiveBuffer(name="tiny", size_bytes=10, start=4, end=6),
    ]
    with pytest.raises(InfeasibleError) as caught:
        allocate(buffers, capacity_bytes=1024, alignment_bytes=1)
    assert isinstance(caught.value, AllocationError)
    conflict = caught.value.conflict
    assert (conflict.peak, conflict.live_bytes, conflict.shortfall_bytes) == (5, 1060, 36)
    assert conflict.buffers == ("weights", "skip", "made")
    levers = [(r.lever, r.buffer, r.gain_bytes) for r in conflict.relief]
    assert levers == [
        (Lever.STREAM, "weights", 500),
        (Lever.RECOMPUTE, "skip", 300),
        (Lever.SPLIT, "made", 250),
        (Lever.SPLIT, "tiny", 10),
    ]


def test_a_conflict_below_the_live_bytes_is_proven() -> None:
    # each time has 3 of 3 bytes, but no order of the three large ones works
    rows = [(2, 0, 2), (2, 3, 5), (1, 1, 4), (1, 0, 1), (2, 2, 3), (1, 4, 6), (2, 5, 6)]
    buffers = [
        LiveBuffer(name=f"b{n}", size_bytes=size, start=start, end=end)
        for n, (size, start, end) in enumerate(rows)
    ]
    fixed = [replace(buffers[0], offset=0), replace(buffers[1], offset=1), *buffers[2:]]
    assert not fits(fixed, 3)
    with pytest.raises(AllocationError) as caught:
        allocate(fixed, capacity_bytes=3, alignment_bytes=1)
    conflict = caught.value.conflict
    assert conflict.live_bytes == 3
    assert conflict.is_proven
    assert conflict.buffers == ("b0", "b1", "b2")
    assert "that cannot fit together: 'b0', 'b1', 'b2'; relief: " in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alignment_bytes": 0}, "alignment is 0, expected at least 1"),
        ({"alignment_bytes": 4, "offset": 6}, "fixed at 6, expected a multiple of 4"),
        ({"gaps": (Gap(start=0, end=12),)}, r"gap \[0, 12\) is not within"),
        ({"gaps": (Gap(start=2, end=4), Gap(start=3, end=5))}, r"gap \[3, 5\) is not within"),
        ({"gaps": (Gap(start=2, end=4, window=(4, 9)),)}, r"window \[4, 9\) is not within its 8"),
    ],
)
def test_senseless_buffers_are_refused(change: dict[str, object], message: str) -> None:
    good = LiveBuffer(name="x", size_bytes=8, start=0, end=10)
    values = {name: getattr(good, name) for name in ("name", "size_bytes", "start", "end")}
    with pytest.raises(CompileError, match=message):
        allocate([LiveBuffer(**(values | change))], capacity_bytes=64, alignment_bytes=1)


@pytest.mark.parametrize(
    ("other", "offset", "message"),
    [
        (LiveBuffer(name="g", size_bytes=4, start=3, end=6), 2, None),
        (LiveBuffer(name="g", size_bytes=4, start=3, end=6), 1, "overlap"),
        (LiveBuffer(name="g", size_bytes=4, start=3, end=7), 2, "overlap"),
        (LiveBuffer(name="g", size_bytes=4, start=3, end=6, alignment_bytes=4), 2, "multiple of 4"),
        (LiveBuffer(name="g", size_bytes=4, start=3, end=6, offset=4), 2, "must be at 4"),
    ],
)
def test_validator_knows_gaps_alignment_and_fixed_addresses(
    other: LiveBuffer, offset: int, message: str | None
) -> None:
    host = LiveBuffer(
        name="host", size_bytes=8, start=0, end=9, gaps=(Gap(start=3, end=6, window=(0, 2)),)
    )
    if message is None:
        check_allocation([host, other], (0, offset), capacity_bytes=8, alignment_bytes=1)
        return
    with pytest.raises(ProgramError, match=message):
        check_allocation([host, other], (0, offset), capacity_bytes=8, alignment_bytes=1)


def test_fixed_addresses_that_clash_are_named() -> None:
    buffers = [
        LiveBuffer(name="free", size_bytes=4, start=0, end=9),
        LiveBuffer(name="one", size_bytes=8, start=0, end=5, offset=0),
        LiveBuffer(name="two", size_bytes=8, start=4, end=9, offset=4),
    ]
    with pytest.raises(AllocationError) as caught:
        allocate(buffers, capacity_bytes=64, alignment_bytes=1)
    assert caught.value.conflict.buffers == ("one", "two")
    assert caught.value.conflict.is_proven
    assert "20 bytes alive at micro 4, capacity 64 bytes, enough, but fixed addresses" in str(
        caught.value
    )
