"""Metrics of users: what plans shall minimise, as a function of what a kernel or a move occupies.

    def slowest_part(o: Occupancy) -> float:
        return max(o.core_cycles, o.dram_cycles, o.link_cycles)

    tilewright.compile("model.onnx", objective=UserMetric("slowest part", slowest_part))

The function is asked for every way to run every op and for every move, one at a time; a plan costs the sum.
So what overlaps within a kernel is its business, while kernels and moves follow each other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite

from tilewright.errors import CompileError
from tilewright.hwmodel.cost import Occupancy


@dataclass(frozen=True, slots=True)
class UserMetric:
    """A figure of a plan, the smaller the better, that adds up over its kernels and moves.

    Args:
        name: What listings call it; not the name of another metric.
        price: Returns the amount of a kernel or move, the same for equal arguments, finite and not negative.
        unit: What amounts are counted in.
    """

    name: str
    price: Callable[[Occupancy], float]
    unit: str = "cycles"

    def __post_init__(self) -> None:
        """Refuse names that listings of several metrics could not tell apart."""
        if not self.name.strip() or set(self.name) & set(",:"):
            raise CompileError(
                f"metric '{self.name}': expected a name without commas and colons; choose another one"
            )

    def amount(self, occupancy: Occupancy) -> float:
        """Return what a kernel or move takes of the metric.

        Raises:
            CompileError: The function's answer is no amount.
        """
        found = self.price(occupancy)
        if not (isinstance(found, int | float) and isfinite(found) and found >= 0):
            raise CompileError(
                f"metric '{self.name}': its function returned {found!r} for {occupancy}, expected a finite "
                "number, not negative; change the function"
            )
        return float(found)

    def __str__(self) -> str:
        """Return the name."""
        return self.name
