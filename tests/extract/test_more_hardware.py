"""More of the same hardware should never make a plan slower: a larger mesh could leave its new tiles idle.

Each mesh holds the one before, and the DRAM's port stays where it is, beside tile 0. A port that is slower
than the links that lead away from tile 0 keeps the promise. One that is faster may break it: all tiles of a
plan run the same streams, so that no plan leaves tiles idle, and what other tiles read crosses the links.
Such a case is expected to fail until plans can be made for a part of a machine.
"""

from __future__ import annotations

from itertools import pairwise

import pytest
from benchmarks.stream.machines import mesh
from benchmarks.stream.models import Workload, gemm_chain, perceptron
from onnx import TensorProto

from tilewright import api
from tilewright.hwmodel.target import Target
from tilewright.simulator.timing import simulate

SHAPES = ((1, 1), (1, 2), (2, 2), (2, 4), (4, 4))
SLOW_PORT, FAST_PORT = 8, 64
"""Bytes per cycle; two links of 16 lead away from tile 0."""
GEMM, MLP = gemm_chain(1, TensorProto.BFLOAT16), perceptron(TensorProto.BFLOAT16)
NO_IDLE_TILES = pytest.mark.xfail(strict=True, reason="no plan leaves tiles idle")

pytestmark = pytest.mark.slow


def figures(workload: Workload, machine: Target) -> tuple[float, float]:
    """Return predicted and simulated cycles."""
    done = api.compile(workload.ours, machine)
    assert done.plan is not None
    assert done.program is not None
    return done.plan.cost, simulate(done.program).run.cycles


@pytest.mark.parametrize(
    ("workload", "port_bytes_per_cycle"),
    [
        pytest.param(GEMM, SLOW_PORT, id="gemm-slow-port"),
        pytest.param(MLP, SLOW_PORT, id="mlp-slow-port"),
        pytest.param(GEMM, FAST_PORT, id="gemm-fast-port", marks=NO_IDLE_TILES),
        pytest.param(MLP, FAST_PORT, id="mlp-fast-port"),
    ],
)
def test_more_tiles_are_never_predicted_slower(
    workload: Workload, port_bytes_per_cycle: int
) -> None:
    found = [
        figures(workload, mesh(rows, columns, 1, port_bytes_per_cycle))[0]
        for rows, columns in SHAPES
    ]
    assert all(more <= few for few, more in pairwise(found)), found


def test_more_tiles_are_never_slower_in_the_simulator() -> None:
    found = [figures(GEMM, mesh(rows, columns, 1, SLOW_PORT))[1] for rows, columns in SHAPES]
    assert all(more <= few for few, more in pairwise(found)), found


@pytest.mark.parametrize("workload", [GEMM, MLP], ids=["gemm", "mlp"])
def test_wider_ports_are_never_slower(workload: Workload) -> None:
    narrow, wide = (figures(workload, mesh(4, 4, 4, rate)) for rate in (16, 32))
    assert wide[0] <= narrow[0]
    assert wide[1] <= narrow[1]
