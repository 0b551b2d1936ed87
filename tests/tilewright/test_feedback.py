"""Targets on which the best plan cannot be lowered: another is found, or one error says what is short."""

from __future__ import annotations

import pytest
from benchmarks.models import case_of, model_of

from tilewright import api
from tilewright.compiler import Compilation
from tilewright.errors import InfeasibleError
from tilewright.extract.plan import Memory, MoveKind
from tilewright.hwmodel.change import changed_target
from tilewright.hwmodel.load import load_target
from tilewright.lowering.program import Program


def compiled(name: str, target: str, change: str) -> Compilation:
    """Compile a model for a target with one figure changed, and verify its program."""
    case = case_of(name)
    model = model_of(case)
    done = api.compile(model, changed_target(load_target(target), change), dims=case.dims)
    assert all(check.passed for check in api.verify(model, done))
    return done


def semaphores_of(program: Program) -> set[int]:
    """Return the semaphores that any instruction waits for or posts to."""
    return {
        signal.semaphore
        for stream in program.streams
        for instruction in stream
        for signal in (*instruction.waits, *instruction.posts)
    }


def test_too_few_semaphores_for_exchanges_and_values_in_dram() -> None:
    done = compiled("llama_mlp_1x64x16", "toy", "tile.control.semaphores=4")
    assert done.plan is not None
    assert done.program is not None
    moves = [move for op in done.plan.ops for d in op.deliveries for move in d.moves]
    assert {move.kind for move in moves} <= {MoveKind.LOAD, MoveKind.SLICE}
    assert len(semaphores_of(done.program)) <= 4
    assert [reason.rpartition("; planned again ")[2] for reason in done.rejected] == [
        "without exchanges along logical axis 1",
        "without exchanges along logical axis 0 and exchanges along logical axis 1",
        "without exchanges along logical axis 0 and exchanges along logical axis 1 "
        "and values in DRAM between ops",
    ]
    assert done.plan.bound <= done.plan.cost


@pytest.mark.slow
def test_too_few_semaphores_for_the_engines_of_a_tile() -> None:
    with pytest.raises(InfeasibleError) as caught:
        compiled("llama_mlp_1x64x16", "toy", "tile.control.semaphores=2")
    text = str(caught.value)
    assert "planned without exchanges along logical axis 0" in text
    assert "needs 4 semaphores of a tile (4 between its engines, 0 to exchange" in text
    assert "it has 2, 2 short" in text


def test_values_that_dram_has_no_room_for() -> None:
    done = compiled("llama_mlp_1x64x16", "mesh_1x1?sram_kib=32", "dram.size_bytes=167872")
    assert done.plan is not None
    assert done.program is not None
    assert done.program.dram_bytes <= 167872
    assert len(done.rejected) == 1
    assert "DRAM: 167_936 bytes alive" in done.rejected[0]
    assert done.rejected[0].endswith("without values of 12_288 bytes in DRAM between ops")
    outputs = {delivery.tensor for delivery in done.plan.output_deliveries}
    held = {
        planned.op.output
        for planned in done.plan.ops
        if planned.result is not None and planned.result.memory is Memory.DRAM
    }
    assert all(done.plan.types[name].size_bytes != 12288 for name in held - outputs)


def test_weights_and_outputs_that_dram_has_no_room_for() -> None:
    with pytest.raises(InfeasibleError) as caught:
        compiled("llama_mlp_2x64x32", "mesh_1x1?sram_kib=56", "dram.size_bytes=250000")
    text = str(caught.value)
    assert "of DRAM, the target has 250_000" in text
    assert "choose a target with more DRAM" in text
