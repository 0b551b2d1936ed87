"""Plans of one tile against proven optima of AccelForge 1.0.467.

Its mapper proves these latencies, in cycles, for one tile with a 64 x 64 array, a buffer of 256 KiB and DRAM
of 64 bits a cycle, int8: a product of 256 x 512 with 512 x 512 takes 65,536, four of them 262,144 if what is
between goes through DRAM. Both are the bytes that must cross the DRAM's port at its rate.

For fused chains of two and four it proves 98,304 and 163,840, which are not reached;
docs/accelforge.md says why.
"""

from __future__ import annotations

import pytest
from benchmarks.stream.machines import mesh
from benchmarks.stream.models import gemm_chain
from onnx import TensorProto

from tilewright import api
from tilewright.simulator.timing import simulate

WIDE = 1024
"""AccelForge's buffer never holds up the array, [bytes per cycle]."""


@pytest.mark.parametrize(
    ("length", "optimum", "fused_optimum"), [(1, 65_536, 65_536), (4, 262_144, 163_840)]
)
def test_cycles_of_one_tile_are_near_the_optimum(
    length: int, optimum: int, fused_optimum: int
) -> None:
    workload = gemm_chain(length, TensorProto.INT8)
    done = api.compile(workload.ours, mesh(1, 1, 1, 8, sram_bytes_per_cycle=WIDE))
    assert done.plan is not None
    assert done.program is not None
    assert fused_optimum <= done.plan.cost <= 1.1 * optimum
    assert fused_optimum <= simulate(done.program).run.cycles <= 1.1 * optimum
