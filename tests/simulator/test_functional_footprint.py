"""Strided sets and interval maps against sets of bytes."""

from __future__ import annotations

from itertools import product

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tilewright.simulator.footprint import Dims, StridedSet, apart_modulo, normalised, overlap
from tilewright.simulator.memory import IntervalMap

dims_strategy = st.lists(st.tuples(st.integers(1, 24), st.integers(2, 4)), max_size=3).map(tuple)


def bytes_of(piece: StridedSet) -> set[int]:
    steps = product(*(range(0, d * n, d) for d, n in piece.dims))
    starts = [piece.base + sum(step) for step in steps]
    return {start + byte for start in starts for byte in range(piece.itemsize)}


@given(
    dims_strategy,
    dims_strategy,
    st.sampled_from([1, 2, 4]),
    st.lists(st.integers(-40, 40), min_size=1, max_size=20),
)
def test_sets_apart_share_no_byte(
    a_dims: Dims, b_dims: Dims, itemsize: int, distances: list[int]
) -> None:
    a, b = normalised(0, itemsize, a_dims), normalised(0, itemsize, b_dims)
    apart = apart_modulo(a, b, np.array(distances))
    for distance, verdict in zip(distances, apart.tolist(), strict=True):
        moved = StridedSet(distance, b.itemsize, b.dims)
        shared = bool(bytes_of(a) & bytes_of(moved))
        assert overlap(a, moved) == shared
        assert not (verdict and shared)


def test_interleaved_columns_are_apart() -> None:
    column = StridedSet(0, 8, ((64, 4),))
    assert apart_modulo(column, column, np.array([8, 56, 4, 0, -8])).tolist() == [
        True, True, False, False, True,
    ]  # fmt: skip


@given(
    st.lists(st.tuples(st.integers(0, 29), st.integers(1, 30), st.integers(0, 2)), max_size=12),
    st.integers(0, 29),
    st.integers(1, 30),
    st.integers(0, 2),
)
def test_interval_map_knows_uniform_ranges(
    assigned: list[tuple[int, int, int]], low: int, length: int, value: int
) -> None:
    found, naive = IntervalMap(30, 0), [0] * 30
    for start, size, number in assigned:
        stop = min(30, start + size)
        found.assign(start, stop, number)
        naive[start:stop] = [number] * (stop - start)
    high = min(30, low + length)
    assert found.is_all(low, high, value) == all(n == value for n in naive[low:high])
