"""Plans of one tile against proven optima of AccelForge 1.0.467.

Its mapper proves these latencies, in cycles, for products of 256 x 512 with 512 x 512, one after the
other, on one tile with a 64 x 64 array, a buffer of 256 Ki elements through which everything passes,
and DRAM of eight elements a cycle. docs/accelforge.md says what is matched;
`benchmarks/accelforge/measure.py` asks it again.
"""

from __future__ import annotations

import pytest
from benchmarks.stream.machines import mesh
from benchmarks.stream.models import gemm_chain
from onnx import TensorProto

from tilewright import api
from tilewright.hwmodel.change import with_scratchpad
from tilewright.hwmodel.target import Target
from tilewright.simulator.timing import simulate


def tile(element_bytes: int) -> Target:
    """Return AccelForge's tile for elements of a size; its buffer never holds up the array."""
    machine = mesh(1, 1, 1, 8 * element_bytes, sram_bytes_per_cycle=1024 * element_bytes)
    return with_scratchpad(machine, 256 * 1024 * element_bytes)


def check_near(length: int, dtype: int, element_bytes: int, optimum: int) -> None:
    """Compile a chain and hold plan and simulation to the optimum, and to the bytes that nothing avoids."""
    done = api.compile(gemm_chain(length, dtype).ours, tile(element_bytes))
    assert done.plan is not None
    assert done.program is not None
    elements = 256 * 512 + length * 512 * 512 + 256 * 512  # the input, weights, the result
    least = elements / 8
    assert least <= done.plan.cost <= 1.1 * optimum
    assert least <= simulate(done.program).run.cycles <= 1.1 * optimum


@pytest.mark.parametrize(("length", "optimum"), [(1, 65_536), (4, 262_144)])
def test_chains_with_sums_of_four_times_the_width(length: int, optimum: int) -> None:
    check_near(length, TensorProto.INT8, 1, optimum)


@pytest.mark.parametrize(("length", "optimum"), [(1, 65_536), (2, 98_304), (4, 196_608)])
def test_chains_with_sums_as_wide_as_elements(length: int, optimum: int) -> None:
    check_near(length, TensorProto.FLOAT, 4, optimum)
