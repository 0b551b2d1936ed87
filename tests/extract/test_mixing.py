"""Instances of a block that take different choices: by enumeration, and as plans that compute the model."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from benchmarks.models import case_of, model_of
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright import api
from tilewright.extract import differing
from tilewright.extract.mixing import Use, mixtures
from tilewright.extract.plan import Plan
from tilewright.extract.validate import validate_plan
from tilewright.hwmodel.family import mesh_target
from tilewright.lowering.lower import build_program

TARGET = mesh_target(4, 4, name="small", sram_kib=24)
LAYERS = "llama_mlp_6x32x4"


def random_uses(rng: np.random.Generator, count: int, instances: int) -> tuple[Use, ...]:
    """Return uses of one block: all instances of a choice cost and keep the same."""
    return tuple(
        Use(
            choice=(number,),
            units=(float(rng.integers(1, 50)),) * instances,
            resident_bytes=(int(rng.integers(0, 20)),) * instances,
            row_bytes=int(rng.integers(0, 30)),
        )
        for number in range(count)
    )


def fits(uses: tuple[Use, ...], taken: tuple[int, ...], capacity: int) -> bool:
    kept = sum(uses[use].resident_bytes[instance] for instance, use in enumerate(taken))
    return kept + max(uses[use].row_bytes for use in taken) <= capacity


@given(st.integers(0, 10**6), st.integers(2, 4), st.integers(2, 5), st.integers(20, 120))
@settings(max_examples=100)
def test_the_cheapest_mixture_of_two_choices_comes_first(
    seed: int, count: int, instances: int, capacity: int
) -> None:
    uses = random_uses(np.random.default_rng(seed), count, instances)
    possible = [
        sum(uses[use].units[0] for use in taken)
        for taken in product(range(count), repeat=instances)
        if len(set(taken)) == 2 and fits(uses, taken, capacity)
    ]
    found = mixtures(uses, (0,) * instances, capacity)
    for mixture in found:
        taken = tuple(mixture.others.get(i, mixture.choice)[0] for i in range(instances))
        assert fits(uses, taken, capacity)
        assert mixture.units == pytest.approx(sum(uses[use].units[0] for use in taken))
    alone = [sum(use.units) for use in uses if fits(uses, (use.choice[0],) * instances, capacity)]
    if possible and min(possible) < min(alone, default=np.inf):
        assert found[0].units == pytest.approx(min(possible))


def planned(monkeypatch: pytest.MonkeyPatch, *, mixes: bool) -> Plan:
    with monkeypatch.context() as patch:
        if not mixes:
            patch.setattr(differing, "mixtures", lambda *_: ())
        plan = api.compile(model_of(case_of(LAYERS)), TARGET, stop_after="extract").plan
    assert plan is not None
    return plan


def test_some_layers_are_laid_out_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    mixed, alike = (planned(monkeypatch, mixes=mixes) for mixes in (True, False))
    validate_plan(mixed, TARGET)
    assert mixed.cost < alike.cost
    assert mixed.bound == pytest.approx(alike.bound)
    products = [op for op in mixed.ops if op.op.kind == "matmul"]
    assert len({(op.split_dims, op.result) for op in products}) > len(
        {(op.split_dims, op.result) for op in alike.ops if op.op.kind == "matmul"}
    )


def test_a_mixture_computes_the_model(tmp_path: Path) -> None:
    path = tmp_path / "layers.onnx"
    path.write_bytes(model_of(case_of(LAYERS)))
    done = api.compile(path, TARGET, stop_after="extract")
    assert done.plan is not None
    lowered = replace(done, program=build_program(done.plan, TARGET))
    assert all(check.passed for check in api.verify(path, lowered))
