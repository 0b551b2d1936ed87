"""Banks in blocks, end to end: right results, and fewer cycles than with the packing that knows no banks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from benchmarks.models import case_of, model_of

from tilewright import api
from tilewright.hwmodel.load import load_target
from tilewright.hwmodel.target import BankLayout, Target
from tilewright.lowering import backend
from tilewright.lowering.lower import build_program


def with_blocks(name: str, banks: int) -> Target:
    """Return a preset whose banks are blocks of addresses."""
    target = load_target(name)
    sram = target.tile.sram.model_copy(update={"bank_layout": BankLayout.BLOCKS, "banks": banks})
    return target.model_copy(update={"tile": target.tile.model_copy(update={"sram": sram})})


def as_packed(
    buffers: Sequence[Any], offsets: Sequence[int], *_: Any, **__: Any
) -> tuple[int, ...]:
    """Leave buffers where they are."""
    return tuple(offsets)


@pytest.mark.parametrize(
    ("name", "target", "banks", "gain"),
    [
        ("llama_mlp_1x128x16", "gemmini", 4, 0.05),
        pytest.param("gpt2_decode", "gemmini", 4, 0.2, marks=pytest.mark.slow),
        pytest.param("gpt2_prefill", "toy", 4, 0.04, marks=pytest.mark.slow),
    ],
)
def test_buffers_in_different_banks_save_cycles(
    name: str, target: str, banks: int, gain: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = with_blocks(target, banks)
    case = case_of(name)
    model = model_of(case)
    done = api.compile(model, machine, dims=case.dims)
    assert done.plan is not None
    assert done.program is not None
    assert all(check.passed for check in api.verify(model, done))
    monkeypatch.setattr(backend, "spread_over_banks", as_packed)
    packed = build_program(done.plan, machine)
    with_banks, without = api.simulate(done.program).cycles, api.simulate(packed).cycles
    assert with_banks <= (1 - gain) * without
    assert done.program.sram_bytes <= machine.tile.sram.size_bytes
