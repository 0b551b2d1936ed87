"""How Tenstorrent's software blocks a matrix product in DRAM when nobody tells it how.

Source: create_simple_matmul_program_config, get_mcast_1d_config and get_multi_dim_per_core_factor in
ttnn/cpp/ttnn/operations/matmul/device/config/matmul_program_config.cpp, get_estimated_size_of_cbs in
.../device/utilities/matmul_utilities.cpp of tenstorrent/tt-metal 001cea9. Sizes are in tiles of 32 x 32.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

EDGE = 32
"""Rows and columns of a tile of elements."""
SUM_TILE_BYTES = 2048
"""A tile of sums on their way: 16 bits an element."""
_MOST_PER_CORE = 16
_NARROW_RATIO = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A product [m, k] x [k, n] on a grid of cores."""

    m: int
    k: int
    n: int
    tile_bytes: int
    """Bytes of a tile of 32 x 32 elements of either operand and of the result."""
    grid_rows: int
    grid_columns: int
    l1_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocking:
    """What a core does: its share of the result, in blocks that it finishes one after the other."""

    is_spread: bool
    """Whether all cores divide n and share the first operand; else rows divide m, columns n."""
    core_m: int
    core_n: int
    block_m: int
    block_n: int
    block_k: int

    @property
    def blocks(self) -> int:
        """Blocks of results of a core."""
        return (self.core_m // self.block_m) * (self.core_n // self.block_n)


def _tiles(size: int) -> int:
    return -(-size // EDGE)


def _buffer_bytes(problem: Problem, m: int, n: int, k: int) -> int:
    """Return the estimate of buffers: operands twice, results and their sums once."""
    operands = 2 * (m + n) * k * problem.tile_bytes
    return operands + m * n * (problem.tile_bytes + SUM_TILE_BYTES)


def _fits(problem: Problem, m: int, n: int, k: int) -> bool:
    return _buffer_bytes(problem, m, n, k) < problem.l1_bytes


def _divisors(size: int) -> list[int]:
    """Return divisors in the order in which they are tried: all, 1, then falling."""
    return [size, 1, *(d for d in range(size // 2, 1, -1) if size % d == 0)]


def _block(problem: Problem, m: int, n: int, k: int, *, may_cut_k: bool) -> tuple[int, int, int]:
    """Return the largest block that fits, of equal ones the squarest; a smaller k only if none does."""
    if _fits(problem, m, n, k):
        return m, n, k
    squarest: dict[int, tuple[int, int]] = {}
    for block in product(_divisors(m), _divisors(n)):
        known = squarest.get(block[0] * block[1])
        if known is None or max(known) * min(block) >= max(block) * min(known):
            squarest[block[0] * block[1]] = block
    for size_k in range(k, 0 if may_cut_k else k - 1, -1):
        if k % size_k == 0:
            for area in sorted(squarest, reverse=True):
                if _fits(problem, *squarest[area], size_k):
                    return (*squarest[area], size_k)
    return 1, 1, 1


def blocking(problem: Problem) -> Blocking:
    """Return how a product is blocked whose operands and result are interleaved over DRAM.

    Raises:
        ValueError: One side of the result is more than eight times the other, which has rules of its own.
    """
    m, k, n = _tiles(problem.m), _tiles(problem.k), _tiles(problem.n)
    if max(m, n) // min(m, n) > _NARROW_RATIO:
        raise ValueError(
            f"{problem.m} x {problem.n} is narrow; its rules are not written down here"
        )
    most = _MOST_PER_CORE
    while most > 1 and not _fits(problem, most, most, 2):
        most //= 2
    rows, columns = -(-m // most), -(-n // most)
    if rows == 1 and 1 < columns <= problem.grid_columns:
        cores = problem.grid_rows * problem.grid_columns
        core_n = _tiles(-(-problem.n // cores))
        block = _block(problem, m, core_n, 2 - k % 2, may_cut_k=False)
        is_spread = True
        core_m = m
    else:
        core_m, core_n = -(-m // problem.grid_rows), -(-n // problem.grid_columns)
        whole = k % problem.grid_columns == 0
        wanted_k = k // problem.grid_columns if whole else 1
        block = _block(problem, core_m, core_n, wanted_k, may_cut_k=True)
        is_spread = False
    return Blocking(
        is_spread=is_spread,
        core_m=core_m,
        core_n=core_n,
        block_m=block[0],
        block_n=block[1],
        block_k=block[2],
    )
