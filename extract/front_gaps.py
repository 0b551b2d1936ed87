"""What is proven between two neighbours of a front of two metrics.

A plan that neither of two neighbours is as good as takes less of each metric than their corner, which takes
the most of both. What is proven of all plans says by how much less. So the *room* between them is the largest
share by which such a plan could be better than each of them in some metric: with amounts (x, y) and a
corner (X, Y), the smaller one of X / x - 1 and Y / y - 1, at its largest.

Source:
    Papadimitriou and Yannakakis, "On the approximability of trade-offs and optimal access of web sources",
    FOCS 2000 (fronts of which every plan is, but for a factor of 1 + epsilon in each metric, covered).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf

from tilewright.extract.chains import Amounts

ROUNDING = 1e-9
"""Less room is none."""


@dataclass(frozen=True, slots=True)
class Line:
    """Every plan costs at least `bound`, which weighs its amounts by `rates`."""

    rates: Amounts
    bound: float

    def room(self, corner: Amounts) -> float:
        """Return the room below a corner: both amounts less by a factor cost as much as the bound."""
        cost = sum(rate * most for rate, most in zip(self.rates, corner, strict=True))
        return cost / self.bound - 1 if self.bound > 0 else inf

    def least(self, first: float) -> float:
        """Return what every plan with an amount of the first metric takes of the second one at least."""
        return (self.bound - self.rates[0] * first) / self.rates[1] if self.rates[1] else 0.0


def room(
    ends: tuple[Amounts, Amounts],
    lines: Iterable[Line],
    between: Sequence[Amounts],
    *,
    is_complete: bool,
) -> float:
    """Return the room between two neighbours.

    Args:
        ends: Their amounts, less of the first metric first.
        lines: What is proven of all plans.
        between: Plans that are known between the two.
        is_complete: Whether there are no others.
    """
    (low_x, high_y), (high_x, low_y) = ends
    corner = high_x, high_y
    if is_complete:
        most = max((better(own, corner) for own in between), default=0.0)
    else:
        # a plan that takes less than one end of its metric is not between the two
        most = min(better((low_x, low_y), corner), *(line.room(corner) for line in lines), inf)
    return most if most > ROUNDING else 0.0


def better(own: Amounts, corner: Amounts) -> float:
    """Return the share by which a plan is better than each of two neighbours in some metric."""
    return min(most / mine - 1 if mine > 0 else inf for mine, most in zip(own, corner, strict=True))
