"""The likeliest of many tilings, compiled."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tilewright.extract.tables_jit import compiled


@compiled
def likeliest(
    scores: NDArray[np.float64],
    least: NDArray[np.float64],
    sizes: NDArray[np.float64],
    budget_bytes: int,
    last: int,
    other: int,
) -> int:
    """Return the candidate of least score, the first of equal ones; -1 if there is none.

    Args:
        scores: Of each candidate.
        least: Bytes that each takes at least.
        sizes: Of its tiles: [candidates, loops].
        budget_bytes: What it may take.
        last: A candidate that the found one comes after, if it is not negative.
        other: A candidate whose sizes the found one does not have, if it is not negative.
    """
    found = -1
    for number in range(len(scores)):
        if least[number] > budget_bytes or (found >= 0 and scores[number] >= scores[found]):
            continue
        if last >= 0 and (
            scores[number] < scores[last] or (scores[number] == scores[last] and number <= last)
        ):
            continue
        if other >= 0:
            is_same = True
            for loop in range(sizes.shape[1]):
                is_same = is_same and sizes[number, loop] == sizes[other, loop]
            if is_same:
                continue
        found = number
    return found
