"""More of the same hardware never makes a plan slower: a larger mesh can leave its new tiles idle.

Each mesh holds the one before, and the DRAM's port stays where it is, beside tile 0. Where it is slower than
the links that lead away from tile 0, plans for all tiles keep the promise. Where it is faster, what other
tiles read crosses the links, and a plan for the tiles near the port may be better.
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

pytestmark = pytest.mark.slow


def figures(workload: Workload, machine: Target) -> tuple[float, float]:
    """Return predicted and simulated cycles."""
    done = api.compile(workload.ours, machine)
    plan = done.pipeline or done.plan
    assert plan is not None
    assert done.program is not None
    return plan.cost, simulate(done.program).run.cycles


@pytest.mark.parametrize(
    ("workload", "port_bytes_per_cycle"),
    [
        pytest.param(GEMM, SLOW_PORT, id="gemm-slow-port"),
        pytest.param(MLP, SLOW_PORT, id="mlp-slow-port"),
        pytest.param(GEMM, FAST_PORT, id="gemm-fast-port"),
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


@pytest.mark.parametrize("port_bytes_per_cycle", [SLOW_PORT, FAST_PORT])
def test_more_tiles_are_never_slower_in_the_simulator(port_bytes_per_cycle: int) -> None:
    meshes = [mesh(rows, columns, 1, port_bytes_per_cycle) for rows, columns in SHAPES]
    found = [figures(GEMM, machine)[1] for machine in meshes]
    assert all(more <= few for few, more in pairwise(found)), found


@pytest.mark.parametrize("workload", [GEMM, MLP], ids=["gemm", "mlp"])
def test_wider_ports_are_never_slower(workload: Workload) -> None:
    narrow, wide = (figures(workload, mesh(4, 4, 4, rate)) for rate in (16, 32))
    assert wide[0] <= narrow[0]
    assert wide[1] <= narrow[1]
