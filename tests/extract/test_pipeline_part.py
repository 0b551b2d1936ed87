"""Plans that leave tiles idle: chosen where they are faster, and right when they run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from benchmarks.stream.machines import mesh
from benchmarks.stream.models import gemm_chain
from onnx import TensorProto

from tilewright import api
from tilewright.compiler import Compilation
from tilewright.extract.validate import validate_plan
from tilewright.graph import Array
from tilewright.reference import evaluate
from tilewright.simulator.timing import simulate
from tilewright.verification import compare

GEMM = gemm_chain(1, TensorProto.BFLOAT16).ours
FAST_PORT = 64
"""Bytes per cycle; two links of 16 lead away from the tile beside it."""


@pytest.fixture(scope="module")
def done() -> Compilation:
    return api.compile(GEMM, mesh(2, 4, 1, FAST_PORT))


def test_four_tiles_near_the_port_are_faster_than_eight(done: Compilation) -> None:
    assert done.plan is not None
    assert done.pipeline is not None
    assert done.program is not None
    (stage,) = done.pipeline.stages
    validate_plan(stage.plan, stage.target)
    assert stage.tiles == done.program.groups[0].tiles == (0, 1, 4, 5)
    assert done.pipeline.bound <= done.pipeline.cost < done.plan.cost
    alone = api.compile(GEMM, mesh(2, 2, 1, FAST_PORT))
    assert alone.plan is not None
    assert done.pipeline.cost == alone.plan.cost
    whole = api.compile(GEMM, mesh(2, 4, 1, FAST_PORT), stages=1).program
    assert whole is not None
    assert simulate(done.program).run.cycles < simulate(whole).run.cycles


def test_its_program_computes_the_product(done: Compilation, tmp_path: Path) -> None:
    assert done.program is not None
    path = tmp_path / "program.twb"
    api.save(done.program, path)
    assert api.check(path).is_proven
    random = np.random.default_rng(3)
    inputs: dict[str, Array] = {
        port.name: random.normal(size=port.shape).astype(port.dtype.numpy)
        for port in api.input_ports(done.program)
    }
    ours = api.run(path, inputs)
    assert all(check.passed for check in compare(ours, evaluate(done.graph, inputs)))


@pytest.mark.parametrize("options", [{"objective": "energy"}, {"stages": 1}])
def test_other_objectives_and_demands_use_all_tiles(options: dict[str, object]) -> None:
    found = api.compile(GEMM, mesh(2, 4, 1, FAST_PORT), stop_after="extract", **options)  # type: ignore[arg-type]
    assert found.pipeline is None
