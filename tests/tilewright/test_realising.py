"""Plans that cannot be allocated are made again, each with less scratchpad."""

from __future__ import annotations

from collections import Counter

import pytest

from tilewright.errors import InfeasibleError
from tilewright.extract.avoid import NOTHING, Avoid
from tilewright.hwmodel.load import load_target
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.lowering.allocation import DRAM, AllocationError, allocate
from tilewright.lowering.builder import ProgramBuilder
from tilewright.lowering.live_buffer import LiveBuffer
from tilewright.lowering.program import Program
from tilewright.lowering.synchronise import Channel, SemaphoreError
from tilewright.realising import Realised, realised

TOY = load_target("toy")
PROGRAM = ProgramBuilder(TOY, LogicalMesh((), ())).build()
SIZE = TOY.tile.sram.size_bytes


def run(fits_bytes: int, limit_bytes: int) -> tuple[Realised[int], list[int]]:
    """Realise plans, each being its own limit, of which those above a size cannot be allocated."""
    planned: list[int] = []

    def lower(limit_bytes: int) -> Program:
        if limit_bytes > fits_bytes:
            raise InfeasibleError(f"{limit_bytes} bytes are too many")
        return PROGRAM

    def again(before: int, limit_bytes: int, avoid: Avoid) -> int:
        assert limit_bytes < before
        assert avoid == NOTHING
        planned.append(limit_bytes)
        return limit_bytes

    what = "model 'm'"
    found = realised(limit_bytes, lower, again, what=what, target=TOY, limit_bytes=limit_bytes)
    return found, planned


def test_a_plan_that_fits_is_not_made_again() -> None:
    found, planned = run(SIZE, SIZE)
    assert (found.planned, found.program, found.rejected, planned) == (SIZE, PROGRAM, (), [])


def test_each_further_plan_has_a_sixteenth_less() -> None:
    found, planned = run(SIZE * 13 // 16, SIZE)
    assert planned == [SIZE * part // 16 for part in (15, 14, 13)]
    assert found.planned == planned[-1]
    assert found.rejected == tuple(f"{n} bytes are too many" for n in (SIZE, *planned[:-1]))
    # of what there was to plan with, where that is less; one unit of the allocation at least
    assert run(SIZE * 15 // 32, SIZE // 2)[1] == [SIZE * 15 // 32]
    unit = TOY.tile.sram.alignment_bytes
    assert run(3 * unit, 5 * unit)[1] == [4 * unit, 3 * unit]


def test_the_sixth_plan_is_the_last() -> None:
    last = SIZE * 11 // 16
    message = f"^model 'm' on 'toy': 6 plans could not be lowered, .* because {last} bytes are too"
    with pytest.raises(InfeasibleError, match=message):
        run(last - 1, SIZE)
    assert run(last, SIZE)[0].planned == last


SIGNALS = Counter(
    {
        Channel("token", 0, 1): 9,
        Channel("ready", 0b01): 4,
        Channel("arrived", 0b01): 4,
        Channel("ready", 0b10): 2,
        Channel("arrived", 0b10): 2,
    }
)


def learn(
    first: InfeasibleError, *others: InfeasibleError, can_avoid: bool = True
) -> tuple[Realised[int], list[Avoid]]:
    """Realise a plan that is sent back for one reason after the other; return what was avoided."""
    reasons = [first, *others]
    avoided: list[Avoid] = []

    def lower(number: int) -> Program:
        if number < len(reasons):
            raise reasons[number]
        return PROGRAM

    def again(number: int, limit_bytes: int, avoid: Avoid) -> int:
        avoided.append(avoid)
        return number + 1

    found = realised(
        0, lower, again, what="model 'm'", target=TOY, limit_bytes=SIZE, can_avoid=can_avoid
    )
    return found, avoided


def too_much(capacity_bytes: int, *sizes: int) -> AllocationError:
    """Return the error of values of some sizes beside a constant of 64 bytes that is there throughout."""
    buffers = [LiveBuffer(name="w", size_bytes=64, start=0, end=9)]
    buffers += [LiveBuffer(name=f"v{n}", size_bytes=n, start=1, end=8) for n in sizes]
    with pytest.raises(AllocationError) as caught:
        allocate(buffers, capacity_bytes=capacity_bytes, alignment_bytes=8, memory=DRAM)
    return caught.value


def test_too_few_semaphores_take_exchanges_away_axis_by_axis_and_then_values_in_dram() -> None:
    short = SemaphoreError(SIGNALS, 4)
    found, avoided = learn(short, short, short)
    assert [avoid.axes for avoid in avoided] == [{1}, {0, 1}, {0, 1}]
    assert [avoid.dram_values for avoid in avoided] == [False, False, True]
    assert found.avoid == avoided[-1]
    assert found.rejected[0] == (
        "the program needs 5 semaphores of a tile (1 between its engines, 4 to exchange with others, 0 for "
        "barriers), it has 4, 1 short; use fewer combinations of mesh axes or a target with 5 semaphores or "
        "more; planned again without exchanges along logical axis 1"
    )
    with pytest.raises(InfeasibleError, match=r"m' on 'toy' planned without exchanges .* needs 5"):
        learn(short, short, short, short)


def test_values_that_are_just_large_enough_leave_dram() -> None:
    error = too_much(100, 8, 40, 24, 56)
    assert error.passing_bytes == (56, 40, 24, 8)
    assert "relief" not in str(error), "weights cannot be streamed from anywhere else"
    # 64 + 128 bytes, 92 short: the largest; 64 + 48, 12 short: 24 bytes are enough
    avoided = learn(error, too_much(100, 8, 40))[1]
    assert [avoid.dram_values_bytes for avoid in avoided] == [{56}, {56, 40}]
    assert learn(too_much(100, 8, 24, 16))[1][0].dram_values_bytes == {16}
    with pytest.raises(InfeasibleError, match="planned without values of 8 bytes in DRAM"):
        learn(too_much(64, 8), too_much(64, 8))


def test_where_nothing_can_be_avoided_the_first_reason_is_the_error() -> None:
    for error in (SemaphoreError(SIGNALS, 4), too_much(64, 8)):
        with pytest.raises(InfeasibleError, match=r"^model 'm' on 'toy': (DRAM|the program needs)"):
            learn(error, can_avoid=False)
