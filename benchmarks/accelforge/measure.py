"""Ask AccelForge for the optima of docs/accelforge.md.

Runs under a Python that has it, and knows nothing of this project:

    python -m venv DIR && DIR/bin/pip install accelforge==1.0.467   (Python 3.12; `dot` of graphviz)
    DIR/bin/python benchmarks/accelforge/measure.py

Prints for each machine and length of a chain the latency of the mapping that is proven to be best, in
cycles, the share of the buffer that it takes at most, and the mapping. About 4 minutes of processor time.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import accelforge
from accelforge.mapper import Metrics

HERE = Path(__file__).resolve().parent
LENGTHS = (1, 2, 4)
ELEMENT_BITS = 8
MACHINES = {
    "sums as wide as elements, weights straight to the registers": (ELEMENT_BITS, "~MainMemory"),
    "sums as wide as elements, everything through the buffer": (ELEMENT_BITS, "All"),
    "sums of four times the width, everything through the buffer": (4 * ELEMENT_BITS, "All"),
}
"""Bits of sums, and which tensors must lie in the buffer."""


def optimum(length: int, sum_bits: int, buffered: str) -> tuple[float, float, str]:
    """Return cycles, share of the buffer and text of the best mapping."""
    figures: dict[str, Any] = {
        "LENGTH": length,
        "ELEMENT_BITS": ELEMENT_BITS,
        "SUM_BITS": sum_bits,
        "BUFFERED": buffered,
    }
    files = (HERE / "tile.yaml", HERE / "chain.yaml")
    spec = accelforge.Spec.from_yaml(*map(str, files), jinja_parse_data=figures)
    spec.mapper.metrics = Metrics.LATENCY
    found = spec.map_workload_to_arch(print_progress=False)
    row = found.data.iloc[0]
    (share,) = [row[name] for name in row.index if name.startswith("reservation<SEP>Buffer")]
    return found.latency(), share, "\n".join(_lines(row["Total<SEP>mapping"]()))


def _lines(node: Any, depth: int = 0) -> list[str]:
    """Write a mapping as a tree of what is stored where and of loops."""
    below = getattr(node, "nodes", ())
    own = "" if below else node.compact_str()
    if type(node).__name__ == "Reservation":
        return []
    return [
        "  " * depth + (own or type(node).__name__),
        *(line for other in below for line in _lines(other, depth + 1)),
    ]


def main() -> None:
    """Print the optima."""
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # a picture of each mapping is written there
        for name, (sum_bits, buffered) in MACHINES.items():
            for length in LENGTHS:
                cycles, share, mapping = optimum(length, sum_bits, buffered)
                print(f"{name}: {length} products: {cycles:,.0f} cycles, {share:.4f} of the buffer")
                print(mapping, flush=True)


if __name__ == "__main__":
    main()
