"""Contiguous runs and whole-tensor transfers against counting addresses."""

from __future__ import annotations

from itertools import product
from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilewright.dtypes import DType
from tilewright.extract.transfer import contiguous_run_bytes, dram_transfer_cost
from tilewright.graph import TensorType
from tilewright.hwmodel.family import mesh_target
from tilewright.hwmodel.network import logical_mesh

TARGET = mesh_target(2, 2)
MESH = logical_mesh(TARGET)


def longest_run(shape: tuple[int, ...], local: tuple[int, ...]) -> int:
    """Return the length of the first run of neighbouring addresses of a shard."""
    flat = np.arange(prod(shape)).reshape(shape)
    addresses = flat[tuple(slice(0, n) for n in local)].reshape(-1)
    gaps = np.flatnonzero(np.diff(addresses) != 1)
    return int(gaps[0]) + 1 if len(gaps) else len(addresses)


@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=4),
    st.sampled_from([DType.F32, DType.F16, DType.I8]),
)
def test_runs_are_what_addresses_say(sizes: list[tuple[int, int]], dtype: DType) -> None:
    local = tuple(n for n, _ in sizes)
    shape = tuple(n * k for n, k in sizes)
    expected = longest_run(shape, local) * dtype.itemsize_bytes
    assert contiguous_run_bytes(TensorType(shape, dtype), local) == expected


@pytest.mark.parametrize("write", [False, True])
def test_transfers_move_every_byte_at_no_more_than_the_ports_give(write: bool) -> None:
    tensor = TensorType((256, 256), DType.F32)
    for sharding in product((-1, 0, 1), repeat=2):
        cost = dram_transfer_cost(TARGET, MESH, tensor, sharding, write=write)
        pieces = prod(n for n, state in zip(MESH.sizes, sharding, strict=True) if state >= 0)
        local = tensor.size_bytes / pieces
        ports = tensor.size_bytes / TARGET.dram_bytes_per_cycle
        rate = TARGET.tile.dma.out_bytes_per_cycle if write else TARGET.tile.dma.in_bytes_per_cycle
        # replicated copies: reads are multicast, one of the equal writes is enough
        assert cost.latency_cycles >= max(ports, local / rate)
        assert cost.energy_pj > 0


@pytest.mark.parametrize("write", [False, True])
@pytest.mark.parametrize("sharding", list(product((-1, 0, 1), repeat=2)))
def test_more_bytes_cost_more(sharding: tuple[int, int], write: bool) -> None:
    costs = [
        dram_transfer_cost(TARGET, MESH, TensorType((n, 64), DType.F32), sharding, write=write)
        for n in (16, 64, 256, 1024)
    ]
    cycles = [cost.latency_cycles for cost in costs]
    energy = [cost.energy_pj for cost in costs]
    assert cycles == sorted(cycles)
    assert cycles[-1] > cycles[0]
    assert energy == sorted(energy)
    assert energy[-1] > energy[0]


def test_short_runs_cost_no_less_than_long_ones() -> None:
    tensor = TensorType((256, 16), DType.F16)
    rows = dram_transfer_cost(TARGET, MESH, tensor, (0, 0), write=False)
    columns = dram_transfer_cost(TARGET, MESH, tensor, (1, 1), write=False)
    assert columns.latency_cycles > rows.latency_cycles
