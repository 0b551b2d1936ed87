"""What tiled kernels cost, from the prices of their pieces, compiled."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tilewright.extract.tables_jit import compiled

(
    MATRIX,
    VECTOR,
    DMA_IN,
    DMA_OUT,
    SRAM,
    LINK,
    MACS,
    OPS,
    SRAM_BYTES,
    DRAM_BYTES,
    NOC_BYTES,
    ENERGY,
) = range(12)
"""Columns of a piece's amounts."""
STARTUP = 12
"""The column behind them in what is found."""

UNIT, LOADED, LOADED_BESIDE, STORED, GATHERED, SCATTERED = range(6)
"""What a piece is: work within the tile, or a stream to load, by the other engine, to store, to gather, to
scatter."""


@compiled
def add_up(
    amounts: NDArray[np.float64],
    firsts: NDArray[np.float64],
    kinds: NDArray[np.int64],
    starts: NDArray[np.int64],
    pieces: NDArray[np.int64],
    results: NDArray[np.int64],
    boxes: NDArray[np.int64],
    has_two_products: bool,
    tiles: int,
    dram_bytes_per_cycle: float,
    lead_cycles: float,
    found: NDArray[np.float64],
) -> None:
    """Write what tiled kernels cost; see `kernel_price.Pricer`.

    Args:
        amounts: What each piece takes: [pieces, columns].
        firsts: Cycles of the first of its accesses, or of the last one, which nothing hides.
        kinds: What each piece is.
        starts: The first of `pieces` of each tiled kernel, and the end: [kernels + 1].
        pieces: The pieces of all kernels, one kernel after the other.
        results: Result boxes of each kernel.
        boxes: All its boxes.
        has_two_products: Whether the next box's product is computed while the vector unit is at what is
            between those of this one.
        tiles: Of the machine.
        dram_bytes_per_cycle: Of all ports together.
        lead_cycles: Before the first byte from DRAM comes.
        found: The result, [kernels, columns with that of start-up].
    """
    for kernel in range(len(results)):
        total = found[kernel]
        for column in range(len(total)):
            total[column] = 0.0
            if column < STARTUP:
                # Neumaier's sum, which Python's `sum` is, too
                low = 0.0
                for place in range(starts[kernel], starts[kernel + 1]):
                    one = amounts[pieces[place], column]
                    high = total[column] + one
                    if abs(total[column]) >= abs(one):
                        low += (total[column] - high) + one
                    else:
                        low += (one - high) + total[column]
                    total[column] = high
                total[column] += low
        load = beside = chunk = last_store = last_sums = stored = 0.0
        for place in range(starts[kernel], starts[kernel + 1]):
            piece = pieces[place]
            if kinds[piece] == LOADED:
                load += firsts[piece]
            elif kinds[piece] == LOADED_BESIDE:
                beside += firsts[piece]
            elif kinds[piece] == GATHERED:
                chunk = firsts[piece]
            elif kinds[piece] == SCATTERED:
                last_sums = firsts[piece]
                stored += amounts[piece, DMA_OUT]
            elif kinds[piece] == STORED:
                last_store = max(last_store, firsts[piece])
                stored += amounts[piece, DMA_OUT]
        longer = max(total[MATRIX], total[VECTOR])
        shorter = min(total[MATRIX], total[VECTOR])
        compute = longer + shorter / (boxes[kernel] if has_two_products else results[kernel])
        first = max(load, max(beside, chunk))
        last_store += last_sums
        latency = max(
            first + compute + last_store,
            max(total[DMA_IN], total[DMA_OUT] - stored) + compute / boxes[kernel] + last_store,
        )
        latency = max(latency, first + compute / results[kernel] + stored)
        port_cycles = total[DRAM_BYTES] * tiles / dram_bytes_per_cycle
        if port_cycles > 0.0:
            latency = max(latency, lead_cycles + port_cycles + compute / boxes[kernel])
        latency = max(latency, max(total[DMA_OUT], total[SRAM]))
        busy = max(max(longer, total[DMA_IN]), max(total[DMA_OUT], total[SRAM]))
        total[STARTUP] = latency - busy
