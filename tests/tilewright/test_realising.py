"""Plans that cannot be allocated are made again, each with less scratchpad."""

from __future__ import annotations

import pytest

from tilewright.errors import InfeasibleError
from tilewright.hwmodel.load import load_target
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.lowering.builder import ProgramBuilder
from tilewright.lowering.program import Program
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

    def again(before: int, limit_bytes: int) -> int:
        assert limit_bytes < before
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
    message = (
        f"^model 'm' on 'toy': 6 plans could not be allocated, .* because {last} bytes are too"
    )
    with pytest.raises(InfeasibleError, match=message):
        run(last - 1, SIZE)
    assert run(last, SIZE)[0].planned == last
