"""Options that others beat: the compiled search against the definition, one pair after the other."""

from __future__ import annotations

import numpy as np
import pytest

from tilewright.extract.choice import Costs
from tilewright.extract.dominance_core import find_beaten


def _beats(more: Costs, amounts: Costs, a: int, b: int) -> bool:
    return bool(more[a, b] <= 0 and (amounts[:, a] <= amounts[:, b]).all())


@pytest.mark.parametrize("usages", [0, 1, 2])
@pytest.mark.parametrize("seed", range(20))
def test_beaten_options_are_those_of_the_definition(seed: int, usages: int) -> None:
    rng = np.random.default_rng(seed)
    options = int(rng.integers(1, 9))
    costs = rng.integers(0, 4, options).astype(np.float64)
    more: Costs = costs[:, None] - costs[None, :] + rng.integers(0, 2, (options, options))
    np.fill_diagonal(more, 0.0)
    amounts = rng.integers(0, 3, (usages, options)).astype(np.float64)
    beaten, by = np.empty(options, dtype=bool), np.full(options, -1)
    find_beaten(more, amounts, beaten, by)
    numbers = range(options)
    for b in numbers:
        others = [a for a in numbers if a != b and _beats(more, amounts, a, b)]
        # of options that beat each other, the first stays
        assert beaten[b] == any(a < b or not _beats(more, amounts, b, a) for a in others)
        if beaten[b]:
            lean = [a for a in numbers if (amounts[:, a] <= amounts[:, b]).all() and not beaten[a]]
            assert by[b] == min(lean, key=lambda a: more[a, b])
