"""What the memory of simulated tiles takes of the host's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tilewright.dtypes import DType
from tilewright.lowering.isa import Access, Space
from tilewright.simulator.memory import TileMemory

STATM = Path("/proc/self/statm")


def _resident_pages() -> int:
    return int(STATM.read_text().split()[1])


@pytest.mark.skipif(not STATM.exists(), reason="the resident size is read from Linux's procfs")
def test_scratchpads_take_the_pages_that_are_written_only() -> None:
    tiles, size_bytes = 512, 1 << 20
    memory = TileMemory((tiles,), size_bytes)
    access = Access(space=Space.L1, base=0, coefficients=(0,), strides=(4,), dtype=DType.F32)
    before = _resident_pages()
    memory.write(access, (16,), np.arange(tiles * 16, dtype=np.float32).reshape(tiles, 16))
    assert _resident_pages() - before < 2 * tiles
    np.testing.assert_array_equal(memory.read(access, (16,))[7], np.arange(7 * 16, 8 * 16))
